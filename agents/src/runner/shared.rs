use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use sovereign_schemas::{Position, Problem};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::DeskProgress;

/// The rate is measured over this time.
const RATE_WINDOW: Duration = Duration::from_secs(5);
const RATE_SAMPLE: Duration = Duration::from_millis(250);

/// How the runner is doing.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Health {
    /// It runs, and nothing has to be retried again and again.
    pub healthy: bool,
    /// Whether it has ended.
    pub ended: bool,
    /// Whether it has seen the whole ledger since it started.
    pub caught_up: bool,
    /// Last event seen.
    pub position: Position,
    /// Up to here every reaction that is this process' is durable, as saved.
    pub checkpoint: Position,
    /// The lanes that are worked on here.
    pub lanes: Vec<usize>,
    /// What is wrong, by the part that it concerns.
    pub problems: BTreeMap<String, Problem>,
}

/// How far the work is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Progress {
    /// Each instrument.
    pub instruments: Vec<DeskProgress>,
    /// Bars observed, over all instruments.
    pub done: u64,
    /// Bars to observe, over all instruments.
    pub total: u64,
    /// Whether a task is in progress.
    pub running: bool,
    /// Orders that are with workers.
    pub orders: usize,
    /// Events of the whole ledger in a second, lately.
    pub events_per_s: f64,
    /// Approvals that wait for an answer.
    pub approvals_waiting: usize,
    /// Events whose reactions are not known to have had their effect, in whatever process.
    pub pending: usize,
}

/// What the runner tells its handles.
#[derive(Debug)]
pub(super) struct Shared {
    inner: Mutex<Inner>,
    ended: watch::Sender<bool>,
    /// Position of what was published last.
    published: watch::Sender<Position>,
}

#[derive(Debug, Default)]
struct Inner {
    caught_up: bool,
    position: Position,
    checkpoint: Position,
    lanes: Vec<usize>,
    problems: BTreeMap<String, Problem>,
    desks: Vec<DeskProgress>,
    approvals_waiting: usize,
    pending: usize,
    samples: VecDeque<(Instant, Position)>,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            inner: Mutex::default(),
            ended: watch::Sender::new(false),
            published: watch::Sender::new(Position::START),
        }
    }
}

impl Shared {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn in_trouble(&self, part: &str, problem: Problem) {
        self.inner().problems.insert(part.to_owned(), problem);
    }

    pub(super) fn recovered(&self, part: &str) {
        self.inner().problems.remove(part);
    }

    pub(super) fn saved(&self, checkpoint: Position) {
        self.inner().checkpoint = checkpoint;
    }

    pub(super) fn holds(&self, lanes: Vec<usize>) {
        self.inner().lanes = lanes;
    }

    pub(super) fn at(&self, position: Position, caught_up: bool) {
        let mut inner = self.inner();
        inner.position = position;
        inner.caught_up = caught_up;
        let now = Instant::now();
        if inner
            .samples
            .back()
            .is_none_or(|(at, _)| now - *at >= RATE_SAMPLE)
        {
            inner.samples.push_back((now, position));
        }
        while inner
            .samples
            .front()
            .is_some_and(|(at, _)| now - *at > RATE_WINDOW)
        {
            inner.samples.pop_front();
        }
    }

    pub(super) fn publish(
        &self,
        position: Position,
        desks: Vec<DeskProgress>,
        (approvals_waiting, pending): (usize, usize),
    ) {
        let mut inner = self.inner();
        inner.desks = desks;
        inner.approvals_waiting = approvals_waiting;
        inner.pending = pending;
        drop(inner);
        self.published.send_replace(position);
    }

    /// Waits until the progress covers this position.
    pub(super) async fn published_up_to(&self, position: Position) {
        let mut published = self.published.subscribe();
        // the sender lives as long as `self`
        let _ = published.wait_for(|p| *p >= position).await;
    }

    pub(super) fn end(&self, problem: Option<Problem>) {
        if let Some(problem) = problem {
            self.in_trouble("runner", problem);
        }
        self.ended.send_replace(true);
    }

    pub(super) fn ended(&self) -> watch::Receiver<bool> {
        self.ended.subscribe()
    }

    pub(super) fn health(&self) -> Health {
        let ended = *self.ended.borrow();
        let inner = self.inner();
        Health {
            healthy: !ended && inner.problems.is_empty(),
            ended,
            caught_up: inner.caught_up,
            position: inner.position,
            checkpoint: inner.checkpoint,
            lanes: inner.lanes.clone(),
            problems: inner.problems.clone(),
        }
    }

    pub(super) fn progress(&self) -> Progress {
        let inner = self.inner();
        let now = Instant::now();
        let events_per_s = match inner.samples.front() {
            Some((at, position)) if now - *at < RATE_WINDOW * 2 && now > *at => {
                // a ledger that is folded again starts from its first event
                inner.position.0.saturating_sub(position.0) as f64 / (now - *at).as_secs_f64()
            }
            _ => 0.0,
        };
        Progress {
            done: inner.desks.iter().map(|d| d.done).sum(),
            total: inner.desks.iter().map(|d| d.total).sum(),
            running: inner.desks.iter().any(|d| d.running),
            orders: inner.desks.iter().map(|d| d.orders).sum(),
            instruments: inner.desks.clone(),
            events_per_s,
            approvals_waiting: inner.approvals_waiting,
            pending: inner.pending,
        }
    }
}
