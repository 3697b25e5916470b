use std::sync::{Arc, LazyLock};

use sovereign_schemas::{
    AggregateId, DepartmentId, Departments, ErrorCode, Identifier, Problem, Timestamp,
};

use crate::policy::Policy;

/// What an aggregate may know besides its own state: it ends up in the event's header, or is the
/// state of another aggregate at the same position.
#[derive(Debug, Clone)]
pub struct Decision {
    /// The aggregate that decides.
    pub aggregate_id: AggregateId,
    /// The moment that the ledger will record.
    pub at: Timestamp,
    /// Who asks.
    pub actor: Identifier,
    /// Whose topic carries the events.
    pub department: DepartmentId,
    /// All departments.
    pub departments: Arc<Departments>,
    /// The policy that holds, for commands that are decided by it ([`crate::AnyCommand::needs_policy`]).
    pub policy: Arc<Policy>,
}

static DEPARTMENTS: LazyLock<Arc<Departments>> = LazyLock::new(Arc::default);

impl Decision {
    /// A decision in the department of traders, with the default departments and the built-in
    /// policy.
    #[must_use]
    pub fn new(aggregate_id: AggregateId, at: Timestamp, actor: Identifier) -> Self {
        Self {
            aggregate_id,
            at,
            actor,
            department: DepartmentId::TRADER,
            departments: Arc::clone(&DEPARTMENTS),
            policy: Policy::built_in(),
        }
    }

    /// How policies name a department.
    #[must_use]
    pub fn department_name(&self, department: DepartmentId) -> &str {
        self.departments
            .get(department)
            .map_or("", |department| department.name.as_str())
    }
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
