//! The relay: puts the ledger's events onto the departments' topics, each exactly once and in
//! order as a read-committed consumer sees it.
//!
//! Two transactional producers take turns. One produces the next batch while the other commits
//! the last one, and commits only after that: order stays, and a batch grows with what came in
//! the meantime. The checkpoint travels in the same transaction, so after any crash the next relay
//! finds exactly what is visible and goes on behind it. Taking over both transactional ids comes
//! before reading the checkpoint; whoever held them before is fenced by then.

mod brokers;
mod health;
mod lane;
mod pipeline;
pub mod port;
pub(crate) mod producer;
mod session;
mod standby;
mod visible;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sovereign_schemas::chain::Head;
use sovereign_schemas::{Departments, Digest, LogError, Position, Problem, Tail, Uuid};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::client::{Error, KafkaOptions};
use crate::registry::SchemaIds;
use crate::telemetry::Restarted;
use crate::topics::TopicSettings;
use crate::work::Turn;
use brokers::Brokers;
use health::Shared;
pub use health::{RelayHealth, RelayState};
use port::RelayPort;
use session::{Ended, Session};

/// What the relay may ask the ledger, beside following it.
#[async_trait]
pub trait LedgerProbe: Send + Sync {
    /// Last durable position and its hash.
    ///
    /// # Errors
    /// If the ledger cannot be read just now.
    async fn head(&self) -> Result<Head, LogError>;

    /// The hash of one event; `None` if there is no such event.
    ///
    /// # Errors
    /// If the ledger cannot be read just now.
    async fn hash_at(&self, position: Position) -> Result<Option<Digest>, LogError>;
}

/// How the relay works.
#[derive(Debug, Clone)]
pub struct RelayOptions {
    /// The brokers.
    pub kafka: KafkaOptions,
    /// How missing topics are created.
    pub topics: TopicSettings,
    /// Most events in one transaction; 20,000 by default: each transaction costs the brokers a
    /// marker on every partition, whatever is in it.
    pub batch_events_max: usize,
    /// Most payload bytes in one transaction, if it is more than one event; 8 MiB by default.
    pub batch_bytes_max: usize,
    /// After how long the brokers end the transaction of a relay that is gone; 30 s by default.
    /// Until then, or until the next relay starts, readers wait for its end.
    pub transaction_timeout: Duration,
    /// Health is red after so long without progress while there is something to relay; 8 s, so
    /// that it is seen within 10.
    pub red_after: Duration,
    /// Longest pause between two attempts; 2 s by default.
    pub retry_pause_max: Duration,
    /// Whose turn it is, where several engines share the work: without the turn the relay stands
    /// by. `None` by default: it always is this relay's, and one that took over ends this one.
    pub turn: Option<Arc<dyn Turn>>,
}

impl RelayOptions {
    /// The defaults for these brokers.
    #[must_use]
    pub fn new(kafka: KafkaOptions) -> Self {
        Self {
            kafka,
            topics: TopicSettings::default(),
            batch_events_max: 20_000,
            batch_bytes_max: 8 << 20,
            transaction_timeout: Duration::from_secs(30),
            red_after: Duration::from_secs(8),
            retry_pause_max: Duration::from_secs(2),
            turn: None,
        }
    }
}

/// Starts relays.
#[derive(Debug)]
pub struct Relay;

/// One running relay. Dropping it stops the relay too, without waiting.
#[derive(Debug)]
pub struct RelayHandle {
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    task: Option<JoinHandle<()>>,
}

impl Relay {
    /// Starts relaying in the background; all failures show up in [`RelayHandle::health`]. Must be
    /// called within a tokio runtime.
    ///
    /// `tail` is the only source of events; `ledger` is asked at the start whether the topics
    /// agree with it, and for the lag.
    #[must_use]
    pub fn start(
        options: RelayOptions,
        tail: Box<dyn Tail>,
        ledger: Arc<dyn LedgerProbe>,
        schema_ids: SchemaIds,
        departments: Departments,
    ) -> RelayHandle {
        let port = Arc::new(Brokers::new(options.clone(), departments.clone()));
        let id = Uuid::now_v7();
        Self::start_on(port, id, options, tail, ledger, schema_ids, departments)
    }

