//! `sovereign agents show NAME`: one agent with its definition.

use serde_json::json;
use sovereign_schemas::RecordedEvent;
use sovereign_schemas::events::AgentEvent;

use super::folded;
use crate::commands::source::state;
use crate::failure::Result;
use crate::location::Location;
use crate::output::{Output, Table};
use crate::reveal::Revealer;

pub(super) async fn run(location: &Location, output: Output, name: &str) -> Result<()> {
    let folded = folded(location, name).await?;
    let agent = &folded.agent;
    let prompt = prompt(location, folded.defined.as_ref()).await?;
    let definition = agent.definition.as_ref();
    if output.json {
        return output.object(&json!({
            "agent": name,
            "position": folded.position,
            "role": agent.role,
            "state": agent.state,
            "stopped": agent.stopped,
            "version": agent.version(),
            "digest": definition.map(|d| d.digest),
            "definition": definition.and_then(|d| d.definition.as_ref()),
            "prompt": prompt,
            "defined_at": folded.defined.as_ref().map(RecordedEvent::position),
            "defined_by": folded.defined.as_ref().map(|e| &e.header.actor),
        }));
    }
    let mut table = Table::new(["field", "value"]);
    let mut row = |name: &str, value: String| table.row([name.to_owned(), value]);
    row("role", agent.role.clone().unwrap_or_default());
    row("state", agent.state.to_string());
    if agent.stopped {
        row(
            "stopped",
            "by the engine; let it out with a transition to IDLE".to_owned(),
        );
    }
    match definition {
        None => row("definition", "none: the whole machine".to_owned()),
        Some(defined) => {
            row("version", defined.version.to_string());
            row("digest", defined.digest.to_string());
            let text = defined.definition.as_ref().map(|d| d.text());
            row(
                "definition",
                text.unwrap_or_else(|| "of a newer build".to_owned()),
            );
        }
    }
    if let Some(prompt) = prompt {
        row("prompt", prompt);
    }
    table.print(&output)
}

/// The prompt, for whoever owns the keys.
async fn prompt(location: &Location, defined: Option<&RecordedEvent>) -> Result<Option<String>> {
    let Some(Ok(AgentEvent::AgentDefined(event))) = defined.map(RecordedEvent::decode) else {
        return Ok(None);
    };
    let Some(text) = event.prompt else {
        return Ok(None);
    };
    let revealer = Revealer::open(location, &state(location)?).await?;
    match revealer {
        None => Ok(Some("sealed".to_owned())),
        Some(revealer) => Ok(Some(
            revealer
                .reveal(&text)
                .await
                .unwrap_or_else(|| "erased".to_owned()),
        )),
    }
}
