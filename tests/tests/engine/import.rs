//! A table that the stock `postgres-es` crate made, brought into a running engine.

use std::collections::HashMap;
use std::process::Stdio;
use std::time::{Duration, Instant};

use cqrs_es::event_sink::EventSink;
use cqrs_es::persist::PersistedEventStore;
use cqrs_es::{Aggregate, CqrsFramework, DomainEvent, EventStore as _};
use postgres_es::{PostgresCqrs, PostgresEventRepository};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sovereign_aggregates::agent::{Agent, AgentCommand, RecordThought, Register, Transition};
use sovereign_aggregates::approval::{Approval, ApprovalCommand, Expire, Request};
use sovereign_aggregates::trade::Trade;
use sovereign_aggregates::{Decision, LedgerAggregate};
use sovereign_guard::admit;
use sovereign_guard::scrub::Scrubber;
use sovereign_schemas::events::{AgentState, Side, TradeProposed, Verdict, VerdictGiven};
use sovereign_schemas::{Digest, RawText, Text, Timestamp};
use sqlx::{Executor as _, PgPool, Row as _};

use crate::harness::{Engine, signal, sturdy};

/// The table as the crate's own db/init.sql makes it.
pub(crate) const TABLE: &str = "(aggregate_type text not null, aggregate_id text not null, \
    sequence bigint check (sequence >= 0) not null, event_type text not null, \
    event_version text not null, payload json not null, metadata json not null, \
    primary key (aggregate_type, aggregate_id, sequence))";

/// An aggregate of somebody else's.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Customer {
    name: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum CustomerEvent {
    Renamed { name: String, score: f64 },
    NoteTaken { note: String },
}

#[derive(Debug, thiserror::Error)]
#[error("never")]
struct Never;

impl DomainEvent for CustomerEvent {
    fn event_type(&self) -> String {
        match self {
            Self::Renamed { .. } => "CustomerRenamed".to_owned(),
            Self::NoteTaken { .. } => "NoteTaken".to_owned(),
        }
    }
    fn event_version(&self) -> String {
        "1.2".to_owned()
    }
}

impl Aggregate for Customer {
    const TYPE: &'static str = "Customer";
    type Command = Vec<CustomerEvent>;
    type Event = CustomerEvent;
    type Error = Never;
    type Services = ();

    async fn handle(
        &mut self,
        events: Vec<CustomerEvent>,
        _: &(),
        sink: &EventSink<Self>,
    ) -> Result<(), Never> {
        for event in events {
            sink.write(event, self).await;
        }
        Ok(())
    }
    fn apply(&mut self, event: CustomerEvent) {
        if let CustomerEvent::Renamed { name, .. } = event {
            self.name = name;
        }
    }
}

/// A database of its own beside the ledger's, owned by the engine's role.
pub(crate) struct Source {
    pub(crate) url: String,
    pool: PgPool,
}

impl Source {
    pub(crate) async fn create(engine: &Engine, name: &str) -> Self {
        engine.psql(&format!("drop database if exists {name} with (force)"));
        engine.psql(&format!("create database {name} owner sovereign"));
        let status = engine.status();
        let url = status["database"].as_str().unwrap();
        let (server, _) = url.rsplit_once('/').unwrap();
        let url = format!("{server}/{name}");
        let pool = postgres_es::default_postgress_pool(&url).await;
        Self { url, pool }
    }

    pub(crate) async fn sql(&self, sql: &str) {
        self.pool.execute(sql).await.unwrap();
    }

    pub(crate) async fn table(&self) {
        self.sql(&format!("create table events {TABLE}")).await;
    }

    fn cqrs<A: Aggregate>(&self, services: A::Services) -> PostgresCqrs<A> {
        let repository = PostgresEventRepository::new(self.pool.clone());
        CqrsFramework::new(
            PersistedEventStore::new_event_store(repository),
            vec![],
            services,
        )
    }

    /// Events whose texts the stock crate can write and, rightly, not read again: in one commit.
    async fn commit<A: LedgerAggregate>(&self, id: &str, events: Vec<A::Event>) {
        let repository = PostgresEventRepository::new(self.pool.clone());
        let store = PersistedEventStore::<_, A>::new_event_store(repository);
        let context = store.load_aggregate(id).await.unwrap();
        store.commit(events, context, HashMap::new()).await.unwrap();
    }

