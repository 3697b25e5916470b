//! A database of its own for each test, and commands to fill it.

#![allow(dead_code)] // each test binary uses a part

use std::sync::Arc;

use sovereign_aggregates::{AnyCommand, CommandPort as _, CommandRequest};
use sovereign_event_store::{Ledger, LedgerOptions, LedgerReader};
use sovereign_schemas::chain::{self, Head};
use sovereign_schemas::{
    CommandContext, Cursor, DepartmentId, Departments, EventLog as _, Outcome, RecordedEvent, Text,
    Uuid,
};
use sqlx::{Connection as _, Executor as _, PgConnection};

const VARIABLE: &str = "SOVEREIGN_TEST_DATABASE";

/// The server to test with, as a superuser or as a role that may create databases.
pub(crate) fn server() -> String {
    std::env::var(VARIABLE).unwrap_or_else(|_| {
        panic!("set {VARIABLE} to a postgres:// URL whose role may create databases")
    })
}

/// One database, dropped by [`Database::remove`].
pub(crate) struct Database {
    pub(crate) url: String,
    pub(crate) name: String,
}

impl Database {
    pub(crate) async fn create() -> Self {
        let server = server();
        let name = format!("es_{}", Uuid::now_v7().simple());
        let mut connection = PgConnection::connect(&server).await.unwrap();
        connection
            .execute(format!("create database {name}").as_str())
            .await
            .unwrap();
        let (base, query) = match server.split_once('?') {
            Some((base, query)) => (base.to_owned(), format!("?{query}")),
            None => (server.clone(), String::new()),
        };
        let host = base
            .split_once("://")
            .map_or(base.as_str(), |(_, rest)| rest);
        let host = host.split('/').next().unwrap();
        Self {
            url: format!("postgres://{host}/{name}{query}"),
            name,
        }
    }

    pub(crate) async fn connect(&self) -> PgConnection {
        PgConnection::connect(&self.url).await.unwrap()
    }

    pub(crate) fn options(&self) -> LedgerOptions {
        LedgerOptions::new(&self.url, Departments::default())
    }

    pub(crate) async fn open(&self) -> Ledger {
        Ledger::open(self.options()).await.unwrap()
    }

    pub(crate) async fn remove(self) {
        let mut connection = PgConnection::connect(&server()).await.unwrap();
        let sql = format!("drop database if exists {} with (force)", self.name);
        connection.execute(sql.as_str()).await.unwrap();
    }
}

/// A command without free text.
pub(crate) fn command(aggregate: &str, name: &str, data: serde_json::Value) -> AnyCommand<Text> {
    AnyCommand::parse(aggregate, name, data)
        .unwrap()
        .try_map_text(|_| Err("has text"))
        .unwrap()
}

pub(crate) fn request(agent: &str, command: AnyCommand) -> CommandRequest {
    CommandRequest {
        aggregate_id: agent.parse().unwrap(),
        command,
        context: CommandContext::fresh("tester".parse().unwrap(), DepartmentId::ORCHESTRATOR),
        expected_sequence: None,
        source: None,
    }
}

pub(crate) fn register(agent: &str) -> CommandRequest {
    request(
        agent,
        command("agent", "register", serde_json::json!({"role": "trader"})),
    )
}

pub(crate) fn transition(agent: &str, to: &str) -> CommandRequest {
    let data = serde_json::json!({"to": to, "reason": "because"});
    request(agent, command("agent", "transition", data))
}

/// The `number`-th bar of an instrument.
pub(crate) fn bar(agent: &str, number: u32) -> CommandRequest {
    let opened_at = format!("2026-{:02}-{:02}", 1 + number / 28 % 12, 1 + number % 28);
    let instrument = format!("I{}", number / 336);
    let data = serde_json::json!({
        "instrument": instrument, "opened_at": opened_at, "interval_s": 86400,
        "open": "100.25", "high": "101", "low": "99.5", "close": "100", "volume": "1200",
    });
    request(agent, command("agent", "observe_market", data))
}

pub(crate) async fn send(ledger: &Ledger, request: &CommandRequest) -> Outcome {
    ledger.send(request.clone()).await
}

/// All events, in pages; fails on a gap.
pub(crate) async fn all(reader: &LedgerReader) -> Vec<RecordedEvent> {
    let (mut log, mut cursor, mut all) = (reader.log(), Cursor::default(), Vec::new());
    loop {
        let (events, next) = log.read(cursor, 1_000).await.unwrap();
        if events.is_empty() {
            return all;
        }
        all.extend(events);
        cursor = next;
    }
}

/// I1 to I3 over the whole ledger; returns its head.
pub(crate) async fn verified(reader: &LedgerReader) -> Head {
    let mut head = Head::EMPTY;
    let mut sequences = std::collections::HashMap::new();
    for event in all(reader).await {
        chain::advance(&mut head, &event).unwrap();
        let key = (
            event.header.aggregate_type.clone(),
            event.header.aggregate_id.clone(),
        );
        let last = sequences.entry(key).or_insert(0);
        chain::check_sequence(*last, &event.header).unwrap();
        *last += 1;
    }
    assert_eq!(reader.head().await.unwrap(), head);
    head
}

/// Runs `work(n)` for each of `senders` at once.
pub(crate) async fn at_once<T, F, W>(senders: usize, work: W) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
    W: Fn(usize) -> F + Send + Sync + 'static,
{
    let work = Arc::new(work);
    let tasks: Vec<_> = (0..senders)
        .map(|n| {
            let work = Arc::clone(&work);
            tokio::spawn(async move { work(n).await })
        })
        .collect();
    let mut results = Vec::new();
    for task in tasks {
        results.push(task.await.unwrap());
    }
    results
}
