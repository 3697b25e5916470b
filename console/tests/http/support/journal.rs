use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::{Value, json};
use sovereign_console::{
    EventFilter, EventSource, RowSource, Rows, Texts, TokenRecord, TokenStore,
};
use sovereign_schemas::{
    DepartmentId, Departments, Digest, ErrorCode, EventHeader, LogError, Position, Problem,
    RecordedEvent, Tail, Timestamp, Uuid,
};
use tokio::sync::watch;

/// A ledger in memory that tests append to.
#[derive(Clone)]
pub(crate) struct Journal(Arc<Inner>);

struct Inner {
    events: Mutex<Vec<Arc<RecordedEvent>>>,
    head: watch::Sender<u64>,
    departments: Departments,
    described: AtomicUsize,
}

impl Default for Journal {
    fn default() -> Self {
        Self(Arc::new(Inner {
            events: Mutex::default(),
            head: watch::channel(0).0,
            departments: Departments::default(),
            described: AtomicUsize::new(0),
        }))
    }
}

fn event(position: u64, department: u16, correlation_id: Uuid, bytes: usize) -> RecordedEvent {
    RecordedEvent {
        header: EventHeader {
            position: Position(position),
            event_id: Uuid::now_v7(),
            aggregate_type: "agent".into(),
            aggregate_id: format!("agent-{}", position % 3),
            sequence: position,
            event_type: "ThoughtRecorded".into(),
            event_version: 1,
            department: DepartmentId(department),
            actor: "me".to_owned(),
            command_id: Uuid::now_v7(),
            correlation_id,
            causation_id: None,
            recorded_at: Timestamp(1),
            schema_fingerprint: [0; 8],
        },
        payload: Bytes::from(vec![b'x'; bytes]),
        hash: Digest::ZERO,
        traceparent: None,
    }
}

impl Journal {
    /// Appends events of alternating departments, 5 and 7.
    pub(crate) fn append(&self, count: u64, bytes: usize) {
        for _ in 0..count {
            self.add(Uuid::now_v7(), bytes);
        }
    }

    /// Appends one event; its position.
    pub(crate) fn add(&self, correlation_id: Uuid, bytes: usize) -> u64 {
        let mut events = self.0.events.lock().unwrap();
        let position = events.len() as u64 + 1;
        let department = if position % 2 == 1 { 5 } else { 7 };
        events.push(Arc::new(event(position, department, correlation_id, bytes)));
        self.0.head.send_replace(position);
        position
    }

    /// How many events were made into JSON.
    pub(crate) fn described(&self) -> usize {
        self.0.described.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl Tail for Journal {
    async fn next(
        &mut self,
        after: Position,
        limit: usize,
        wait: Duration,
    ) -> Result<Vec<Arc<RecordedEvent>>, LogError> {
        let mut head = self.0.head.subscribe();
        let more = head.wait_for(|head| *head > after.0);
        if tokio::time::timeout(wait, more).await.is_err() {
            return Ok(Vec::new());
        }
        let events = self.0.events.lock().unwrap();
        let skip = usize::try_from(after.0).unwrap();
        Ok(events.iter().skip(skip).take(limit).cloned().collect())
    }
}

#[async_trait]
impl EventSource for Journal {
    fn departments(&self) -> &Departments {
        &self.0.departments
    }

    async fn head(&self) -> Result<Position, Problem> {
        Ok(Position(*self.0.head.borrow()))
    }

    async fn page(
        &self,
        after: Position,
        limit: usize,
        filter: &EventFilter,
    ) -> Result<(Vec<RecordedEvent>, Position), Problem> {
        let events = self.0.events.lock().unwrap();
        let skip = usize::try_from(after.0).unwrap();
        let (mut found, mut reached) = (Vec::new(), after);
        for event in events.iter().skip(skip) {
            if found.len() == limit {
                break;
            }
            reached = event.position();
            if filter.passes(event) {
                found.push(RecordedEvent::clone(event));
            }
        }
        Ok((found, reached))
    }

    fn tail(&self) -> Box<dyn Tail> {
        Box::new(self.clone())
    }

    async fn describe(&self, event: &RecordedEvent, texts: Texts) -> Value {
        self.0.described.fetch_add(1, Ordering::Relaxed);
        let text = match texts {
            Texts::Sealed => "sealed",
            Texts::Revealed => "revealed",
        };
        let pad = String::from_utf8_lossy(&event.payload);
        json!({ "position": event.position(), "department": event.header.department,
            "aggregate_id": event.header.aggregate_id, "data": { "text": text, "pad": pad } })
    }
}

/// Two views with fixed rows.
pub(crate) struct FixedRows;

fn page(rows: &[&str], after: Option<String>, limit: u32) -> Rows {
    let after = after.unwrap_or_default();
    let rest: Vec<&str> = rows.iter().copied().filter(|id| **id > *after).collect();
    let taken = &rest[..rest.len().min(limit as usize)];
    Rows {
        position: Position(42),
        rows: taken.iter().map(|id| json!({ "id": id })).collect(),
        next: (taken.len() < rest.len()).then(|| taken[taken.len() - 1].to_owned()),
    }
}

#[async_trait]
impl RowSource for FixedRows {
    async fn agents(&self, after: Option<String>, limit: u32) -> Result<Rows, Problem> {
        Ok(page(&["a", "b", "c"], after, limit))
    }

    async fn approvals(
        &self,
        all: bool,
        after: Option<String>,
        limit: u32,
    ) -> Result<Rows, Problem> {
        let rows: &[&str] = if all { &["old", "waits"] } else { &["waits"] };
        Ok(page(rows, after, limit))
    }

    async fn approval(&self, id: &str) -> Result<Value, Problem> {
        match id {
            "waits" => Ok(json!({ "id": id })),
            _ => Err(Problem::new(ErrorCode::NotFound, "no such approval")),
        }
    }
}

/// Tokens that last as long as the test.
#[derive(Default)]
pub(crate) struct MemoryTokens(pub(crate) Mutex<Vec<TokenRecord>>);

#[async_trait]
impl TokenStore for MemoryTokens {
    async fn load(&self) -> Result<Vec<TokenRecord>, Problem> {
        Ok(self.0.lock().unwrap().clone())
    }

    async fn save(&self, records: &[TokenRecord]) -> Result<(), Problem> {
        *self.0.lock().unwrap() = records.to_vec();
        Ok(())
    }
}
