//! What the relay needs of the brokers: the seam between its logic and librdkafka. A simulated
//! cluster stands on the other side in tests.

use std::pin::Pin;

use async_trait::async_trait;
use sovereign_schemas::chain::Head;
use sovereign_schemas::{Departments, RecordedEvent};

use crate::checkpoint::Checkpoint;
use crate::client::Error;

/// Something that runs to its end, wherever the port lets it.
pub type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The brokers as a relay sees them. Its methods may be awaited anywhere.
#[async_trait]
pub trait RelayPort: Send + Sync {
    /// Creates the topics that are missing.
    ///
    /// # Errors
    /// As [`crate::ensure_topics`].
    async fn ensure_topics(&self, departments: &Departments) -> Result<(), Error>;

    /// The last committed record of the checkpoint topic, if there is one.
    ///
    /// # Errors
    /// [`Error::Unreachable`] and the like.
    async fn checkpoint(&self) -> Result<Option<Checkpoint>, Error>;

    /// The last event that a read-committed consumer of the departments' topics sees.
    ///
    /// # Errors
    /// [`Error::Unreachable`] and the like.
    async fn last_event(&self) -> Result<LastEvent, Error>;

    /// The offset on each of these partitions before which a read-committed consumer sees all.
    ///
    /// # Errors
    /// [`Error::Unreachable`] and the like.
    async fn ends(&self, written: &[Written]) -> Result<Vec<i64>, Error>;

    /// Takes over a transactional id: whoever held it is fenced, and what it left open is aborted
    /// (or its commit completed) when this returns.
    ///
    /// # Errors
    /// [`Error::Unreachable`] and the like.
    async fn take_over(&self, transactional_id: &str) -> Result<Box<dyn TransactionalPort>, Error>;

    /// Runs `work`, which uses a [`TransactionalPort`], where its calls may block.
    ///
    /// # Errors
    /// [`Error::Internal`] if there is no room for it; then it has not begun.
    fn run(&self, name: &str, work: Work) -> Result<(), Error>;
}

/// One transactional producer. After an error only [`Self::abort`] makes sense.
///
/// Calls may block the thread, so they are made only within [`RelayPort::run`].
#[async_trait]
pub trait TransactionalPort: Send {
    /// Opens a transaction.
    ///
    /// # Errors
    /// [`Error::Fenced`] and the like.
    fn begin(&mut self) -> Result<(), Error>;

    /// Hands a record over; whether the brokers took it shows in [`Self::flush`].
    ///
    /// # Errors
    /// [`Error::Fenced`] and the like.
    fn send(&mut self, record: &Outgoing<'_>) -> Result<(), Error>;

    /// Waits until the brokers hold all that was sent.
    ///
    /// # Errors
    /// If a record was not taken.
    async fn flush(&mut self) -> Result<(), Error>;

    /// Commits; [`Self::flush`] comes first. Gives where the transaction ends on each partition.
    /// After an error the outcome is unknown: the next take-over settles it.
    ///
    /// # Errors
    /// [`Error::Fenced`] and the like.
    async fn commit(&mut self) -> Result<Vec<Written>, Error>;

    /// Best effort, so that readers need not wait until the brokers lose patience.
    async fn abort(&mut self);
}

/// A record on its way to the brokers.
#[derive(Debug, Clone, Copy)]
pub enum Outgoing<'a> {
    /// An event of the ledger.
    Event {
        /// Topic, with its namespace.
        topic: &'a str,
        /// The event.
        event: &'a RecordedEvent,
        /// Its canonical header as bytes.
        canonical: &'a [u8],
        /// Confluent's prefix and the payload.
        value: &'a [u8],
    },
    /// How far the topics are once the transaction is committed.
    Checkpoint {
        /// Topic, with its namespace.
        topic: &'a str,
        /// JSON.
        value: &'a [u8],
    },
}

/// The last record of a transaction on one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Topic, with its namespace.
    pub topic: String,
    /// Its partition, from 0.
    pub partition: i32,
    /// The record's offset.
    pub offset: i64,
}

/// The last event on all topics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastEvent {
    /// Its position and hash; [`Head::EMPTY`] if there is none.
    pub head: Head,
    /// Whether retention has removed any.
    pub truncated: bool,
}
