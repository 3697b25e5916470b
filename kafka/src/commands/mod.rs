//! Commands that come as records on the topic `commands`; each record has exactly one outcome on
//! `commands.reply`.
//!
//! The engines are one consumer group. An outcome and the group's place behind its record are one
//! transaction, so a read-committed consumer sees one reply for each record, whatever dies when.
//! Two things make that hold over rebalances as well: the transaction bears the membership under
//! which the records were handed out, so that the brokers refuse it from who has lost them
//! ("KIP-447: Producer scalability for exactly once semantics"); and a session trusts what it
//! knows only as long as all goes well. After any failure it is thrown away, and the next one asks
//! the brokers where the group stands.
//!
//! A record that was carried out and whose reply was lost is carried out again. That changes
//! nothing: its command has the same id, and the ledger gives the first outcome. See
//! [`CommandHandler`] for how it is told from a second record with the same command.

mod health;
mod lookup;
mod member;
mod queue;
mod reply;
mod request;
mod run;
mod seed;
mod session;
mod task;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use sovereign_schemas::{Outcome, Problem, Uuid};
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::client::{Error, KafkaOptions};
use crate::registry::RegistryOptions;
use health::Shared;
pub use health::{CommandsHealth, CommandsState};
pub use reply::headers;

/// Name of the consumer group, without the namespace; also the beginning of transactional ids.
pub const GROUP: &str = "sovereign.commands";

/// One command, as a record brought it.
#[derive(Debug, Clone)]
pub struct CommandLine {
    /// The JSON object of one line of `sovereign send`; anything at all, if the record held no
    /// Avro.
    pub line: Bytes,
    /// The record's id: the same whenever the record is read, and no other's. It is the command's
    /// id if the line names none.
    pub record: Uuid,
    /// The record's W3C trace context, for a line that names none.
    pub traceparent: Option<String>,
}

/// What a [`CommandHandler`] says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// This became of it, for good.
    Outcome(Outcome),
    /// Nobody can say now what becomes of it: too much to do, or a server is away. It is asked
    /// again, until somebody can.
    NotNow(Problem),
    /// It fails for a reason that is not the sender's. It is asked again, a few times.
    Fault(Problem),
}

/// Carries commands out: guard, aggregate, ledger.
#[async_trait]
pub trait CommandHandler: Send + Sync {
    /// Carries one out; returns once the outcome is durable.
    ///
    /// The same record may come again after a crash, and its outcome must then be the one that it
    /// would have had without: [`sovereign_schemas::Status::Accepted`] if it was this record that took
    /// effect before, [`sovereign_schemas::Status::Duplicate`] if it was another with the same
    /// command id. Dropping the future gives the record up; somebody else has it then.
    async fn handle(&self, command: &CommandLine) -> Answer;
}

/// How commands are taken from records.
#[derive(Debug, Clone)]
pub struct CommandsOptions {
    /// The brokers.
    pub kafka: KafkaOptions,
    /// Where the schemas of Avro records are.
    pub registry: RegistryOptions,
    /// Names this engine for good, as in [`crate::WorkOptions`].
    pub engine: String,
    /// Records that are carried out, or wait for their reply, at once; 2,048 by default.
    pub in_flight_max: usize,
    /// Bytes of them; 32 MiB by default. One record may go beyond.
    pub bytes_in_flight_max: usize,
    /// Replies of one transaction; 1,000 by default.
    pub batch_max: usize,
    /// After so long without a sign of life the others take over; 6 s by default.
    pub session_timeout: Duration,
    /// After how long the brokers end the transaction of an engine that is gone; 15 s by default.
    /// Until then, or until that engine is back, its records wait.
    pub transaction_timeout: Duration,
    /// Health is red after so long outside of the group, or without progress; 20 s by default.
    pub red_after: Duration,
}

impl CommandsOptions {
    /// The defaults for these servers.
    #[must_use]
    pub fn new(kafka: KafkaOptions, registry: RegistryOptions, engine: impl Into<String>) -> Self {
        Self {
            kafka,
            registry,
            engine: engine.into(),
            in_flight_max: 2_048,
            bytes_in_flight_max: 32 << 20,
            batch_max: 1_000,
            session_timeout: Duration::from_secs(6),
            transaction_timeout: Duration::from_secs(15),
            red_after: Duration::from_secs(20),
        }
    }
}

/// Takes commands from records.
#[derive(Debug)]
pub struct Commands;

impl Commands {
    /// Starts in the background; all failures show up in [`CommandsHandle::health`]. Must be called
    /// within a tokio runtime, on which commands are carried out.
    ///
    /// # Errors
    /// [`Error::Internal`] if there can be no thread.
    pub fn start(
        options: CommandsOptions,
        handler: Arc<dyn CommandHandler>,
    ) -> Result<CommandsHandle, Error> {
        let shared = Arc::new(Shared::new(options.red_after));
        let (stop, stopped) = watch::channel(false);
        let (runtime, own) = (Handle::current(), Arc::clone(&shared));
        std::thread::Builder::new()
            .name("commands".to_owned())
            .spawn(move || run::run(&options, &handler, &own, &runtime, &stopped))
            .map_err(|e| Error::internal("start thread of commands", e))?;
        Ok(CommandsHandle { shared, stop })
    }
}

/// Commands being taken from records. Dropping it ends that, without waiting.
#[derive(Debug)]
pub struct CommandsHandle {
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
}

impl CommandsHandle {
    /// How it is just now. Cheap.
    #[must_use]
    pub fn health(&self) -> CommandsHealth {
        self.shared.health()
    }

    /// Takes no more records, answers those that are in hand if that is possible within a few
    /// seconds, and ends. What is not answered is read again at the next start.
    pub async fn stop(&self) {
        self.stop.send_replace(true);
        let ended = self.shared.ended();
        if tokio::time::timeout(Duration::from_secs(30), ended)
            .await
            .is_err()
        {
            tracing::warn!("commands from records did not stop in time");
        }
    }
}
