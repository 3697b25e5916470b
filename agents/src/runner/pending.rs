use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sovereign_schemas::Position;
use tokio::time::Instant;

use crate::duties::LANES;
use crate::logic::Reaction;

/// Reactions kept for a lane that another process works on. When it keeps more than this behind
/// its checkpoint, they are found again by a new fold (I9).
const KEPT_MAX: usize = 4_096;

/// What the agents answered to one event.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) lane: usize,
    /// The instrument, as in ids.
    pub(super) slug: String,
    /// Of the event.
    pub(super) position: Position,
    pub(super) reactions: Vec<Reaction>,
    /// When this process saw the event.
    pub(super) since: Instant,
}

/// The reactions that are not known to have had their effect, by lane: those of this process and,
/// in case it has to take over, those of others.
#[derive(Debug, Default)]
pub(super) struct Pending(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    seen: Position,
    lanes: [Lane; LANES],
}

#[derive(Debug, Default)]
struct Lane {
    jobs: BTreeMap<Position, Arc<Job>>,
    /// Up to here jobs were given up for want of room.
    given_up: Position,
}

impl Pending {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn reset(&self) {
        *self.inner() = Inner::default();
    }

    /// A job of this process, before [`Self::seen`] of its event.
    pub(super) fn open(&self, job: &Arc<Job>) {
        let mut inner = self.inner();
        inner.lanes[job.lane]
            .jobs
            .insert(job.position, Arc::clone(job));
    }

    /// A job that is another process' while it lives.
    pub(super) fn keep(&self, job: &Arc<Job>) {
        let mut inner = self.inner();
        let lane = &mut inner.lanes[job.lane];
        lane.jobs.insert(job.position, Arc::clone(job));
        if lane.jobs.len() > KEPT_MAX
            && let Some((position, _)) = lane.jobs.pop_first()
        {
            lane.given_up = position;
        }
    }

    /// A job has had its effect.
    pub(super) fn close(&self, job: &Job) {
        self.inner().lanes[job.lane].jobs.remove(&job.position);
    }

    /// Everything up to here has had its effect, whoever did it.
    pub(super) fn prune(&self, lane: usize, checkpoint: Position) {
        let mut inner = self.inner();
        let jobs = &mut inner.lanes[lane].jobs;
        *jobs = jobs.split_off(&checkpoint.next());
    }

    /// Whether a lane has any.
    pub(super) fn has_any(&self, lane: usize) -> bool {
        !self.inner().lanes[lane].jobs.is_empty()
    }

    /// How many there are, and since when the oldest waits of those that are others'.
    pub(super) fn waiting(&self, own: &[usize]) -> (usize, Option<Instant>) {
        let inner = self.inner();
        let count = inner.lanes.iter().map(|lane| lane.jobs.len()).sum();
        let others = inner.lanes.iter().enumerate();
        let others = others.filter(|(lane, _)| !own.contains(lane));
        let oldest = others.filter_map(|(_, l)| Some(l.jobs.first_key_value()?.1.since));
        (count, oldest.min())
    }

    /// All jobs of a lane in their order; `None` if some behind the checkpoint were given up.
    pub(super) fn of(&self, lane: usize, checkpoint: Position) -> Option<Vec<Arc<Job>>> {
        let inner = self.inner();
        let lane = &inner.lanes[lane];
        (lane.given_up <= checkpoint).then(|| lane.jobs.values().cloned().collect())
    }

    /// Everything up to here was looked at.
    pub(super) fn seen(&self, position: Position) {
        self.inner().seen = position;
    }

    /// Up to here every reaction of the lane has had its effect.
    pub(super) fn durable(&self, lane: usize) -> Position {
        let inner = self.inner();
        match inner.lanes[lane].jobs.first_key_value() {
            Some((first, _)) => Position(first.0 - 1).min(inner.seen),
            None => inner.seen,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(lane: usize, position: u64) -> Arc<Job> {
        Arc::new(Job {
            lane,
            slug: "x".to_owned(),
            position: Position(position),
            reactions: Vec::new(),
            since: Instant::now(),
        })
    }

    #[test]
    fn the_oldest_open_reaction_holds_the_checkpoint_of_its_lane_only() {
        let pending = Pending::default();
        for position in 1..=5 {
            if position != 3 {
                pending.open(&job(2, position));
            }
            pending.seen(Position(position));
        }
        assert_eq!(pending.durable(2), Position(0));
        assert_eq!(pending.durable(1), Position(5));
        pending.close(&job(2, 1));
        pending.close(&job(2, 4));
        assert_eq!(pending.durable(2), Position(1));
        pending.close(&job(2, 2));
        assert_eq!(pending.durable(2), Position(4));
        pending.close(&job(2, 5));
        assert_eq!(pending.durable(2), Position(5));
    }

    #[test]
    fn what_was_given_up_is_missed_unless_its_owner_had_done_it() {
        let pending = Pending::default();
        let positions = 1..=KEPT_MAX as u64 + 10;
        for position in positions.clone() {
            pending.keep(&job(0, position));
        }
        assert!(pending.of(0, Position(9)).is_none());
        pending.prune(0, Position(20));
        let rest = pending.of(0, Position(20)).unwrap();
        assert_eq!(rest.first().unwrap().position, Position(21));
        assert_eq!(rest.len() as u64, positions.end() - 20);
        pending.prune(0, Position(*positions.end()));
        assert!(!pending.has_any(0));
    }
}
