use serde_json::{Value, json};
use sovereign_projections::{ApprovalRow, ApprovalStatus, ApprovalsFilter, Page};
use sovereign_schemas::{ErrorCode, Outcome, Problem, Status, Timestamp, Uuid};

use super::approvals_verify;
use super::views::reader;
use crate::args::ApprovalsCommand;
use crate::client::Client;
use crate::failure::{Failure, Result, internal};
use crate::location::Location;
use crate::output::{Output, Table};

pub(crate) async fn run(
    location: &Location,
    output: Output,
    command: ApprovalsCommand,
) -> Result<()> {
    match command {
        ApprovalsCommand::List { all } => list(location, output, all).await,
        ApprovalsCommand::Show { id } => show(location, output, &id).await,
        ApprovalsCommand::Deny { id, reason } => deny(location, output, &id, &reason).await,
        ApprovalsCommand::Verify {
            file,
            approval,
            head,
        } => approvals_verify::run(output, &file, approval.as_deref(), head.as_ref()).await,
    }
}

async fn list(location: &Location, output: Output, all: bool) -> Result<()> {
    let reader = reader(location)?;
    let mut snapshot = reader.snapshot().await.map_err(|e| e.problem())?;
    let status = (!all).then_some(ApprovalStatus::Waiting);
    let mut filter = ApprovalsFilter {
        status,
        page: Page {
            after: None,
            limit: 1_000,
        },
    };
    let mut table = Table::new([
        "approval", "action", "target", "amount", "for", "people", "status", "left",
    ]);
    loop {
        let listing = snapshot.approvals(&filter).await.map_err(|e| e.problem())?;
        for row in &listing.rows {
            if output.json {
                output.object(&told(row)?)?;
                continue;
            }
            table.row([
                row.approval_id.clone(),
                row.action.clone(),
                row.target_id.clone(),
                format!("{} {}", row.amount, row.currency),
                row.on_behalf_of.clone().unwrap_or_default(),
                people(row),
                row.status.as_str().to_owned(),
                seconds_left(row).map_or_else(String::new, |s| format!("{s} s")),
            ]);
        }
        filter.page.after = listing
            .rows
            .last()
            .filter(|_| listing.more)
            .map(|r| r.approval_id.clone());
        if filter.page.after.is_none() {
            break;
        }
    }
    if output.json {
        Ok(())
    } else {
        table.print(&output)
    }
}

/// Until when an answer counts, from now on; `None` if none counts any more.
fn seconds_left(row: &ApprovalRow) -> Option<i64> {
    let waits = row.status == ApprovalStatus::Waiting;
    let left_us = row.expires_at.0.saturating_sub(Timestamp::now().0);
    waits.then(|| left_us.max(0) / 1_000_000)
}

/// How many have approved, of how many that must.
fn people(row: &ApprovalRow) -> String {
    let given = row.given_by.as_ref().map_or(0, Vec::len);
    let needed = row.people_needed.map(|n| n.to_string());
    format!("{given} of {}", needed.unwrap_or_else(|| "?".to_owned()))
}

/// The row, and what follows from the clock.
fn told(row: &ApprovalRow) -> Result<Value> {
    let mut value = serde_json::to_value(row).map_err(internal)?;
    value["seconds_left"] = seconds_left(row).into();
    Ok(value)
}

async fn find(location: &Location, id: &str) -> Result<ApprovalRow> {
    let found = reader(location)?.approval(id).await;
    let unknown = || Problem::new(ErrorCode::NotFound, "no such approval").found(id);
    Ok(found.map_err(|e| e.problem())?.ok_or_else(unknown)?)
}

async fn show(location: &Location, output: Output, id: &str) -> Result<()> {
    let value = told(&find(location, id).await?)?;
    if output.json {
        return output.object(&value);
    }
    let mut table = Table::new(["field", "value"]);
    for (name, value) in value.as_object().into_iter().flatten() {
        let text = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        table.row([name.clone(), text]);
    }
    table.print(&output)
}

async fn deny(location: &Location, output: Output, id: &str, reason: &str) -> Result<()> {
    let command = json!({ "aggregate": "approval", "id": id, "command": "deny",
        "data": { "reason": reason }, "command_id": Uuid::now_v7(), "actor": "operator" });
    send_one(location, output, &command, &format!("{id} is denied")).await
}

/// Sends one command, and says `done` if it took effect.
pub(super) async fn send_one(
    location: &Location,
    output: Output,
    command: &Value,
    done: &str,
) -> Result<()> {
    let client = Client::connect(location)?;
    let mut body = serde_json::to_vec(command).map_err(internal)?;
    body.push(b'\n');
    let response = client.commands(body).await?;
    let text = response
        .bytes()
        .await
        .map_err(|e| crate::client::unreachable(&e))?;
    let mut outcome: Outcome = serde_json::from_slice(&text).map_err(internal)?;
    if let Some(error) = &mut outcome.error {
        error.line = None;
    }
    match (outcome.status, outcome.error.take()) {
        (Status::Accepted | Status::Duplicate, _) if output.json => output.object(&outcome),
        (Status::Accepted | Status::Duplicate, _) => output.line(done),
        (_, Some(error)) => Err(error.into()),
        (_, None) => Err(Failure::new(ErrorCode::Internal, "engine gave no reason")),
    }
}
