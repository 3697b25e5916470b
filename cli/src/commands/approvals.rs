use serde_json::json;
use sovereign_projections::{ApprovalRow, ApprovalStatus, ApprovalsFilter, Page};
use sovereign_schemas::{ErrorCode, Outcome, Problem, Status, Uuid};

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
        "approval", "action", "target", "amount", "status", "expires",
    ]);
    loop {
        let listing = snapshot.approvals(&filter).await.map_err(|e| e.problem())?;
        for row in &listing.rows {
            if output.json {
                output.object(row)?;
                continue;
            }
            table.row([
                row.approval_id.clone(),
                row.action.clone(),
                row.target_id.clone(),
                format!("{} {}", row.amount, row.currency),
                format!("{:?}", row.status).to_lowercase(),
                row.expires_at.to_string(),
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

async fn find(location: &Location, id: &str) -> Result<ApprovalRow> {
    let reader = reader(location)?;
    let mut snapshot = reader.snapshot().await.map_err(|e| e.problem())?;
    let mut filter = ApprovalsFilter {
        status: None,
        page: Page {
            after: None,
            limit: 10_000,
        },
    };
    loop {
        let listing = snapshot.approvals(&filter).await.map_err(|e| e.problem())?;
        filter.page.after = listing
            .rows
            .last()
            .filter(|_| listing.more)
            .map(|r| r.approval_id.clone());
        if let Some(row) = listing.rows.into_iter().find(|r| r.approval_id == id) {
            return Ok(row);
        }
        if filter.page.after.is_none() {
            return Err(Problem::new(ErrorCode::NotFound, "no such approval")
                .found(id)
                .into());
        }
    }
}

async fn show(location: &Location, output: Output, id: &str) -> Result<()> {
    let row = find(location, id).await?;
    if output.json {
        return output.object(&row);
    }
    let value = serde_json::to_value(&row).map_err(internal)?;
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
    let client = Client::connect(location)?;
    let command = json!({ "aggregate": "approval", "id": id, "command": "deny",
        "data": { "reason": reason }, "command_id": Uuid::now_v7(), "actor": "operator" });
    let mut body = serde_json::to_vec(&command).map_err(internal)?;
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
        (Status::Accepted | Status::Duplicate, _) => output.line(format!("{id} is denied")),
        (_, Some(error)) => Err(error.into()),
        (_, None) => Err(Failure::new(ErrorCode::Internal, "engine gave no reason")),
    }
}
