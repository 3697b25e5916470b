//! What the HTTP part of an engine may do in the database, and what it may not.

use serde_json::Value;

use crate::harness::{Engine, small};

fn state(engine: &Engine) -> Value {
    let state = std::fs::read(engine.data.join("engine.json")).unwrap();
    serde_json::from_slice(&state).unwrap()
}

#[track_caller]
fn denied(engine: &Engine, url: &str, sql: &str) {
    let done = engine.psql_as(url, sql);
    let refused = ["permission denied", "must be owner"];
    let refused = refused.iter().any(|words| done.stderr.contains(words));
    assert!(done.code != 0 && refused, "{sql}: {done:?}");
}

#[test]
fn the_api_reads_and_can_neither_write_events_nor_read_keys() {
    let engine = small();
    let state = state(&engine);
    let url = state["api_database"].as_str().unwrap();
    assert!(url.contains("sovereign_api"), "a role of its own");

    let head = engine.head().to_string();
    let events = engine
        .psql_as(url, "select count(*) from ledger.events")
        .ok();
    assert_eq!(events.stdout.trim(), head);
    engine
        .psql_as(url, "select count(*) from views.agents")
        .ok();

    for sql in [
        "insert into ledger.events select * from ledger.events limit 1",
        "update ledger.events set actor = 'me'",
        "delete from ledger.events",
        "truncate ledger.events",
        "update ledger.head set position = 0",
        "insert into ledger.refusals select * from ledger.refusals",
        "update ledger.checkpoints set position = 0",
        "insert into ledger.artifacts select * from ledger.artifacts",
        "update views.checkpoints set position = 0",
        "delete from views.agents_v1",
        "create table ledger.mine (one int)",
        "create table views.mine (one int)",
        "create table public.mine (one int)",
        "create schema mine",
        "set role sovereign",
        "alter table ledger.events disable trigger all",
    ] {
        denied(&engine, url, sql);
    }
    // the keys are another database, to which it cannot even connect
    let keys = format!("{url}_keys");
    denied(&engine, &keys, "select count(*) from keys.subjects");
}
