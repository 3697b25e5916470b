use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use sovereign_console::{
    DigestSource, Health, HealthSource, PartHealth, ShutdownTrigger, StatusSource, TaskStarter,
    ViewAdmin,
};
use sovereign_schemas::{ErrorCode, Position, Problem};

/// Services with fixed answers, and switches for failures.
#[derive(Default)]
pub(crate) struct Fixed {
    pub(crate) relay_down: AtomicBool,
    pub(crate) panics: AtomicBool,
    pub(crate) hangs: AtomicBool,
    pub(crate) shutdowns: AtomicU32,
}

#[async_trait]
impl HealthSource for Fixed {
    async fn health(&self) -> Health {
        let mut parts = BTreeMap::new();
        parts.insert(
            "ledger".to_owned(),
            PartHealth::healthy(json!({ "connections": 4 })),
        );
        let mut relay = PartHealth::healthy(Value::Null);
        if self.relay_down.load(Ordering::Relaxed) {
            relay = PartHealth::failed(Problem::new(ErrorCode::BrokerUnreachable, "no answer"));
        }
        relay.lag = Some(7);
        parts.insert("relay".to_owned(), relay);
        Health::of(Position(42), parts)
    }
}

#[async_trait]
impl StatusSource for Fixed {
    async fn status(&self) -> Result<Value, Problem> {
        assert!(!self.panics.load(Ordering::Relaxed), "as the test wants");
        if self.hangs.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
        Ok(json!({ "healthy": true, "head": 42 }))
    }
}

#[async_trait]
impl TaskStarter for Fixed {
    async fn start(&self, request: Value) -> Result<Value, Problem> {
        match request.get("file").and_then(Value::as_str) {
            Some(file) => Ok(json!({ "task": "main", "file": file })),
            None => Err(Problem::new(ErrorCode::MissingField, "there is no file").field("file")),
        }
    }
}

#[async_trait]
impl DigestSource for Fixed {
    async fn digest(&self) -> Result<Value, Problem> {
        Err(Problem::new(ErrorCode::Busy, "the state is being loaded").retry_after_ms(1500))
    }
}

#[async_trait]
impl ViewAdmin for Fixed {
    async fn rebuild(&self, view: &str) -> Result<Value, Problem> {
        match view {
            "trades" => Ok(json!({ "view": view })),
            _ => Err(Problem::new(ErrorCode::NotFound, "no such view")
                .field("name")
                .found(view)),
        }
    }
}

impl ShutdownTrigger for Fixed {
    fn request(&self) {
        self.shutdowns.fetch_add(1, Ordering::Relaxed);
    }
}
