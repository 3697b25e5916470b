//! Runs views: one task for each build, with a checkpoint of its own, and one keeper that says
//! which builds are to be folded here.

mod health;
mod keeper;
mod session;
mod task;
mod telemetry;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use sovereign_schemas::{Position, Tail};
use tokio::sync::{Mutex, Notify, watch};
use tokio::task::JoinSet;

use crate::database::Database;
use crate::table::Stored;
use crate::{ProjectionError, View, ViewDatabase, ViewSet, ViewsStore};

use health::{Slot, Standing};
use keeper::{Keeper, Kept};
use session::Session;
use task::ViewTask;

pub use health::{Activity, Progress, ViewHealth, ViewsHealth};

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
    /// Which views; those that ship by default.
    pub views: ViewSet,
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
            views: ViewSet::shipped(),
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
            .field("views", &self.views)
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
    views: BTreeMap<&'static str, Arc<Standing>>,
    wake: Arc<Notify>,
    store: ViewsStore,
}

/// What the task of one build needs.
pub(crate) struct StartBuild {
    options: Arc<ViewsOptions>,
    database: Database,
    generation: i64,
    tail: Box<dyn Tail>,
    slot: Arc<Slot>,
    stop: watch::Receiver<bool>,
}

/// Runs a build in Postgres until it is stopped.
pub(crate) async fn start_build<V: View>(start: StartBuild)
where
    V::Row: Stored<Key = V::Key>,
{
    let session = Session::<V>::new(start.database, start.generation);
    let task = ViewTask::<V>::new(start.options, Box::new(session), start.tail, start.slot);
    task.run(start.stop).await;
}

/// Watches a view that is run by [`run_view`].
#[derive(Debug, Clone)]
pub struct ViewWatch {
    version: u32,
    slot: Arc<Slot>,
}

impl ViewWatch {
    /// How the view is, as far as its task knows. `head` is the ledger's last durable position,
    /// for the lag.
    #[must_use]
    pub fn health(&self, head: Option<Position>) -> ViewHealth {
        let report = self.slot.report();
        let position = report.position.unwrap_or(Position::START);
        ViewHealth {
            position,
            activity: Activity::Live,
            healthy: report.problem.is_none() && report.position.is_some(),
            version: self.version,
            building: None,
            lag: head.map(|h| h.0.saturating_sub(position.0)),
            stopped_at: report.stopped_at,
            problem: report.problem,
        }
    }
}

/// Keeps one build of a view up with a tail, over any store, until `stop` holds `true` or its
/// sender is gone: the very code that [`Projector`] runs over Postgres. The future reads no clock but
/// tokio's and spawns nothing, so that a simulation can run it.
pub fn run_view<V: View>(
    database: Box<dyn ViewDatabase<V>>,
    tail: Box<dyn Tail>,
    options: Arc<ViewsOptions>,
    stop: watch::Receiver<bool>,
) -> (ViewWatch, impl Future<Output = ()> + Send + 'static) {
    let slot = Arc::new(Slot::default());
    let watch = ViewWatch {
        version: V::VERSION,
        slot: Arc::clone(&slot),
    };
    let task = ViewTask::<V>::new(options, database, tail, slot);
    (watch, task.run(stop))
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
            .field("views", &self.running.views.keys())
            .finish()
    }
}

impl Projector {
    /// Starts to fold every view of the options; each build follows a tail of its own. The tables
    /// must be there ([`ViewsStore::migrate`]); while they or Postgres are not, health is red and
    /// it is tried again. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`ProjectionError::DatabaseUrl`].
    pub fn start(
        options: ViewsOptions,
        tails: impl Fn() -> Box<dyn Tail> + Send + Sync + 'static,
    ) -> Result<ProjectorHandle, ProjectionError> {
        let database = Database::new(&options.database_url, options.database_timeout)?;
        let store = ViewsStore::with_views(&options.database_url, options.views.clone())?;
        let (stop, _) = watch::channel(false);
        let wake = Arc::new(Notify::new());
        let views = options.views.iter().map(|&definition| {
            let (name, version) = (definition.name, definition.version);
            let standing = Arc::new(Standing::new(name, version, Arc::clone(&wake)));
            Kept {
                definition,
                standing,
            }
        });
        let views: Vec<Kept> = views.collect();
        let standings = views
            .iter()
            .map(|view| (view.definition.name, Arc::clone(&view.standing)));
        let standings = standings.collect();
        let keeper = Keeper {
            options: Arc::new(options),
            database,
            tails: Arc::new(tails),
            views,
            wake: Arc::clone(&wake),
            stop: stop.clone(),
            connection: None,
            running: BTreeMap::new(),
            tasks: JoinSet::new(),
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(keeper.run());
        let running = Running {
            stop,
            tasks: Mutex::new(tasks),
            views: standings,
            wake,
            store,
        };
        Ok(ProjectorHandle {
            running: Arc::new(running),
        })
    }
}

impl ProjectorHandle {
    /// How the views are. `head` is the ledger's last durable position, for the lag.
    #[must_use]
    pub fn health(&self, head: Option<Position>) -> ViewsHealth {
        let each = self
            .running
            .views
            .iter()
            .map(|(&name, view)| (name, view.health(head)));
        let projections: BTreeMap<&'static str, ViewHealth> = each.collect();
        let healthy = projections.values().all(|v| v.healthy);
        ViewsHealth {
            healthy,
            projections,
        }
    }

    /// Divides views between processes: this one runs the views of these names and leaves all
    /// others to somebody else, showing the checkpoints that those move. Until this is called, all
    /// views are run. Cheap, may be called again and again; a newly assigned view starts within a
    /// moment. Names that no view has are ignored. Two processes that run one view do no harm, but
    /// fold it twice.
    pub fn assign(&self, views: &BTreeSet<String>) {
        for (&name, view) in &self.running.views {
            view.assign(views.contains(name));
        }
    }

    /// The position that readers get of the view that is furthest behind.
    #[must_use]
    pub fn position(&self) -> Position {
        let positions = self.running.views.values().map(|view| view.position());
        positions.min().unwrap_or(Position::START)
    }

    /// Folds a view again from the first event, beside the build that serves, and lets the new
    /// one serve when it has caught up. Returns once that has begun.
    ///
    /// # Errors
    /// As [`ViewsStore::rebuild`].
    pub async fn rebuild(&self, view: &str) -> Result<(), ProjectionError> {
        self.running.store.rebuild(view).await?;
        self.running.wake.notify_one();
        Ok(())
    }

    /// Other switches, roll-backs and drops. They need no projector, and take effect on all.
    #[must_use]
    pub fn store(&self) -> &ViewsStore {
        &self.running.store
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
