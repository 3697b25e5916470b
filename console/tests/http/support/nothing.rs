//! An engine of which nothing is there but its schema registry. A fuzz target runs on it, too: what
//! it needs of the console is compiled with the console's tests.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::Value;
use sovereign_console::{
    AgentSource, ApprovalSource, ApprovalTerms, CommandGate, DigestSource, EventFilter,
    EventSource, Health, HealthSource, JobService, PasskeyRow, RowSource, Rows, SchemaStore,
    Services, ShutdownTrigger, StatusSource, TaskStarter, Texts, TokenBook, TokenRecord,
    TokenStore, ViewAdmin, metrics_recorder,
};
use sovereign_guard::access::CredentialKey;
use sovereign_schemas::{
    Departments, ErrorCode, Identifier, LogError, Outcome, Position, Problem, RecordedEvent,
    Status, Tail,
};

/// Services with this registry.
pub(crate) async fn services(schemas: Arc<dyn SchemaStore>) -> Services {
    let nothing = Arc::new(Nothing::default());
    let key = CredentialKey::from_bytes([7; 32]);
    let tokens = TokenBook::open(key, nothing.clone()).await;
    Services {
        health: nothing.clone(),
        metrics: metrics_recorder().unwrap(),
        commands: nothing.clone(),
        status: nothing.clone(),
        tasks: nothing.clone(),
        digest: nothing.clone(),
        views: nothing.clone(),
        events: nothing.clone(),
        agents: nothing.clone(),
        jobs: nothing.clone(),
        rows: nothing.clone(),
        approvals: nothing.clone(),
        tokens: Arc::new(tokens.unwrap()),
        shutdown: nothing,
        schemas,
    }
}

/// The rest of the engine, which is not there.
#[derive(Default)]
struct Nothing {
    departments: Departments,
}

fn no<T>() -> Result<T, Problem> {
    Err(Problem::new(ErrorCode::NotFound, "not here"))
}

#[async_trait]
impl HealthSource for Nothing {
    async fn health(&self) -> Health {
        Health::of(Position::START, std::collections::BTreeMap::new())
    }
}

#[async_trait]
impl CommandGate for Nothing {
    async fn submit(&self, _: Bytes) -> Outcome {
        Outcome::failed(
            Status::Invalid,
            Problem::new(ErrorCode::NotFound, "not here"),
        )
    }
}

#[async_trait]
impl StatusSource for Nothing {
    async fn status(&self) -> Result<Value, Problem> {
        no()
    }
}

#[async_trait]
impl TaskStarter for Nothing {
    async fn start(&self, _: Value) -> Result<Value, Problem> {
        no()
    }
}

#[async_trait]
impl DigestSource for Nothing {
    async fn digest(&self) -> Result<Value, Problem> {
        no()
    }
}

#[async_trait]
impl ViewAdmin for Nothing {
    async fn rebuild(&self, _: &str) -> Result<Value, Problem> {
        no()
    }
}

impl ShutdownTrigger for Nothing {
    fn request(&self) {}
}

#[async_trait]
impl EventSource for Nothing {
    fn departments(&self) -> &Departments {
        &self.departments
    }

    async fn head(&self) -> Result<Position, Problem> {
        no()
    }

    async fn page(
        &self,
        _: Position,
        _: usize,
        _: &EventFilter,
    ) -> Result<(Vec<RecordedEvent>, Position), Problem> {
        no()
    }

    fn tail(&self) -> Box<dyn Tail> {
        Box::new(Nothing::default())
    }

    async fn describe(&self, _: &RecordedEvent, _: Texts) -> Value {
        Value::Null
    }
}

#[async_trait]
impl Tail for Nothing {
    async fn next(
        &mut self,
        _: Position,
        _: usize,
        _: Duration,
    ) -> Result<Vec<Arc<RecordedEvent>>, LogError> {
        Err(LogError::Internal("not here".to_owned()))
    }
}

#[async_trait]
impl RowSource for Nothing {
    async fn agents(&self, _: Option<String>, _: u32) -> Result<Rows, Problem> {
        no()
    }

    async fn approvals(&self, _: bool, _: Option<String>, _: u32) -> Result<Rows, Problem> {
        no()
    }

    async fn approval(&self, _: &str) -> Result<Value, Problem> {
        no()
    }
}

#[async_trait]
impl ApprovalSource for Nothing {
    async fn terms(&self, _: &str) -> Result<ApprovalTerms, Problem> {
        no()
    }

    async fn details(&self, _: &str, _: Texts) -> Result<Value, Problem> {
        no()
    }

    async fn passkeys(&self, _: &str) -> Result<Vec<PasskeyRow>, Problem> {
        no()
    }
}

#[async_trait]
impl TokenStore for Nothing {
    async fn load(&self) -> Result<Vec<TokenRecord>, Problem> {
        Ok(Vec::new())
    }

    async fn save(&self, _: &[TokenRecord]) -> Result<(), Problem> {
        no()
    }
}

#[async_trait]
impl AgentSource for Nothing {
    async fn submit(&self, _: &Identifier, line: Bytes) -> Outcome {
        CommandGate::submit(self, line).await
    }

    async fn decisions(
        &self,
        _: &Identifier,
        _: Position,
        _: usize,
    ) -> Result<(Vec<RecordedEvent>, Position), Problem> {
        no()
    }

    async fn of_interest(
        &self,
        _: &Identifier,
        _: Vec<Arc<RecordedEvent>>,
    ) -> Result<Vec<Arc<RecordedEvent>>, Problem> {
        no()
    }
}

#[async_trait]
impl JobService for Nothing {
    async fn submit(&self, _: Value, _: &str) -> Result<Value, Problem> {
        no()
    }

    async fn list(&self, _: u64, _: u32, _: bool) -> Result<Value, Problem> {
        no()
    }

    async fn show(&self, _: &str) -> Result<Value, Problem> {
        no()
    }

    async fn command(&self, _: &str, _: &str, _: Value, _: &str) -> Result<Value, Problem> {
        no()
    }

    async fn queues(&self) -> Result<Value, Problem> {
        no()
    }

    async fn schedules(&self) -> Result<Value, Problem> {
        no()
    }

    async fn pause(&self, _: &str, _: Option<&str>) -> Result<Value, Problem> {
        no()
    }
}