    /// The same over any [`RelayPort`]; `id` must be unique to this relay.
    #[must_use]
    pub fn start_on(
        port: Arc<dyn RelayPort>,
        id: Uuid,
        options: RelayOptions,
        tail: Box<dyn Tail>,
        ledger: Arc<dyn LedgerProbe>,
        schema_ids: SchemaIds,
        departments: Departments,
    ) -> RelayHandle {
        let shared = Arc::new(Shared::new(options.red_after));
        let (stop, stopped) = watch::channel(false);
        let session = Session {
            id,
            port,
            options,
            ledger: Arc::clone(&ledger),
            schema_ids,
            departments,
            shared: Arc::clone(&shared),
            stopped: stopped.clone(),
        };
        let (readers, port) = (Arc::clone(&shared), Arc::clone(&session.port));
        let readers = tokio::spawn(health::follow_readers(readers, port, stopped.clone()));
        let watcher = tokio::spawn(health::follow(Arc::clone(&shared), ledger, stopped));
        let task = tokio::spawn(async move {
            run(session, tail).await;
            watcher.abort();
            readers.abort();
        });
        RelayHandle {
            shared,
            stop,
            task: Some(task),
        }
    }
}

impl RelayHandle {
    /// How it is just now. Cheap.
    #[must_use]
    pub fn health(&self) -> RelayHealth {
        self.shared.health()
    }

    /// Stops after the transactions under way, within a few seconds.
    pub async fn stop(mut self) {
        let _ = self.stop.send(true);
        if let Some(task) = self.task.take()
            && tokio::time::timeout(Duration::from_secs(15), task)
                .await
                .is_err()
        {
            tracing::warn!("relay did not stop in time");
        }
    }
}

impl Drop for RelayHandle {
    fn drop(&mut self) {
        let _ = self.stop.send(true);
    }
}

/// Sessions one after the other until stopped: any failure that time may heal ends one session,
/// and the next finds out anew what is visible. In between it stands by while it is another's turn.
async fn run(session: Session, mut tail: Box<dyn Tail>) {
    const PAUSE_MIN: Duration = Duration::from_millis(100);
    let mut pause = PAUSE_MIN;
    loop {
        if session.stand_by().await.is_err() {
            return session.shared.stopped(None);
        }
        let before = session.shared.position();
        let error = match session.run(tail.as_mut()).await {
            Ok(Ended::Stopped) => return session.shared.stopped(None),
            Ok(Ended::NotOurTurn) => {
                pause = PAUSE_MIN;
                continue;
            }
            Err(error) => error,
        };
        if session.is_stopped() {
            return session.shared.stopped(None);
        }
        if let Some(problem) = session.final_problem(&error).await {
            tracing::error!(code = %problem.code, %error, "relay stopped");
            return session.shared.stopped(Some(problem));
        }
        if session.shared.position() > before {
            pause = PAUSE_MIN;
        }
        Restarted {
            cause: &error,
            after: pause,
        }
        .emit();
        session.shared.waiting(error.problem());
        if session.sleep(pause).await.is_err() {
            return session.shared.stopped(None);
        }
        pause = (pause * 2).min(session.options.retry_pause_max);
    }
}

/// The problem of a log that cannot be followed.
pub(crate) fn log_problem(error: &LogError) -> Problem {
    use sovereign_schemas::ErrorCode;
    let code = match error {
        LogError::Gap { .. } | LogError::Hash { .. } => ErrorCode::VerificationDifference,
        LogError::Malformed { .. } => ErrorCode::DecodeFailed,
        LogError::Unreachable(_) => ErrorCode::DatabaseUnreachable,
        LogError::Internal(_) => ErrorCode::Internal,
    };
    Problem::new(code, error.to_string())
}

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Kafka(#[from] Error),
    #[error("ledger: {0}")]
    Ledger(#[from] LogError),
    /// Something that no further attempt will change.
    #[error("{0}")]
    Final(Problem),
}

impl Failure {
    pub(crate) fn problem(&self) -> Problem {
        match self {
            Self::Kafka(error) => error.problem(),
            Self::Ledger(error) => log_problem(error),
            Self::Final(problem) => problem.clone(),
        }
    }

    pub(crate) const fn passing(&self) -> bool {
        match self {
            Self::Kafka(error) => error.passing(),
            Self::Ledger(error) => {
                matches!(error, LogError::Unreachable(_) | LogError::Internal(_))
            }
            Self::Final(_) => false,
        }
    }
}
