//! What an agent is made of: data with a digest. It can only narrow the machine, never widen it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use sovereign_schemas::events::AgentState;
use sovereign_schemas::{Digest, ErrorCode, Identifier, Problem};

use super::machine;
use super::steps::LoopGuard;

/// A definition has at most so many parameters, and so many guards (I9).
const ENTRIES_MAX: usize = 64;

/// What an agent is made of, but for its prompt, which is free text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    /// What does the work: `built-in:NAME`, `program:NAME`, `http`, or any other name.
    pub program: Identifier,
    /// The states of normal work that it uses; IDLE always belongs to them, SAFE_MODE and FROZEN
    /// belong to every agent.
    #[serde(default = "all_work_states")]
    pub states: BTreeSet<AgentState>,
    /// The edges of normal work that it uses, as `FROM>TO`; all between its states if it says
    /// nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edges: Option<BTreeSet<Edge>>,
    /// What has to be before it may move.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub guards: Vec<Guard>,
    /// Names and values; no free text.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parameters: BTreeMap<Identifier, Identifier>,
    /// When it counts as one that goes round in circles.
    #[serde(default = "default_guard")]
    pub loop_guard: LoopGuard,
}

fn all_work_states() -> BTreeSet<AgentState> {
    let ends = machine::WORK.iter().flat_map(|(from, to)| [*from, *to]);
    ends.collect()
}

const fn default_guard() -> LoopGuard {
    LoopGuard::DEFAULT
}

/// An edge of the machine, written `FROM>TO`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Edge(pub AgentState, pub AgentState);

impl From<Edge> for String {
    fn from(Edge(from, to): Edge) -> Self {
        format!("{from}>{to}")
    }
}

impl TryFrom<String> for Edge {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let state = |name: &str| {
            let mut all = AgentState::ALL.iter().copied();
            all.find(|s| s.as_str() == name)
        };
        text.split_once('>')
            .and_then(|(from, to)| Some(Self(state(from)?, state(to)?)))
            .ok_or("an edge is written FROM>TO, with states as the machine names them")
    }
}

/// What has to be before an agent may move along an edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Guard {
    /// The edge.
    pub edge: Edge,
    /// What it needs.
    pub needs: Needs,
}

/// What a guard asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Needs {
    /// A thought since the agent moved last: it explains itself.
    Thought,
    /// Work that was started and not finished.
    Task,
}

impl Needs {
    /// As it is written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Thought => "thought",
            Self::Task => "task",
        }
    }
}

impl Definition {
    /// One that uses the whole machine.
    #[must_use]
    pub fn of(program: Identifier) -> Self {
        Self {
            program,
            states: all_work_states(),
            edges: None,
            guards: Vec::new(),
            parameters: BTreeMap::new(),
            loop_guard: LoopGuard::DEFAULT,
        }
    }

    /// Whether it says only what a definition may say.
    ///
    /// # Errors
    /// `invalid-definition`, with the field: a state or an edge that the machine does not have or
    /// that the definition itself leaves out, a loop guard out of its bounds, too many entries.
    pub fn check(&self) -> Result<(), Problem> {
        let wrong = |field: &str, message: &str| {
            Problem::new(ErrorCode::InvalidDefinition, message)
                .field(format!("data.definition.{field}"))
        };
        let work = all_work_states();
        if let Some(other) = self.states.iter().find(|s| !work.contains(s)) {
            let message = "is no state of work; every agent has it anyway";
            return Err(wrong("states", message).found(other.as_str()));
        }
        if !self.states.contains(&AgentState::Idle) {
            return Err(wrong("states", "lacks the state in which an agent begins")
                .expected(AgentState::Idle.as_str()));
        }
        let named = self.edges.iter().flatten();
        for Edge(from, to) in named {
            let found = String::from(Edge(*from, *to));
            if !machine::WORK.contains(&(*from, *to)) {
                return Err(wrong("edges", "the machine has no such edge of work").found(found));
            }
            if !self.states.contains(from) || !self.states.contains(to) {
                return Err(wrong("edges", "an end is not among the states").found(found));
            }
        }
        for guard in &self.guards {
            if !self.has(guard.edge.0, guard.edge.1) {
                let message = "guards an edge that the definition does not have";
                return Err(wrong("guards", message).found(String::from(guard.edge)));
            }
        }
        if self.guards.len() > ENTRIES_MAX || self.parameters.len() > ENTRIES_MAX {
            let field = if self.guards.len() > ENTRIES_MAX {
                "guards"
            } else {
                "parameters"
            };
            return Err(
                wrong(field, "has too many entries").expected(format!("at most {ENTRIES_MAX}"))
            );
        }
        let LoopGuard { repeats, window } = self.loop_guard;
        if !(2..=LoopGuard::REPEATS_MAX).contains(&repeats) {
            return Err(wrong("loop_guard.repeats", "is out of range")
                .found(repeats.to_string())
                .expected(format!("2 to {}", LoopGuard::REPEATS_MAX)));
        }
        if !(repeats..=LoopGuard::WINDOW_MAX).contains(&window) {
            return Err(wrong("loop_guard.window", "is out of range")
                .found(window.to_string())
                .expected(format!("{repeats} to {}", LoopGuard::WINDOW_MAX)));
        }
        Ok(())
    }

