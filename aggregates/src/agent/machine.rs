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
    match (from, to) {
        (Frozen, _) => false,
        (_, Frozen) => true,
        (SafeMode, Idle) => true,
        (SafeMode, _) => false,
        (_, SafeMode) => true,
        edge => WORK.contains(&edge),
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
