use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use sovereign_schemas::Departments;

use crate::Durability;
use crate::port::{Clock, SystemClock};

/// How a ledger is opened. [`LedgerOptions::new`] gives sane bounds.
#[derive(Clone)]
#[non_exhaustive]
pub struct LedgerOptions {
    /// `postgres://` URL; TLS by its usual parameters (`sslmode`, `sslrootcert`, …).
    pub database: String,
    /// Commands to other departments are invalid.
    pub departments: Departments,
    /// When a command counts as durable.
    pub durability: Durability,
    /// Commands that may wait to be decided; one more is told to come back.
    pub queue_commands_max: usize,
    /// Events, and commands, of one transaction.
    pub batch_events_max: usize,
    /// Bytes of rows of one transaction; one command may go beyond.
    pub batch_bytes_max: usize,
    /// Aggregates kept in memory; at least four times `batch_events_max` are.
    pub cache_aggregates_max: usize,
    /// Command ids whose outcome is known without asking the database.
    pub recent_commands_max: usize,
    /// Newest events kept for followers.
    pub ring_events_max: usize,
    /// Bytes of them.
    pub ring_bytes_max: usize,
    /// Connections for reading.
    pub readers_max: u32,
    /// How long a caller waits for an outcome before it is told that it is unknown.
    pub command_deadline: Duration,
    /// Where moments and ids of events come from.
    pub clock: Arc<dyn Clock>,
}

impl LedgerOptions {
    /// The defaults, for this database.
    #[must_use]
    pub fn new(database: impl Into<String>, departments: Departments) -> Self {
        Self {
            database: database.into(),
            departments,
            durability: Durability::default(),
            queue_commands_max: 8_192,
            batch_events_max: 4_096,
            batch_bytes_max: 8 << 20,
            cache_aggregates_max: 131_072,
            recent_commands_max: 131_072,
            ring_events_max: 131_072,
            ring_bytes_max: 64 << 20,
            readers_max: 6,
            command_deadline: Duration::from_secs(30),
            clock: Arc::new(SystemClock),
        }
    }
}

/// Without the URL, which can hold a password.
impl fmt::Debug for LedgerOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LedgerOptions")
            .field("durability", &self.durability)
            .field("queue_commands_max", &self.queue_commands_max)
            .field("batch_events_max", &self.batch_events_max)
            .field("cache_aggregates_max", &self.cache_aggregates_max)
            .finish_non_exhaustive()
    }
}
