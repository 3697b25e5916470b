//! Requests to the schema registry, one a line: `METHOD PATH BODY`. No answer is a failure of the
//! server, every body is the JSON that clients expect, and the store stays as it should be.
#![no_main]

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use sovereign_console::{
    ApprovalSource, ApprovalTerms, CommandGate, ConsoleOptions, DigestSource, EventFilter,
    EventSource, Health, HealthSource, InProcess, PasskeyRow, RowSource, Rows, SchemaStore,
    Services, ShutdownTrigger, StatusSource, TaskStarter, Texts, Token, TokenBook, TokenRecord,
    TokenStore, ViewAdmin, metrics_recorder,
};
use sovereign_guard::access::CredentialKey;
use sovereign_schemas::{
    Departments, ErrorCode, LogError, Outcome, Position, Problem, RecordedEvent, Status, Tail,
};
use tokio::runtime::{Builder, Runtime};

#[allow(clippy::unwrap_used)]
#[path = "../../console/tests/http/support/schemas.rs"]
mod schemas;

const REQUESTS_MAX: usize = 12;

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let mut builder = Builder::new_current_thread();
    builder.enable_time().build().expect("a runtime")
});

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    RUNTIME.block_on(run(text));
});

async fn run(text: &str) {
    let store = Arc::new(schemas::MemoryStore::default());
    let console = InProcess::new(
        ConsoleOptions::new(Token::new("0123456789abcdef0123456789abcdef").expect("long enough")),
        services(store.clone()).await,
    );
    for line in text.lines().take(REQUESTS_MAX) {
        let mut parts = line.splitn(3, ' ');
        let (method, path) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
        let body = Bytes::copy_from_slice(parts.next().unwrap_or("").as_bytes());
        let headers = [("content-type", "application/vnd.schemaregistry.v1+json")];
        let Some(answer) = console.answer(method, path, &headers, body).await else {
            continue;
        };
        assert!(answer.status < 500, "{line:?}: {answer:?}");
        let registry =
            answer.media_type.as_deref() == Some("application/vnd.schemaregistry.v1+json");
        if registry && method != "HEAD" && answer.status != 204 {
            let value: Value = serde_json::from_slice(&answer.body).expect("JSON");
            if answer.status >= 400 {
                assert!(value["error_code"].is_u64() && value["message"].is_string());
            }
        }
    }
    for version in store.all().await.expect("in memory") {
        let normal = sovereign_schemas::compatibility::normalized(&version.schema);
        assert_eq!(normal.as_ref(), Ok(&version.schema), "stored as normalized");
    }
}

async fn services(schemas: Arc<schemas::MemoryStore>) -> Services {
    let nothing = Arc::new(Nothing::default());
    let key = CredentialKey::from_bytes([7; 32]);
    let tokens = TokenBook::open(key, nothing.clone()).await;
    Services {
        health: nothing.clone(),
        metrics: metrics_recorder().expect("ours is the only one"),
        commands: nothing.clone(),
        status: nothing.clone(),
        tasks: nothing.clone(),
        digest: nothing.clone(),
        views: nothing.clone(),
        events: nothing.clone(),
        rows: nothing.clone(),
        approvals: nothing.clone(),
        tokens: Arc::new(tokens.expect("nothing to read")),
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
