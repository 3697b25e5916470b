//! Whether commands get answers. A database that is locked up fails no request for a long time, so
//! nothing else notices.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Health is red once commands have waited for so long and not one was answered.
const STALLED_AFTER: Duration = Duration::from_secs(8);

/// How many commands wait, and since when none was answered.
#[derive(Debug)]
pub(crate) struct Stall {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    waiting: usize,
    since: Instant,
}

/// A command that waits; dropped when it has its answer, or when nobody waits any more.
#[derive(Debug)]
pub(crate) struct InHand<'a> {
    stall: &'a Stall,
    answered: bool,
}

impl Stall {
    pub(crate) fn new() -> Self {
        let state = State {
            waiting: 0,
            since: Instant::now(),
        };
        Self {
            state: Mutex::new(state),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn begin(&self) -> InHand<'_> {
        let mut state = self.state();
        if state.waiting == 0 {
            state.since = Instant::now();
        }
        state.waiting += 1;
        InHand {
            stall: self,
            answered: false,
        }
    }

    /// For how long nothing has been answered, if that is too long.
    pub(crate) fn stalled_for(&self) -> Option<Duration> {
        let state = self.state();
        let waited = state.since.elapsed();
        (state.waiting > 0 && waited >= STALLED_AFTER).then_some(waited)
    }
}

impl InHand<'_> {
    pub(crate) fn answered(mut self) {
        self.answered = true;
    }
}

impl Drop for InHand<'_> {
    fn drop(&mut self) {
        let mut state = self.stall.state();
        state.waiting -= 1;
        if self.answered {
            state.since = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_commands_that_wait_without_any_answer_are_a_stall() {
        let stall = Stall::new();
        let pass = |time: Duration| stall.state().since -= time;
        pass(STALLED_AFTER);
        assert_eq!(stall.stalled_for(), None, "nobody waits");
        let (one, two) = (stall.begin(), stall.begin());
        pass(STALLED_AFTER / 2);
        one.answered();
        pass(STALLED_AFTER / 2);
        assert_eq!(stall.stalled_for(), None, "one was answered meanwhile");
        pass(STALLED_AFTER / 2);
        assert!(stall.stalled_for() >= Some(STALLED_AFTER));
        drop(two);
        assert_eq!(stall.stalled_for(), None, "nobody waits any more");
    }
}
