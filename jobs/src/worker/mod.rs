//! The worker: claims jobs, runs their effects, and says so to the ledger.
//!
//! A claim is only a hint. Before an effect is sent the ledger has accepted that it is started, and
//! the lease has not ended; after it nothing is written but under the attempt that the ledger
//! accepted. Whatever the ledger refuses ends the work on the job here.

mod attempt;
mod claims;
mod leases;

use std::sync::Arc;
use std::time::Duration;

use sovereign_event_store::{Claim, JobQueueStore};
use sovereign_schemas::{AggregateId, Identifier};
use sovereign_sinks::Sink;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::{JobLedger, Reach};
use attempt::Attempt;
use claims::Claims;
use leases::Leases;

/// How a worker works.
#[derive(Debug, Clone)]
pub struct WorkerOptions {
    /// Its name, in events: no two workers that live have the same.
    pub name: Identifier,
    /// The queues that it serves, by number; the most urgent is 0.
    pub queues: Vec<u8>,
    /// Jobs at once, 1 to 256. With two or more, one place is kept for the most urgent queue.
    pub slots: usize,
    /// A worker that is silent for so long is taken for dead; 1 s or more.
    pub lease: Duration,
    /// How often it looks for jobs when nobody tells that there are any.
    pub poll: Duration,
}

/// Most places of one worker.
const SLOTS_MAX: usize = 256;
/// Shortest lease.
const LEASE_MIN: Duration = Duration::from_secs(1);
/// Whether a job was given up is looked for at most so often.
const LOOK: Duration = Duration::from_millis(100);
/// After a failure of the database it is tried again after so long.
const PAUSE: Duration = Duration::from_millis(500);

impl WorkerOptions {
    /// For a worker of this name: all queues, four places, a lease of 10 s.
    #[must_use]
    pub fn new(name: Identifier) -> Self {
        Self {
            name,
            queues: vec![0, 1, 2],
            slots: 4,
            lease: Duration::from_secs(10),
            poll: Duration::from_secs(1),
        }
    }
}

