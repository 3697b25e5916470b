//! What an agent did last, and whether it goes round in circles.

use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sovereign_schemas::events::AgentState;

/// One step of an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Step {
    /// It had a thought with this likeness; 0: of which nobody knows what it equals.
    Thought(u64),
    /// It moved along an edge.
    Moved(AgentState, AgentState),
    /// It was not allowed to.
    Refused(AgentState, AgentState),
}

impl Step {
    /// The step of a thought, from what its event holds.
    #[must_use]
    pub fn thought(likeness: &[u8]) -> Self {
        Self::Thought(likeness.try_into().map_or(0, u64::from_be_bytes))
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Thought(likeness) => write!(f, "{likeness:016x}"),
            Self::Moved(from, to) => write!(f, "{from}>{to}"),
            Self::Refused(from, to) => write!(f, "{from}!{to}"),
        }
    }
}

impl From<Step> for String {
    fn from(step: Step) -> Self {
        step.to_string()
    }
}

impl TryFrom<String> for Step {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl FromStr for Step {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let state = |name: &str| {
            let mut all = AgentState::ALL.iter().copied();
            all.find(|s| s.as_str() == name).ok_or("is no state")
        };
        if let Some((from, to)) = text.split_once('>') {
            return Ok(Self::Moved(state(from)?, state(to)?));
        }
        if let Some((from, to)) = text.split_once('!') {
            return Ok(Self::Refused(state(from)?, state(to)?));
        }
        u64::from_str_radix(text, 16)
            .map(Self::Thought)
            .map_err(|_| "is no step")
    }
}

/// When an agent counts as one that goes round in circles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoopGuard {
    /// The same so many times: 2 to 32.
    #[serde(default = "repeats")]
    pub repeats: u16,
    /// Within so many steps: `repeats` to 256.
    #[serde(default = "window")]
    pub window: u16,
}

const fn repeats() -> u16 {
    LoopGuard::DEFAULT.repeats
}

const fn window() -> u16 {
    LoopGuard::DEFAULT.window
}

impl LoopGuard {
    /// What holds for an agent whose definition says nothing else.
    pub const DEFAULT: Self = Self {
        repeats: 8,
        window: 64,
    };
    /// Nobody may ask for more patience.
    pub const REPEATS_MAX: u16 = 32;
    /// Nobody may look back further.
    pub const WINDOW_MAX: u16 = 256;
}

/// What an agent did again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loop {
    /// The same thought.
    Thought,
    /// The same cycle of so many steps along the machine.
    Cycle(u16),
}

/// The last steps of an agent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Steps {
    /// Oldest first, at most [`LoopGuard::window`].
    last: VecDeque<Step>,
    /// So many of the newest are moves, allowed or refused, with nothing new between them: no
    /// thought, no observation, no work and no clearance.
    idle_moves: u16,
}

impl Steps {
    /// Takes a step.
    pub(crate) fn take(&mut self, step: Step, window: u16) {
        self.last.push_back(step);
        while self.last.len() > usize::from(window) {
            self.last.pop_front();
        }
        self.idle_moves = match step {
            Step::Thought(_) => 0,
            _ => self.idle_moves.saturating_add(1).min(window),
        };
    }

    /// Something new came: the moves from here on are about that.
    pub(crate) const fn renew(&mut self) {
        self.idle_moves = 0;
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.last.clear();
        self.idle_moves = 0;
    }

