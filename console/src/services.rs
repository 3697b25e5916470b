//! What the console needs of the other rooms. `cli` wires it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::{Map, Value};
use sovereign_schemas::{
    AggregateType, DepartmentId, Departments, Digest, Identifier, Outcome, Position, Problem,
    RecordedEvent, Tail, Timestamp,
};

use crate::{MetricsHandle, SchemaStore, TokenBook};

/// How the engine is, as a whole and by part.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Health {
    /// Whether all parts are.
    pub healthy: bool,
    /// The last position of the ledger that is durable; 0 before the first event.
    pub head: Position,
    /// `ledger`, `relay`, `views`, `servers`.
    pub parts: BTreeMap<String, PartHealth>,
}

impl Health {
    /// Healthy if all parts are.
    #[must_use]
    pub fn of(head: Position, parts: BTreeMap<String, PartHealth>) -> Self {
        let healthy = parts.values().all(|p| p.healthy);
        Self {
            healthy,
            head,
            parts,
        }
    }
}

/// How one part is.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct PartHealth {
    /// Whether it does its work.
    pub healthy: bool,
    /// Since when it is as it is, if known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Events between it and the head, for parts that follow the ledger.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag: Option<u64>,
    /// What else there is to say; no payload and no secret.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub detail: Value,
    /// What is wrong, unless it is healthy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}

impl PartHealth {
    /// A part that works.
    #[must_use]
    pub fn healthy(detail: Value) -> Self {
        Self {
            healthy: true,
            since: None,
            lag: None,
            detail,
            problem: None,
        }
    }

    /// A part that does not.
    #[must_use]
    pub fn failed(problem: Problem) -> Self {
        Self {
            healthy: false,
            since: None,
            lag: None,
            detail: Value::Null,
            problem: Some(problem),
        }
    }
}

/// Knows how the parts are. Asked at every `/health` and `/metrics`: keep it cheap.
#[async_trait]
pub trait HealthSource: Send + Sync {
    /// How the engine is now.
    async fn health(&self) -> Health;
}

/// The one way in for command lines: parses, admits and dispatches.
#[async_trait]
pub trait CommandGate: Send + Sync {
    /// Takes one line, valid UTF-8 and not blank, without its end. Never panics on input; a line
    /// that cannot be understood is an outcome with a problem. The console adds the line's number.
    ///
    /// Lines of one stream are first polled in input order: a gate keeps the order of commands on
    /// one aggregate if it takes its place in a first-in-first-out queue before it awaits anything
    /// else. Once polled, it is polled to its end, also when the client has gone.
    async fn submit(&self, line: Bytes) -> Outcome;

    /// The same of a line that was read already.
    async fn submit_object(&self, object: Map<String, Value>) -> Outcome {
        self.submit(Value::Object(object).to_string().into()).await
    }
}

/// What `sovereign status` prints.
#[async_trait]
pub trait StatusSource: Send + Sync {
    /// One JSON object.
    ///
    /// # Errors
    /// A problem, if the parts cannot be asked.
    async fn status(&self) -> Result<Value, Problem>;
}

/// Starts work that goes on after the answer, such as the main job.
#[async_trait]
pub trait TaskStarter: Send + Sync {
    /// Starts what `request`, a JSON object as the client sent it, asks for, and says what.
    ///
    /// # Errors
    /// A problem, if nothing was started.
    async fn start(&self, request: Value) -> Result<Value, Problem>;
}

/// Digests of the live state.
#[async_trait]
pub trait DigestSource: Send + Sync {
    /// One JSON object: position and digests, all at that position.
    ///
    /// # Errors
    /// A problem, if the state cannot be read.
    async fn digest(&self) -> Result<Value, Problem>;
}

/// Jobs and their queues.
#[async_trait]
pub trait JobService: Send + Sync {
    /// Submits a job, a JSON object as the client sent it; answers with its id.
    ///
    /// # Errors
    /// What is wrong with it, or why it cannot be taken.
    async fn submit(&self, wanted: Value, actor: &str) -> Result<Value, Problem>;

    /// A page of jobs behind a position; `all` includes those that ended.
    ///
    /// # Errors
    /// If they cannot be read.
    async fn list(&self, after: u64, limit: u32, all: bool) -> Result<Value, Problem>;

