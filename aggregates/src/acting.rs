//! What an agent from outside may ask for, whichever way it comes in (a program on standard input
//! and output, HTTP): its own thoughts, moves, observations and work, intents in its own name, and
//! the end of its own intents. Nothing else.

use sovereign_schemas::{AggregateId, ErrorCode, Problem};

use crate::AnyCommand;
use crate::agent::AgentCommand;
use crate::trade::TradeCommand;

/// What is still to be looked up before an agent gets what it asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Granted {
    /// Nothing: the command alone shows that it is the agent's own matter.
    Yes,
    /// Who proposed this intent: if it was another, [`not_its_intent`] is the answer.
    IfItProposed,
}

/// Whether `agent` may send this to `aggregate_id`.
///
/// # Errors
/// `forbidden`, with the field.
///
/// # Examples
/// ```
/// use sovereign_aggregates::{AnyCommand, acting};
/// let cleared = serde_json::json!({ "trade_id": "trade_1", "authority": "policy:1" });
/// let command = AnyCommand::parse("agent", "clear_execution", cleared)?;
/// let agent = "scout".parse().unwrap();
/// assert!(acting::check(&agent, &agent, &command).is_err());
/// # Ok::<(), sovereign_schemas::Problem>(())
/// ```
pub fn check<T>(
    agent: &AggregateId,
    aggregate_id: &AggregateId,
    command: &AnyCommand<T>,
) -> Result<Granted, Problem> {
    match command {
        AnyCommand::Agent(
            AgentCommand::RecordThought(_)
            | AgentCommand::Transition(_)
            | AgentCommand::ObserveMarket(_)
            | AgentCommand::StartTask(_)
            | AgentCommand::FinishTask(_),
        ) => {
            if aggregate_id == agent {
                return Ok(Granted::Yes);
            }
            Err(no("aggregate_id", "an agent acts upon itself only"))
        }
        AnyCommand::Trade(TradeCommand::Propose(propose)) => {
            if propose.agent_id == *agent {
                return Ok(Granted::Yes);
            }
            Err(no(
                "data.agent_id",
                "an agent proposes in its own name only",
            ))
        }
        AnyCommand::Trade(TradeCommand::Cancel(_)) => Ok(Granted::IfItProposed),
        _ => Err(no("command", "an agent may not ask for this")),
    }
}

/// An agent wants to end what it did not propose. The same for what does not exist: intents of
/// others are none of its business.
#[must_use]
pub fn not_its_intent() -> Problem {
    no("aggregate_id", "an agent cancels its own intents only")
}

fn no(field: &str, message: &str) -> Problem {
    Problem::new(ErrorCode::Forbidden, message)
        .field(field)
        .remedy("docs/AGENTS.md says what an agent may ask for")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_agent_may_ask_for_seven_things_and_no_others() {
        let agent: AggregateId = "m".parse().unwrap();
        let digest = "0".repeat(64);
        let bar = json!({ "instrument": "X", "opened_at": "2000-01-03", "open": "1", "high": "1",
            "low": "1", "close": "1", "volume": "1" });
        let intent = |who: &str| {
            json!({ "agent_id": who, "instrument": "X", "side": "BUY", "quantity": "1",
                "price": "1", "decided_on": "2000-01-03", "rationale": "up" })
        };
        let asks = |upon: &str, aggregate: &str, command: &str, data| {
            let command = AnyCommand::parse(aggregate, command, data).unwrap();
            check(&agent, &upon.parse().unwrap(), &command).map_err(|p| p.field)
        };
        for (command, data) in [
            ("record_thought", json!({ "text": "up" })),
            ("transition", json!({ "to": "SCANNING", "reason": "x" })),
            ("observe_market", bar),
            (
                "start_task",
                json!({ "task": "x", "input_digest": digest, "items": 1 }),
            ),
            ("finish_task", json!({ "task": "x" })),
        ] {
            assert_eq!(
                asks("m", "agent", command, data.clone()),
                Ok(Granted::Yes),
                "{command}"
            );
            assert_eq!(
                asks("other", "agent", command, data),
                Err(Some("aggregate_id".into())),
                "{command}"
            );
        }
        assert_eq!(asks("t", "trade", "propose", intent("m")), Ok(Granted::Yes));
        assert_eq!(
            asks("t", "trade", "propose", intent("other")),
            Err(Some("data.agent_id".into()))
        );
        assert_eq!(
            asks("t", "trade", "cancel", json!({ "reason": "x" })),
            Ok(Granted::IfItProposed)
        );
        for (aggregate, command, data) in [
            ("agent", "register", json!({ "role": "x" })),
            (
                "agent",
                "define",
                json!({ "definition": { "program": "x" } }),
            ),
            (
                "agent",
                "clear_execution",
                json!({ "trade_id": "t", "authority": "x" }),
            ),
            (
                "trade",
                "give_verdict",
                json!({ "verdict": "GREEN", "rule": "x", "note": "x" }),
            ),
            ("trade", "authorize", json!({})),
            ("trade", "apply_policy", json!({})),
            ("approval", "deny", json!({ "reason": "x" })),
        ] {
            assert_eq!(
                asks("m", aggregate, command, data),
                Err(Some("command".into())),
                "{aggregate} {command}"
            );
        }
    }
}
