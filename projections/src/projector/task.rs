use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use lru::LruCache;
use sovereign_schemas::{LogError, RecordedEvent, Tail, chain};
use tokio::sync::watch;
use tokio::time::Instant;

use super::ViewsOptions;
use super::health::{LastWords, Slot};
use super::telemetry::{BatchCommitted, BuildServes, CheckpointMoved, ViewFailed, ViewHealthy};
use crate::port::{Checkpoint, Role, ViewDatabase};
use crate::view::Batch;
use crate::{DatabaseFault, ProjectionError, View};

/// How long to leave a view to another process that has just moved it on.
const YIELD_TO_OTHERS: Duration = Duration::from_millis(50);

/// First pause after an attempt to switch that came too early; doubles with each further one.
const SWITCH_PAUSE_MIN: Duration = Duration::from_millis(5);
/// Longest such pause.
const SWITCH_PAUSE_MAX: Duration = Duration::from_secs(1);

/// Keeps one build of a view up with its tail.
pub(super) struct ViewTask<V: View> {
    options: Arc<ViewsOptions>,
    database: Box<dyn ViewDatabase<V>>,
    tail: Box<dyn Tail>,
    slot: Arc<Slot>,
    /// Rows as they stand at `checkpoint`; an entry is never newer or older than that.
    rows: LruCache<V::Key, V::Row>,
    /// `None` when it has to be read.
    checkpoint: Option<Checkpoint>,
    /// As far as is known, what the build is there for.
    role: Role,
    /// Events for the next batch: halved to find the one whose row Postgres refuses.
    limit: usize,
    /// The last batch was far from full: the next may wait a moment.
    gathers: bool,
    pause: Duration,
    /// Of a build that is to serve next: when it may try to, and how long to wait then.
    switch_at: Instant,
    switch_pause: Duration,
}

/// What became of one round.
enum Round {
    /// The view moved on, or there was nothing to do.
    Well,
    /// Another process or a rebuild moved the checkpoint.
    Moved,
    /// The store refused a row: try fewer events.
    Smaller,
}

impl<V: View> ViewTask<V> {
    pub(super) fn new(
        options: Arc<ViewsOptions>,
        database: Box<dyn ViewDatabase<V>>,
        tail: Box<dyn Tail>,
        slot: Arc<Slot>,
    ) -> Self {
        let capacity = NonZeroUsize::new(options.rows_cached_max).unwrap_or(NonZeroUsize::MIN);
        Self {
            database,
            tail,
            slot,
            rows: LruCache::new(capacity),
            checkpoint: None,
            role: Role::Serving,
            limit: options.batch_events_max.max(1),
            gathers: false,
            pause: options.retry_min,
            switch_at: Instant::now(),
            switch_pause: SWITCH_PAUSE_MIN,
            options,
        }
    }

