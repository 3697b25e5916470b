//! A database of one's own, and a tail under a test's control.
#![allow(dead_code, unreachable_pub)]

pub mod chain;
pub mod versions;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use sovereign_projections::{
    Projector, ProjectorHandle, VIEW_NAMES, ViewHealth, ViewsOptions, ViewsReader, ViewsStore,
};
use sovereign_schemas::{LogError, MemoryLog, Position, RecordedEvent, Tail};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, Executor as _, PgConnection};
use tokio::sync::Notify;

/// Long enough for a loaded machine; reached only by a failure.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs `test` with the URL of a fresh database, which is dropped afterwards.
pub fn with_database<F: Future<Output = ()> + Send + 'static>(
    test: impl FnOnce(Database) -> F + Send + 'static,
) {
    let server = std::env::var("SOVEREIGN_TEST_DATABASE").expect(
        "set SOVEREIGN_TEST_DATABASE to the url of a postgres user who may create databases, \
         such as postgres://postgres@127.0.0.1:5432/postgres",
    );
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let outcome = runtime.block_on(async {
        let options: PgConnectOptions = server.parse().expect("SOVEREIGN_TEST_DATABASE is no url");
        let mut admin = options
            .connect()
            .await
            .expect("SOVEREIGN_TEST_DATABASE is unreachable");
        let name = format!("views_test_{}", uuid::Uuid::now_v7().simple());
        admin
            .execute(&*format!("CREATE DATABASE {name}"))
            .await
            .unwrap();
        let url = options.clone().database(&name).to_url_lossy().to_string();
        let database = Database { url };
        let outcome = tokio::spawn(test(database)).await;
        admin
            .execute(&*format!("DROP DATABASE {name} WITH (FORCE)"))
            .await
            .unwrap();
        outcome
    });
    runtime.shutdown_timeout(Duration::from_secs(5));
    if let Err(failure) = outcome {
        std::panic::resume_unwind(failure.into_panic());
    }
}

#[derive(Debug, Clone)]
pub struct Database {
    pub url: String,
}

impl Database {
    pub fn store(&self) -> ViewsStore {
        ViewsStore::new(&self.url).unwrap()
    }

    pub fn reader(&self) -> ViewsReader {
        ViewsReader::new(&self.url).unwrap()
    }

    pub async fn connect(&self) -> PgConnection {
        PgConnection::connect(&self.url).await.unwrap()
    }

    pub async fn execute(&self, sql: &str) {
        self.connect()
            .await
            .execute(sqlx::raw_sql(sql))
            .await
            .unwrap();
    }

    /// Short waits, so that tests need not be patient.
    pub fn options(&self) -> ViewsOptions {
        ViewsOptions {
            batch_events_max: 64,
            idle_wait: Duration::from_millis(100),
            database_timeout: Duration::from_secs(10),
            retry_min: Duration::from_millis(20),
            retry_max: Duration::from_millis(200),
            ..ViewsOptions::new(&self.url)
        }
    }

    pub fn start(&self, ledger: &Ledger) -> ProjectorHandle {
        Projector::start(self.options(), ledger.tails()).unwrap()
    }

    /// I5 for every view, at the end of the ledger.
    pub async fn check(&self, ledger: &Ledger) {
        let mut log = MemoryLog::new(ledger.events());
        let head = ledger.head();
        for view in VIEW_NAMES {
            let checkpoint = self.reader().verify(view, &mut log).await.unwrap();
            assert_eq!(checkpoint.position, head, "{view}");
        }
    }
}

/// A log in memory that can grow and change while it is followed.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    events: Arc<Mutex<Vec<Arc<RecordedEvent>>>>,
    grown: Arc<Notify>,
}

impl Ledger {
    pub fn new(events: &[RecordedEvent]) -> Self {
        let ledger = Self::default();
        ledger.replace(events);
        ledger
    }

    pub fn replace(&self, events: &[RecordedEvent]) {
        *self.events.lock().unwrap() = events.iter().cloned().map(Arc::new).collect();
        self.grown.notify_waiters();
    }

    pub fn extend(&self, events: &[RecordedEvent]) {
        let more = events.iter().cloned().map(Arc::new);
        self.events.lock().unwrap().extend(more);
        self.grown.notify_waiters();
    }

    pub fn events(&self) -> Vec<RecordedEvent> {
        self.events
            .lock()
            .unwrap()
            .iter()
            .map(|e| RecordedEvent::clone(e))
            .collect()
    }

    pub fn head(&self) -> Position {
        self.events
            .lock()
            .unwrap()
            .last()
            .map_or(Position::START, |e| e.position())
    }

    pub fn tails(&self) -> impl Fn() -> Box<dyn Tail> + Send + Sync + 'static + use<> {
        let ledger = self.clone();
        move || Box::new(ledger.clone())
    }

    fn after(&self, after: Position, limit: usize) -> Vec<Arc<RecordedEvent>> {
        let events = self.events.lock().unwrap();
        let start = usize::try_from(after.0).unwrap().min(events.len());
        events[start..].iter().take(limit).cloned().collect()
    }
}

#[async_trait]
impl Tail for Ledger {
    async fn next(
        &mut self,
        after: Position,
        limit: usize,
        wait: Duration,
    ) -> Result<Vec<Arc<RecordedEvent>>, LogError> {
        let deadline = tokio::time::Instant::now() + wait;
        loop {
            let grown = self.grown.notified();
            let events = self.after(after, limit);
            if !events.is_empty() || tokio::time::timeout_at(deadline, grown).await.is_err() {
                return Ok(events);
            }
        }
    }
}

/// Waits until the health of a view is as wanted.
pub async fn until(
    views: &ProjectorHandle,
    view: &str,
    wanted: impl Fn(&ViewHealth) -> bool,
) -> ViewHealth {
    let started = Instant::now();
    loop {
        let health = views.health(None).projections[view].clone();
        if wanted(&health) {
            return health;
        }
        assert!(started.elapsed() < PATIENCE, "{view} is still {health:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until all views stand at `head` and are healthy.
pub async fn until_at(views: &ProjectorHandle, head: Position) {
    for view in VIEW_NAMES {
        until(views, view, |h| h.healthy && h.position == head).await;
    }
}
