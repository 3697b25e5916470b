use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use sovereign_schemas::{Position, Problem};
use tokio::sync::Notify;

/// How one view is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ViewHealth {
    /// Last position committed.
    pub position: Position,
    /// Whether it goes on.
    pub healthy: bool,
    /// Version of the view.
    pub version: u32,
    /// Events of the ledger that it has not folded yet, if the head is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag: Option<u64>,
    /// The event that it cannot take, if one is at fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stopped_at: Option<Position>,
    /// Why it does not go on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}

/// How all views are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ViewsHealth {
    /// Whether all are healthy.
    pub healthy: bool,
    /// Each by its name.
    pub projections: BTreeMap<&'static str, ViewHealth>,
}

#[derive(Debug, Default)]
struct State {
    /// `None` until the checkpoint was read for the first time.
    position: Option<Position>,
    stopped_at: Option<Position>,
    problem: Option<Problem>,
}

/// What a task tells about itself.
#[derive(Debug)]
pub(super) struct Slot {
    version: u32,
    state: Mutex<State>,
    wake: Notify,
}

impl Slot {
    pub(super) fn new(version: u32) -> Self {
        Self {
            version,
            state: Mutex::default(),
            wake: Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // plain values: a panic between two assignments leaves nothing that could harm
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_position(&self, position: Position) {
        self.state().position = Some(position);
    }

    pub(super) fn failed(&self, problem: Problem, stopped_at: Option<Position>) {
        let mut state = self.state();
        state.problem = Some(problem);
        state.stopped_at = stopped_at;
    }

    /// A round went well. `None` if the view still stands before the event that it cannot take,
    /// which says nothing about that event; otherwise whether the view was red before.
    pub(super) fn recovered(&self) -> Option<bool> {
        let mut state = self.state();
        let next = state.position.map(Position::next);
        if state.stopped_at.is_some() && state.stopped_at == next {
            return None;
        }
        state.stopped_at = None;
        Some(state.problem.take().is_some())
    }

    pub(super) fn position(&self) -> Position {
        self.state().position.unwrap_or(Position::START)
    }

    /// Asks the task to read its checkpoint again.
    pub(super) fn look_again(&self) {
        self.wake.notify_one();
    }

    pub(super) async fn asked_to_look(&self) {
        self.wake.notified().await;
    }

    pub(super) fn health(&self, head: Option<Position>) -> ViewHealth {
        let state = self.state();
        let position = state.position.unwrap_or(Position::START);
        ViewHealth {
            position,
            // a view that has not reached its checkpoint yet serves rows nobody vouches for
            healthy: state.problem.is_none() && state.position.is_some(),
            version: self.version,
            lag: head.map(|h| h.0.saturating_sub(position.0)),
            stopped_at: state.stopped_at,
            problem: state.problem.clone(),
        }
    }
}