    /// One job with what became of each effect.
    ///
    /// # Errors
    /// `not-found` if there is no such job.
    async fn show(&self, id: &str) -> Result<Value, Problem>;

    /// Sends a command to a job; answers with the job as it is then.
    ///
    /// # Errors
    /// Why it may not happen.
    async fn command(
        &self,
        id: &str,
        command: &str,
        data: Value,
        actor: &str,
    ) -> Result<Value, Problem>;

    /// The queues with what is in them.
    ///
    /// # Errors
    /// If they cannot be read.
    async fn queues(&self) -> Result<Value, Problem>;

    /// The schedules that hold, with when each is due next and its last job.
    ///
    /// # Errors
    /// If they cannot be read.
    async fn schedules(&self) -> Result<Value, Problem>;

    /// Pauses a queue in the name of somebody, or lets it go on; answers with all queues.
    ///
    /// # Errors
    /// `not-found` if there is no such queue.
    async fn pause(&self, queue: &str, by: Option<&str>) -> Result<Value, Problem>;
}

/// Commands on views.
#[async_trait]
pub trait ViewAdmin: Send + Sync {
    /// Starts the rebuild of a view from zero.
    ///
    /// # Errors
    /// `not-found` if there is no such view.
    async fn rebuild(&self, view: &str) -> Result<Value, Problem>;
}

/// Which events are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventFilter {
    /// Of this department only.
    pub department: Option<DepartmentId>,
    /// Of this aggregate type only.
    pub aggregate_type: Option<AggregateType>,
    /// Of the aggregate with this id only.
    pub aggregate_id: Option<String>,
}

impl EventFilter {
    /// Whether the event is wanted.
    #[must_use]
    pub fn passes(&self, event: &RecordedEvent) -> bool {
        let header = &event.header;
        self.department.is_none_or(|d| d == header.department)
            && self
                .aggregate_type
                .is_none_or(|t| t.as_str() == header.aggregate_type)
            && self
                .aggregate_id
                .as_ref()
                .is_none_or(|id| *id == header.aggregate_id)
    }
}

/// What becomes of sealed texts on their way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Texts {
    /// They stay as they are.
    Sealed,
    /// They are opened where the key is here.
    Revealed,
}

/// The ledger, for reading: only what is durable.
#[async_trait]
pub trait EventSource: Send + Sync {
    /// Those that filters may name.
    fn departments(&self) -> &Departments;

    /// The last durable position.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    async fn head(&self) -> Result<Position, Problem>;

    /// The next events after `after` that pass, at most `limit`, and how far was looked; that
    /// position is where to go on. May return nothing before the end.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    async fn page(
        &self,
        after: Position,
        limit: usize,
        filter: &EventFilter,
    ) -> Result<(Vec<RecordedEvent>, Position), Problem>;

    /// Follows the ledger.
    fn tail(&self) -> Box<dyn Tail>;

    /// The event as one JSON object, as `sovereign log --json` prints it.
    async fn describe(&self, event: &RecordedEvent, texts: Texts) -> Value;
}

/// Agents that come by HTTP.
#[async_trait]
pub trait AgentSource: Send + Sync {
    /// As [`CommandGate::submit`], in the name of this agent and within what an agent may ask for.
    async fn submit(&self, agent: &Identifier, line: Bytes) -> Outcome;

    /// The next events after `after` that tell the agent what became of what it asked for, at most
    /// `limit`, and how far was looked; as [`EventSource::page`].
    ///
    /// # Errors
    /// If the ledger cannot be read.
    async fn decisions(
        &self,
        agent: &Identifier,
        after: Position,
        limit: usize,
    ) -> Result<(Vec<RecordedEvent>, Position), Problem>;

    /// Those of these events that do.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    async fn of_interest(
        &self,
        agent: &Identifier,
        events: Vec<Arc<RecordedEvent>>,
    ) -> Result<Vec<Arc<RecordedEvent>>, Problem>;
}

/// Rows of a view.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Rows {
    /// They are those after the event at this position.
    pub position: Position,
    /// In the order of their keys.
    pub rows: Vec<Value>,
    /// Give it as `after` for what follows; none at the end.
    pub next: Option<String>,
}

