//! What the HTTP part of an engine and its workers may do in the database, and what they may not.

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
        "select * from ledger.jobs for update skip locked",
        "update ledger.jobs set attempt = attempt + 1",
        "insert into ledger.jobs select * from ledger.jobs",
        "delete from ledger.jobs",
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

#[test]
fn a_worker_appends_and_takes_work_and_changes_nothing_that_is_recorded() {
    let engine = small();
    let state = state(&engine);
    let url = state["worker_database"].as_str().unwrap();
    assert!(url.contains("sovereign_worker"), "a role of its own");
    for sql in [
        "select count(*) from ledger.events",
        "begin; select * from ledger.jobs for update skip locked; rollback",
    ] {
        engine.psql_as(url, sql).ok();
    }
    for sql in [
        "update ledger.events set actor = 'me'",
        "delete from ledger.events",
        "truncate ledger.events",
        "delete from ledger.head",
        "update ledger.refusals set recorded_at_us = 0",
        "insert into ledger.registry_config values ('x', 'NONE')",
        "update views.checkpoints set position = 0",
        "create table ledger.mine (one int)",
        "alter table ledger.events disable trigger all",
        "set role sovereign",
    ] {
        denied(&engine, url, sql);
    }
}
