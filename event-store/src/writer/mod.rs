//! The appender: commands in, outcomes out, one transaction for many.
//!
//! One actor owns the hot aggregates and decides; a committing task runs transactions; a flushing
//! task makes them durable, publishes them and answers. While batch *k* commits and flushes the
//! actor decides, encodes and hashes batch *k + 1* on top of it. Should *k* fail, what rests on it
//! is thrown away and its commands are decided again.

mod actor;
mod batch;
mod cache;
mod commit;
mod decide;
mod first;
mod options;
mod reconnect;
mod recover;
mod session;
mod snapshot;

use std::sync::Arc;

use async_trait::async_trait;
use sovereign_aggregates::{CommandPort, CommandRequest};
use sovereign_schemas::chain::Head;
use sovereign_schemas::{ErrorCode, Outcome, Problem, Status};
use tokio::sync::{mpsc, oneshot};

pub use options::LedgerOptions;
pub use snapshot::LiveState;

use actor::{Actor, Control};
use batch::{Command, Waiting};

use crate::port::Database;
use crate::postgres::Postgres;
use crate::shared::Shared;
use crate::stall::Stall;
use crate::tail::Poller;
use crate::{LedgerHealth, LedgerReader, LedgerTail, StoreError, connect, migrate};

/// When a caller that found the queue full should come back.
const BUSY_RETRY_AFTER_MS: u64 = 50;
/// The same while the database does not answer.
const UNREACHABLE_RETRY_AFTER_MS: u64 = 1_000;

/// The ledger, open for writing: a cheap handle. Any number of them, in any number of processes,
/// may write to one database.
#[derive(Debug, Clone)]
pub struct Ledger {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    queue: mpsc::Sender<Waiting>,
    control: mpsc::Sender<Control>,
    reader: LedgerReader,
    options: Arc<LedgerOptions>,
    stall: Stall,
    _poller: Poller,
}

impl Ledger {
    /// Migrates the database, if it has to be, and starts the appender.
    ///
    /// # Errors
    /// If the database cannot be reached, refuses the login, or was written by a newer build.
    pub async fn open(options: LedgerOptions) -> Result<Self, StoreError> {
        let server = connect::options(&options.database, "sovereign migration")?;
        let mut connection = connect::connect(&server).await?;
        let migrated = migrate::LEDGER.run(&mut connection).await;
        migrated.map_err(|error| error.at(&connect::address(&server)))?;
        drop(connection);
        let readers_max = options.readers_max.max(2);
        let database = Postgres::new(&options.database, readers_max, options.durability)?;
        Self::open_on(Arc::new(database), options).await
    }

