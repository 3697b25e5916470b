//! Observes one instrument, bar after bar. The next bar is read only when the trader has settled
//! the last one, so that nothing depends on how fast anything is.

use std::collections::BTreeSet;

use sovereign_aggregates::AnyEvent;
use sovereign_schemas::events::{AgentEvent, AgentState};
use sovereign_schemas::{DepartmentId, Digest, Identifier, Timestamp, Uuid};

use super::{Names, NextBar, Reaction, Reactions, Seen};

/// Inputs whose end is remembered (I9); older ones would be gone through again, without effect.
const FINISHED_MAX: usize = 256;

/// What the hunter of one instrument knows.
#[derive(Debug, Clone)]
pub struct State {
    names: Names,
    /// The last task.
    task: Option<Task>,
    /// Whether it is still in progress.
    running: bool,
    /// Start of the last bar observed.
    last: Option<Timestamp>,
    /// Bars observed so far, over all tasks.
    observed: u64,
    /// Correlation of the bar that the trader has not settled yet.
    unsettled: Option<Uuid>,
    finished: BTreeSet<Digest>,
}

/// A market file that is being worked through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// Name of the work.
    pub name: String,
    /// SHA-256 of the file.
    pub input: Digest,
    /// Bars of this instrument in it.
    pub items: u64,
}

impl State {
    /// Before the first event.
    #[must_use]
    pub const fn new(names: Names) -> Self {
        Self {
            names,
            task: None,
            running: false,
            last: None,
            observed: 0,
            unsettled: None,
            finished: BTreeSet::new(),
        }
    }

    /// The last task, in progress or finished.
    #[must_use]
    pub const fn task(&self) -> Option<&Task> {
        self.task.as_ref()
    }

    /// Whether it is in progress.
    #[must_use]
    pub const fn is_running(&self) -> bool {
        self.running
    }

    /// Bars observed so far.
    #[must_use]
    pub const fn observed(&self) -> u64 {
        self.observed
    }

    /// Whether the file with this digest was worked through.
    #[must_use]
    pub fn has_finished(&self, input: Digest) -> bool {
        self.finished.contains(&input)
    }

    /// Whether the trader has come to rest after the last bar.
    fn is_settled_by(&self, seen: &Seen, event: &AgentEvent) -> bool {
        if seen.aggregate_id() != self.names.trader.as_str() {
            return false;
        }
        let same_bar = self.unsettled == Some(seen.header().correlation_id);
        match event {
            // a trader that comes out of SAFE_MODE has given the bar up
            AgentEvent::StateTransitioned(e) if e.to == AgentState::Idle => {
                same_bar || (e.from == AgentState::SafeMode && self.unsettled.is_some())
            }
            // it was at rest already: somebody else has moved it
            AgentEvent::TransitionRefused(e) => {
                same_bar && e.from == AgentState::Idle && e.to == AgentState::Idle
            }
            _ => false,
        }
    }

    fn next_bar(&self, seen: &Seen) -> Vec<Reaction> {
        let parse = |task: &Task| {
            let actor: Identifier = self.names.hunter.as_str().parse().ok()?;
            let name: Identifier = task.name.parse().ok()?;
            Some((actor, name, task.input))
        };
        let Some((actor, task, input)) =
            self.task.as_ref().filter(|_| self.running).and_then(parse)
        else {
            return vec![];
        };
        let mut out = Reactions::of(actor, DepartmentId::HUNTER, seen.header());
        out.next_bar(|context| NextBar {
            input,
            slug: self.names.slug.clone(),
            after: self.last,
            task,
            hunter: self.names.hunter.clone(),
            context,
        });
        out.done()
    }
}

/// Takes an event; the first bar follows on the start of a task, the next on each settled one.
pub fn step(state: &mut State, seen: &Seen) -> Vec<Reaction> {
    let AnyEvent::Agent(event) = &seen.event else {
        return vec![];
    };
    let own = seen.aggregate_id() == state.names.hunter.as_str();
    match event {
        AgentEvent::TaskStarted(e) if own => {
            state.task = Some(Task {
                name: e.task.clone(),
                input: e.input_digest,
                items: u64::try_from(e.items).unwrap_or_default(),
            });
            state.running = true;
            state.next_bar(seen)
        }
        AgentEvent::TaskFinished(_) if own => {
            state.running = false;
            if let Some(task) = &state.task {
                state.finished.insert(task.input);
            }
            if state.finished.len() > FINISHED_MAX {
                state.finished.pop_first();
            }
            vec![]
        }
        AgentEvent::MarketObserved(e) if own => {
            state.last = Some(e.opened_at);
            state.observed += 1;
            state.unsettled = Some(seen.header().correlation_id);
            vec![]
        }
        _ if state.is_settled_by(seen, event) => {
            state.unsettled = None;
            state.next_bar(seen)
        }
        _ => vec![],
    }
}
