//! The limit: binary COPY of the same rows into the same table, without aggregates, chain, command
//! ids to look up, or anybody who is told. One transaction for all callers that wait, as in ours.

use std::sync::Arc;

use anyhow::ensure;
use sovereign_event_store::{Ledger, LedgerOptions};
use sovereign_schemas::{Departments, Position, RecordedEvent};
use sqlx::{Connection as _, PgConnection};
use tokio::sync::{mpsc, oneshot};

use super::fill::templates;
use super::load::{AGGREGATES, Caller, Plan, Random, Times, Unit, drive};
use super::ours::{Fixed, fresh_id};
use crate::protocol::Reading;

/// What [`Rows`] are for.
pub(crate) const STATEMENT: &str = "copy ledger.events (position, sequence, recorded_at_us, event_version, \
    department, command_events, event_id, command_id, correlation_id, causation_id, \
    aggregate_type, aggregate_id, event_type, actor, schema_fingerprint, traceparent, hash, \
    payload) from stdin (format binary)";
const COLUMNS: i16 = 18;
/// Rows of one transaction, as in ours.
const ROWS_MAX: usize = 4_096;

struct Sender(mpsc::Sender<(Unit, oneshot::Sender<()>)>);

impl Caller for Sender {
    async fn unit(&mut self, unit: Unit, _: &mut Random) -> anyhow::Result<usize> {
        let (reply, copied) = oneshot::channel();
        self.0.send((unit, reply)).await?;
        copied.await?;
        Ok(unit.events)
    }
}

/// Rows of `ledger.events` in binary.
#[derive(Debug, Default)]
pub(crate) struct Rows(Vec<u8>);

impl Rows {
    pub(crate) fn start(&mut self) {
        self.0.clear();
        self.0
            .extend_from_slice(b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0");
    }

    pub(crate) fn push(&mut self, event: &RecordedEvent, command_events: i32) {
        let header = &event.header;
        self.0.extend_from_slice(&COLUMNS.to_be_bytes());
        self.field(&header.position.0.to_be_bytes());
        self.field(&header.sequence.to_be_bytes());
        self.field(&header.recorded_at.0.to_be_bytes());
        self.field(&i32::from(header.event_version).to_be_bytes());
        self.field(&i32::from(header.department.0).to_be_bytes());
        self.field(&command_events.to_be_bytes());
        self.field(header.event_id.as_bytes());
        self.field(header.command_id.as_bytes());
        self.field(header.correlation_id.as_bytes());
        self.null();
        self.field(header.aggregate_type.as_bytes());
        self.field(header.aggregate_id.as_bytes());
        self.field(header.event_type.as_bytes());
        self.field(header.actor.as_bytes());
        self.field(&header.schema_fingerprint);
        self.null();
        self.field(&event.hash.0);
        self.field(&event.payload);
    }

    pub(crate) fn finish(&mut self) -> &[u8] {
        self.0.extend_from_slice(&(-1_i16).to_be_bytes());
        &self.0
    }

    fn field(&mut self, bytes: &[u8]) {
        self.0
            .extend_from_slice(&(bytes.len() as i32).to_be_bytes());
        self.0.extend_from_slice(bytes);
    }

    fn null(&mut self) {
        self.0.extend_from_slice(&(-1_i32).to_be_bytes());
    }
}

struct Writer {
    connection: PgConnection,
    /// One row for each text, to be made another one.
    templates: Vec<RecordedEvent>,
    fixed: Arc<Fixed>,
    position: u64,
    sequences: Vec<u64>,
    rows: Rows,
}

impl Writer {
    async fn run(
        mut self,
        mut waiting: mpsc::Receiver<(Unit, oneshot::Sender<()>)>,
    ) -> anyhow::Result<()> {
        let mut batch = Vec::new();
        while waiting.recv_many(&mut batch, ROWS_MAX / 3).await > 0 {
            self.rows.start();
            for (unit, _) in &batch {
                for _ in 0..unit.events {
                    self.row(unit.aggregate);
                }
            }
            // a COPY outside a transaction is one, and returns once it is durable
            let mut copy = self.connection.copy_in_raw(STATEMENT).await?;
            copy.send(self.rows.finish()).await?;
            copy.finish().await?;
            for (_, reply) in batch.drain(..) {
                let _ = reply.send(());
            }
        }
        Ok(())
    }

    fn row(&mut self, aggregate: usize) {
        self.position += 1;
        self.sequences[aggregate] += 1;
        let template = self.position as usize % self.templates.len();
        let event = &mut self.templates[template];
        let header = &mut event.header;
        header.position = Position(self.position);
        header.sequence = self.sequences[aggregate];
        header.event_id = fresh_id();
        header.command_id = fresh_id();
        header.correlation_id = header.command_id;
        header.aggregate_id.clear();
        header
            .aggregate_id
            .push_str(self.fixed.ids[aggregate].as_str());
        self.rows.push(event, 1);
    }
}

pub(crate) async fn run(
    database: &str,
    fixed: &Arc<Fixed>,
    in_flight: usize,
    times: Times,
) -> anyhow::Result<Reading> {
    // makes the table
    let ledger = Ledger::open(LedgerOptions::new(database, Departments::default())).await?;
    ledger.close().await;
    let writer = Writer {
        connection: PgConnection::connect(database).await?,
        templates: templates(fixed),
        fixed: Arc::clone(fixed),
        position: 0,
        sequences: vec![0; AGGREGATES],
        rows: Rows::default(),
    };
    let (queue, waiting) = mpsc::channel(in_flight);
    let writer = tokio::spawn(writer.run(waiting));
    let plan = Plan::new(AGGREGATES, 0);
    let callers = (0..in_flight).map(|_| Sender(queue.clone())).collect();
    let done = drive(&plan, times, callers).await;
    drop(queue);
    writer.await??;
    let done = done?;
    let mut connection = PgConnection::connect(database).await?;
    let stored: i64 = sqlx::query_scalar("select count(*) from ledger.events")
        .fetch_one(&mut connection)
        .await?;
    ensure!(
        stored.cast_unsigned() == done.events,
        "{} rows were acknowledged, {stored} are stored",
        done.events
    );
    connection.close().await?;
    Ok(done.reading())
}
