use async_trait::async_trait;
use sovereign_schemas::{AggregateId, CommandContext, Outcome, Uuid};

use crate::AnyCommand;

/// One command, admitted by the guard, with all that the ledger needs to know about it.
#[derive(Debug, Clone)]
pub struct CommandRequest {
    /// Which aggregate.
    pub aggregate_id: AggregateId,
    /// What it is asked to do.
    pub command: AnyCommand,
    /// Who asks, why, under which id.
    pub context: CommandContext,
    /// Refuse with a conflict unless the aggregate stands at this sequence.
    pub expected_sequence: Option<u64>,
    /// What it came in, if that has an id of its own, as a record has: the id of its first event
    /// tells ([`sovereign_schemas::bears_source`]).
    pub source: Option<Uuid>,
}

/// The one way to change anything. The ledger implements it; agents and the API call it.
#[async_trait]
pub trait CommandPort: Send + Sync {
    /// Runs one command to its outcome. Returns only once the outcome is durable; a full queue or
    /// an unreachable database is an outcome as well, with `retry_after_ms`.
    async fn send(&self, request: CommandRequest) -> Outcome;
}