    async fn rows(&self) -> Vec<(String, String, i64, String, String)> {
        let rows = sqlx::query(
            "select aggregate_type, aggregate_id, sequence, event_type, payload::text from events \
             order by aggregate_type collate \"C\", aggregate_id collate \"C\", sequence",
        )
        .fetch_all(&self.pool)
        .await
        .unwrap();
        rows.iter()
            .map(|r| (r.get(0), r.get(1), r.get(2), r.get(3), r.get(4)))
            .collect()
    }
}

pub(crate) fn import(engine: &Engine, source: &Source, args: &[&str]) -> (i32, Value) {
    let own = ["import", "postgres-es", "--json", "--database", &source.url];
    let done = engine.run(&[&own[..], args].concat());
    assert!(!done.stdout.is_empty(), "{done:?}");
    (done.code, done.json())
}

/// One count of the report, over all types.
fn total(report: &Value, of: &str) -> u64 {
    let types = report["types"].as_array().unwrap();
    types.iter().map(|t| t[of].as_u64().unwrap()).sum()
}

fn text(words: &str) -> Text {
    admit::plain(admit::clean(&Scrubber::standard(), &RawText::new(words)).unwrap())
}

fn decision() -> Decision {
    Decision::new(
        "a".parse().unwrap(),
        Timestamp(1_000_000),
        "guardian".parse().unwrap(),
    )
}

/// Native histories: an agent, a trade and an approval.
async fn native(source: &Source) {
    let agents = source.cqrs::<Agent>(decision());
    let to = |state| {
        AgentCommand::Transition(Transition {
            to: state,
            reason: "bar".parse().unwrap(),
        })
    };
    let register = AgentCommand::Register(Register {
        role: "trader".parse().unwrap(),
    });
    agents.execute("trader-old", register).await.unwrap();
    for state in [
        AgentState::Scanning,
        AgentState::Executing,
        AgentState::Idle,
    ] {
        agents.execute("trader-old", to(state)).await.unwrap();
    }
    let thought =
        AgentCommand::RecordThought(RecordThought::of(text("the trend holds, so I go on")));
    agents.execute("trader-old", thought).await.unwrap();
    // the stock crate cannot read a text again, which is as it should be
    assert!(
        agents
            .execute("trader-old", to(AgentState::Scanning))
            .await
            .is_err()
    );
    let proposed = TradeProposed {
        agent_id: "trader-old".into(),
        instrument: "AAPL".into(),
        side: Side::Buy,
        quantity: "10".parse().unwrap(),
        price: "85.61".parse().unwrap(),
        amount: "856.1".parse().unwrap(),
        currency: "USD".into(),
        closes: None,
        decided_on: Timestamp(7),
        rationale: text("the short average crossed the long one"),
    };
    let verdict = VerdictGiven {
        verdict: Verdict::Green,
        rule: "price-in-bar".into(),
        note: text("amount and price agree"),
    };
    let events = vec![proposed.into(), verdict.into()];
    source.commit::<Trade>("trade_old_1", events).await;
    let approvals = source.cqrs::<Approval>(decision());
    let request = Request {
        action: "trade.execute".parse().unwrap(),
        target_id: "trade_old_1".parse().unwrap(),
        action_digest: Digest::of(&[b"the action"]),
        amount: "1500".parse().unwrap(),
        currency: "USD".parse().unwrap(),
        on_behalf_of: Some("trader-old".parse().unwrap()),
        department: None,
        asset: None,
    };
    let request = ApprovalCommand::Request(Box::new(request));
    approvals.execute("approval_old_1", request).await.unwrap();
    let mut late = decision();
    late.at = Timestamp(i64::MAX);
    let approvals = source.cqrs::<Approval>(late);
    approvals
        .execute("approval_old_1", ApprovalCommand::Expire(Expire {}))
        .await
        .unwrap();
}

