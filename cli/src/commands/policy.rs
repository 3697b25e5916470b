//! The policy that says when humans are asked: shown, checked, replaced.

use std::path::Path;

use serde_json::json;
use sovereign_aggregates::policy::{Adopted, POLICY_ID, Policy, TEXT_BYTES_MAX};
use sovereign_event_store::Filter;
use sovereign_schemas::events::PolicyEvent;
use sovereign_schemas::{
    AggregateType, ErrorCode, Outcome, Position, Problem, RecordedEvent, Status, Uuid,
};

use super::source::{ledger, state};
use crate::args::PolicyCommand;
use crate::client::Client;
use crate::failure::{Failure, Result, file, internal};
use crate::location::Location;
use crate::output::{Output, Table};

/// Events in one read.
const PAGE: usize = 1_000;

pub(crate) async fn run(location: &Location, output: Output, command: PolicyCommand) -> Result<()> {
    match command {
        PolicyCommand::Show => show(location, output).await,
        PolicyCommand::Check { file } => check(output, &file),
        PolicyCommand::Adopt { file } => adopt(location, output, &file).await,
    }
}

/// The policy that holds, and the event that adopted it.
async fn adopted(location: &Location) -> Result<(Adopted, Option<RecordedEvent>)> {
    let reader = ledger(&state(location)?).await?;
    let filter = Filter {
        aggregate_type: Some(AggregateType::Policy),
        aggregate_id: Some(POLICY_ID.to_owned()),
        ..Filter::default()
    };
    let head = reader.head().await.map_err(|e| e.problem())?.position;
    let (mut state, mut last, mut after) = (Adopted::default(), None, Position::START);
    while after < head {
        let read = reader.read_filtered(after, PAGE, &filter).await;
        let (events, reached) = read.map_err(|e| e.problem())?;
        for event in events {
            let change: PolicyEvent = event.decode().map_err(|e| {
                let message = format!("position {}: {e}", event.position());
                Problem::new(ErrorCode::DecodeFailed, message)
            })?;
            state.evolve(&change);
            last = Some(event);
        }
        if reached <= after {
            break;
        }
        after = reached;
    }
    Ok((state, last))
}

async fn show(location: &Location, output: Output) -> Result<()> {
    let (state, event) = adopted(location).await?;
    let policy = state.policy();
    if !output.json {
        match &event {
            None => output.hint("built in; none was adopted yet"),
            Some(event) => output.hint(format!(
                "adopted by {} at {}, position {}",
                event.header.actor,
                event.header.recorded_at,
                event.position()
            )),
        }
        return output.line(policy.text.trim_end());
    }
    output.object(&json!({
        "version": policy.version,
        "digest": policy.digest(),
        "position": event.as_ref().map(RecordedEvent::position),
        "adopted_by": event.as_ref().map(|e| &e.header.actor),
        "adopted_at": event.as_ref().map(|e| e.header.recorded_at),
        "text": policy.text,
    }))
}

fn read(path: &Path) -> Result<Policy> {
    let size = std::fs::metadata(path).map_err(|e| file(path, &e))?.len();
    // a device or a picture is no policy; the parser names the limit
    let text = if size > TEXT_BYTES_MAX as u64 {
        " ".repeat(TEXT_BYTES_MAX + 1)
    } else {
        std::fs::read_to_string(path).map_err(|e| file(path, &e))?
    };
    Ok(Policy::parse(&text)?)
}

fn check(output: Output, path: &Path) -> Result<()> {
    let policy = read(path)?;
    if output.json {
        return output.object(&json!({
            "version": policy.version,
            "digest": policy.digest(),
            "approval_ttl_s": policy.approval_ttl_s,
            "rules": policy.rules.len(),
            "approvers": policy.approvers.len(),
        }));
    }
    let mut table = Table::new(["rule", "department", "action", "asset", "people"]);
    for rule in &policy.rules {
        let of = |scope: &Option<_>| match scope {
            Some(name) => format!("{name}"),
            None => "any".to_owned(),
        };
        let tiers = rule.tiers.iter();
        let tiers: Vec<String> = tiers
            .map(|tier| format!("{} above {}", tier.people, tier.above))
            .collect();
        let people = if tiers.is_empty() {
            "automatic".to_owned()
        } else {
            tiers.join(", ")
        };
        let name = rule.name.to_string();
        let scope = [&rule.department, &rule.action, &rule.asset].map(of);
        let [department, action, asset] = scope;
        table.row([name, department, action, asset, people]);
    }
    table.print(&output)
}

async fn adopt(location: &Location, output: Output, path: &Path) -> Result<()> {
    let policy = read(path)?;
    let client = Client::connect(location)?;
    let command = json!({ "aggregate": "policy", "id": POLICY_ID, "command": "adopt",
        "data": { "text": policy.text }, "command_id": Uuid::now_v7(), "actor": "operator" });
    let mut body = serde_json::to_vec(&command).map_err(internal)?;
    body.push(b'\n');
    let response = client.commands(body).await?;
    let text = response.bytes().await;
    let text = text.map_err(|e| crate::client::unreachable(&e))?;
    let mut outcome: Outcome = serde_json::from_slice(&text).map_err(internal)?;
    match (outcome.status, outcome.error.take()) {
        (Status::Accepted | Status::Duplicate, _) if output.json => output.object(&outcome),
        (Status::Accepted | Status::Duplicate, _) => {
            output.line(format!("policy {} holds from now on", policy.version))
        }
        (_, Some(mut error)) => {
            // of the command's line, not of the file
            error.line = None;
            Err(error.into())
        }
        (_, None) => Err(Failure::new(ErrorCode::Internal, "engine gave no reason")),
    }
}
