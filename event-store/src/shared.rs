use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use sovereign_schemas::chain::Head;
use sovereign_schemas::{Position, RecordedEvent, Timestamp};
use tokio::sync::Notify;

use crate::port::Clock;
use crate::ring::Ring;

/// What the parts of one process know together.
#[derive(Debug)]
pub(crate) struct Shared {
    /// Up to here everything is durable. It never goes back.
    flushed: Flushed,
    ring: Mutex<Ring>,
    database: Mutex<DatabaseState>,
    queued: AtomicUsize,
    /// Commands without an answer, wherever they are.
    outstanding: Arc<AtomicUsize>,
    clock: Arc<dyn Clock>,
}

#[derive(Debug, Clone)]
struct DatabaseState {
    reachable: bool,
    since: Timestamp,
    last_error: Option<String>,
}

/// See [`Shared::outstanding`].
#[derive(Debug)]
pub(crate) struct Outstanding(Arc<AtomicUsize>);

impl Drop for Outstanding {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How the ledger is doing.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct LedgerHealth {
    /// The database answers, the queue is not full, and commands get answers.
    pub healthy: bool,
    /// Last durable event, as far as this process knows.
    pub flushed: Head,
    /// Commands that wait to be decided.
    pub queue_depth: usize,
    /// Most commands that may wait.
    pub queue_max: usize,
    /// Whether the database answered last time.
    pub database_reachable: bool,
    /// Since when that is so.
    pub database_since: Timestamp,
    /// What it said when it last failed.
    pub last_error: Option<String>,
    /// For how long commands have waited without any answer, milliseconds, if that is too long.
    pub stalled_for_ms: Option<u64>,
}

/// Up to where everything is durable. Wakes its followers in the order in which they wait, where
/// tokio's `watch` draws lots: a simulation must run the same way each time.
#[derive(Debug)]
struct Flushed {
    head: Mutex<Head>,
    moved: Notify,
}

impl Default for Flushed {
    fn default() -> Self {
        Self {
            head: Mutex::new(Head::EMPTY),
            moved: Notify::new(),
        }
    }
}

impl Flushed {
    fn head(&self) -> std::sync::MutexGuard<'_, Head> {
        self.head.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    pub(crate) fn new(
        ring_events_max: usize,
        ring_bytes_max: usize,
        clock: Arc<dyn Clock>,
    ) -> Arc<Self> {
        Arc::new(Self {
            flushed: Flushed::default(),
            ring: Mutex::new(Ring::new(ring_events_max, ring_bytes_max)),
            database: Mutex::new(DatabaseState {
                reachable: true,
                since: clock.now(),
                last_error: None,
            }),
            queued: AtomicUsize::new(0),
            outstanding: Arc::new(AtomicUsize::new(0)),
            clock,
        })
    }

    pub(crate) fn flushed(&self) -> Head {
        *self.flushed.head()
    }

    /// Returns once something behind `after` is durable.
    pub(crate) async fn beyond(&self, after: Position) {
        loop {
            let mut moved = std::pin::pin!(self.flushed.moved.notified());
            // before the look, so that nothing falls in between
            moved.as_mut().enable();
            if self.flushed().position > after {
                return;
            }
            moved.await;
        }
    }

    /// Everything up to `head` is durable.
    pub(crate) fn advance(&self, head: Head) {
        let mut known = self.flushed.head();
        if head.position > known.position {
            *known = head;
            drop(known);
            self.flushed.moved.notify_waiters();
        }
    }

    /// These events are durable: followers get them from memory.
    pub(crate) fn publish(&self, events: &[Arc<RecordedEvent>]) {
        let Some(last) = events.last() else { return };
        let head = Head {
            position: last.position(),
            hash: last.hash,
        };
        self.ring().push(events);
        self.advance(head);
    }

    pub(crate) fn ring(&self) -> std::sync::MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts one command for as long as it exists.
    pub(crate) fn outstanding(&self) -> Outstanding {
        self.outstanding.fetch_add(1, Ordering::Relaxed);
        Outstanding(Arc::clone(&self.outstanding))
    }

    pub(crate) fn outstanding_now(&self) -> usize {
        self.outstanding.load(Ordering::Relaxed)
    }

    pub(crate) fn queue(&self, count: usize) -> usize {
        self.queued.fetch_add(count, Ordering::Relaxed) + count
    }

    pub(crate) fn unqueue(&self, count: usize) {
        self.queued.fetch_sub(count, Ordering::Relaxed);
    }

    pub(crate) fn queued(&self) -> usize {
        self.queued.load(Ordering::Relaxed)
    }

    pub(crate) fn database_answers(&self) {
        let mut state = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.reachable {
            state.reachable = true;
            state.since = self.clock.now();
            tracing::info!("database answers again");
        }
    }

    pub(crate) fn database_fails(&self, error: &crate::StoreError) {
        let mut state = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        if state.reachable {
            state.reachable = false;
            state.since = self.clock.now();
            tracing::error!(code = %error.code(), %error, "database fails");
        }
        state.last_error = Some(error.to_string());
    }

    pub(crate) fn health(&self, queue_max: usize) -> LedgerHealth {
        let state = self
            .database
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let queue_depth = self.queued();
        LedgerHealth {
            healthy: state.reachable && queue_depth < queue_max,
            flushed: self.flushed(),
            queue_depth,
            queue_max,
            database_reachable: state.reachable,
            database_since: state.since,
            last_error: state.last_error,
            stalled_for_ms: None,
        }
    }
}