/// Customers of any name: one whose id fits ours, one in another script, one that is an address.
async fn foreign(source: &Source) {
    let customers = source.cqrs::<Customer>(());
    for id in ["c-1", "c-2", "Jörg/船 7", "10.1.2.3"] {
        for round in 0..3 {
            let events = vec![
                CustomerEvent::Renamed {
                    name: format!("{id} {round}"),
                    score: 1.1,
                },
                CustomerEvent::NoteTaken {
                    note: format!("{round}: \"quoted\", \u{1F6A2}, and from 10.9.8.7\nagain"),
                },
            ];
            let metadata = HashMap::from([("user".to_owned(), "ann".to_owned())]);
            customers
                .execute_with_metadata(id, events, metadata)
                .await
                .unwrap();
        }
    }
}

#[test]
fn a_table_of_the_stock_crate_comes_in_event_by_event_and_only_once() {
    let engine = sturdy();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let source = runtime.block_on(async {
        let source = Source::create(&engine, "stock_one").await;
        source.table().await;
        native(&source).await;
        foreign(&source).await;
        source
    });
    let rows = runtime.block_on(source.rows());
    let (head, count) = (engine.head(), rows.len() as u64);

    let (code, dry) = import(&engine, &source, &["--dry-run"]);
    assert_eq!(
        (code, &dry["dry_run"], &dry["rows"]),
        (0, &true.into(), &count.into()),
        "{dry}"
    );
    assert_eq!(total(&dry, "imported"), count);
    let kinds: Vec<(&str, bool)> = dry["types"]
        .as_array()
        .unwrap()
        .iter()
        .map(|t| (t["source_type"].as_str().unwrap(), t["native"] == true))
        .collect();
    assert_eq!(
        kinds,
        [
            ("Customer", false),
            ("agent", true),
            ("approval", true),
            ("trade", true)
        ]
    );
    // one address in each note, none in the numbers beside them
    assert!(
        dry["secrets"]["IP_ADDRESS"].as_u64().unwrap() >= 12,
        "{dry}"
    );
    assert_eq!(engine.head(), head, "a dry run writes nothing");

    let (code, report) = import(&engine, &source, &["--batch", "7"]);
    assert_eq!(code, 0, "{report}");
    assert_eq!(
        (total(&report, "imported"), report["problems"].clone()),
        (count, json!([]))
    );
    assert_eq!(engine.head(), head + count);
    assert_eq!(report["positions"], json!([head + 1, head + count]));
    assert_eq!(report["secrets"], dry["secrets"]);

    same_events(&engine, &rows, head);
    engine.settle();
    engine
        .run(&["verify", "--against", "kafka", "--indexes"])
        .ok();
    let live = engine.json(&["replay", "--source", "ledger"]);
    assert!(live["digests"]["imported"].is_string(), "{live}");
    let topics = engine.json(&["replay", "--source", "kafka", "--threads", "1"]);
    assert_eq!(live["digests"], topics["digests"]);
    nobody_reacted(&engine, head + count);

    // again, in windows of another size; then with more rows; then with a row that was changed
    for batch in ["1", "5000"] {
        let (code, again) = import(&engine, &source, &["--batch", batch]);
        assert_eq!(
            (code, total(&again, "already_imported")),
            (0, count),
            "{again}"
        );
    }
    assert_eq!(engine.head(), head + count);
    runtime.block_on(async {
        let more = vec![CustomerEvent::NoteTaken {
            note: "later".to_owned(),
        }];
        source
            .cqrs::<Customer>(())
            .execute("c-2", more)
            .await
            .unwrap();
    });
    let (code, more) = import(&engine, &source, &[]);
    assert_eq!(
        (
            code,
            total(&more, "imported"),
            total(&more, "already_imported")
        ),
        (0, 1, count)
    );
    runtime.block_on(source.sql(
        "update events set payload = '{\"NoteTaken\":{\"note\":\"never said\"}}' \
         where aggregate_id = 'c-1' and sequence = 2",
    ));
    let (code, changed) = import(&engine, &source, &[]);
    assert_eq!(code, 1, "{changed}");
    assert_eq!(
        changed["problems"][0]["problem"]["code"],
        "version-conflict"
    );
    assert_eq!(changed["problems"][0]["aggregate_id"], "c-1");
    assert_eq!(engine.head(), head + count + 1);
    engine.run(&["verify"]).ok();
}

