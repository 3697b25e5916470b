use std::collections::HashMap;
use std::sync::Arc;

use sovereign_schemas::chain::{self, Broken, Head};
use sovereign_schemas::{
    DepartmentId, ErrorCode, LogError, Position, Problem, RecordedEvent, Uuid,
};
use tokio::sync::mpsc::{Receiver, Sender};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Failure;
use super::health::Shared;
use super::port::{Outgoing, TransactionalPort};
use crate::checkpoint::Checkpoint;
use crate::record;
use crate::registry::SchemaIds;
use crate::telemetry::Relayed;

/// A lane asks for the events after a position; no answer means stop.
pub(crate) struct Request {
    pub(crate) after: Position,
    pub(crate) reply: oneshot::Sender<Vec<Arc<RecordedEvent>>>,
}

/// Where events go: the same for both lanes.
pub(crate) struct Targets {
    pub(crate) relay: Uuid,
    pub(crate) topics: HashMap<DepartmentId, String>,
    pub(crate) checkpoint_topic: String,
    pub(crate) schema_ids: SchemaIds,
}

/// One of the two producers with its place in the ring. Whoever holds the head may produce;
/// whoever holds the commit turn may commit. A lane that ends drops both, which ends the other.
pub(crate) struct Lane {
    pub(crate) producer: Box<dyn TransactionalPort>,
    pub(crate) targets: Arc<Targets>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) requests: Sender<Request>,
    pub(crate) produce_turn: Receiver<Head>,
    pub(crate) produce_next: Sender<Head>,
    pub(crate) commit_turn: Receiver<()>,
    pub(crate) commit_next: Sender<()>,
}

impl Lane {
    /// Relays batch after batch until there is no more, the other lane ends, or something fails.
    pub(crate) async fn run(mut self) -> Result<(), Failure> {
        loop {
            let Some(mut head) = self.produce_turn.recv().await else {
                return Ok(());
            };
            let Some(events) = self.next_batch(head.position).await else {
                return Ok(());
            };
            let began = Instant::now();
            self.producer.begin()?;
            if let Err(failure) = self.produce(&mut head, &events).await {
                self.producer.abort().await;
                return Err(failure);
            }
            // all of this batch is in the partitions' logs: what the other lane sends is behind it
            let _ = self.produce_next.send(head).await;
            if self.commit_turn.recv().await.is_none() {
                // the batch before was not committed, so this one must not be
                self.producer.abort().await;
                return Ok(());
            }
            let written = self.producer.commit().await?;
            self.shared.advanced(head.position);
            self.shared.visible.committed(written);
            Relayed {
                position: head.position,
                events: events.len(),
                took: began.elapsed(),
            }
            .emit();
            let _ = self.commit_next.send(()).await;
        }
    }

    async fn next_batch(&mut self, after: Position) -> Option<Vec<Arc<RecordedEvent>>> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(Request { after, reply }).await.ok()?;
        answer.await.ok()
    }

    /// Sends the events and the checkpoint, and waits until the brokers hold them. `head` follows.
    async fn produce(
        &mut self,
        head: &mut Head,
        events: &[Arc<RecordedEvent>],
    ) -> Result<(), Failure> {
        self.send(head, events)?;
        self.producer.flush().await?;
        Ok(())
    }

    fn send(&mut self, head: &mut Head, events: &[Arc<RecordedEvent>]) -> Result<(), Failure> {
        let mut canonical = Vec::with_capacity(512);
        let mut value = Vec::with_capacity(4096);
        for event in events {
            canonical.clear();
            event.header.encode(&mut canonical);
            advance(head, event, &canonical)?;
            value.clear();
            let (topic, schema_id) = self.targets.of(event)?;
            record::put_value(schema_id, &event.payload, &mut value);
            self.producer.send(&Outgoing::Event {
                topic,
                event,
                canonical: &canonical,
                value: &value,
            })?;
        }
        let checkpoint = Checkpoint {
            position: head.position,
            hash: head.hash,
            relay: self.targets.relay,
        };
        send_checkpoint(
            self.producer.as_mut(),
            &self.targets.checkpoint_topic,
            &checkpoint,
        )
    }
}

impl Targets {
    /// Topic and schema id of an event.
    fn of(&self, event: &RecordedEvent) -> Result<(&str, u32), Failure> {
        let header = &event.header;
        let at = header.position;
        let topic = self.topics.get(&header.department).ok_or_else(|| {
            let message = format!("position {at} belongs to a department that is not configured");
            let problem = Problem::new(ErrorCode::UnknownDepartment, message);
            Failure::Final(problem.found(header.department.to_string()))
        })?;
        let version = header.event_version;
        let id = self.schema_ids.get(&header.event_type, version);
        let id = id.ok_or_else(|| {
            let message = format!("position {at} has an event type that this build does not know");
            let problem = Problem::new(ErrorCode::DecodeFailed, message);
            Failure::Final(problem.found(format!("{} version {version}", header.event_type)))
        })?;
        Ok((topic, id))
    }
}

/// I1 and I3 before anything leaves: a broken ledger is not copied.
fn advance(head: &mut Head, event: &RecordedEvent, canonical: &[u8]) -> Result<(), Failure> {
    let expected = head.position.next();
    let position = event.position();
    if position != expected {
        return Err(LogError::Gap {
            expected,
            found: position,
        }
        .into());
    }
    let hash = chain::hash(&head.hash, canonical, &event.payload);
    if hash != event.hash {
        let broken = Broken::Hash {
            position,
            expected: hash,
            found: event.hash,
        };
        return Err(Failure::Final(Problem::new(
            ErrorCode::LedgerDiverged,
            broken.to_string(),
        )));
    }
    *head = Head { position, hash };
    Ok(())
}

pub(crate) fn send_checkpoint(
    producer: &mut dyn TransactionalPort,
    topic: &str,
    checkpoint: &Checkpoint,
) -> Result<(), Failure> {
    let value = serde_json::to_vec(checkpoint)
        .map_err(|e| crate::Error::internal("write checkpoint", e))?;
    let value = value.as_slice();
    let record = Outgoing::Checkpoint { topic, value };
    producer.send(&record).map_err(Failure::from)
}
