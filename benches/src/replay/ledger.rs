//! From the ledger in PostgreSQL.

use std::time::Instant;

use futures::TryStreamExt as _;
use sovereign_event_store::{Ledger, LedgerOptions, LedgerReader};
use sovereign_replay::Options;
use sovereign_schemas::{Departments, EventLog, RecordedEvent};
use sqlx::{Connection as _, Executor as _, PgConnection};

use super::data::{Log, SERVED, measured};
use crate::protocol::{Arm, Reading, Report};
use crate::servers::BenchServers;

const GOAL: f64 = 0.5;

pub(super) async fn case(
    servers: &BenchServers,
    log: &Log,
    report: &mut Report,
    rounds: usize,
) -> anyhow::Result<()> {
    let database = &servers.database().await?;
    fill(database, &log.served).await?;
    let arms = vec![
        Arm::new("copy", move |_| async move { copy(database).await }),
        Arm::new("ours", move |_| async move {
            let mut ledger = LedgerReader::connect(database, 2)?.log();
            let ledger: &mut dyn EventLog = &mut ledger;
            measured(ledger, Options::default(), SERVED, &log.digests.0).await
        }),
    ];
    report.case("ledger", "events/s", rounds, arms).await?;
    let ratio = report.ratio("ledger", "ours", "copy");
    report.goal_at_least("ledger.ours-copy", GOAL, ratio.median);
    Ok(())
}

/// Drains the rows and counts the messages: one for each row.
async fn copy(database: &str) -> anyhow::Result<Reading> {
    let started = Instant::now();
    let mut connection = PgConnection::connect(database).await?;
    let mut rows = 0;
    {
        let mut chunks = connection
            .copy_out_raw("copy ledger.events to stdout (format binary)")
            .await?;
        while chunks.try_next().await?.is_some() {
            rows += 1;
        }
    }
    let took = started.elapsed();
    connection.close().await?;
    anyhow::ensure!((SERVED..SERVED + 3).contains(&rows), "{rows} rows");
    Ok(Reading::new(SERVED as f64 / took.as_secs_f64()))
}

/// The rows that the appender would have written.
async fn fill(database: &str, events: &[RecordedEvent]) -> anyhow::Result<()> {
    // makes the tables
    Ledger::open(LedgerOptions::new(database, Departments::default()))
        .await?
        .close()
        .await;
    let mut connection = PgConnection::connect(database).await?;
    let mut copy = connection
        .copy_in_raw(
            "copy ledger.events (position, sequence, recorded_at_us, event_version, department, \
             command_events, event_id, command_id, correlation_id, causation_id, aggregate_type, \
             aggregate_id, event_type, actor, schema_fingerprint, traceparent, hash, payload) \
             from stdin (format binary)",
        )
        .await?;
    copy.send(&b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0"[..])
        .await?;
    for events in events.chunks(1_000) {
        let mut bytes = Vec::new();
        events.iter().for_each(|event| put(&mut bytes, event));
        copy.send(bytes).await?;
    }
    copy.send(&(-1_i16).to_be_bytes()[..]).await?;
    copy.finish().await?;
    if let Some(last) = events.last() {
        sqlx::query("update ledger.head set position = $1, hash = $2")
            .bind(last.position().0.cast_signed())
            .bind(&last.hash.0[..])
            .execute(&mut connection)
            .await?;
    }
    // as a ledger that has been there for a while
    connection.execute("vacuum (analyze) ledger.events").await?;
    connection.execute("checkpoint").await?;
    connection.close().await?;
    Ok(())
}

fn put(out: &mut Vec<u8>, event: &RecordedEvent) {
    let header = &event.header;
    out.extend_from_slice(&18_i16.to_be_bytes());
    let mut field = |value: Option<&[u8]>| {
        let length = value.map_or(-1, |value| value.len() as i32);
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(value.unwrap_or_default());
    };
    field(Some(&header.position.0.to_be_bytes()));
    field(Some(&header.sequence.to_be_bytes()));
    field(Some(&header.recorded_at.0.to_be_bytes()));
    field(Some(&i32::from(header.event_version).to_be_bytes()));
    field(Some(&i32::from(header.department.0).to_be_bytes()));
    field(Some(&1_i32.to_be_bytes()));
    field(Some(header.event_id.as_bytes()));
    field(Some(header.command_id.as_bytes()));
    field(Some(header.correlation_id.as_bytes()));
    field(header.causation_id.as_ref().map(|id| &id.as_bytes()[..]));
    field(Some(header.aggregate_type.as_bytes()));
    field(Some(header.aggregate_id.as_bytes()));
    field(Some(header.event_type.as_bytes()));
    field(Some(header.actor.as_bytes()));
    field(Some(&header.schema_fingerprint));
    field(event.traceparent.as_ref().map(String::as_bytes));
    field(Some(&event.hash.0));
    field(Some(&event.payload));
}
