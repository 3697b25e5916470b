use sovereign_event_store::{Ledger, LedgerReader};
use sovereign_schemas::{Cursor, ErrorCode, EventLog as _, LogError, Position};
use sqlx::Executor as _;

use crate::common::{Database, all, bar, register, send, verified};

#[tokio::test(flavor = "multi_thread")]
async fn events_cannot_be_changed_not_even_by_the_owner() {
    let database = Database::create().await;
    let ledger = database.open().await;
    send(&ledger, &register("a")).await;
    let mut connection = database.connect().await;
    for statement in [
        "update ledger.events set actor = 'x'",
        "update ledger.events set actor = 'x' where false",
        "delete from ledger.events",
        "truncate ledger.events",
        "truncate ledger.events cascade",
        "delete from ledger.head",
        "truncate ledger.head",
        "update ledger.refusals set recorded_at_us = 0",
        "set session_replication_role = replica; delete from ledger.events",
    ] {
        let error = connection.execute(statement).await.unwrap_err().to_string();
        assert!(
            error.contains("append-only") || error.contains("permission"),
            "{error}"
        );
        connection
            .execute("set session_replication_role = origin")
            .await
            .unwrap();
    }
    let granted: i64 = sqlx::query_scalar(
        "select count(*) from information_schema.role_table_grants where table_schema = 'ledger' \
         and table_name = 'events' and privilege_type in ('UPDATE', 'DELETE', 'TRUNCATE')",
    )
    .fetch_one(&mut connection)
    .await
    .unwrap();
    assert_eq!(granted, 0);
    assert_eq!(verified(&ledger.reader()).await.position, Position(1));
    database.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_superuser_changes_is_found() {
    let database = Database::create().await;
    let ledger = database.open().await;
    send(&ledger, &register("a")).await;
    for number in 1..10 {
        send(&ledger, &bar("a", number)).await;
    }
    let mut superuser = database.connect().await;
    let off = "alter table ledger.events disable trigger user";
    superuser.execute(off).await.unwrap();
    let reader = ledger.reader();

    let change = "update ledger.events set actor = 'other' where position = 5";
    superuser.execute(change).await.unwrap();
    let mut head = sovereign_schemas::chain::Head::EMPTY;
    let found = all(&reader)
        .await
        .iter()
        .find_map(|e| sovereign_schemas::chain::advance(&mut head, e).err())
        .unwrap();
    assert_eq!(found.position(), Position(5));

    superuser
        .execute("delete from ledger.events where position = 7")
        .await
        .unwrap();
    let mut log = reader.log();
    let (before, cursor) = log.read(Cursor::default(), 100).await.unwrap();
    assert_eq!(before.len(), 6);
    let gap = log.read(cursor, 100).await.unwrap_err();
    let expected = Position(7);
    assert!(
        matches!(gap, LogError::Gap { expected: e, found } if e == expected && found.0 == 8),
        "{gap}"
    );

    superuser
        .execute("delete from ledger.events where position > 8")
        .await
        .unwrap();
    let (_, cursor) = log.read(Position(7).into(), 100).await.unwrap();
    let cut = log.read(cursor, 100).await.unwrap_err();
    assert!(
        matches!(cut, LogError::Gap { expected, found } if expected.0 == 9 && found.0 == 10),
        "{cut}"
    );
    database.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_schema_is_refused_with_numbers() {
    let database = Database::create().await;
    database.open().await.close().await;
    let mut connection = database.connect().await;
    connection
        .execute("insert into ledger.sovereign_schema (version, name) values (99, 'later')")
        .await
        .unwrap();
    let error = Ledger::open(database.options()).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::SchemaTooNew);
    assert!(error.to_string().contains("99"), "{error}");
    database.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_engines_that_start_at_once_migrate_once() {
    let database = Database::create().await;
    let options = database.options();
    let ledgers = crate::common::at_once(8, move |_| {
        let options = options.clone();
        async move { Ledger::open(options).await.unwrap() }
    })
    .await;
    assert_eq!(ledgers.len(), 8);
    database.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_server_and_a_missing_database_are_told_apart() {
    let dead = LedgerReader::connect("postgres://u@127.0.0.1:1/x", 1).unwrap();
    let error = dead.head().await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::DatabaseUnreachable);
    let database = Database::create().await;
    // the name alone: a URL may go on behind it, with the folder of the server's socket
    let missing = format!("{}_missing", database.name);
    let no_such = database.url.replace(&database.name, &missing);
    let options = sovereign_event_store::LedgerOptions::new(
        no_such,
        sovereign_schemas::Departments::default(),
    );
    let error = Ledger::open(options).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::InvalidConfig, "{error}");
    database.remove().await;
}
