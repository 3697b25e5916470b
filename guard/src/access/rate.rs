use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use governor::clock::{Clock, Reference as _};
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter as Governor};

/// How often something may happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// On average, times a second.
    pub per_second: NonZeroU32,
    /// At once, after a pause.
    pub burst: NonZeroU32,
}

/// The time that callers bring: this room reads no clock.
#[derive(Debug, Clone, Default)]
struct Told(Arc<AtomicU64>);

impl Told {
    /// Callers race; the latest time wins.
    fn tell(&self, now: Duration) {
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        self.0.fetch_max(now, Ordering::AcqRel);
    }
}

impl Clock for Told {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        self.0.load(Ordering::Acquire).into()
    }
}

/// One bucket for each key (GCRA), in bounded memory.
pub struct RateLimiter {
    governor: Governor<String, HashMapStateStore<String>, Told, NoOpMiddleware<Nanos>>,
    clock: Told,
    keys_max: usize,
}

impl fmt::Debug for RateLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimiter")
            .field("keys", &self.governor.len())
            .finish_non_exhaustive()
    }
}

impl RateLimiter {
    /// A limiter that remembers up to `keys_max` keys whose buckets are not full.
    #[must_use]
    pub fn new(rate: Rate, keys_max: usize) -> Self {
        let clock = Told::default();
        let quota = Quota::per_second(rate.per_second).allow_burst(rate.burst);
        Self {
            governor: Governor::hashmap_with_clock(quota, clock.clone()),
            clock,
            keys_max,
        }
    }

    /// Takes one unit from the bucket of `key`. `now` is the time since any fixed moment; it never
    /// goes back.
    ///
    /// # Errors
    /// How long to wait for one unit.
    ///
    /// # Examples
    /// ```
    /// use std::{num::NonZeroU32, time::Duration};
    /// use sovereign_guard::access::{Rate, RateLimiter};
    /// let rate = Rate { per_second: NonZeroU32::MIN, burst: NonZeroU32::MIN };
    /// let limiter = RateLimiter::new(rate, 100);
    /// assert_eq!(limiter.take("me", Duration::ZERO), Ok(()));
    /// assert_eq!(limiter.take("me", Duration::ZERO), Err(Duration::from_secs(1)));
    /// assert_eq!(limiter.take("you", Duration::ZERO), Ok(()));
    /// ```
    pub fn take(&self, key: &str, now: Duration) -> Result<(), Duration> {
        self.clock.tell(now);
        if self.governor.len() >= self.keys_max {
            // full buckets are as good as none
            self.governor.retain_recent();
        }
        let now = self.clock.now();
        self.governor
            .check_key(&key.to_owned())
            .map_err(|not_until| {
                let wait = not_until.earliest_possible().duration_since(now);
                Duration::from(wait).max(Duration::from_millis(1))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limiter(per_second: u32, burst: u32, keys_max: usize) -> RateLimiter {
        let rate = Rate {
            per_second: NonZeroU32::new(per_second).unwrap(),
            burst: NonZeroU32::new(burst).unwrap(),
        };
        RateLimiter::new(rate, keys_max)
    }

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let limiter = limiter(10, 5, 100);
        let at = Duration::from_secs(3);
        let taken = (0..100).filter(|_| limiter.take("a", at).is_ok()).count();
        assert_eq!(taken, 5);
        let wait = limiter.take("a", at).unwrap_err();
        assert_eq!(wait, Duration::from_millis(100));
        assert_eq!(limiter.take("a", at + wait), Ok(()));
        assert!(limiter.take("a", at + wait).is_err());
    }

    #[test]
    fn keys_whose_buckets_are_full_again_are_forgotten() {
        let limiter = limiter(10, 1, 100);
        for key in 0..10_000_u64 {
            let now = Duration::from_millis(200 * key);
            assert_eq!(limiter.take(&key.to_string(), now), Ok(()));
            assert!(limiter.governor.len() <= 101);
        }
    }

    #[test]
    fn time_that_goes_back_gives_nothing() {
        let limiter = limiter(1, 1, 100);
        assert_eq!(limiter.take("a", Duration::from_secs(9)), Ok(()));
        assert!(limiter.take("a", Duration::from_secs(1)).is_err());
    }
}