    /// Whether the agent may use the edge of work at all.
    #[must_use]
    pub fn has(&self, from: AgentState, to: AgentState) -> bool {
        machine::WORK.contains(&(from, to))
            && self.states.contains(&from)
            && self.states.contains(&to)
            && self
                .edges
                .as_ref()
                .is_none_or(|edges| edges.contains(&Edge(from, to)))
    }

    /// What has to be before the agent may use it.
    pub fn needs(&self, from: AgentState, to: AgentState) -> impl Iterator<Item = Needs> + '_ {
        let of_edge = move |guard: &&Guard| guard.edge == Edge(from, to);
        self.guards.iter().filter(of_edge).map(|guard| guard.needs)
    }

    /// As it is recorded: JSON without blanks, in the order of the fields, sets and maps sorted.
    #[must_use]
    pub fn text(&self) -> String {
        // strings, numbers and maps with string keys: it cannot fail
        serde_json::to_string(self).unwrap_or_default()
    }

    /// SHA-256 of the text and the likeness of the prompt, one after the other.
    #[must_use]
    pub fn digest(text: &str, prompt_likeness: &[u8]) -> Digest {
        Digest::of(&[text.as_bytes(), prompt_likeness])
    }
}

/// The definition that holds, as an agent keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Defined {
    /// Version.
    pub version: i32,
    /// Digest.
    pub digest: Digest,
    /// None if a newer build took it and this one cannot read it: the agent may do nothing then.
    pub definition: Option<Definition>,
}

impl Defined {
    /// From what is recorded.
    #[must_use]
    pub(crate) fn read(version: i32, digest: Digest, text: &str) -> Self {
        let definition = serde_json::from_str(text).ok();
        Self {
            version,
            digest,
            definition: definition.filter(|d: &Definition| d.check().is_ok()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use sovereign_schemas::events::AgentState::{Analyzing, Executing, Idle, Scanning};

    use super::*;

    fn read(value: serde_json::Value) -> Result<Definition, Problem> {
        let definition: Definition = serde_json::from_value(value).unwrap();
        definition.check().map(|()| definition)
    }

    #[test]
    fn one_that_says_nothing_uses_the_whole_machine() {
        let all = read(json!({ "program": "http" })).unwrap();
        for (from, to) in machine::WORK {
            assert!(all.has(*from, *to));
        }
        assert_eq!(all, Definition::of("http".parse().unwrap()));
    }

    #[test]
    fn states_and_edges_that_it_leaves_out_are_not_there() {
        let observer = read(
            json!({ "program": "x", "states": ["SCANNING", "IDLE", "ANALYZING"],
            "edges": ["IDLE>SCANNING", "SCANNING>ANALYZING", "ANALYZING>IDLE"] }),
        )
        .unwrap();
        assert!(observer.has(Idle, Scanning) && observer.has(Scanning, Analyzing));
        assert!(!observer.has(Scanning, Idle), "not among the edges");
        assert!(!observer.has(Analyzing, Executing));
    }

    #[test]
    fn it_cannot_widen_the_machine() {
        for (value, field) in [
            (
                json!({ "program": "x", "edges": ["IDLE>EXECUTING"] }),
                "edges",
            ),
            (
                json!({ "program": "x", "edges": ["SAFE_MODE>IDLE"] }),
                "edges",
            ),
            (
                json!({ "program": "x", "states": ["IDLE"], "edges": ["IDLE>SCANNING"] }),
                "edges",
            ),
            (
                json!({ "program": "x", "states": ["IDLE", "FROZEN"] }),
                "states",
            ),
            (json!({ "program": "x", "states": ["SCANNING"] }), "states"),
            (
                json!({ "program": "x", "states": ["IDLE"],
                    "guards": [{ "edge": "IDLE>SCANNING", "needs": "thought" }] }),
                "guards",
            ),
            (
                json!({ "program": "x", "loop_guard": { "repeats": 33 } }),
                "loop_guard.repeats",
            ),
            (
                json!({ "program": "x", "loop_guard": { "repeats": 1 } }),
                "loop_guard.repeats",
            ),
            (
                json!({ "program": "x", "loop_guard": { "window": 7 } }),
                "loop_guard.window",
            ),
            (
                json!({ "program": "x", "loop_guard": { "window": 257 } }),
                "loop_guard.window",
            ),
        ] {
            let problem = read(value.clone()).unwrap_err();
            assert_eq!(problem.code, ErrorCode::InvalidDefinition);
            let expected = format!("data.definition.{field}");
            assert_eq!(problem.field.as_deref(), Some(expected.as_str()), "{value}");
        }
    }

    #[test]
    fn it_reads_as_it_is_written_in_whatever_order_it_came() {
        let one = read(json!({ "program": "x", "states": ["SCANNING", "IDLE"],
            "parameters": { "slow": "30", "fast": "10" } }))
        .unwrap();
        let other = read(json!({ "parameters": { "fast": "10", "slow": "30" },
            "states": ["IDLE", "SCANNING"], "program": "x" }))
        .unwrap();
        assert_eq!(one.text(), other.text());
        let digest = Definition::digest(&one.text(), &[]);
        assert_eq!(Defined::read(1, digest, &one.text()).definition, Some(one));
        assert_eq!(
            Defined::read(1, digest, "{\"program\":\"x\",\"new\":1}").definition,
            None
        );
    }
}
