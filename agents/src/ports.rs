use std::sync::Arc;

use async_trait::async_trait;
use sovereign_aggregates::AnyCommand;
use sovereign_schemas::{
    AggregateId, CommandContext, Digest, Outcome, Position, Problem, RawText, Timestamp,
};

use crate::market::MarketFile;

/// A command as agents write it: its texts have not been through the guard yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawRequest {
    /// Which aggregate.
    pub aggregate_id: AggregateId,
    /// What it is asked to do.
    pub command: AnyCommand<RawText>,
    /// Who asks, why, under which id.
    pub context: CommandContext,
}

/// Guard and ledger, as agents see them.
#[async_trait]
pub trait Gateway: Send + Sync {
    /// Admits the texts and runs the command to its durable outcome. Requests to one aggregate
    /// whose futures are first polled one after the other take effect in that order unless one
    /// of them is not taken (busy, unreachable).
    async fn submit(&self, request: RawRequest) -> Outcome;
}

/// Remembers up to which position every reaction of a lane is durable.
#[async_trait]
pub trait CheckpointStore: Send + Sync {
    /// The last saved position, 0 if none.
    ///
    /// # Errors
    /// If it cannot be read just now.
    async fn load(&self, name: &str) -> Result<Position, Problem>;
    /// Saves some, together.
    ///
    /// # Errors
    /// If they cannot be written just now; older ones may stand, which is safe.
    async fn save(&self, positions: &[(String, Position)]) -> Result<(), Problem>;
}

/// Where the market files of running tasks are found again.
#[async_trait]
pub trait MarketSource: Send + Sync {
    /// The file with this SHA-256.
    ///
    /// # Errors
    /// If it is not there, or is not what its name says.
    async fn open(&self, digest: Digest) -> Result<Arc<MarketFile>, Problem>;
}

/// The time, as a seam (I6). Only for deciding when to *ask* for an expiry; whether it is due is
/// decided by the aggregate with the ledger's time.
pub trait Clock: Send + Sync {
    /// Now.
    fn now(&self) -> Timestamp;
}

/// The system's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}
