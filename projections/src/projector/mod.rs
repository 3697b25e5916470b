//! Runs views: one task each, with a checkpoint of its own.

mod health;
mod session;
mod task;
mod telemetry;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use sovereign_schemas::{Position, Tail};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;

use crate::database::Database;
use crate::table::Stored;
use crate::{Agents, Approvals, Departments, ProjectionError, Trades, View, ViewsStore};

use health::Slot;
use task::ViewTask;

pub use health::{ViewHealth, ViewsHealth};

/// How views are run. All bounds of I9 are here.
#[derive(Clone)]
pub struct ViewsOptions {
    /// `postgres://user:password@host:port/database`; never printed.
    pub database_url: String,
    /// Events folded into one transaction, at least 1.
    pub batch_events_max: usize,
    /// Rows of one view kept in memory, at least 1.
    pub rows_cached_max: usize,
    /// How long events are gathered after a batch that was far from full; 20 ms by default.
    pub gather: Duration,
    /// How long to wait for an event before the checkpoint is looked at again, in case another
    /// process moved it.
    pub idle_wait: Duration,
    /// How long Postgres or the log may take for one answer; with `idle_wait` also how long a
    /// stall may go unseen.
    pub database_timeout: Duration,
    /// First pause after a failure; doubles with each further one.
    pub retry_min: Duration,
    /// Longest pause after a failure.
    pub retry_max: Duration,
}

impl ViewsOptions {
    /// The defaults: 2,000 events, 50,000 rows, 1 s, 8 s, pauses of 1 s to 30 s.
    #[must_use]
    pub fn new(database_url: impl Into<String>) -> Self {
        Self {
            database_url: database_url.into(),
            batch_events_max: 2_000,
            rows_cached_max: 50_000,
            gather: Duration::from_millis(20),
            idle_wait: Duration::from_secs(1),
            database_timeout: Duration::from_secs(8),
            retry_min: Duration::from_secs(1),
            retry_max: Duration::from_secs(30),
        }
    }
}

impl fmt::Debug for ViewsOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ViewsOptions")
            .field("batch_events_max", &self.batch_events_max)
            .field("rows_cached_max", &self.rows_cached_max)
            .field("gather", &self.gather)
            .field("idle_wait", &self.idle_wait)
            .field("database_timeout", &self.database_timeout)
            .field("retry_min", &self.retry_min)
            .field("retry_max", &self.retry_max)
            .finish_non_exhaustive()
    }
}

/// Starts the tasks.
#[derive(Debug)]
pub struct Projector;

/// How long [`ProjectorHandle::stop`] waits for batches under way.
const STOP_WAIT: Duration = Duration::from_secs(10);

struct Running {
    stop: watch::Sender<bool>,
    tasks: Mutex<JoinSet<()>>,
    slots: BTreeMap<&'static str, Arc<Slot>>,
    store: ViewsStore,
}

/// Watches, rebuilds and stops the views. Cheap to clone; when the last one is dropped the tasks
/// end at once, which is as harmless as a crash.
#[derive(Clone)]
pub struct ProjectorHandle {
    running: Arc<Running>,
}

impl fmt::Debug for ProjectorHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProjectorHandle")
            .field("views", &self.running.slots.keys())
            .finish()
    }
}

impl Projector {
    /// Starts one task for each view that ships; each follows a tail of its own. The tables must
    /// be there ([`ViewsStore::migrate`]); while they or Postgres are not, health is red and the
    /// tasks try again. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`ProjectionError::DatabaseUrl`].
    pub fn start(
        options: ViewsOptions,
        tails: impl Fn() -> Box<dyn Tail>,
    ) -> Result<ProjectorHandle, ProjectionError> {
        let database = Database::new(&options.database_url, options.database_timeout)?;
        let store = ViewsStore::new(&options.database_url)?;
        let (stop, _) = watch::channel(false);
        let mut start = Start {
            options: Arc::new(options),
            database,
            stop,
            tasks: JoinSet::new(),
            slots: BTreeMap::new(),
        };
        start.view::<Agents>(tails());
        start.view::<Trades>(tails());
        start.view::<Approvals>(tails());
        start.view::<Departments>(tails());
        let Start {
            stop, tasks, slots, ..
        } = start;
        let running = Running {
            stop,
            tasks: Mutex::new(tasks),
            slots,
            store,
        };
        Ok(ProjectorHandle {
            running: Arc::new(running),
        })
    }
}

struct Start {
    options: Arc<ViewsOptions>,
    database: Database,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
    slots: BTreeMap<&'static str, Arc<Slot>>,
}

impl Start {
    fn view<V: View>(&mut self, tail: Box<dyn Tail>)
    where
        V::Row: Stored<Key = V::Key>,
    {
        let slot = Arc::new(Slot::new(V::VERSION));
        self.slots.insert(V::NAME, Arc::clone(&slot));
        let task = ViewTask::<V>::new(self.options.clone(), self.database.clone(), tail, slot);
        self.tasks.spawn(task.run(self.stop.subscribe()));
    }
}

impl ProjectorHandle {
    /// How the views are. `head` is the ledger's last durable position, for the lag.
    #[must_use]
    pub fn health(&self, head: Option<Position>) -> ViewsHealth {
        let each = self
            .running
            .slots
            .iter()
            .map(|(&name, slot)| (name, slot.health(head)));
        let projections: BTreeMap<&'static str, ViewHealth> = each.collect();
        let healthy = projections.values().all(|v| v.healthy);
        ViewsHealth {
            healthy,
            projections,
        }
    }

    /// The last position committed by the view that is furthest behind.
    #[must_use]
    pub fn position(&self) -> Position {
        let positions = self.running.slots.values().map(|slot| slot.position());
        positions.min().unwrap_or(Position::START)
    }

    /// Empties a view and folds it again from the first event. Returns once it is empty.
    ///
    /// # Errors
    /// As [`ViewsStore::rebuild`].
    pub async fn rebuild(&self, view: &str) -> Result<(), ProjectionError> {
        self.running.store.rebuild(view).await?;
        if let Some(slot) = self.running.slots.get(view) {
            slot.look_again();
        }
        Ok(())
    }

    /// Ends the tasks after the batch that each is at, or after 10 seconds in the middle of it,
    /// which loses nothing either.
    pub async fn stop(&self) {
        // nobody listening means that all tasks have ended
        let _ = self.running.stop.send(true);
        let mut tasks = self.running.tasks.lock().await;
        let all = async { while tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(STOP_WAIT, all).await.is_err() {
            tracing::warn!("views did not stop in time and were ended");
            tasks.shutdown().await;
        }
    }

    /// Ends the tasks wherever they are, as a crash would.
    pub async fn abort(&self) {
        self.running.tasks.lock().await.shutdown().await;
    }
}
