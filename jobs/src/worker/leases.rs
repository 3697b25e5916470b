use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Until when one job is this worker's, as far as this worker can be sure.
#[derive(Debug, Clone)]
pub(crate) struct Lease {
    until: Arc<Mutex<Instant>>,
    given_up: CancellationToken,
}

impl Lease {
    fn new(until: Instant) -> Self {
        Self {
            until: Arc::new(Mutex::new(until)),
            given_up: CancellationToken::new(),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Instant> {
        self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nobody else can have taken the job over yet.
    pub(crate) fn holds(&self) -> bool {
        Instant::now() < *self.lock()
    }

    /// Waits until somebody is known to have given the job up.
    pub(crate) async fn given_up(&self) {
        self.given_up.cancelled().await;
    }
}

/// The leases of one worker. They are counted from before the database was asked, so they end here
/// before they end there.
#[derive(Debug)]
pub(crate) struct Leases {
    length: Duration,
    held: Mutex<HashMap<String, Lease>>,
}

impl Leases {
    pub(crate) fn new(length: Duration) -> Self {
        Self {
            length,
            held: Mutex::default(),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Lease>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn take(&self, job: &str, asked: Instant) {
        let lease = Lease::new(asked + self.length);
        self.lock().insert(job.to_owned(), lease);
    }

    /// The lease of a job; one that has ended if there is none.
    pub(crate) fn of(&self, job: &str) -> Lease {
        let found = self.lock().get(job).cloned();
        found.unwrap_or_else(|| Lease::new(Instant::now()))
    }

    pub(crate) fn held(&self) -> Vec<String> {
        self.lock().keys().cloned().collect()
    }

    /// Those of `asked_for` that are not among `kept` have ended.
    pub(crate) fn renewed(&self, asked_for: &[String], kept: &[String], asked: Instant) {
        let held = self.lock();
        for job in asked_for {
            let Some(lease) = held.get(job) else {
                continue;
            };
            let mut until = lease.lock();
            if kept.contains(job) {
                *until = (*until).max(asked + self.length);
            } else {
                *until = asked;
            }
        }
    }

    /// Somebody has given these up.
    pub(crate) fn give_up(&self, jobs: &[String]) {
        let held = self.lock();
        for lease in jobs.iter().filter_map(|job| held.get(job)) {
            lease.given_up.cancel();
        }
    }

    pub(crate) fn end(&self, job: &str) {
        self.lock().remove(job);
    }
}
