use std::collections::BTreeMap;

use serde_json::json;
use sovereign_projections::{Page, PasskeyRow, PasskeysFilter};
use sovereign_schemas::{ErrorCode, Problem, Uuid};

use super::approvals::send_one;
use super::tokens::{encoded, text};
use super::views::reader;
use crate::args::ApproversCommand;
use crate::client::Client;
use crate::failure::Result;
use crate::location::Location;
use crate::output::{Output, Table};

pub(crate) async fn run(
    location: &Location,
    output: Output,
    command: ApproversCommand,
) -> Result<()> {
    match command {
        ApproversCommand::Invite { name } => invite(location, output, &name).await,
        ApproversCommand::List => list(location, output).await,
        ApproversCommand::Show { name } => show(location, output, &name).await,
        ApproversCommand::Revoke {
            name,
            credential,
            reason,
        } => {
            let command = json!({ "aggregate": "approver", "id": name, "command": "revoke",
                "data": { "credential_id": credential, "reason": reason },
                "command_id": Uuid::now_v7(), "actor": "operator" });
            let done = format!("the passkey of {name} signs no more");
            send_one(location, output, &command, &done).await
        }
    }
}

/// Passkeys of one person, or of all, the revoked ones among them.
async fn passkeys(location: &Location, approver: Option<&str>) -> Result<Vec<PasskeyRow>> {
    let reader = reader(location)?;
    let mut snapshot = reader.snapshot().await.map_err(|e| e.problem())?;
    let mut filter = PasskeysFilter {
        approver: approver.map(str::to_owned),
        revoked: true,
        page: Page::default(),
    };
    let mut all = Vec::new();
    loop {
        let listing = snapshot.passkeys(&filter).await.map_err(|e| e.problem())?;
        let last = listing.rows.last().filter(|_| listing.more);
        filter.page.after = last.map(|row| row.passkey_id.clone());
        all.extend(listing.rows);
        if filter.page.after.is_none() {
            return Ok(all);
        }
    }
}

async fn list(location: &Location, output: Output) -> Result<()> {
    let mut people: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for row in passkeys(location, None).await? {
        let (enrolled, revoked) = people.entry(row.approver).or_default();
        *enrolled += 1;
        *revoked += u64::from(row.revoked_at.is_some());
    }
    let mut table = Table::new(["approver", "passkeys", "revoked"]);
    for (approver, (enrolled, revoked)) in people {
        let valid = enrolled - revoked;
        if output.json {
            output
                .object(&json!({ "approver": approver, "passkeys": valid, "revoked": revoked }))?;
            continue;
        }
        table.row([approver, valid.to_string(), revoked.to_string()]);
    }
    if output.json {
        Ok(())
    } else {
        table.print(&output)
    }
}

async fn show(location: &Location, output: Output, name: &str) -> Result<()> {
    let rows = passkeys(location, Some(name)).await?;
    if rows.is_empty() {
        let problem = Problem::new(ErrorCode::NotFound, "nobody of this name has a passkey");
        return Err(problem.found(name).into());
    }
    let mut table = Table::new(["credential", "label", "origin", "enrolled", "revoked"]);
    for row in rows {
        if output.json {
            output.object(&row)?;
            continue;
        }
        table.row([
            row.credential_id,
            row.label.unwrap_or_default(),
            row.origin,
            row.enrolled_at.to_string(),
            row.revoked_at.map_or_else(String::new, |at| at.to_string()),
        ]);
    }
    if output.json {
        Ok(())
    } else {
        table.print(&output)
    }
}

async fn invite(location: &Location, output: Output, name: &str) -> Result<()> {
    let client = Client::connect(location)?;
    let path = format!("/api/v1/approvers/{}/invitation", encoded(name));
    let made = client.post(&path, &json!({})).await?;
    if output.json {
        return output.object(&made);
    }
    output.hint(format!(
        "{name} opens this link once, until {}, in the browser that has the passkey:",
        text(&made["expires_at"])
    ));
    output.line(text(&made["link"]))?;
    output.hint(format!(
        "and logs in with a token: sovereign tokens create {name} --role approver"
    ));
    Ok(())
}