    /// Starts the appender on any database that keeps the promises of [`crate::port`], with its
    /// tables in place; `options.database` and what else only concerns PostgreSQL is not looked at.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn open_on(
        database: Arc<dyn Database>,
        options: LedgerOptions,
    ) -> Result<Self, StoreError> {
        let shared = Shared::new(
            options.ring_events_max,
            options.ring_bytes_max,
            Arc::clone(&options.clock),
        );
        let reader = LedgerReader { database, shared };
        reader.head().await?;

        let options = Arc::new(options);
        let (queue, waiting) = mpsc::channel(options.queue_commands_max.max(1));
        let (control, controls) = mpsc::channel(8);
        let actor = Actor::new(Arc::clone(&options), reader.clone(), waiting, controls);
        // the aggregates' event sink locks with tokio's locks, which make a task wait when it has
        // used up its share of a turn, even if they are free; deciding must never wait
        tokio::spawn(tokio::task::unconstrained(actor.run()));
        let poller = Poller::start(&reader);
        Ok(Self {
            inner: Arc::new(Inner {
                queue,
                control,
                reader,
                options,
                stall: Stall::new(),
                _poller: poller,
            }),
        })
    }

    /// For reading.
    #[must_use]
    pub fn reader(&self) -> LedgerReader {
        self.inner.reader.clone()
    }

    /// Follows the ledger, from memory where possible.
    #[must_use]
    pub fn tail(&self) -> LedgerTail {
        LedgerTail::local(self.inner.reader.clone())
    }

    /// The last durable event that this process knows of. Never goes back.
    #[must_use]
    pub fn flushed(&self) -> Head {
        self.inner.reader.shared.flushed()
    }

    /// How the ledger is doing.
    #[must_use]
    pub fn health(&self) -> LedgerHealth {
        let shared = &self.inner.reader.shared;
        let mut health = shared.health(self.inner.options.queue_commands_max);
        if let Some(stalled) = self.inner.stall.stalled_for() {
            health.healthy = false;
            health.stalled_for_ms = Some(u64::try_from(stalled.as_millis()).unwrap_or(u64::MAX));
        }
        health
    }

    /// The state of every aggregate as the appender knows it, all at one head: what a replay up to
    /// that head must give. Aggregates that are not in memory are folded from the database.
    ///
    /// # Errors
    /// If the database fails or an event does not decode.
    pub async fn live_states(&self) -> Result<(Head, Vec<LiveState>), StoreError> {
        let (reply, answer) = oneshot::channel();
        let sent = self.inner.control.send(Control::Snapshot(reply)).await;
        sent.map_err(|_| StoreError::Closed)?;
        let (head, cached) = answer.await.map_err(|_| StoreError::Closed)??;
        let states = snapshot::fill_up(&self.inner.reader, head, cached).await?;
        Ok((head, states))
    }

    /// Takes no more commands, answers those that it has, and ends.
    pub async fn close(&self) {
        let (reply, done) = oneshot::channel();
        if self.inner.control.send(Control::Close(reply)).await.is_ok() {
            // the actor drops it when it ends
            let _ = done.await;
        }
    }

    fn busy(&self) -> Outcome {
        let health = self.health();
        let after = if health.database_reachable {
            BUSY_RETRY_AFTER_MS
        } else {
            UNREACHABLE_RETRY_AFTER_MS
        };
        metrics::counter!("sovereign_ledger_busy_total").increment(1);
        let message = format!(
            "{} commands wait already",
            self.inner.options.queue_commands_max
        );
        let problem = Problem::new(ErrorCode::Busy, message).retry_after_ms(after);
        Outcome::failed(Status::Invalid, problem)
    }

    fn closed() -> Outcome {
        Outcome::failed(Status::Invalid, StoreError::Closed.problem())
    }

    fn unknown(&self) -> Outcome {
        let seconds = self.inner.options.command_deadline.as_secs();
        let problem = Problem::new(
            ErrorCode::TimedOut,
            format!("no outcome within {seconds} s; the command may still take effect"),
        )
        .remedy("send it again with the same command id: it takes effect at most once")
        .retry_after_ms(UNREACHABLE_RETRY_AFTER_MS);
        Outcome::failed(Status::Invalid, problem)
    }
}

#[async_trait]
impl CommandPort for Ledger {
    async fn send(&self, request: CommandRequest) -> Outcome {
        let command_id = request.context.command_id.to_string();
        let (reply, answer) = oneshot::channel();
        let shared = &self.inner.reader.shared;
        match self.inner.queue.try_reserve() {
            Ok(place) => {
                let depth = shared.queue(1);
                metrics::gauge!("sovereign_ledger_queue_depth").set(depth as f64);
                place.send(Command::waiting(request, reply, shared.outstanding()));
            }
            Err(mpsc::error::TrySendError::Full(())) => return self.busy().of(command_id),
            Err(mpsc::error::TrySendError::Closed(())) => return Self::closed().of(command_id),
        }
        let deadline = self.inner.options.command_deadline;
        let in_hand = self.inner.stall.begin();
        let outcome = match tokio::time::timeout(deadline, answer).await {
            Ok(Ok(outcome)) => {
                in_hand.answered();
                outcome
            }
            Ok(Err(_)) => Self::closed(),
            Err(_) => self.unknown(),
        };
        outcome.of(command_id)
    }
}
