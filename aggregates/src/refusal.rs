use sovereign_schemas::{AggregateId, ErrorCode, Identifier, Problem, Timestamp};

/// What an aggregate may know besides its own state: all of it ends up in the event's header.
#[derive(Debug, Clone)]
pub struct Decision {
    /// The aggregate that decides.
    pub aggregate_id: AggregateId,
    /// The moment that the ledger will record.
    pub at: Timestamp,
    /// Who asks.
    pub actor: Identifier,
}

/// Why a command may not happen. Nothing changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct Refusal {
    /// For the caller.
    pub problem: Problem,
}

impl Refusal {
    /// Refuses with a code and the reason in words.
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            problem: Problem::new(code, message),
        }
    }
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self { problem }
    }
}
