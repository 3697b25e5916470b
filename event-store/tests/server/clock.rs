//! The clock is set back by an hour: what the ledger holds was recorded in the future.

use sovereign_aggregates::{AnyCommand, CommandRequest};
use sovereign_event_store::KeyStore;
use sovereign_guard::seal::MasterKey;
use sovereign_schemas::{ErrorCode, RecordedEvent, Status, Timestamp, chain};
use sqlx::Executor as _;

use crate::common::{Database, all, command, register, request, send, verified};

const HOUR_US: i64 = 3_600_000_000;

/// Moves the moment of the last event an hour on, with a chain that holds: as it would be had the
/// clock been right then, and an hour behind now.
async fn set_clock_back(
    database: &Database,
    last: &RecordedEvent,
    previous: &RecordedEvent,
) -> Timestamp {
    let mut header = last.header.clone();
    header.recorded_at = header.recorded_at.plus_s(HOUR_US / 1_000_000);
    let hash = chain::expected_hash(&previous.hash, &header, &last.payload);
    let position = last.position();
    let mut superuser = database.connect().await;
    let sql = format!(
        "alter table ledger.events disable trigger user; \
         update ledger.events set recorded_at_us = {}, hash = decode('{hash}', 'hex') \
         where position = {position}; \
         update ledger.head set hash = decode('{hash}', 'hex'); \
         alter table ledger.events enable always trigger events_keep_rows; \
         alter table ledger.events enable always trigger events_keep",
        header.recorded_at.0
    );
    superuser.execute(sql.as_str()).await.unwrap();
    header.recorded_at
}

fn approval(name: &str, data: serde_json::Value) -> CommandRequest {
    let command: AnyCommand = command("approval", name, data);
    request("a1", command)
}

#[tokio::test(flavor = "multi_thread")]
async fn recorded_times_never_fall_and_approvals_expire_by_them() {
    let database = Database::create().await;
    let ledger = database.open().await;
    for agent in ["a", "b"] {
        send(&ledger, &register(agent)).await;
    }
    let events = all(&ledger.reader()).await;
    ledger.close().await;
    let future = set_clock_back(&database, &events[1], &events[0]).await;

    let ledger = database.open().await;
    for agent in ["c", "d"] {
        let outcome = send(&ledger, &register(agent)).await;
        assert_eq!(outcome.status, Status::Accepted, "{outcome:?}");
    }
    let ask = approval(
        "request",
        serde_json::json!({
            "action": "trade", "target_id": "t1", "amount": "1500", "currency": "USD",
            "action_digest": "00".repeat(32),
        }),
    );
    assert_eq!(send(&ledger, &ask).await.status, Status::Accepted);
    // an hour of the ledger's time has not passed, whatever the clock says
    let outcome = send(&ledger, &approval("expire", serde_json::json!({}))).await;
    assert_eq!(outcome.error.map(|e| e.code), Some(ErrorCode::NotDue));
    let events = all(&ledger.reader()).await;
    assert_eq!(events.len(), 5);
    for pair in events.windows(2) {
        assert!(pair[0].header.recorded_at <= pair[1].header.recorded_at);
    }
    for event in &events[1..] {
        assert_eq!(
            event.header.recorded_at, future,
            "time stands still until the clock is there"
        );
    }
    assert_eq!(verified(&ledger.reader()).await.position.0, 5);
    database.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_a_newer_build_are_refused_with_numbers() {
    let database = Database::create().await;
    let open = || KeyStore::open(&database.url, MasterKey::from_bytes([1; 32]));
    open().await.unwrap();
    let mut connection = database.connect().await;
    connection
        .execute("insert into keys.sovereign_schema (version, name) values (99, 'later')")
        .await
        .unwrap();
    let error = open().await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::SchemaTooNew);
    assert!(error.to_string().contains("99"), "{error}");
    drop(connection);
    database.remove().await;
}

/// What a ledger of version 4 looks like to this build.
#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_of_an_older_build_is_brought_up_and_keeps_its_events() {
    let database = Database::create().await;
    let ledger = database.open().await;
    for agent in ["a", "b", "c"] {
        send(&ledger, &register(agent)).await;
    }
    let before = verified(&ledger.reader()).await;
    ledger.close().await;
    let mut superuser = database.connect().await;
    superuser
        .execute(
            "alter table ledger.events drop constraint events_sequence, \
             add constraint events_sequence unique (aggregate_type, aggregate_id, sequence); \
             drop table ledger.job_waits, ledger.job_queues, ledger.job_feed, ledger.jobs; \
             delete from ledger.sovereign_schema where version > 4",
        )
        .await
        .unwrap();

    let ledger = database.open().await;
    assert_eq!(verified(&ledger.reader()).await, before);
    let definition: String =
        sqlx::query_scalar("select pg_get_indexdef('ledger.events_sequence'::regclass)")
            .fetch_one(&mut superuser)
            .await
            .unwrap();
    assert!(
        definition.contains("UNIQUE")
            && definition.contains("(aggregate_id, aggregate_type, sequence)"),
        "{definition}"
    );
    let differences = sovereign_event_store::check_indexes(&database.url).await;
    assert_eq!(differences.unwrap(), None);
    let again = send(&ledger, &register("a")).await;
    assert_eq!(again.error.map(|e| e.code), Some(ErrorCode::AlreadyExists));
    ledger.close().await;
    drop(superuser);
    database.remove().await;
}