    /// Until it is stopped, or nobody is left who could stop it.
    pub(super) async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let _last_words = LastWords::OfBuild(V::NAME, Arc::clone(&self.slot));
        while !*stop.borrow_and_update() && stop.has_changed().is_ok() {
            let pause = match self.round(&mut stop).await {
                Ok(Round::Well) => {
                    self.went_well();
                    if !self.gathers {
                        continue;
                    }
                    self.options.gather
                }
                Ok(Round::Smaller) => continue,
                Ok(Round::Moved) => YIELD_TO_OTHERS,
                Err(error) => self.failed(&error),
            };
            // in a fixed order, so that a simulation repeats itself
            tokio::select! {
                biased;
                _ = stop.changed() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    fn went_well(&mut self) {
        if let Some(was_red) = self.slot.recovered() {
            self.pause = self.options.retry_min;
            ViewHealthy {
                view: V::NAME,
                role: self.role,
                was_red,
            }
            .emit();
        }
    }

    /// Nothing in memory is trusted any more.
    fn forget(&mut self) {
        self.rows.clear();
        self.checkpoint = None;
    }

    fn failed(&mut self, error: &ProjectionError) -> Duration {
        self.forget();
        let pause = self.pause;
        self.pause = pause.saturating_mul(2).min(self.options.retry_max);
        let after_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
        let problem = error.problem().retry_after_ms(after_ms);
        ViewFailed {
            view: V::NAME,
            role: self.role,
            problem: &problem,
            retry_after: pause,
        }
        .emit();
        self.slot.failed(problem, error.position());
        pause
    }

    async fn round(&mut self, stop: &mut watch::Receiver<bool>) -> Result<Round, ProjectionError> {
        let from = match self.checkpoint {
            Some(known) => known,
            None => self.read_checkpoint().await?,
        };
        let events = tokio::select! {
            biased;
            // the tail may be dropped while it waits
            _ = stop.changed() => return Ok(Round::Well),
            events = self.next_events(&from) => events?,
        };
        if events.is_empty() {
            self.gathers = false;
            return self.look_again(&from).await;
        }
        // a transaction for each few events would cost more than the fold
        self.gathers = events.len() < self.limit / 4;
        // the tail gave all it had
        let caught_up = events.len() < self.limit;
        self.apply(&from, &events, caught_up).await
    }

    async fn read_checkpoint(&mut self) -> Result<Checkpoint, ProjectionError> {
        let missing = ProjectionError::NotMigrated {
            view: V::NAME,
            version: V::VERSION,
        };
        let found = self.database.checkpoint().await?.ok_or(missing)?;
        self.checkpoint = Some(found);
        self.role = found.role;
        self.slot.set_position(found.position);
        Ok(found)
    }

    /// While nothing comes in: has another process moved the checkpoint? May it serve?
    async fn look_again(&mut self, from: &Checkpoint) -> Result<Round, ProjectionError> {
        if from.role == Role::Next {
            let to = self.serving_if_due(*from);
            return match self.database.commit(from, &to, &[]).await? {
                Some(now) => {
                    self.committed(from, &to, now);
                    Ok(Round::Well)
                }
                None => Ok(self.moved(from)),
            };
        }
        let found = self.read_checkpoint().await?;
        if (found.position, found.generation) != (from.position, from.generation) {
            return Ok(self.moved(from));
        }
        Ok(Round::Well)
    }

    /// The events that follow the checkpoint; none if none came in time.
    async fn next_events(
        &mut self,
        from: &Checkpoint,
    ) -> Result<Vec<Arc<RecordedEvent>>, ProjectionError> {
        let after = from.position;
        let wait = self.options.idle_wait;
        let patience = wait.saturating_add(self.options.database_timeout);
        let next = self.tail.next(after, self.limit, wait);
        let events = match tokio::time::timeout(patience, next).await {
            Ok(answer) => answer,
            Err(_) => Err(LogError::Unreachable(format!("no answer in {patience:?}"))),
        };
        let mut events = events.map_err(|cause| ProjectionError::Log {
            view: V::NAME,
            after,
            cause,
        })?;
        events.truncate(self.limit);
        check_order::<V>(from, &events)?;
        Ok(events)
    }

    /// `to`, with the wish to serve if it is time to try.
    fn serving_if_due(&self, to: Checkpoint) -> Checkpoint {
        if to.role == Role::Next && Instant::now() >= self.switch_at {
            let role = Role::Serving;
            return Checkpoint { role, ..to };
        }
        to
    }

    /// What was committed is where the next round begins.
    fn committed(&mut self, from: &Checkpoint, to: &Checkpoint, now: Checkpoint) {
        self.checkpoint = Some(now);
        self.role = now.role;
        self.slot.set_position(now.position);
        let tried = from.role == Role::Next && to.role == Role::Serving;
        if tried && now.role == Role::Serving {
            BuildServes {
                view: V::NAME,
                version: V::VERSION,
                generation: now.generation,
                position: now.position,
            }
            .emit();
        } else if tried {
            self.switch_at = Instant::now() + self.switch_pause;
            self.switch_pause = self.switch_pause.saturating_mul(2).min(SWITCH_PAUSE_MAX);
        }
    }

    /// Somebody else has moved the checkpoint.
    fn moved(&mut self, from: &Checkpoint) -> Round {
        CheckpointMoved {
            view: V::NAME,
            expected: from.position,
        }
        .emit();
        self.forget();
        Round::Moved
    }

    async fn apply(
        &mut self,
        from: &Checkpoint,
        events: &[Arc<RecordedEvent>],
        caught_up: bool,
    ) -> Result<Round, ProjectionError> {
        let started = Instant::now();
        let mut batch = Batch::<V>::plan(events, |key| self.rows.get(key).cloned());
        for row in self.database.rows(&batch.wanted()).await? {
            batch.supply(row);
        }
        let (folded, failure) = batch.fold(events);
        let Some(last) = folded.checked_sub(1).map(|index| &events[index]) else {
            return match failure {
                Some(cause) => {
                    let position = from.position.next();
                    Err(ProjectionError::Fold {
                        view: V::NAME,
                        position,
                        cause,
                    })
                }
                None => Ok(Round::Well),
            };
        };
        // an event that fails is met again as the first of the next batch, and reported then
        let mut to = Checkpoint {
            position: last.position(),
            hash: last.hash,
            ..*from
        };
        if caught_up && failure.is_none() {
            to = self.serving_if_due(to);
        }
        let rows = batch.into_changed();
        let now = match self.database.commit(from, &to, &rows).await {
            Ok(Some(now)) => now,
            Ok(None) => return Ok(self.moved(from)),
            Err(cause) if cause.fault == DatabaseFault::Data => {
                if folded > 1 {
                    self.limit = folded / 2;
                    self.forget();
                    return Ok(Round::Smaller);
                }
                return Err(ProjectionError::Store {
                    view: V::NAME,
                    position: to.position,
                    cause,
                });
            }
            Err(cause) => return Err(cause.into()),
        };
        let written = rows.len();
        for row in rows {
            self.rows.put(V::row_key(&row), row);
        }
        self.committed(from, &to, now);
        self.limit = (self.limit * 2).min(self.options.batch_events_max.max(1));
        BatchCommitted {
            view: V::NAME,
            events: folded,
            rows: written,
            position: to.position,
            role: now.role,
            took: started.elapsed(),
        }
        .emit();
        Ok(Round::Well)
    }
}

/// I1 for what the tail gave, and I3 where it joins the checkpoint: a view that was built from
/// another ledger, such as one restored from an older copy, must not go on.
fn check_order<V: View>(
    from: &Checkpoint,
    events: &[Arc<RecordedEvent>],
) -> Result<(), ProjectionError> {
    let mut expected = from.position.next();
    for event in events {
        let found = event.position();
        if found != expected {
            let cause = LogError::Gap { expected, found };
            return Err(ProjectionError::Log {
                view: V::NAME,
                after: from.position,
                cause,
            });
        }
        expected = expected.next();
    }
    let Some(first) = events.first() else {
        return Ok(());
    };
    let expected = chain::expected_hash(&from.hash, &first.header, &first.payload);
    if expected != first.hash {
        return Err(ProjectionError::Diverged {
            view: V::NAME,
            position: first.position(),
            expected,
            found: first.hash,
        });
    }
    Ok(())
}
