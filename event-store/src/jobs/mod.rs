//! The queue of jobs: tables that say which job a worker may try next. They are an index over the
//! ledger, fed from it and rebuilt from zero when they are emptied; a claim is only a hint, and what
//! the ledger refuses was no claim.

mod claim;
mod feed;
mod fold;
mod list;

use sqlx::PgPool;

use crate::{StoreError, connect};

pub use claim::{Claim, JobSignal};
pub use feed::{Decided, FEED_EVENTS_MAX};
pub use list::{JobRow, QueueRow};

/// Connections of one process to the queue.
const CONNECTIONS_MAX: u32 = 4;
/// The channel on which workers are told that there may be something to claim.
const CHANNEL: &str = "sovereign_jobs";
/// A due time or a lease beyond this is taken for this: a year, in seconds.
const AHEAD_S_MAX: i64 = 366 * 86_400;

/// Names of the queues by their number, the most urgent first.
pub const QUEUE_NAMES: [&str; 3] = ["high", "default", "low"];

/// The queue of jobs of one ledger. Cheap to clone.
#[derive(Debug, Clone)]
pub struct JobQueueStore {
    pool: PgPool,
    database: std::sync::Arc<str>,
}

impl JobQueueStore {
    /// Uses a ledger's database, which must be migrated. Connects when first used.
    ///
    /// # Errors
    /// [`StoreError::Config`] if the URL is none.
    pub fn connect(database: &str) -> Result<Self, StoreError> {
        Ok(Self {
            pool: connect::pool(database, "sovereign jobs", CONNECTIONS_MAX)?,
            database: database.into(),
        })
    }
}
