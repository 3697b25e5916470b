use serde_json::json;

use super::tokens::{encoded, text};
use crate::args::ApproversCommand;
use crate::client::Client;
use crate::failure::Result;
use crate::location::Location;
use crate::output::Output;

/// People who approve.
pub(crate) async fn run(
    location: &Location,
    output: Output,
    command: ApproversCommand,
) -> Result<()> {
    match command {
        ApproversCommand::Invite { name } => invite(location, output, &name).await,
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