/// What an approver signs, as far as it is known here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ApprovalTerms {
    /// SHA-256 of the exact action.
    pub action_digest: Digest,
    /// Version of the policy that asked.
    pub policy_version: i32,
    /// Last moment for an answer.
    pub expires_at: Timestamp,
}

/// A passkey, as a view has it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct PasskeyRow {
    /// Base64url, as browsers write it.
    pub credential_id: String,
    /// Whose it is.
    pub approver: String,
    /// Host name of the pages that can use it.
    pub rp_id: String,
    /// Where it was made.
    pub origin: String,
    /// How its owner calls it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Since when.
    pub enrolled_at: Timestamp,
    /// When it was revoked, if it was.
    pub revoked_at: Option<Timestamp>,
}

/// Approvals, and who can give them.
#[async_trait]
pub trait ApprovalSource: Send + Sync {
    /// What an approver signs.
    ///
    /// # Errors
    /// `not-found` if there is no such approval; if the view cannot be read.
    async fn terms(&self, id: &str) -> Result<ApprovalTerms, Problem>;

    /// One object: `approval` (its row), `action` (the event that proposed what the digest stands
    /// for), `action_digest` (SHA-256 of that event's payload, computed now) with `action_matches`,
    /// and `target` (how what waits stands now); all but the first are null where they are not known.
    ///
    /// # Errors
    /// `not-found` if there is no such approval; if ledger or view cannot be read.
    async fn details(&self, id: &str, texts: Texts) -> Result<Value, Problem>;

    /// All passkeys of a person, revoked ones included, by age.
    ///
    /// # Errors
    /// If the view cannot be read.
    async fn passkeys(&self, approver: &str) -> Result<Vec<PasskeyRow>, Problem>;
}

/// The views, for reading.
#[async_trait]
pub trait RowSource: Send + Sync {
    /// Agents after `after`, at most `limit`.
    ///
    /// # Errors
    /// If the view cannot be read.
    async fn agents(&self, after: Option<String>, limit: u32) -> Result<Rows, Problem>;

    /// Approvals after `after`, at most `limit`; only those that wait, or all.
    ///
    /// # Errors
    /// If the view cannot be read.
    async fn approvals(
        &self,
        all: bool,
        after: Option<String>,
        limit: u32,
    ) -> Result<Rows, Problem>;

    /// One approval.
    ///
    /// # Errors
    /// `not-found` if there is none, or if the view cannot be read.
    async fn approval(&self, id: &str) -> Result<Value, Problem>;
}

/// Stops the engine.
pub trait ShutdownTrigger: Send + Sync {
    /// Asks for it and returns at once; asking twice is harmless. The console goes on until the
    /// future given to [`crate::Console::run`] is done.
    fn request(&self);
}

/// All that the console calls.
#[derive(Clone)]
pub struct Services {
    /// `/health` and the gauges of `/metrics`.
    pub health: Arc<dyn HealthSource>,
    /// `/metrics`.
    pub metrics: MetricsHandle,
    /// `/api/commands`.
    pub commands: Arc<dyn CommandGate>,
    /// `/api/status`.
    pub status: Arc<dyn StatusSource>,
    /// `/api/tasks`.
    pub tasks: Arc<dyn TaskStarter>,
    /// `/api/digest`.
    pub digest: Arc<dyn DigestSource>,
    /// `/api/views`.
    pub views: Arc<dyn ViewAdmin>,
    /// `/api/v1/events`.
    pub events: Arc<dyn EventSource>,
    /// `/api/v1/agents/{id}`, for agents.
    pub agents: Arc<dyn AgentSource>,
    /// `/api/v1/jobs`, `/api/v1/queues`.
    pub jobs: Arc<dyn JobService>,
    /// `/api/v1/agents`, `/api/v1/approvals`.
    pub rows: Arc<dyn RowSource>,
    /// `/api/v1/approvals` in detail, `/api/v1/approvers`.
    pub approvals: Arc<dyn ApprovalSource>,
    /// Who may call, besides the owner of the data folder.
    pub tokens: Arc<TokenBook>,
    /// `/api/shutdown`.
    pub shutdown: Arc<dyn ShutdownTrigger>,
    /// The schema registry.
    pub schemas: Arc<dyn SchemaStore>,
}

impl fmt::Debug for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Services").finish_non_exhaustive()
    }
}
