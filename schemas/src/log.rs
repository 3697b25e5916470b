use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::avro::DecodeError;
use crate::{Digest, Position, RecordedEvent};

/// Where a reader stands: it has seen every event up to and including `position`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
#[non_exhaustive]
pub struct Cursor {
    /// The last position seen; 0 before the first.
    pub position: Position,
}

impl From<Position> for Cursor {
    fn from(position: Position) -> Self {
        Self { position }
    }
}

/// Why a log cannot be read on.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The next event is not there although a later one is, or a claimed end lies further on.
    #[error("position {expected} is missing; found {found} next")]
    Gap {
        /// The position that had to follow.
        expected: Position,
        /// What followed; the claimed end if nothing did.
        found: Position,
    },
    /// Bytes that are no event.
    #[error("bytes after position {after} are no event: {cause}")]
    Malformed {
        /// The last good position.
        after: Position,
        /// What is wrong.
        cause: String,
    },
    /// The copy differs from what its own hash says.
    #[error("position {position} has hash {found}, expected {expected}")]
    Hash {
        /// Where.
        position: Position,
        /// As computed.
        expected: Digest,
        /// As stored.
        found: Digest,
    },
    /// A server could not be reached; worth another try.
    #[error("log is unreachable: {0}")]
    Unreachable(String),
    /// Anything else.
    #[error("log failed: {0}")]
    Internal(String),
}

impl LogError {
    /// A datum that does not decode.
    #[must_use]
    pub fn malformed(after: Position, cause: &DecodeError) -> Self {
        Self::Malformed {
            after,
            cause: cause.to_string(),
        }
    }
}

/// The one read port: the same events in the same order, whatever holds them.
///
/// Implementations: the Postgres ledger, department topics merged by position, a recorded file,
/// and memory. One contract suite runs against all four.
#[async_trait]
pub trait EventLog: Send {
    /// The next events after `after`, in order and without a gap: at most `limit` (at least 1),
    /// and none at the end of the log. The new cursor stands after the last of them.
    ///
    /// # Errors
    /// [`LogError::Gap`] or [`LogError::Malformed`] if the copy is damaged there, after all good
    /// events before it were returned; [`LogError::Unreachable`] if its server is.
    async fn read(
        &mut self,
        after: Cursor,
        limit: usize,
    ) -> Result<(Vec<RecordedEvent>, Cursor), LogError>;
}

/// A log that is being written, followed from memory where possible.
///
/// Only durable events are handed out: whatever a follower has seen survives a crash.
#[async_trait]
pub trait Tail: Send {
    /// The next events after `after`, in order and without a gap: at most `limit`. Waits up to
    /// `wait` for the first one and is empty if none came. Safe to drop while waiting.
    ///
    /// # Errors
    /// As [`EventLog::read`].
    async fn next(
        &mut self,
        after: Position,
        limit: usize,
        wait: Duration,
    ) -> Result<Vec<Arc<RecordedEvent>>, LogError>;
}

/// A log in memory, for tests and small ranges.
#[derive(Debug, Clone, Default)]
pub struct MemoryLog {
    events: Vec<RecordedEvent>,
}

impl MemoryLog {
    /// Holds these events, which need not start at position 1.
    #[must_use]
    pub fn new(events: Vec<RecordedEvent>) -> Self {
        Self { events }
    }
}

#[async_trait]
impl EventLog for MemoryLog {
    async fn read(
        &mut self,
        after: Cursor,
        limit: usize,
    ) -> Result<(Vec<RecordedEvent>, Cursor), LogError> {
        let start = self
            .events
            .partition_point(|e| e.position() <= after.position);
        let mut expected = after.position.next();
        let mut found = Vec::new();
        for event in self.events[start..].iter().take(limit) {
            if event.position() != expected {
                if found.is_empty() {
                    return Err(LogError::Gap {
                        expected,
                        found: event.position(),
                    });
                }
                break;
            }
            found.push(event.clone());
            expected = expected.next();
        }
        let cursor = found.last().map_or(after, |e| e.position().into());
        Ok((found, cursor))
    }
}
