use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::Value;
use sovereign_console::CommandGate;
use sovereign_schemas::{ErrorCode, Outcome, Position, Problem, Status};
use tokio::sync::Semaphore;

/// A gate whose lines say how long they take: `{"n":1,"delay_ms":5}`, `{"refuse":true}`,
/// `{"panic":true}`, and `{"hold":true}`, which waits for [`Gate::release`].
pub(crate) struct Gate {
    pub(crate) seen: Mutex<Vec<u64>>,
    /// Lines as they came.
    pub(crate) lines: Mutex<Vec<Value>>,
    pub(crate) running: AtomicUsize,
    pub(crate) running_max: AtomicUsize,
    pub(crate) done: AtomicUsize,
    held: Semaphore,
}

impl Default for Gate {
    fn default() -> Self {
        Self {
            seen: Mutex::default(),
            lines: Mutex::default(),
            running: AtomicUsize::new(0),
            running_max: AtomicUsize::new(0),
            done: AtomicUsize::new(0),
            held: Semaphore::new(0),
        }
    }
}

impl Gate {
    pub(crate) fn release(&self, lines: usize) {
        self.held.add_permits(lines);
    }

    pub(crate) fn seen(&self) -> Vec<u64> {
        self.seen.lock().unwrap().clone()
    }
}

#[async_trait]
impl CommandGate for Gate {
    async fn submit(&self, line: Bytes) -> Outcome {
        let Ok(value) = serde_json::from_slice::<Value>(&line) else {
            let problem = Problem::new(ErrorCode::MalformedJson, "no JSON object");
            return Outcome::failed(Status::Invalid, problem);
        };
        self.lines.lock().unwrap().push(value.clone());
        let n = value["n"].as_u64().unwrap_or_default();
        self.seen.lock().unwrap().push(n);
        let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.running_max.fetch_max(running, Ordering::SeqCst);
        if value["hold"] == true {
            self.held.acquire().await.unwrap().forget();
        }
        if let Some(delay_ms) = value["delay_ms"].as_u64() {
            tokio::time::sleep(Duration::from_millis(delay_ms)).await;
        }
        self.running.fetch_sub(1, Ordering::SeqCst);
        assert!(value["panic"] != true, "as the test wants");
        self.done.fetch_add(1, Ordering::SeqCst);
        if let Some(first) = value["duplicate_of"].as_u64() {
            let first = Position(first);
            return Outcome::effective(Status::Duplicate, Some((first, first))).of(n.to_string());
        }
        if value["refuse"] == true {
            let problem = Problem::new(ErrorCode::WrongState, "not now");
            return Outcome::failed(Status::Refused, problem).of(n.to_string());
        }
        Outcome::effective(Status::Accepted, Some((Position(n), Position(n)))).of(n.to_string())
    }
}
