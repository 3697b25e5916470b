//! A ledger that already holds events: valid rows, chained as the appender chains them, by COPY.

use std::sync::Arc;

use sovereign_event_store::{Ledger, LedgerOptions};
use sovereign_schemas::avro::EventGroup as _;
use sovereign_schemas::chain::{self, Head};
use sovereign_schemas::events::{AgentEvent, AgentRegistered, ThoughtRecorded};
use sovereign_schemas::{
    DepartmentId, Departments, Digest, EventHeader, Position, RecordedEvent, Timestamp, catalog,
};
use sqlx::{Connection as _, Executor as _, PgConnection};

use super::copy::{Rows, STATEMENT};
use super::load::{AGGREGATES, Random};
use super::ours::{Fixed, fresh_id};

/// Events of one transaction.
const CHUNK: u64 = 50_000;

/// Fills a fresh database with `events` events; every aggregate gets its share.
pub(crate) async fn fill(database: &str, fixed: &Arc<Fixed>, events: u64) -> anyhow::Result<()> {
    Ledger::open(LedgerOptions::new(database, Departments::default()))
        .await?
        .close()
        .await;
    let mut connection = PgConnection::connect(database).await?;
    connection.execute("set synchronous_commit = off").await?;
    let (mut head, mut random) = (Head::EMPTY, Random(11));
    let mut rows = Rows::default();
    while head.position.0 < events {
        rows.start();
        for _ in 0..CHUNK.min(events - head.position.0) {
            let event = next(fixed, &mut head, &mut random);
            rows.push(&event, 1);
        }
        let mut copy = connection.copy_in_raw(STATEMENT).await?;
        copy.send(rows.finish()).await?;
        copy.finish().await?;
        eprintln!("append: {} of {events} events filled in", head.position);
    }
    let sql = format!(
        "update ledger.head set position = {}, hash = '\\x{}'; analyze ledger.events; checkpoint",
        head.position, head.hash
    );
    for statement in sql.split("; ") {
        connection.execute(statement).await?;
    }
    Ok(connection.close().await?)
}

/// One thought for each text.
pub(crate) fn templates(fixed: &Fixed) -> Vec<RecordedEvent> {
    let mut head = Head {
        position: Position(AGGREGATES as u64),
        hash: Digest::ZERO,
    };
    let mut random = Random(0);
    let texts = fixed.texts.iter();
    texts.map(|_| next(fixed, &mut head, &mut random)).collect()
}

/// The event after `head`: round by round one of each aggregate, the first of which founds it.
fn next(fixed: &Fixed, head: &mut Head, random: &mut Random) -> RecordedEvent {
    let at = head.position.0;
    let (round, aggregate) = (at / AGGREGATES as u64, at as usize % AGGREGATES);
    let event: AgentEvent = if round == 0 {
        let role = fixed.role.as_str().to_owned();
        AgentRegistered { role }.into()
    } else {
        let text = fixed.texts[random.next() as usize % fixed.texts.len()].clone();
        ThoughtRecorded {
            text,
            likeness: vec![],
        }
        .into()
    };
    let mut payload = Vec::new();
    event.encode(&mut payload);
    let schema = catalog::latest(event.event_type());
    let command_id = fresh_id();
    let header = EventHeader {
        position: Position(at + 1),
        event_id: fresh_id(),
        aggregate_type: "agent".into(),
        aggregate_id: fixed.ids[aggregate].as_str().to_owned(),
        sequence: round + 1,
        event_type: schema.name.into(),
        event_version: schema.version,
        department: DepartmentId::ORCHESTRATOR,
        actor: fixed.actor.as_str().to_owned(),
        command_id,
        correlation_id: command_id,
        causation_id: None,
        recorded_at: Timestamp(1_770_000_000_000_000 + at.cast_signed()),
        schema_fingerprint: schema.fingerprint,
    };
    let hash: Digest = chain::expected_hash(&head.hash, &header, &payload);
    *head = Head {
        position: header.position,
        hash,
    };
    RecordedEvent {
        header,
        payload: payload.into(),
        hash,
        traceparent: None,
    }
}
