//! The load, the same for every arm in Rust; `boss.mjs` does the same in JavaScript.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::ensure;

use crate::protocol::Reading;

/// Jobs of one run at full rate.
pub(crate) const JOBS: u64 = 4_000;
/// Jobs before the clock starts.
pub(crate) const WARM: u64 = 500;
/// Callers that enqueue, and places that work.
pub(crate) const AT_ONCE: usize = 64;
/// How long the half rate lasts.
pub(crate) const HALF: Duration = Duration::from_secs(3);
/// Most jobs of one run, all parts together.
pub(crate) const JOBS_MAX: u64 = 200_000;

/// When the effect of each job began.
#[derive(Debug)]
pub(crate) struct Seen {
    started: Instant,
    /// Microseconds since then; 0 for not yet.
    at_us: Vec<AtomicU64>,
    count: AtomicU64,
}

impl Seen {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            started: Instant::now(),
            at_us: (0..JOBS_MAX).map(|_| AtomicU64::new(0)).collect(),
            count: AtomicU64::new(0),
        })
    }

    fn now_us(&self) -> u64 {
        self.started.elapsed().as_micros() as u64
    }

    /// The effect of a job: it is noted, once.
    pub(crate) fn effect(&self, job: u64) {
        let Some(at) = self.at_us.get(job as usize) else {
            return;
        };
        let now = self.now_us().max(1);
        if at
            .compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
        {
            self.count.fetch_add(1, Ordering::Relaxed);
        }
    }

    async fn wait(&self, jobs: u64) -> anyhow::Result<()> {
        let until = Instant::now() + Duration::from_secs(60);
        while self.count.load(Ordering::Relaxed) < jobs {
            let found = self.count.load(Ordering::Relaxed);
            ensure!(Instant::now() < until, "{found} of {jobs} effects");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(())
    }
}

/// One queue with its workers.
pub(crate) trait System: Clone + Send + Sync + 'static {
    /// Enqueues a job by number; durable when it returns.
    fn enqueue(&self, job: u64) -> impl Future<Output = anyhow::Result<()>> + Send;
    /// How many jobs have ended well, as the database has it.
    fn ended(&self) -> impl Future<Output = anyhow::Result<u64>> + Send;
}

async fn burst<S: System>(system: &S, seen: &Seen, from: u64, to: u64) -> anyhow::Result<()> {
    let next = Arc::new(AtomicU64::new(from));
    let callers: Vec<_> = (0..AT_ONCE)
        .map(|_| {
            let (system, next) = (system.clone(), Arc::clone(&next));
            tokio::spawn(async move {
                loop {
                    let job = next.fetch_add(1, Ordering::Relaxed);
                    if job >= to {
                        return anyhow::Ok(());
                    }
                    system.enqueue(job).await?;
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await??;
    }
    seen.wait(to).await?;
    let until = Instant::now() + Duration::from_secs(30);
    while system.ended().await? < to {
        ensure!(Instant::now() < until, "jobs do not end");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// Full rate, then half of it.
pub(crate) async fn run<S: System>(system: &S, seen: &Arc<Seen>) -> anyhow::Result<Reading> {
    burst(system, seen, 0, WARM).await?;
    let begun = Instant::now();
    let full = WARM + JOBS;
    burst(system, seen, WARM, full).await?;
    let rate = JOBS as f64 / begun.elapsed().as_secs_f64();

    let jobs = (rate / 2.0 * HALF.as_secs_f64()) as u64;
    ensure!(
        full + jobs < JOBS_MAX,
        "a rate of {rate:.0}/s is beyond this benchmark"
    );
    let (mut waits, begun_us) = (Vec::new(), seen.now_us());
    let due_us = |n: u64| begun_us + (n as f64 * 2e6 / rate) as u64;
    let mut calls = Vec::new();
    for n in 0..jobs {
        let pause = due_us(n).saturating_sub(seen.now_us());
        if pause > 0 {
            tokio::time::sleep(Duration::from_micros(pause)).await;
        }
        let system = system.clone();
        calls.push(tokio::spawn(async move { system.enqueue(full + n).await }));
    }
    for call in calls {
        call.await??;
    }
    seen.wait(full + jobs).await?;
    for n in 0..jobs {
        // from when it was due: a caller that is held up by others has waited as well
        let at = seen.at_us[(full + n) as usize].load(Ordering::Relaxed);
        waits.push(at.saturating_sub(due_us(n)));
    }
    waits.sort_unstable();
    let at = |share: f64| {
        let last = waits.len().saturating_sub(1);
        waits
            .get((last as f64 * share).round() as usize)
            .map_or(f64::NAN, |us| *us as f64 / 1e3)
    };
    Ok(Reading::new(rate)
        .with("p50_ms", at(0.5))
        .with("p99_ms", at(0.99)))
}
