//! How taking commands from records goes, for health and metrics.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sovereign_schemas::{ErrorCode, Problem};
use tokio::sync::watch;

/// What it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CommandsState {
    /// It connects or joins the group.
    Joining,
    /// It takes commands.
    Running,
    /// It was told to end.
    Stopped,
    /// It ended for a reason that no further attempt changes.
    Failed,
}

/// How it is.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct CommandsHealth {
    /// False if it has been outside of the group for a while, if a record has waited for its
    /// outcome for a while, or if it has ended by itself.
    pub healthy: bool,
    /// What it does.
    pub state: CommandsState,
    /// Partitions of `commands` that are this engine's.
    pub partitions: Vec<i32>,
    /// Records that are carried out or wait for their reply.
    pub in_flight: usize,
    /// Records behind the group's place, of this engine's partitions; a few seconds old.
    pub lag: u64,
    /// Replies since this engine has started.
    pub replies: u64,
    /// What is wrong, or was last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}

#[derive(Debug)]
pub(super) struct Shared {
    red_after: Duration,
    inner: Mutex<Inner>,
    ended: watch::Sender<bool>,
}

#[derive(Debug)]
struct Inner {
    state: CommandsState,
    /// Since when it has been outside of the group.
    outside_since: Option<Instant>,
    /// Since when the oldest record in hand has waited.
    oldest: Option<Instant>,
    partitions: Vec<i32>,
    in_flight: usize,
    lag: u64,
    replies: u64,
    /// Why a session failed.
    failure: Option<Problem>,
    /// Why a command had to wait.
    waiting: Option<Problem>,
}

impl Shared {
    pub(super) fn new(red_after: Duration) -> Self {
        Self {
            red_after,
            inner: Mutex::new(Inner {
                state: CommandsState::Joining,
                outside_since: Some(Instant::now()),
                oldest: None,
                partitions: Vec::new(),
                in_flight: 0,
                lag: 0,
                replies: 0,
                failure: None,
                waiting: None,
            }),
            ended: watch::Sender::new(false),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn health(&self) -> CommandsHealth {
        let inner = self.inner();
        let late = |since: Option<Instant>| since.is_some_and(|s| s.elapsed() > self.red_after);
        let (outside, stuck) = (late(inner.outside_since), late(inner.oldest));
        let failed = inner.state == CommandsState::Failed;
        let healthy = !(outside || stuck || failed);
        let problem = if healthy {
            None
        } else if stuck && !outside {
            let message = "a command waits for its outcome";
            let late = || Problem::new(ErrorCode::TimedOut, message);
            let known = inner.waiting.clone().or_else(|| inner.failure.clone());
            Some(known.unwrap_or_else(late))
        } else {
            let message = "the group that takes commands does not answer";
            let away = || Problem::new(ErrorCode::BrokerUnreachable, message);
            Some(inner.failure.clone().unwrap_or_else(away))
        };
        CommandsHealth {
            healthy,
            state: inner.state,
            partitions: inner.partitions.clone(),
            in_flight: inner.in_flight,
            lag: inner.lag,
            replies: inner.replies,
            problem,
        }
    }

    pub(super) fn joined(&self, partitions: Vec<i32>) {
        let mut inner = self.inner();
        inner.state = CommandsState::Running;
        inner.outside_since = None;
        inner.partitions = partitions;
        inner.failure = None;
    }

    /// Out of the group: nothing is in hand any more.
    pub(super) fn outside(&self, failure: Option<Problem>) {
        let mut inner = self.inner();
        inner.state = CommandsState::Joining;
        inner.outside_since.get_or_insert_with(Instant::now);
        inner.partitions.clear();
        inner.in_flight = 0;
        inner.oldest = None;
        inner.lag = 0;
        inner.failure = failure.or(inner.failure.take());
    }

    pub(super) fn at_work(&self, in_flight: usize, oldest: Option<Instant>, lag: u64) {
        let mut inner = self.inner();
        (inner.in_flight, inner.oldest, inner.lag) = (in_flight, oldest, lag);
        if in_flight == 0 {
            inner.waiting = None;
        }
    }

    pub(super) fn replied(&self, replies: usize) {
        self.inner().replies += replies as u64;
    }

    pub(super) fn replies(&self) -> u64 {
        self.inner().replies
    }

    pub(super) fn waits(&self, problem: Problem) {
        self.inner().waiting = Some(problem);
    }

    pub(super) fn over(&self, failure: Option<Problem>) {
        self.outside(failure.clone());
        self.inner().state = match failure {
            Some(_) => CommandsState::Failed,
            None => CommandsState::Stopped,
        };
        self.ended.send_replace(true);
    }

    pub(super) async fn ended(&self) {
        let mut ended = self.ended.subscribe();
        // the sender lives as long as `self`
        let _ = ended.wait_for(|ended| *ended).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_is_red_outside_of_the_group_and_when_a_command_waits() {
        let shared = Shared::new(Duration::ZERO);
        std::thread::yield_now();
        let code = || shared.health().problem.map(|p| p.code);
        assert_eq!(code(), Some(ErrorCode::BrokerUnreachable));
        shared.joined(vec![0, 2]);
        assert_eq!((code(), shared.health().healthy), (None, true));
        shared.at_work(1, Some(Instant::now()), 1);
        assert_eq!(code(), Some(ErrorCode::TimedOut));
        shared.waits(Problem::new(ErrorCode::DatabaseUnreachable, "away"));
        assert_eq!(code(), Some(ErrorCode::DatabaseUnreachable));
        shared.at_work(0, None, 0);
        assert!(shared.health().healthy);
        shared.over(Some(Problem::new(ErrorCode::InvalidConfig, "no")));
        assert_eq!(shared.health().state, CommandsState::Failed);
        assert_eq!(code(), Some(ErrorCode::InvalidConfig));
    }
}