/// A worker process' work.
#[derive(Clone)]
pub struct Worker {
    pub(crate) options: Arc<WorkerOptions>,
    pub(crate) ledger: Arc<dyn JobLedger>,
    pub(crate) queue: JobQueueStore,
    pub(crate) sink: Arc<dyn Sink>,
    pub(crate) reach: watch::Receiver<Arc<Reach>>,
    leases: Arc<Leases>,
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl Worker {
    /// A worker; [`Self::run`] lets it work.
    #[must_use]
    pub fn new(
        mut options: WorkerOptions,
        ledger: Arc<dyn JobLedger>,
        queue: JobQueueStore,
        sink: Arc<dyn Sink>,
        reach: watch::Receiver<Arc<Reach>>,
    ) -> Self {
        options.slots = options.slots.clamp(1, SLOTS_MAX);
        options.lease = options.lease.max(LEASE_MIN);
        let leases = Arc::new(Leases::new(options.lease));
        Self {
            options: Arc::new(options),
            ledger,
            queue,
            sink,
            reach,
            leases,
        }
    }

    /// Works until it is asked to stop; then nothing more is claimed, the effects under way come to
    /// their end within `grace` or are called off, and jobs that are not done are given back.
    pub async fn run(self, stop: CancellationToken, grace: Duration) {
        info!(worker = %self.options.name, slots = self.options.slots, "worker works");
        let wake = Arc::new(Notify::new());
        let call_off = CancellationToken::new();
        // the place that is kept for the urgent asks for itself
        let most_urgent = self.options.queues.iter().copied().min();
        let kept = most_urgent.filter(|_| self.options.slots > 1);
        let (all, urgent) = (
            Arc::new(Claims::new(&self.options.queues)),
            Arc::new(Claims::new(kept.as_slice())),
        );
        let told = Told {
            claims: [Arc::clone(&all), Arc::clone(&urgent)],
            wake: Arc::clone(&wake),
            look: Arc::new(Notify::new()),
        };
        let given_up = tokio::spawn(self.clone().give_up(Arc::clone(&told.look)));
        // it listens to its end: an abort ends what the places are asked to finish
        let listener = tokio::spawn(listen(self.clone(), told));
        let keeper = tokio::spawn(self.clone().keep_leases());
        let slots: Vec<_> = (0..self.options.slots)
            .map(|slot| {
                let claims = if slot == 0 && kept.is_some() {
                    &urgent
                } else {
                    &all
                };
                let slot = Slot {
                    worker: self.clone(),
                    claims: Arc::clone(claims),
                    wake: Arc::clone(&wake),
                    stop: stop.clone(),
                    call_off: call_off.clone(),
                };
                tokio::spawn(slot.run())
            })
            .collect();
        stop.cancelled().await;
        info!(worker = %self.options.name, "worker stops");
        wake.notify_waiters();
        let late = tokio::spawn(async move {
            tokio::time::sleep(grace).await;
            call_off.cancel();
        });
        for slot in slots {
            // one that panicked has lost its job to whoever takes it over
            let _ = slot.await;
        }
        // claimed for a place that was asked to stop before it came for it
        for claims in [all, urgent] {
            for claim in claims.rest().await {
                self.give_back(&claim.job_id, Duration::ZERO).await;
            }
        }
        for helper in [late, keeper, listener, given_up] {
            helper.abort();
        }
    }

    async fn give_back(&self, job: &str, pause: Duration) {
        let name = self.options.name.as_str();
        if let Err(error) = self.queue.give_back(job, name, pause).await {
            debug!(%error, job, "claim stays until its lease ends");
        }
    }

    /// Ends the waits of jobs that somebody has given up.
    async fn give_up(self, look: Arc<Notify>) {
        loop {
            look.notified().await;
            if !self.leases.held().is_empty() {
                match self.queue.given_up(self.options.name.as_str()).await {
                    Ok(jobs) => self.leases.give_up(&jobs),
                    Err(error) => debug!(%error, "aborts wait for the next look"),
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Prolongs leases a third of the way to their end.
    async fn keep_leases(self) {
        loop {
            tokio::time::sleep(self.options.lease / 3).await;
            let held = self.leases.held();
            if held.is_empty() {
                continue;
            }
            let asked = tokio::time::Instant::now();
            let name = self.options.name.as_str();
            match self.queue.renew(&held, name, self.options.lease).await {
                Ok(kept) => self.leases.renewed(&held, &kept, asked),
                Err(error) => warn!(%error, "leases not renewed"),
            }
        }
    }
}

/// Who is told that something changed in the queue.
struct Told {
    claims: [Arc<Claims>; 2],
    wake: Arc<Notify>,
    look: Arc<Notify>,
}

impl Told {
    fn tell(&self) {
        self.claims.iter().for_each(|claims| claims.tell());
        self.wake.notify_waiters();
        self.look.notify_one();
    }
}

/// Tells when somebody says that something changed, and now and then.
async fn listen(worker: Worker, told: Told) {
    loop {
        match worker.queue.signal().await {
            Ok(mut signal) => loop {
                told.tell();
                if let Err(error) = signal.wait(worker.options.poll).await {
                    debug!(%error, "signal lost");
                    break;
                }
            },
            Err(error) => debug!(%error, "no signal"),
        }
        told.tell();
        tokio::time::sleep(PAUSE).await;
    }
}

/// A place for one job at a time.
struct Slot {
    worker: Worker,
    claims: Arc<Claims>,
    wake: Arc<Notify>,
    stop: CancellationToken,
    call_off: CancellationToken,
}

impl Slot {
    async fn run(self) {
        while !self.stop.is_cancelled() {
            // before looking: what comes in between is not missed
            let woken = self.wake.notified();
            tokio::pin!(woken);
            woken.as_mut().enable();
            let Worker {
                options,
                queue,
                leases,
                ..
            } = &self.worker;
            let (name, lease) = (options.name.as_str(), options.lease);
            let ask = |number, most| queue.claim(number, most, name, lease);
            match self.claims.next(leases, ask).await {
                Ok(Some(claim)) => self.work(claim).await,
                Ok(None) => woken.await,
                Err(error) => {
                    warn!(%error, "no claim");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    async fn work(&self, claim: Claim) {
        let id = claim.job_id;
        metrics::counter!("sovereign_jobs_claimed_total").increment(1);
        if let Ok(job) = id.parse::<AggregateId>() {
            let attempt = Attempt {
                worker: &self.worker,
                job: &job,
                lease: self.worker.leases.of(&id),
                stop: &self.stop,
                call_off: &self.call_off,
            };
            if let Some(pause) = attempt.run().await {
                self.worker.give_back(&id, pause).await;
            }
        }
        self.worker.leases.end(&id);
    }
}
