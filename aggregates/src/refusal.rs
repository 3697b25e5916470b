use std::sync::{Arc, LazyLock};

use sovereign_schemas::{
    AggregateId, DepartmentId, Departments, ErrorCode, Identifier, Problem, Timestamp,
};

use crate::approval::Approval;
use crate::approver::Approver;
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
    /// The policy that holds, for commands that read it ([`crate::AnyCommand::reads`]).
    pub policy: Arc<Policy>,
    /// Whoever asks, as an approver, for commands that read it.
    pub approver: Arc<Approver>,
    /// The approval that the command rests on, for commands that read it.
    pub approval: Arc<Approval>,
    /// Its id.
    pub approval_id: Option<String>,
}

static DEPARTMENTS: LazyLock<Arc<Departments>> = LazyLock::new(Arc::default);
static NO_APPROVER: LazyLock<Arc<Approver>> = LazyLock::new(Arc::default);
static NO_APPROVAL: LazyLock<Arc<Approval>> = LazyLock::new(Arc::default);

impl Decision {
    /// A decision in the department of traders, with the default departments, the built-in policy,
    /// and no passkey or approval anywhere.
    #[must_use]
    pub fn new(aggregate_id: AggregateId, at: Timestamp, actor: Identifier) -> Self {
        Self {
            aggregate_id,
            at,
            actor,
            department: DepartmentId::TRADER,
            departments: Arc::clone(&DEPARTMENTS),
            policy: Policy::built_in(),
            approver: Arc::clone(&NO_APPROVER),
            approval: Arc::clone(&NO_APPROVAL),
            approval_id: None,
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