    /// The loop that this step would close, if it does.
    #[must_use]
    pub(crate) fn closes(&self, step: Step, guard: LoopGuard) -> Option<Loop> {
        let (repeats, window) = (usize::from(guard.repeats), usize::from(guard.window));
        // the step itself is the 0th
        let back = |steps: usize| match steps {
            0 => Some(step),
            n => self.last.len().checked_sub(n).map(|at| self.last[at]),
        };
        if let Step::Thought(likeness) = step {
            let same = |n: &usize| back(*n) == Some(step);
            let times = (0..window).filter(same).count();
            return (likeness != 0 && times >= repeats).then_some(Loop::Thought);
        }
        let moves = (usize::from(self.idle_moves) + 1).min(window);
        (1..=moves / repeats)
            .find(|length| (0..length * (repeats - 1)).all(|n| back(n) == back(n + length)))
            .map(|length| Loop::Cycle(length as u16))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sovereign_schemas::events::AgentState::{Analyzing, Idle, Scanning};

    use super::*;

    /// The same by counting everything in the whole history, in the words of docs/AGENTS.md.
    fn oracle(history: &[Option<Step>], guard: LoopGuard) -> Option<Loop> {
        let (k, n) = (usize::from(guard.repeats), usize::from(guard.window));
        let Some(Some(newest)) = history.last() else {
            return None;
        };
        let steps: Vec<Step> = history.iter().copied().flatten().collect();
        let window = &steps[steps.len().saturating_sub(n)..];
        if let Step::Thought(likeness) = newest {
            let same = window.iter().filter(|s| *s == newest).count();
            return (*likeness != 0 && same >= k).then_some(Loop::Thought);
        }
        // moves since the last thought or news
        let tail: Vec<Step> = history
            .iter()
            .rev()
            .map_while(|s| s.filter(|s| !matches!(s, Step::Thought(_))))
            .collect();
        for length in 1..=n / k {
            let Some(all) = tail.get(..length * k) else {
                break;
            };
            let first = &all[..length];
            if all.chunks(length).all(|chunk| chunk == first) {
                return Some(Loop::Cycle(length as u16));
            }
        }
        None
    }

    fn steps() -> impl Strategy<Value = Vec<Option<Step>>> {
        let step = prop_oneof![
            4 => (0_u64..3).prop_map(|t| Some(Step::Thought(t))),
            4 => Just(Some(Step::Moved(Idle, Scanning))),
            4 => Just(Some(Step::Moved(Scanning, Idle))),
            2 => Just(Some(Step::Refused(Idle, Analyzing))),
            1 => Just(None),
        ];
        // pieces that repeat, so that loops are common
        let piece = (prop::collection::vec(step, 1..4), 1_usize..6);
        prop::collection::vec(piece, 0..12).prop_map(|pieces| {
            let all = pieces.into_iter().map(|(piece, n)| piece.repeat(n));
            all.flatten().collect()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]
        #[test]
        fn finds_what_counting_finds(history in steps(), repeats in 2_u16..6, more in 0_u16..20) {
            let guard = LoopGuard { repeats, window: repeats + more };
            let mut own = Steps::default();
            for (at, step) in history.iter().enumerate() {
                let Some(step) = *step else {
                    own.renew();
                    continue;
                };
                let found = own.closes(step, guard);
                prop_assert_eq!(found, oracle(&history[..=at], guard), "at {}", at);
                own.take(step, guard.window);
            }
        }

        #[test]
        fn a_step_is_read_as_it_is_written(likeness: u64, from in 0_usize..7, to in 0_usize..7) {
            let (from, to) = (AgentState::ALL[from], AgentState::ALL[to]);
            for step in [Step::Thought(likeness), Step::Moved(from, to), Step::Refused(from, to)] {
                prop_assert_eq!(step.to_string().parse(), Ok(step));
            }
        }
    }

    #[test]
    fn a_thought_of_which_nobody_knows_what_it_equals_equals_none() {
        let mut own = Steps::default();
        for _ in 0..100 {
            let step = Step::thought(&[]);
            assert_eq!(own.closes(step, LoopGuard::DEFAULT), None);
            own.take(step, LoopGuard::DEFAULT.window);
        }
    }

    #[test]
    fn the_eighth_time_within_the_window_is_one_too_many() {
        let mut own = Steps::default();
        let again = Step::Thought(7);
        for round in 1..=8_u64 {
            let closed = own.closes(again, LoopGuard::DEFAULT);
            assert_eq!(closed.is_some(), round == 8, "round {round}");
            own.take(again, 64);
            // eight others between two of them: 8 * 8 > 64 - 7, so the first stays in sight
            for other in 0..7 {
                own.take(Step::Thought(100 + round * 10 + other), 64);
            }
        }
    }
}
