//! What an agent from outside may ask for: its own thoughts, moves, observations and work, intents
//! in its own name, and the end of its own intents. Nothing else.

use std::collections::BTreeSet;

use sovereign_aggregates::AnyCommand;
use sovereign_aggregates::agent::AgentCommand;
use sovereign_aggregates::trade::TradeCommand;
use sovereign_schemas::{AggregateId, ErrorCode, Problem, RawText};

/// Whether `agent` may send this to `aggregate_id`. `own_trades` are the intents that it proposed.
///
/// # Errors
/// `forbidden`, with the field.
pub(super) fn check(
    agent: &AggregateId,
    aggregate_id: &AggregateId,
    command: &AnyCommand<RawText>,
    own_trades: &BTreeSet<String>,
) -> Result<(), Problem> {
    let no = |field: &str, message: &str| {
        Err(Problem::new(ErrorCode::Forbidden, message)
            .field(field)
            .remedy("docs/AGENTS.md says what an agent may ask for"))
    };
    match command {
        AnyCommand::Agent(
            AgentCommand::RecordThought(_)
            | AgentCommand::Transition(_)
            | AgentCommand::ObserveMarket(_)
            | AgentCommand::StartTask(_)
            | AgentCommand::FinishTask(_),
        ) => {
            if aggregate_id == agent {
                return Ok(());
            }
            no("aggregate_id", "an agent acts upon itself only")
        }
        AnyCommand::Trade(TradeCommand::Propose(propose)) => {
            if propose.agent_id == *agent {
                return Ok(());
            }
            no("data.agent_id", "an agent proposes in its own name only")
        }
        AnyCommand::Trade(TradeCommand::Cancel(_)) => {
            if own_trades.contains(aggregate_id.as_str()) {
                return Ok(());
            }
            no("aggregate_id", "an agent cancels its own intents only")
        }
        _ => no("command", "an agent may not ask for this"),
    }
}