/// Every row is one event, in the stated order, with the same content but for what was scrubbed.
fn same_events(engine: &Engine, rows: &[(String, String, i64, String, String)], head: u64) {
    let from = (head + 1).to_string();
    let to = (head + rows.len() as u64).to_string();
    let events = engine
        .run(&["log", "--json", "--from", &from, "--to", &to])
        .ok()
        .lines();
    assert_eq!(events.len(), rows.len());
    for (event, (kind, id, sequence, event_type, payload)) in events.iter().zip(rows) {
        assert_eq!(event["actor"], "sovereign:import");
        assert_eq!(event["sequence"], *sequence, "{event}");
        let data = &event["data"];
        let source: Value = serde_json::from_str(payload).unwrap();
        if kind != "Customer" {
            assert_eq!(
                (
                    event["aggregate_type"].as_str(),
                    event["aggregate_id"].as_str()
                ),
                (Some(kind.as_str()), Some(id.as_str()))
            );
            assert_eq!(event["event_type"], **event_type);
            for (name, value) in source[event_type].as_object().unwrap() {
                match value.get("bytes").and_then(Value::as_str) {
                    // plain texts of the source are sealed here, and open to the same words
                    Some(hex) => {
                        let bytes: Vec<u8> = (0..hex.len() / 2)
                            .map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap())
                            .collect();
                        assert_eq!(data[name], String::from_utf8(bytes).unwrap(), "{event}");
                    }
                    // bytes, which the stock crate writes as numbers
                    None if *value == json!([]) => assert_eq!(data[name], "", "{name}: {event}"),
                    None => assert_eq!(&data[name], value, "{name}: {event}"),
                }
            }
            continue;
        }
        assert_eq!(event["aggregate_type"], "imported");
        let own = event["aggregate_id"].as_str().unwrap();
        if id.starts_with("c-") {
            assert_eq!(own, format!("Customer/{id}"));
        } else {
            assert!(own.starts_with("hmac-"), "{own}");
        }
        let shown = if id == "10.1.2.3" {
            "[IP_ADDRESS_REDACTED]"
        } else {
            id.as_str()
        };
        assert_eq!(data["source_id"], shown);
        assert_eq!(data["source_sequence"], *sequence);
        assert_eq!(data["event_type"], **event_type);
        assert_eq!(data["event_version"], "1.2");
        let metadata: Value = serde_json::from_str(data["metadata"].as_str().unwrap()).unwrap();
        assert_eq!(metadata["user"], "ann");
        let scrubbed = payload
            .replace("10.9.8.7", "[IP_ADDRESS_REDACTED]")
            .replace("10.1.2.3", "[IP_ADDRESS_REDACTED]");
        let kept: Value = serde_json::from_str(data["payload"].as_str().unwrap()).unwrap();
        assert_eq!(kept, serde_json::from_str::<Value>(&scrubbed).unwrap());
    }
}

/// The built-in agents leave alone what was brought in: no verdict, no clearance, no request.
fn nobody_reacted(engine: &Engine, head: u64) {
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(engine.head(), head, "somebody reacted to an imported event");
    let trade = engine
        .run(&["log", "--json", "--aggregate", "trade/trade_old_1"])
        .ok();
    assert_eq!(trade.lines().len(), 2);
}

