//! Claims for all free places of a worker at once.
//!
//! A place that is free asks here. Whoever comes first asks the database for as many jobs as places
//! are free by then, and those that came behind take what it brought: under load one query serves
//! many places. A queue that had less than was asked for is not asked again before somebody tells
//! that there may be more, or the poll comes round.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use sovereign_event_store::{Claim, JobQueueStore, StoreError};
use tokio::time::Instant;

use super::WorkerOptions;
use super::leases::Leases;
use crate::Turns;

/// Queues there are.
const QUEUES: usize = 3;

/// What is known of the queues.
#[derive(Debug)]
struct Queues {
    turns: Turns,
    /// At which telling each was found without more.
    empty_at: [Option<u64>; QUEUES],
}

impl Queues {
    fn new(queues: &[u8]) -> Self {
        Self {
            turns: Turns::new(queues),
            empty_at: [None; QUEUES],
        }
    }

    /// How many jobs to ask each queue for, for so many places: each place has a turn, and a queue
    /// that has nothing since the last telling passes its own on.
    fn wanted(&mut self, places: usize, told: u64) -> [usize; QUEUES] {
        let mut wanted = [0; QUEUES];
        for _ in 0..places {
            let order = self.turns.next();
            let has = |queue: &&u8| self.empty_at[usize::from(**queue)] != Some(told);
            match order.iter().find(has) {
                Some(queue) => wanted[usize::from(*queue)] += 1,
                None => break,
            }
        }
        wanted
    }

    /// A queue that was asked after `told` had less than was asked for.
    fn short(&mut self, queue: usize, told: u64) {
        self.empty_at[queue] = Some(told);
    }
}

/// What only one place at a time touches.
#[derive(Debug)]
struct Stock {
    queues: Queues,
    /// Claimed for places that are about to take it.
    claims: VecDeque<Claim>,
}

/// The claims of one worker.
#[derive(Debug)]
pub(super) struct Claims {
    stock: tokio::sync::Mutex<Stock>,
    /// Places that ask now.
    asking: AtomicUsize,
    /// How often somebody told that there may be jobs.
    told: AtomicU64,
}

/// Counts a place as asking for as long as it does.
struct Asking<'a>(&'a AtomicUsize);

impl<'a> Asking<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Claims {
    pub(super) fn new(queues: &[u8]) -> Self {
        Self {
            stock: tokio::sync::Mutex::new(Stock {
                queues: Queues::new(queues),
                claims: VecDeque::new(),
            }),
            asking: AtomicUsize::new(0),
            told: AtomicU64::new(0),
        }
    }

    /// There may be jobs again, in each queue.
    pub(super) fn tell(&self) {
        self.told.fetch_add(1, Ordering::Release);
    }

    /// A job of any queue, by the weights of these.
    pub(super) async fn next(
        &self,
        store: &JobQueueStore,
        options: &WorkerOptions,
        leases: &Leases,
    ) -> Result<Option<Claim>, StoreError> {
        let asking = Asking::new(&self.asking);
        let mut stock = self.stock.lock().await;
        // each time round a queue is found empty, or all that was asked for came
        while stock.claims.is_empty() {
            // read before the database is: a telling that comes in between is not taken for seen
            let told = self.told.load(Ordering::Acquire);
            let places = self.asking.load(Ordering::Relaxed);
            let wanted = stock.queues.wanted(places, told);
            if wanted == [0; QUEUES] {
                return Ok(None);
            }
            for (queue, most) in wanted.into_iter().enumerate().filter(|(_, most)| *most > 0) {
                let asked = Instant::now();
                let name = options.name.as_str();
                let found = store.claim(queue as u8, most, name, options.lease).await?;
                if found.len() < most {
                    stock.queues.short(queue, told);
                }
                for claim in found {
                    leases.take(&claim.job_id, asked);
                    stock.claims.push_back(claim);
                }
            }
        }
        drop(asking);
        Ok(stock.claims.pop_front())
    }

    /// What was claimed and nobody came for, when the places have ended.
    pub(super) async fn rest(&self) -> Vec<Claim> {
        self.stock.lock().await.claims.drain(..).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_places_at_once_share_the_queues_as_one_by_one() {
        let mut at_once = Queues::new(&[0, 1, 2]);
        assert_eq!(at_once.wanted(21, 0), [16, 4, 1]);
        let mut one_by_one = Queues::new(&[0, 1, 2]);
        let mut sums = [0; QUEUES];
        for _ in 0..21 {
            let wanted = one_by_one.wanted(1, 0);
            (0..QUEUES).for_each(|queue| sums[queue] += wanted[queue]);
        }
        assert_eq!(sums, [16, 4, 1]);
    }

    #[test]
    fn an_empty_queue_passes_its_turns_on_until_somebody_tells() {
        let mut queues = Queues::new(&[0, 1, 2]);
        queues.short(0, 7);
        let wanted = queues.wanted(21, 7);
        assert_eq!((wanted[0], wanted.iter().sum::<usize>()), (0, 21));
        queues.short(1, 7);
        assert_eq!(queues.wanted(5, 7), [0, 0, 5]);
        queues.short(2, 7);
        assert_eq!(queues.wanted(5, 7), [0, 0, 0]);
        assert_eq!(queues.wanted(5, 8).iter().sum::<usize>(), 5);
    }

    #[test]
    fn queues_that_are_not_served_are_not_asked() {
        let mut queues = Queues::new(&[2]);
        assert_eq!(queues.wanted(3, 0), [0, 0, 3]);
        assert_eq!(Queues::new(&[]).wanted(3, 0), [0, 0, 0]);
    }
}
