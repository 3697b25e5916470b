use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lru::LruCache;
use sovereign_schemas::{ErrorCode, LogError, Problem, RecordedEvent, Tail, chain};
use tokio::sync::watch;

use super::ViewsOptions;
use super::health::Slot;
use super::session::Session;
use super::telemetry::{BatchCommitted, CheckpointMoved, ViewFailed, ViewHealthy};
use crate::database::Database;
use crate::store::Checkpoint;
use crate::table::Stored;
use crate::view::Batch;
use crate::{DatabaseFault, ProjectionError, View};

/// How long to leave a view to another process that has just moved it on.
const YIELD_TO_OTHERS: Duration = Duration::from_millis(50);

/// Keeps one view up with its tail.
pub(super) struct ViewTask<V: View> {
    options: Arc<ViewsOptions>,
    session: Session<V>,
    tail: Box<dyn Tail>,
    slot: Arc<Slot>,
    /// Rows as they stand at `checkpoint`; an entry is never newer or older than that.
    rows: LruCache<V::Key, V::Row>,
    /// `None` when it has to be read.
    checkpoint: Option<Checkpoint>,
    /// Events for the next batch: halved to find the one whose row Postgres refuses.
    limit: usize,
    /// The last batch was far from full: the next may wait a moment.
    gathers: bool,
    pause: Duration,
}

/// Turns health red if the task ends by a panic: a view must not fail in silence.
struct LastWords {
    view: &'static str,
    slot: Arc<Slot>,
}

impl Drop for LastWords {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let message = format!("the task of view {} ended by a panic", self.view);
            self.slot
                .failed(Problem::new(ErrorCode::Internal, message), None);
        }
    }
}

/// What became of one round.
enum Round {
    /// The view moved on, or there was nothing to do.
    Well,
    /// Another process or a rebuild moved the checkpoint.
    Moved,
    /// Postgres refused a row: try fewer events.
    Smaller,
}

impl<V: View> ViewTask<V>
where
    V::Row: Stored<Key = V::Key>,
{
    pub(super) fn new(
        options: Arc<ViewsOptions>,
        database: Database,
        tail: Box<dyn Tail>,
        slot: Arc<Slot>,
    ) -> Self {
        let capacity = NonZeroUsize::new(options.rows_cached_max).unwrap_or(NonZeroUsize::MIN);
        Self {
            session: Session::new(database),
            tail,
            slot,
            rows: LruCache::new(capacity),
            checkpoint: None,
            limit: options.batch_events_max.max(1),
            gathers: false,
            pause: options.retry_min,
            options,
        }
    }

    /// Until it is stopped.
    pub(super) async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let slot = Arc::clone(&self.slot);
        let _last_words = LastWords {
            view: V::NAME,
            slot: Arc::clone(&slot),
        };
        while !*stop.borrow_and_update() {
            let pause = match self.round(&mut stop).await {
                Ok(Round::Well) => {
                    if let Some(was_red) = slot.recovered() {
                        self.pause = self.options.retry_min;
                        ViewHealthy {
                            view: V::NAME,
                            was_red,
                        }
                        .emit();
                    }
                    if !self.gathers {
                        continue;
                    }
                    self.options.gather
                }
                Ok(Round::Smaller) => continue,
                Ok(Round::Moved) => YIELD_TO_OTHERS,
                Err(error) => self.failed(&error),
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = slot.asked_to_look() => self.forget(),
                _ = stop.changed() => {}
            }
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
        let slot = Arc::clone(&self.slot);
        let events = tokio::select! {
            events = self.next_events(&from) => events?,
            // the tail may be dropped while it waits
            _ = stop.changed() => return Ok(Round::Well),
            () = slot.asked_to_look() => Vec::new(),
        };
        if events.is_empty() {
            self.gathers = false;
            return self.look_again(&from).await;
        }
        // a transaction for each few events would cost more than the fold
        self.gathers = events.len() < self.limit / 4;
        self.apply(&from, &events).await
    }

    async fn read_checkpoint(&mut self) -> Result<Checkpoint, ProjectionError> {
        let missing = ProjectionError::NotMigrated {
            view: V::NAME,
            version: V::VERSION,
        };
        let found = self.session.checkpoint().await?.ok_or(missing)?;
        self.checkpoint = Some(found);
        self.slot.set_position(found.position);
        Ok(found)
    }

    /// While nothing comes in: has another process or a rebuild moved the checkpoint?
    async fn look_again(&mut self, from: &Checkpoint) -> Result<Round, ProjectionError> {
        let found = self.read_checkpoint().await?;
        if found != *from {
            CheckpointMoved {
                view: V::NAME,
                expected: from.position,
            }
            .emit();
            self.rows.clear();
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

    async fn apply(
        &mut self,
        from: &Checkpoint,
        events: &[Arc<RecordedEvent>],
    ) -> Result<Round, ProjectionError> {
        let started = Instant::now();
        let mut batch = Batch::<V>::plan(events, |key| self.rows.get(key).cloned());
        for row in self.session.rows(&batch.wanted()).await? {
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
        let to = Checkpoint {
            position: last.position(),
            hash: last.hash,
            generation: from.generation,
        };
        let rows = batch.into_changed();
        match self.session.commit(from, &to, &rows).await {
            Ok(true) => {}
            Ok(false) => {
                CheckpointMoved {
                    view: V::NAME,
                    expected: from.position,
                }
                .emit();
                self.forget();
                return Ok(Round::Moved);
            }
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
        }
        let written = rows.len();
        for row in rows {
            self.rows.put(V::row_key(&row), row);
        }
        self.checkpoint = Some(to);
        self.slot.set_position(to.position);
        self.limit = (self.limit * 2).min(self.options.batch_events_max.max(1));
        BatchCommitted {
            view: V::NAME,
            events: folded,
            rows: written,
            position: to.position,
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
