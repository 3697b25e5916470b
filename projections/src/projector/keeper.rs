//! Sees to it that every build which this process should fold is folded, and no other.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use sovereign_schemas::{Problem, Tail};
use sqlx::PgConnection;
use tokio::sync::{Notify, watch};
use tokio::task::{AbortHandle, JoinSet};

use super::health::{LastWords, Slot, Standing};
use super::{StartBuild, ViewsOptions};
use crate::database::Database;
use crate::port::Role;
use crate::store::{self, Build, KEPT_FOR_READERS};
use crate::{Definition, ProjectionError};

pub(super) type Tails = Arc<dyn Fn() -> Box<dyn Tail> + Send + Sync>;

/// One view, and what is known about it.
pub(super) struct Kept {
    pub(super) definition: Definition,
    pub(super) standing: Arc<Standing>,
}

/// The one that looks at `views.checkpoints`, about once a second.
pub(super) struct Keeper {
    pub(super) options: Arc<ViewsOptions>,
    pub(super) database: Database,
    pub(super) tails: Tails,
    pub(super) views: Vec<Kept>,
    /// A rebuild or another assignment is a reason to look at once.
    pub(super) wake: Arc<Notify>,
    pub(super) stop: watch::Sender<bool>,
    pub(super) connection: Option<PgConnection>,
    pub(super) running: BTreeMap<(&'static str, i64), Running>,
    pub(super) tasks: JoinSet<()>,
}

/// A build that is being folded here.
pub(super) struct Running {
    slot: Arc<Slot>,
    task: AbortHandle,
}

impl Keeper {
    /// Until it is stopped; then waits for the batches under way.
    pub(super) async fn run(mut self) {
        let mut stop = self.stop.subscribe();
        let all = self.views.iter().map(|view| Arc::clone(&view.standing));
        let _last_words = LastWords::OfAll(all.collect());
        let mut pause = self.options.retry_min;
        while !*stop.borrow_and_update() && stop.has_changed().is_ok() {
            let wait = match self.look().await {
                Ok(()) => {
                    pause = self.options.retry_min;
                    self.options.idle_wait
                }
                Err(error) => {
                    self.connection = None;
                    let wait = pause;
                    pause = pause.saturating_mul(2).min(self.options.retry_max);
                    self.failed(&error.problem(), wait);
                    wait
                }
            };
            tokio::select! {
                biased;
                _ = stop.changed() => {}
                () = self.wake.notified() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
        while self.tasks.join_next().await.is_some() {}
    }

    fn failed(&self, problem: &Problem, wait: Duration) {
        let after_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        tracing::warn!(code = problem.code.as_str(), cause = %problem.message,
            "checkpoints of views cannot be read");
        for view in &self.views {
            let problem = problem.clone().retry_after_ms(after_ms);
            view.standing.unreadable(problem);
        }
    }

    async fn look(&mut self) -> Result<(), ProjectionError> {
        // tasks that ended by themselves have panicked; their slots say so
        while self.tasks.try_join_next().is_some() {}
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.database.connect().await?,
        };
        let find = store::all(&mut connection, None);
        let builds = self.database.within("reading checkpoints", find).await?;
        for index in 0..self.views.len() {
            let Kept {
                definition,
                standing,
            } = &self.views[index];
            let (definition, standing) = (*definition, Arc::clone(standing));
            let of_view: Vec<Build> = builds
                .iter()
                .filter(|b| b.view == definition.name)
                .cloned()
                .collect();
            let wanted = if standing.is_assigned() {
                wanted(&definition, &of_view)
            } else {
                Vec::new()
            };
            self.fold_only(&definition, &wanted);
            let tasks = wanted.iter().filter_map(|generation| {
                let running = self.running.get(&(definition.name, *generation))?;
                Some((*generation, Arc::clone(&running.slot)))
            });
            standing.looked(of_view.clone(), tasks.collect());
            if standing.is_assigned() {
                self.tidy(&mut connection, &definition, &of_view).await?;
            }
        }
        self.connection = Some(connection);
        Ok(())
    }

    /// Starts and ends tasks, so that exactly these generations of a view are folded.
    fn fold_only(&mut self, definition: &Definition, wanted: &[i64]) {
        self.running.retain(|(view, generation), running| {
            let stays = *view != definition.name || wanted.contains(generation);
            if !stays {
                // as harmless as a crash
                running.task.abort();
            }
            stays
        });
        for &generation in wanted {
            let key = (definition.name, generation);
            if self.running.contains_key(&key) {
                continue;
            }
            let slot = Arc::new(Slot::default());
            let task = self.tasks.spawn((definition.start)(StartBuild {
                options: Arc::clone(&self.options),
                database: self.database.clone(),
                generation,
                tail: (self.tails)(),
                slot: Arc::clone(&slot),
                stop: self.stop.subscribe(),
            }));
            self.running.insert(key, Running { slot, task });
        }
    }

    /// Drops builds that are nobody's way back, once no reader can be reading them. Only the
    /// process whose version serves does that.
    async fn tidy(
        &self,
        connection: &mut PgConnection,
        definition: &Definition,
        builds: &[Build],
    ) -> Result<(), ProjectionError> {
        let needless = needless(definition, builds);
        if needless.is_empty() {
            return Ok(());
        }
        let work = async {
            use sqlx::Connection as _;
            let mut transaction = connection.begin().await?;
            if store::try_lock(&mut transaction, definition.name).await? {
                // what is needless may have changed meanwhile
                let found = store::all_locked(&mut transaction, definition.name).await?;
                for build in self::needless(definition, &found) {
                    store::remove(&mut transaction, &build).await?;
                    let (view, version) = (definition.name, build.version);
                    let generation = build.generation;
                    tracing::info!(view, version, generation, "replaced build dropped");
                }
            }
            transaction.commit().await
        };
        self.database
            .within("dropping a replaced build", work)
            .await?;
        Ok(())
    }
}

/// Generations that a program folds: of its own version the newest, and the one that serves.
/// A version that does not serve any more is folded as well: so a roll-back is instant.
fn wanted(definition: &Definition, builds: &[Build]) -> Vec<i64> {
    let own = builds.iter().filter(|b| b.version == definition.version);
    let newest = own.clone().map(|b| b.generation).max();
    own.filter(|b| b.role != Role::Kept || Some(b.generation) == newest)
        .map(|b| b.generation)
        .collect()
}

/// Kept builds that are too old to be read by anybody, and not the way back: the version that
/// served last before the one that serves.
fn needless(definition: &Definition, builds: &[Build]) -> Vec<Build> {
    let serving = builds.iter().find(|b| b.role == Role::Serving);
    let Some(serving) = serving.filter(|b| b.version == definition.version) else {
        return Vec::new();
    };
    let newest_of_version = |b: &Build| {
        let same = builds.iter().filter(|o| o.version == b.version);
        same.map(|o| o.generation).max() == Some(b.generation)
    };
    let since = |b: &Build| b.replaced_s.unwrap_or(f64::INFINITY);
    let way_back = builds
        .iter()
        .filter(|b| b.role == Role::Kept && b.version != serving.version && newest_of_version(b))
        .min_by(|a, b| since(a).total_cmp(&since(b)));
    let kept = builds.iter().filter(|b| b.role == Role::Kept);
    kept.filter(|b| since(b) > KEPT_FOR_READERS.as_secs_f64())
        .filter(|b| way_back.is_none_or(|w| (w.version, w.generation) != (b.version, b.generation)))
        .cloned()
        .collect()
}
