use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use sovereign_schemas::chain::Head;
use sovereign_schemas::{RecordedEvent, Timestamp};
use tokio::sync::watch;

use crate::ring::Ring;

/// What the parts of one process know together.
#[derive(Debug)]
pub(crate) struct Shared {
    /// Up to here everything is durable. It never goes back.
    flushed: watch::Sender<Head>,
    ring: Mutex<Ring>,
    database: Mutex<DatabaseState>,
    queued: AtomicUsize,
}

#[derive(Debug, Clone)]
struct DatabaseState {
    reachable: bool,
    since: Timestamp,
    last_error: Option<String>,
}

/// How the ledger is doing.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct LedgerHealth {
    /// The database answers and the queue is not full.
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
}

impl Shared {
    pub(crate) fn new(ring_events_max: usize, ring_bytes_max: usize) -> Arc<Self> {
        Arc::new(Self {
            flushed: watch::Sender::new(Head::EMPTY),
            ring: Mutex::new(Ring::new(ring_events_max, ring_bytes_max)),
            database: Mutex::new(DatabaseState {
                reachable: true,
                since: Timestamp::now(),
                last_error: None,
            }),
            queued: AtomicUsize::new(0),
        })
    }

    pub(crate) fn flushed(&self) -> Head {
        *self.flushed.borrow()
    }

    pub(crate) fn follow(&self) -> watch::Receiver<Head> {
        self.flushed.subscribe()
    }

    /// Everything up to `head` is durable.
    pub(crate) fn advance(&self, head: Head) {
        self.flushed.send_if_modified(|known| {
            let grown = head.position > known.position;
            if grown {
                *known = head;
            }
            grown
        });
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
            state.since = Timestamp::now();
            tracing::info!("database answers again");
        }
    }

    pub(crate) fn database_fails(&self, error: &crate::StoreError) {
        let mut state = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        if state.reachable {
            state.reachable = false;
            state.since = Timestamp::now();
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
        }
    }
}
