//! The load, the same for every arm: callers that each have one command under way, for a given
//! time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use crate::protocol::Reading;

/// Aggregates that commands go to.
pub(crate) const AGGREGATES: usize = 100_000;
/// Bytes of the text of an event; with its frame about 300.
pub(crate) const TEXT_BYTES: usize = 270;

/// What a caller asks for at once. A command of this release causes one event, so a unit is 1 to 3
/// commands to one aggregate, sent together; a peer that can takes it as one append of 1 to 3
/// events, which is less work.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unit {
    pub(crate) aggregate: usize,
    pub(crate) events: usize,
    /// With a wrong expected sequence.
    pub(crate) conflict: bool,
    /// Nothing has happened to this aggregate: its first event has to found it.
    pub(crate) first: bool,
}

/// Zipf's law (exponent 1) over the aggregates, conflicts, and who is founded.
#[derive(Debug)]
pub(crate) struct Plan {
    cumulative: Vec<f64>,
    conflicts_percent: u64,
    founded: Vec<AtomicU8>,
}

const FOUNDED: u8 = 2;

impl Plan {
    pub(crate) fn new(aggregates: usize, conflicts_percent: u64) -> Arc<Self> {
        let mut sum = 0.0;
        let mut cumulative: Vec<f64> = (1..=aggregates)
            .map(|rank| {
                sum += 1.0 / rank as f64;
                sum
            })
            .collect();
        cumulative.iter_mut().for_each(|c| *c /= sum);
        Arc::new(Self {
            cumulative,
            conflicts_percent,
            founded: (0..aggregates).map(|_| AtomicU8::new(0)).collect(),
        })
    }

    /// All aggregates are there already.
    pub(crate) fn found_all(&self) {
        (0..self.founded.len()).for_each(|aggregate| self.founded(aggregate));
    }

    /// The next unit; a unit that founds an aggregate is never a conflict, and nobody else gets
    /// the aggregate before [`Self::founded`].
    pub(crate) fn next(&self, random: &mut Random) -> Unit {
        loop {
            let at = self.cumulative.partition_point(|c| *c < random.fraction());
            let aggregate = at.min(self.cumulative.len() - 1);
            let state = &self.founded[aggregate];
            let claimed = state.compare_exchange(0, 1, Ordering::Relaxed, Ordering::Relaxed);
            if claimed == Err(1) {
                continue;
            }
            let first = claimed.is_ok();
            return Unit {
                aggregate,
                events: 1 + (random.next() % 3) as usize,
                conflict: !first && random.next() % 100 < self.conflicts_percent,
                first,
            };
        }
    }

    pub(crate) fn founded(&self, aggregate: usize) {
        self.founded[aggregate].store(FOUNDED, Ordering::Relaxed);
    }
}

/// splitmix64 (Steele, Lea and Flood 2014): the same units in each run.
#[derive(Debug, Clone)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// One caller of one arm.
pub(crate) trait Caller: Send + 'static {
    /// Carries out a unit and returns how many events it caused, durably.
    fn unit(
        &mut self,
        unit: Unit,
        random: &mut Random,
    ) -> impl Future<Output = anyhow::Result<usize>> + Send;
}

/// How long a run takes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    pub(crate) warm: Duration,
    pub(crate) measured: Duration,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Done {
    /// All events, of the warm-up as well.
    pub(crate) events: u64,
    measured_events: u64,
    seconds: f64,
    latencies_us: Vec<u32>,
}

impl Done {
    /// Events a second, with latencies of units.
    pub(crate) fn reading(mut self) -> Reading {
        self.latencies_us.sort_unstable();
        let at = |share: f64| {
            let last = self.latencies_us.len().saturating_sub(1);
            let rank = (last as f64 * share).round() as usize;
            self.latencies_us
                .get(rank)
                .map_or(f64::NAN, |us| f64::from(*us) / 1e3)
        };
        Reading::new(self.measured_events as f64 / self.seconds)
            .with("p50_ms", at(0.5))
            .with("p99_ms", at(0.99))
    }
}

/// Runs the callers at once until time is up.
pub(crate) async fn drive<C: Caller>(
    plan: &Arc<Plan>,
    times: Times,
    callers: Vec<C>,
) -> anyhow::Result<Done> {
    let started = Instant::now();
    let from = started + times.warm;
    let until = from + times.measured;
    let tasks: Vec<_> = callers
        .into_iter()
        .enumerate()
        .map(|(number, mut caller)| {
            let plan = Arc::clone(plan);
            tokio::spawn(async move {
                let mut random = Random(0x5eed ^ ((number as u64) << 32));
                let (mut all, mut measured, mut latencies) = (0, 0, Vec::new());
                let mut now = Instant::now();
                while now < until {
                    let unit = plan.next(&mut random);
                    let events = caller.unit(unit, &mut random).await? as u64;
                    if unit.first {
                        plan.founded(unit.aggregate);
                    }
                    let sent = std::mem::replace(&mut now, Instant::now());
                    all += events;
                    if now >= from && now < until {
                        measured += events;
                        latencies.push((now - sent).as_micros() as u32);
                    }
                }
                anyhow::Ok((all, measured, latencies))
            })
        })
        .collect();
    let mut done = Done {
        events: 0,
        measured_events: 0,
        seconds: times.measured.as_secs_f64(),
        latencies_us: Vec::new(),
    };
    for task in tasks {
        let (all, measured, latencies) = task.await??;
        done.events += all;
        done.measured_events += measured;
        done.latencies_us.extend(latencies);
    }
    Ok(done)
}
