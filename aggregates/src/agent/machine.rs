//! The state machine of an agent: the whole table of legal transitions.

use sovereign_schemas::events::AgentState::{
    self, Analyzing, Executing, Frozen, Idle, SafeMode, Scanning, Verifying,
};

/// The edges of normal work. Besides them every state may fall into SAFE_MODE or FROZEN, and
/// SAFE_MODE leads back to IDLE.
pub const WORK: &[(AgentState, AgentState)] = &[
    (Idle, Scanning),
    (Scanning, Idle),
    (Scanning, Analyzing),
    (Analyzing, Idle),
    (Analyzing, Verifying),
    (Verifying, Idle),
    (Verifying, Executing),
    (Executing, Idle),
];

/// Whether the machine has the edge. EXECUTING also needs a clearance, which the aggregate checks.
///
/// # Examples
/// ```
/// use sovereign_aggregates::agent::machine::is_legal;
/// use sovereign_schemas::events::AgentState;
/// assert!(is_legal(AgentState::Verifying, AgentState::Executing));
/// assert!(!is_legal(AgentState::Idle, AgentState::Executing));
/// ```
#[must_use]
pub fn is_legal(from: AgentState, to: AgentState) -> bool {
    is_safety(from, to) || WORK.contains(&(from, to))
}

/// Whether it is one of the edges for safety, which every agent has whatever its definition says:
/// into SAFE_MODE, into FROZEN, and from SAFE_MODE back to IDLE.
#[must_use]
pub fn is_safety(from: AgentState, to: AgentState) -> bool {
    match (from, to) {
        (Frozen, _) => false,
        (_, Frozen) => true,
        (SafeMode, to) => to == Idle,
        (_, to) => to == SafeMode,
    }
}

/// The states that can follow, for error messages.
#[must_use]
pub fn successors(from: AgentState) -> Vec<AgentState> {
    AgentState::ALL
        .iter()
        .copied()
        .filter(|to| is_legal(from, *to))
        .collect()
}

/// All edges, in the order of the table: work first, then those for safety by their start. What
/// `sovereign agents graph` draws.
#[must_use]
pub fn edges() -> Vec<(AgentState, AgentState)> {
    let safety = [SafeMode, Idle, Frozen].into_iter().flat_map(|to| {
        let from = AgentState::ALL.iter().copied();
        from.filter(move |from| is_safety(*from, to))
            .map(move |from| (from, to))
    });
    WORK.iter().copied().chain(safety).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_drawing_has_exactly_the_legal_edges() {
        let drawn = edges();
        for from in AgentState::ALL {
            for to in AgentState::ALL {
                let times = drawn.iter().filter(|e| **e == (*from, *to)).count();
                assert_eq!(times, usize::from(is_legal(*from, *to)), "{from} to {to}");
            }
        }
    }

    #[test]
    fn the_picture_in_the_documentation_is_the_table() {
        let page = include_str!("../../../docs/ARCHITECTURE.md");
        let drawn = page
            .split("## The state machine of an agent")
            .nth(1)
            .and_then(|rest| rest.split("```").nth(1))
            .unwrap();
        let drawn: Vec<(String, String)> = drawn
            .lines()
            .filter_map(|line| line.trim().split_once(" --> "))
            .filter(|(from, _)| *from != "[*]")
            .map(|(from, to)| {
                let to = to.split(':').next().unwrap_or(to);
                (from.to_owned(), to.to_owned())
            })
            .collect();
        let table: Vec<(String, String)> = edges()
            .into_iter()
            .map(|(from, to)| (from.to_string(), to.to_string()))
            .collect();
        assert_eq!(drawn, table);
    }
}
