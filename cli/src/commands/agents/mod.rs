//! Agents: listed, defined, shown, drawn.

mod define;
mod graph;
mod list;
mod show;

use sovereign_aggregates::agent::Agent;
use sovereign_event_store::Filter;
use sovereign_schemas::events::AgentEvent;
use sovereign_schemas::{AggregateType, ErrorCode, Position, Problem, RecordedEvent};

use super::source::{ledger, state};
use crate::args::AgentsCommand;
use crate::failure::Result;
use crate::location::Location;
use crate::output::Output;

/// Events in one read.
const PAGE: usize = 1_000;

pub(crate) async fn run(
    location: &Location,
    output: Output,
    command: Option<AgentsCommand>,
) -> Result<()> {
    match command {
        None => list::run(location, output).await,
        Some(AgentsCommand::Define { file }) => define::run(location, output, &file).await,
        Some(AgentsCommand::Show { name }) => show::run(location, output, &name).await,
        Some(AgentsCommand::Graph { name, format }) => {
            graph::run(location, output, name.as_deref(), format).await
        }
    }
}

/// An agent as its events make it, and the event that defined it.
struct Folded {
    agent: Agent,
    defined: Option<RecordedEvent>,
    position: Position,
}

/// Folds the events of one agent.
async fn folded(location: &Location, name: &str) -> Result<Folded> {
    let reader = ledger(&state(location)?).await?;
    let filter = Filter {
        aggregate_type: Some(AggregateType::Agent),
        aggregate_id: Some(name.to_owned()),
        ..Filter::default()
    };
    let head = reader.head().await.map_err(|e| e.problem())?.position;
    let mut folded = Folded {
        agent: Agent::default(),
        defined: None,
        position: head,
    };
    let mut after = Position::START;
    while after < head {
        let read = reader.read_filtered(after, PAGE, &filter).await;
        let (events, reached) = read.map_err(|e| e.problem())?;
        for event in events {
            let change: AgentEvent = event.decode().map_err(|e| {
                let message = format!("position {}: {e}", event.position());
                Problem::new(ErrorCode::DecodeFailed, message)
            })?;
            folded.agent.evolve(&change);
            if matches!(change, AgentEvent::AgentDefined(_)) {
                folded.defined = Some(event);
            }
        }
        if reached <= after {
            break;
        }
        after = reached;
    }
    if folded.agent.role.is_none() {
        let problem = Problem::new(ErrorCode::NotFound, "no such agent");
        return Err(problem.field("name").found(name).into());
    }
    Ok(folded)
}
