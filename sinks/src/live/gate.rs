use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use sovereign_effects::tools::CallRate;
use sovereign_guard::access::{Rate, RateLimiter};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// How many calls of one target run at once, and how many begin in a second.
#[derive(Debug)]
struct Gate {
    settings: Settings,
    places: Arc<Semaphore>,
    limiter: Option<RateLimiter>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Settings {
    concurrent_max: usize,
    rate: Option<CallRate>,
}

/// The gates of all targets. There are no more than tools and programs, whose number is bounded.
#[derive(Debug)]
pub(super) struct Gates {
    gates: Mutex<HashMap<String, Arc<Gate>>>,
    started: Instant,
}

impl Gates {
    pub(super) fn new() -> Self {
        Self {
            gates: Mutex::default(),
            started: Instant::now(),
        }
    }

    fn gate(&self, target: &str, settings: Settings) -> Arc<Gate> {
        let mut gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(gate) = gates.get(target)
            && gate.settings == settings
        {
            return Arc::clone(gate);
        }
        let limiter = settings.rate.map(|rate| {
            let CallRate { per_second, burst } = rate;
            RateLimiter::new(Rate { per_second, burst }, 1)
        });
        let gate = Arc::new(Gate {
            settings,
            places: Arc::new(Semaphore::new(settings.concurrent_max)),
            limiter,
        });
        gates.insert(target.to_owned(), Arc::clone(&gate));
        gate
    }

    /// Waits for a place and for the rate. The place is given back when the guard is dropped.
    /// Callers bound the wait.
    pub(super) async fn pass(
        &self,
        target: &str,
        concurrent_max: usize,
        rate: Option<CallRate>,
    ) -> Option<OwnedSemaphorePermit> {
        let gate = self.gate(
            target,
            Settings {
                concurrent_max,
                rate,
            },
        );
        let place = Arc::clone(&gate.places).acquire_owned().await.ok()?;
        if let Some(limiter) = &gate.limiter {
            while let Err(wait) = limiter.take("", self.started.elapsed()) {
                tokio::time::sleep(wait).await;
            }
        }
        Some(place)
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_so_many_pass_at_once() {
        let gates = Gates::new();
        let first = gates.pass("t", 1, None).await;
        let second = tokio::time::timeout(Duration::from_secs(1), gates.pass("t", 1, None)).await;
        assert!(second.is_err());
        let other = tokio::time::timeout(Duration::from_secs(1), gates.pass("u", 1, None)).await;
        assert!(other.is_ok());
        drop(first);
        assert!(gates.pass("t", 1, None).await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_passes_and_then_the_rate() {
        let gates = Gates::new();
        let number = |n| NonZeroU32::new(n).unwrap();
        let rate = CallRate {
            per_second: number(10),
            burst: number(2),
        };
        let started = Instant::now();
        for _ in 0..12 {
            drop(gates.pass("t", 100, Some(rate)).await.unwrap());
        }
        let waited = started.elapsed();
        assert!(
            waited >= Duration::from_millis(999) && waited < Duration::from_millis(1_100),
            "{waited:?}"
        );
    }
}
