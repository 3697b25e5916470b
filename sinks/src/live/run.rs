use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;

use sovereign_effects::Outcome;
use sovereign_schemas::{ErrorCode, Problem};

/// How far an effect has come. What an interruption means depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// For its turn.
    Waiting,
    /// Towards the target; nothing of the effect is sent.
    Connecting,
    /// The target may know of it.
    Sent,
}

/// One try of one effect. It outlives the work on it, which may be cut off anywhere.
#[derive(Debug, Default)]
pub(super) struct Run {
    stage: AtomicU8,
    harmless: AtomicBool,
}

impl Run {
    pub(super) fn stage(&self) -> Stage {
        match self.stage.load(Ordering::Acquire) {
            0 => Stage::Waiting,
            1 => Stage::Connecting,
            _ => Stage::Sent,
        }
    }

    pub(super) fn reach(&self, stage: Stage) {
        self.stage.store(stage as u8, Ordering::Release);
    }

    /// The effect changes nothing at its target, so it is never in doubt.
    pub(super) fn is_harmless(&self) {
        self.harmless.store(true, Ordering::Release);
    }

    /// The outcome where something went wrong and the target may have acted. `retry` says whether a
    /// harmless effect may do better the next time.
    pub(super) fn unsure(&self, problem: Problem, retry: bool) -> Outcome {
        if self.stage() == Stage::Sent && !self.harmless.load(Ordering::Acquire) {
            return Outcome::in_doubt(problem);
        }
        Outcome::Failed { problem, retry }
    }

    pub(super) fn called_off(&self) -> Outcome {
        if self.stage() == Stage::Sent && !self.harmless.load(Ordering::Acquire) {
            let message = "called off after the request was sent";
            return Outcome::in_doubt(Problem::new(ErrorCode::CalledOff, message));
        }
        Outcome::Cancelled
    }

    pub(super) fn too_late(&self, time: Duration) -> Outcome {
        let (code, message) = match self.stage() {
            Stage::Waiting => (ErrorCode::Busy, "the effect's turn did not come in time"),
            Stage::Connecting => (ErrorCode::TimedOut, "no connection came about in time"),
            Stage::Sent => (ErrorCode::TimedOut, "no complete answer came in time"),
        };
        let expected = format!("within {} ms", time.as_millis());
        self.unsure(Problem::new(code, message).expected(expected), true)
    }
}
