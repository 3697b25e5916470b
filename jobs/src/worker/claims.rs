//! Claims for all free places of a worker at once.
//!
//! A place that is free asks here. Whoever comes first asks the database for as many jobs as places
//! are free by then, and those that came behind take what it brought: under load one query serves
//! many places. A queue that had less than was asked for is not asked again before somebody tells
//! that there may be more, or the poll comes round.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use sovereign_event_store::Claim;
use tokio::time::Instant;

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

    /// A job of any queue, by the weights of these. `ask` claims up to so many jobs of one queue
    /// from the database.
    pub(super) async fn next<E, F: Future<Output = Result<Vec<Claim>, E>>>(
        &self,
        leases: &Leases,
        ask: impl Fn(u8, usize) -> F,
    ) -> Result<Option<Claim>, E> {
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
                let found = ask(queue as u8, most).await?;
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

    /// A database of three queues that notes what it was asked.
    #[derive(Default)]
    struct Made {
        queued: std::sync::Mutex<[VecDeque<String>; QUEUES]>,
        asked: std::sync::Mutex<Vec<(u8, usize)>>,
    }

    impl Made {
        fn put(&self, queue: usize, jobs: &[&str]) {
            let jobs = jobs.iter().map(|job| (*job).to_owned());
            self.queued.lock().unwrap()[queue].extend(jobs);
        }

        fn asked(&self) -> Vec<(u8, usize)> {
            std::mem::take(&mut self.asked.lock().unwrap())
        }

        async fn claim(&self, queue: u8, most: usize) -> Result<Vec<Claim>, &'static str> {
            self.asked.lock().unwrap().push((queue, most));
            // so that other places come in between
            tokio::task::yield_now().await;
            let mut queued = self.queued.lock().unwrap();
            let queued = &mut queued[usize::from(queue)];
            if queued.front().is_some_and(|job| job == "broken") {
                queued.pop_front();
                return Err("the database said no");
            }
            let most = most.min(queued.len());
            let claims = queued.drain(..most).map(|job_id| Claim { job_id, queue });
            Ok(claims.collect())
        }

        async fn next(&self, claims: &Claims, leases: &Leases) -> Option<String> {
            let ask = |queue, most| self.claim(queue, most);
            let claim = claims.next(leases, ask).await.unwrap();
            claim.map(|claim| claim.job_id)
        }
    }

    fn leases() -> Leases {
        Leases::new(std::time::Duration::from_secs(60))
    }

    #[tokio::test]
    async fn places_that_ask_at_once_share_one_question() {
        let (made, claims, leases) = (Made::default(), Claims::new(&[1]), leases());
        made.put(1, &["a", "b"]);
        let next = || made.next(&claims, &leases);
        let taken: [Option<String>; 3] = tokio::join!(next(), next(), next()).into();
        assert_eq!(
            taken.each_ref().map(Option::as_deref),
            [Some("a"), Some("b"), None]
        );
        // whoever came first did not know of the others yet; that there is no third is known then
        assert_eq!(made.asked(), [(1, 1), (1, 2)]);
        assert_eq!(leases.held().len(), 2, "only of what was claimed");
    }

    #[tokio::test]
    async fn a_queue_that_had_less_is_asked_again_after_a_telling_only() {
        let (made, claims, leases) = (Made::default(), Claims::new(&[1]), leases());
        assert_eq!(made.next(&claims, &leases).await, None);
        made.put(1, &["a", "b"]);
        assert_eq!(made.next(&claims, &leases).await, None);
        assert_eq!(made.asked(), [(1, 1)]);
        claims.tell();
        assert_eq!(made.next(&claims, &leases).await.as_deref(), Some("a"));
        // it had all that was asked for, so it may have more
        assert_eq!(made.next(&claims, &leases).await.as_deref(), Some("b"));
        assert_eq!(made.asked(), [(1, 1), (1, 1)]);
    }

    #[tokio::test]
    async fn a_telling_while_the_database_is_asked_counts() {
        let (made, claims, leases) = (Made::default(), Claims::new(&[1]), leases());
        let ask = |_, _| async {
            // found nothing, and then there is something before the answer arrives
            claims.tell();
            made.put(1, &["late"]);
            made.asked.lock().unwrap().push((1, 0));
            Ok::<_, &'static str>(Vec::new())
        };
        let asked_once = tokio::time::timeout(
            std::time::Duration::from_millis(50),
            claims.next(&leases, |queue, most| {
                let first = made.asked.lock().unwrap().is_empty();
                let (ask, made) = (&ask, &made);
                async move {
                    if first {
                        ask(queue, most).await
                    } else {
                        made.claim(queue, most).await
                    }
                }
            }),
        );
        let claim = asked_once.await.expect("it ends").unwrap();
        assert_eq!(claim.map(|claim| claim.job_id).as_deref(), Some("late"));
    }

    #[tokio::test]
    async fn what_was_claimed_before_a_failure_is_not_lost() {
        let (made, claims, leases) = (Made::default(), Claims::new(&[0, 1, 2]), leases());
        made.put(0, &["urgent"]);
        made.put(1, &["broken"]);
        // as many places as make every queue be asked
        let _others: Vec<Asking<'_>> = (0..20).map(|_| Asking::new(&claims.asking)).collect();
        let ask = |queue, most| made.claim(queue, most);
        assert!(claims.next(&leases, ask).await.is_err());
        assert_eq!(leases.held(), ["urgent"]);
        assert_eq!(made.next(&claims, &leases).await.as_deref(), Some("urgent"));
    }

    #[tokio::test]
    async fn what_nobody_came_for_is_given_back() {
        let (made, claims, leases) = (Made::default(), Claims::new(&[1]), leases());
        made.put(1, &["a", "b", "c"]);
        let _other = Asking::new(&claims.asking);
        assert_eq!(made.next(&claims, &leases).await.as_deref(), Some("a"));
        let rest: Vec<String> = claims.rest().await.into_iter().map(|c| c.job_id).collect();
        assert_eq!(rest, ["b"]);
        assert!(claims.rest().await.is_empty());
    }

    #[test]
    fn queues_that_are_not_served_are_not_asked() {
        let mut queues = Queues::new(&[2]);
        assert_eq!(queues.wanted(3, 0), [0, 0, 3]);
        assert_eq!(Queues::new(&[]).wanted(3, 0), [0, 0, 0]);
    }
}