#[test]
fn an_import_that_is_killed_goes_on_where_it_was() {
    const ROWS: u64 = 20_000;
    let engine = sturdy();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let source = runtime.block_on(async {
        let source = Source::create(&engine, "stock_killed").await;
        source.table().await;
        // as the stock crate writes them, some aggregates long and some short
        source
            .sql(&format!(
                "insert into events select 'Order', 'order-' || a, s, 'Placed', '1', \
                 json_build_object('Placed', json_build_object('n', s)), '{{}}'::json from ( \
                 select n % 100 as a, row_number() over (partition by n % 100 order by n) as s \
                 from generate_series(1, {ROWS}) n) numbered"
            ))
            .await;
        source
    });
    let before = engine.head();
    let mut kills = 0;
    while kills < 4 {
        let head = engine.head();
        let mut child = engine
            .command(&[
                "import",
                "postgres-es",
                "--quiet",
                "--batch",
                "50",
                "--database",
                &source.url,
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        while engine.head() == head && Instant::now() < deadline {
            if child.try_wait().unwrap().is_some() {
                break;
            }
        }
        // `timeout` stands between: its child is the import
        let own = child.id();
        let pid = engine.processes().into_iter().find(|(pid, line)| {
            *pid != own
                && line.contains("import")
                && line.contains(&source.url)
                && !line.starts_with("timeout")
        });
        let Some((pid, _)) = pid else {
            child.wait().unwrap();
            break;
        };
        signal(pid, "-KILL");
        child.wait().unwrap();
        kills += 1;
    }
    let written = engine.head() - before;
    assert!(
        kills > 0 && written < ROWS,
        "{kills} kills, {written} events"
    );
    let (code, report) = import(&engine, &source, &[]);
    assert_eq!(code, 0, "{report}");
    assert_eq!(total(&report, "already_imported"), written);
    assert_eq!(total(&report, "imported"), ROWS - written);
    assert_eq!(engine.head() - before, ROWS, "nothing twice, nothing lost");
    let (code, again) = import(&engine, &source, &["--dry-run"]);
    assert_eq!((code, total(&again, "already_imported")), (0, ROWS));
    engine.settle();
    engine.run(&["verify", "--against", "kafka"]).ok();
}

#[test]
fn rows_that_are_no_events_leave_out_their_aggregate_and_nothing_else() {
    let engine = sturdy();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let source = runtime.block_on(async {
        let source = Source::create(&engine, "stock_garbage").await;
        // no key and no constraint: anything can lie in it
        source
            .sql(
                "create schema shop; create table shop.\"My Events\" (aggregate_type text, \
                 aggregate_id text, sequence integer, event_type varchar(80), event_version text, \
                 payload jsonb, metadata json, created_at timestamptz default now())",
            )
            .await;
        for (kind, id, sequence, event, version, payload) in [
            ("Thing", "good", "1", "Made", "1", "{\"Made\":1}"),
            ("Thing", "good", "2", "Used", "1", "[1,2]"),
            ("Thing", "gap", "1", "Made", "1", "{}"),
            ("Thing", "gap", "3", "Used", "1", "{}"),
            ("Thing", "twice", "1", "Made", "1", "{}"),
            ("Thing", "twice", "1", "Made", "1", "{}"),
            ("Thing", "zero", "0", "Made", "1", "{}"),
            ("Thing", "no-type", "1", "", "1", "{}"),
            ("10.1.2.3", "x", "1", "Made", "1", "{}"),
            ("agent", "two words", "1", "AgentRegistered", "1", "{\"AgentRegistered\":{\"role\":\"r\"}}"),
            ("agent", "10.1.2.3", "1", "AgentRegistered", "1", "{\"AgentRegistered\":{\"role\":\"r\"}}"),
            ("agent", "bad-role", "1", "AgentRegistered", "1", "{\"AgentRegistered\":{\"role\":\"10.1.2.3\"}}"),
            ("agent", "more", "1", "AgentRegistered", "1", "{\"AgentRegistered\":{\"role\":\"r\",\"age\":1}}"),
            ("agent", "unborn", "1", "TaskFinished", "1", "{\"TaskFinished\":{\"task\":\"t\",\"items\":1}}"),
            ("agent", "reborn", "1", "AgentRegistered", "1", "{\"AgentRegistered\":{\"role\":\"r\"}}"),
            ("agent", "reborn", "2", "AgentRegistered", "1", "{\"AgentRegistered\":{\"role\":\"r\"}}"),
            ("agent", "future", "1", "AgentRegistered", "9", "{\"AgentRegistered\":{\"role\":\"r\"}}"),
            ("agent", "sealed", "1", "AgentRegistered", "1", "{\"AgentRegistered\":{\"role\":\"r\"}}"),
            ("agent", "sealed", "2", "ThoughtRecorded", "1",
             "{\"ThoughtRecorded\":{\"text\":{\"key_id\":\"019c28a2-1fe0-7000-8000-0000000000aa\",\
              \"index\":1,\"nonce\":\"000000000000000000000000\",\"bytes\":\"00\"}}}"),
            ("agent", "fine", "1", "AgentRegistered", "1", "{\"AgentRegistered\":{\"role\":\"r\"}}"),
            ("agent", "fine", "2", "ThoughtRecorded", "1",
             "{\"ThoughtRecorded\":{\"text\":{\"key_id\":\"00000000-0000-0000-0000-000000000000\",\
              \"index\":0,\"nonce\":\"000000000000000000000000\",\
              \"bytes\":\"6e6f64652031302e312e322e33206973207570\"}}}"),
            ("trade", "mine", "1", "Sold", "1", "{\"Sold\":{\"for\":3}}"),
        ] {
            sqlx::query("insert into shop.\"My Events\" values ($1, $2, $3::text::integer, $4, $5, $6::text::jsonb, '{}')")
                .bind(kind).bind(id).bind(sequence).bind(event).bind(version).bind(payload)
                .execute(&source.pool).await.unwrap();
        }
        source.sql("insert into shop.\"My Events\" values ('Thing', 'null', 1, 'Made', '1', null, '{}')").await;
        source.sql("insert into shop.\"My Events\" values ('Thing', 'vast', 1, 'Made', '1', \
                    jsonb_build_object('x', repeat('y', 700000)), '{}')").await;
        source
    });
    let head = engine.head();
    let table = ["--table", "shop.\"My Events\""];
    let (code, dry) = import(&engine, &source, &[&table[..], &["--dry-run"]].concat());
    assert_eq!(code, 2, "{dry}");
    assert_eq!(engine.head(), head);
    let (code, report) = import(&engine, &source, &table);
    assert_eq!(code, 2, "{report}");
    let problem = |report: &Value, id: &str| -> (String, i64) {
        let all = report["problems"].as_array().unwrap();
        let own: Vec<&Value> = all.iter().filter(|p| p["aggregate_id"] == id).collect();
        assert_eq!(own.len(), 1, "{id}: {all:?}");
        (
            own[0]["problem"]["code"].as_str().unwrap().to_owned(),
            own[0]["sequence"].as_i64().unwrap(),
        )
    };
    for (id, code, sequence) in [
        ("gap", "invalid-source", 3),
        ("twice", "invalid-source", 1),
        ("zero", "invalid-source", 0),
        ("no-type", "invalid-id", 1),
        ("x", "sensitive-identifier", 1),
        ("two words", "invalid-id", 1),
        ("[IP_ADDRESS_REDACTED]", "sensitive-identifier", 1),
        ("bad-role", "sensitive-identifier", 1),
        ("more", "unknown-field", 1),
        ("unborn", "wrong-state", 1),
        ("reborn", "wrong-state", 2),
        ("future", "decode-failed", 1),
        ("sealed", "key-missing", 2),
        ("mine", "decode-failed", 1),
        ("null", "missing-field", 1),
        ("vast", "text-too-long", 1),
    ] {
        assert_eq!(problem(&report, id), (code.to_owned(), sequence), "{id}");
        assert_eq!(problem(&dry, id), (code.to_owned(), sequence), "{id}");
    }
    // both report the same, row by row; what is good came in
    assert_eq!(
        (total(&report, "imported"), total(&report, "rows")),
        (4, 24),
        "{report}"
    );
    assert_eq!(report["types"], dry["types"]);
    assert_eq!(report["columns_left_out"], json!(["created_at"]));
    assert_eq!(engine.head(), head + 4);
    let thought = engine
        .run(&["log", "--json", "--aggregate", "agent/fine"])
        .ok()
        .lines();
    assert_eq!(
        thought[1]["data"]["text"],
        "node [IP_ADDRESS_REDACTED] is up"
    );
    assert!(!report.to_string().contains("10.1.2.3"), "{report}");

    // somebody's own type that is named like one of ours
    let (_, foreign) = import(
        &engine,
        &source,
        &[&table[..], &["--foreign", "trade"]].concat(),
    );
    assert_eq!(
        (
            total(&foreign, "imported"),
            total(&foreign, "already_imported")
        ),
        (1, 4)
    );
    engine.settle();
    engine.run(&["verify", "--against", "kafka"]).ok();
}
