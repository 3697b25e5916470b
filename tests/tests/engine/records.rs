//! Commands as records, by stock clients: each has one outcome on `commands.reply`, also when
//! engines are killed or paused in the middle of it.
//!
//! `SOVEREIGN_TEST_KILLS` says how often, 6 times if it is not set.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Header, Headers as _, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde_json::{Value, json};
use sovereign_event_store::LedgerReader;
use sovereign_schemas::{CommandRecord, RecordedEvent};

use crate::cluster::{Node, Servers, say};
use crate::commands::get;
use crate::contract::all;
use crate::harness::{Engine, register, signal, thought};

struct Sender(BaseProducer);

impl Sender {
    fn new(brokers: &str) -> Self {
        let producer = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("enable.idempotence", "true")
            .create();
        Self(producer.unwrap())
    }

    fn send(&self, key: &str, value: &[u8], correlation: &str) {
        let headers = OwnedHeaders::new().insert(Header {
            key: "correlation-id",
            value: Some(correlation),
        });
        let record = BaseRecord::to("commands").key(key).payload(value);
        let sent = self.0.send(record.headers(headers));
        sent.map_err(|(e, _)| e).unwrap();
        self.0.poll(Duration::ZERO);
    }

    fn flush(&self) {
        self.0.flush(Duration::from_secs(60)).unwrap();
        assert_eq!(self.0.in_flight_count(), 0);
    }
}

/// Replies by the correlation of their records, at least so many; each record once.
#[track_caller]
fn replies(brokers: &str, count: usize, limit: Duration) -> HashMap<String, Vec<Value>> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "records")
        .set("enable.auto.commit", "false")
        .set("isolation.level", "read_committed")
        .create()
        .unwrap();
    let mut list = TopicPartitionList::new();
    for partition in 0..3 {
        list.add_partition_offset("commands.reply", partition, Offset::Beginning)
            .unwrap();
    }
    consumer.assign(&list).unwrap();
    let deadline = Instant::now() + limit;
    let (mut seen, mut heard) = (0, Instant::now());
    let mut places: BTreeMap<(String, String), u32> = BTreeMap::new();
    let mut all: HashMap<String, Vec<Value>> = HashMap::new();
    // a doubled one would come behind them
    while seen < count || heard.elapsed() < Duration::from_secs(2) {
        assert!(Instant::now() < deadline, "{seen} of {count} replies");
        let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) else {
            continue;
        };
        (seen, heard) = (seen + 1, Instant::now());
        let header = |name: &str| {
            let found = message.headers().unwrap().iter().find(|h| h.key == name);
            String::from_utf8(found.unwrap().value.unwrap().to_vec()).unwrap()
        };
        let place = (
            header("sovereign_command_partition"),
            header("sovereign_command_offset"),
        );
        *places.entry(place).or_default() += 1;
        let outcome = serde_json::from_slice(message.payload().unwrap()).unwrap();
        let of = all.entry(header("correlation-id")).or_default();
        of.push(outcome);
    }
    let twice: Vec<_> = places.iter().filter(|(_, n)| **n > 1).collect();
    assert!(twice.is_empty(), "records with several replies: {twice:?}");
    assert_eq!(seen, count);
    all
}

fn events(engine: &Engine) -> Vec<RecordedEvent> {
    let status = engine.status();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let reader = LedgerReader::connect(status["database"].as_str().unwrap(), 2).unwrap();
        all(&mut reader.log()).await
    })
}

fn avro(id: u32, command: &CommandRecord) -> Vec<u8> {
    let mut value = vec![0];
    value.extend_from_slice(&id.to_be_bytes());
    command.encode(&mut value);
    value
}

#[test]
fn json_avro_and_garbage_are_answered_as_send_would() {
    let engine = Engine::new("records");
    engine.up();
    let all_partitions = |s: &Value| s["commands"]["partitions"] == json!([0, 1, 2]);
    engine.wait_for("in the group", Duration::from_secs(30), all_partitions);
    let status = engine.status();
    let brokers = status["brokers"].as_str().unwrap();
    let path = "/subjects/sovereign.CommandRecord/versions/latest";
    let (code, schema) = get(status["registry"].as_str().unwrap(), path);
    assert_eq!(code, 200, "{schema}");
    let schema = &schema[schema.find('{').unwrap()..=schema.rfind('}').unwrap()];
    let schema: Value = serde_json::from_str(schema).unwrap();
    let id = u32::try_from(schema["id"].as_u64().unwrap()).unwrap();
    let command = CommandRecord {
        aggregate: "agent".to_owned(),
        id: "scout".to_owned(),
        command: "record_thought".to_owned(),
        data: json!({ "text": "our node 10.1.2.3 answers slowly" }).to_string(),
        command_id: Some("by-avro".to_owned()),
        department: Some("trader".to_owned()),
        ..CommandRecord::default()
    };
    let mut named = register("scout");
    named["command_id"] = "first".into();
    let transition = json!({ "aggregate": "agent", "id": "scout", "command": "transition",
        "data": { "to": "EXECUTING", "reason": "impatient" } });
    let mut unknown = register("scout");
    unknown["colour"] = "red".into();
    // a topic does not tell who wrote
    let policy = json!({ "aggregate": "policy", "id": "main", "command": "adopt",
        "data": { "text": "version = 2\n[[rules]]\nname = \"all\"\napprovals = []\n" } });
    let text = |value: &Value| value.to_string().into_bytes();
    let cases = [
        ("accepted", text(&named)),
        ("duplicate", text(&named)),
        ("accepted", avro(id, &command)),
        ("duplicate", avro(id, &command)),
        ("illegal-transition", text(&transition)),
        ("unknown-field", text(&unknown)),
        ("forbidden", text(&policy)),
        (
            "malformed-json",
            b"{\"password\": \"hunter2hunter2".to_vec(),
        ),
        ("schema-unknown", avro(id + 1_000, &command)),
        ("payload-invalid", avro(id, &command)[..20].to_vec()),
    ];
    let sender = Sender::new(brokers);
    for (number, (_, value)) in cases.iter().enumerate() {
        sender.send("scout", value, &number.to_string());
    }
    sender.flush();
    let replies = replies(brokers, cases.len(), Duration::from_secs(60));
    let of = |number: usize| &replies[&number.to_string()][0];
    for (number, (expected, _)) in cases.iter().enumerate() {
        let outcome = of(number);
        let said = outcome["error"]["code"].as_str();
        let said = said.or(outcome["status"].as_str()).unwrap();
        assert_eq!(said, *expected, "{number}: {outcome}");
    }
    assert_eq!(of(0)["command_id"], "first");
    assert_eq!(of(1)["positions"], of(0)["positions"]);
    assert_eq!(of(4)["status"], "refused");
    // the same as on any other way in: what was sent by record is a duplicate here
    let (_, sent) = engine.send(named.to_string().as_bytes());
    assert_eq!(sent[0]["status"], "duplicate");
    assert_eq!(sent[0]["positions"], of(0)["positions"]);
    let log = engine.run(&["log", "--department", "trader"]).ok().stdout;
    assert!(
        log.contains("our node [IP_ADDRESS_REDACTED] answers"),
        "{log}"
    );
    // what nobody could read is kept
    let letters = engine.run(&["dead-letters", "list", "--json"]).ok().lines();
    let mut codes: Vec<_> = letters
        .iter()
        .map(|l| l["failing"]["code"].as_str())
        .collect();
    codes.sort_unstable();
    let expected = ["malformed-json", "payload-invalid", "schema-unknown"].map(Some);
    assert_eq!(codes, expected);
    assert_eq!(letters[0]["group"], "sovereign.commands");
    let retry = [
        "dead-letters",
        "retry",
        letters[0]["id"].as_str().unwrap(),
        "--json",
    ];
    engine.run(&retry).fails(4, "wrong-state");
    let log = std::fs::read_to_string(engine.data.join("logs/engine.log")).unwrap();
    assert!(!log.contains("hunter2"), "no payload in the log");
    let (_, metrics) = get(status["console"].as_str().unwrap(), "/metrics");
    for metric in [
        "sovereign_commands_replies_total{status=\"duplicate\"} 2",
        "sovereign_commands_lag_records",
        "sovereign_part_healthy{part=\"commands\"} 1",
    ] {
        assert!(metrics.contains(metric), "{metric}: {metrics}");
    }
    // stopped cleanly and started again: nothing is answered twice, and what came meanwhile is
    engine.run(&["down"]).ok();
    engine.up();
    let brokers = engine.status()["brokers"].as_str().unwrap().to_owned();
    let sender = Sender::new(&brokers);
    sender.send("scout", &cases[0].1, "late");
    sender.flush();
    let all = self::replies(&brokers, cases.len() + 1, Duration::from_secs(60));
    assert_eq!(all["late"][0]["status"], "duplicate");
}

const AGENTS: u64 = 30;

/// Registers agents, then thoughts of theirs; every third has an id of its sender's, and every
/// tenth of those is sent in two records.
fn record(sender: &Sender, n: u64) -> u64 {
    let agent = format!("thinker-{}", n % AGENTS);
    let mut command = match n {
        0..AGENTS => register(&agent),
        _ => thought(&agent, &format!("number {n}")),
    };
    if n.is_multiple_of(3) {
        command["command_id"] = format!("record-{n}").into();
    }
    let command = command.to_string();
    let copies = if n.is_multiple_of(30) { 2 } else { 1 };
    for _ in 0..copies {
        sender.send(&agent, command.as_bytes(), &n.to_string());
    }
    copies
}

/// Kills one, the other, both; or stops one until the other has its work, and lets it go on.
fn fault(nodes: &[&Node; 2], round: u64) {
    let pid = |node: &Node| node.engine.pid("engine");
    let one = &nodes[round as usize % 2];
    match round % 5 {
        1 | 3 => {
            let pid = pid(one);
            signal(pid, "-STOP");
            std::thread::sleep(Duration::from_secs(10));
            signal(pid, "-CONT");
        }
        4 => {
            let pids = nodes.map(pid);
            pids.iter().for_each(|pid| signal(*pid, "-9"));
            nodes.iter().for_each(|node| node.up());
        }
        _ => {
            signal(pid(one), "-9");
            one.up();
        }
    }
}

#[test]
fn killed_and_paused_engines_answer_each_record_once_and_its_command_takes_effect_once() {
    const COMMANDS_MIN: u64 = 3_000;
    let rounds = std::env::var("SOVEREIGN_TEST_KILLS").ok();
    let rounds: u64 = rounds.and_then(|n| n.parse().ok()).unwrap_or(6);
    let servers = Servers::start();
    let (ledger, keys) = (servers.database("ledger"), servers.database("subject_keys"));
    let a = Node::new("records-a", &servers, [&ledger, &keys], None);
    a.up();
    let key = a.engine.data.join("master.key");
    let b = Node::new("records-b", &servers, [&ledger, &keys], Some(key));
    b.up();
    let (nodes, over) = ([&a, &b], AtomicBool::new(false));
    let (commands, records) = std::thread::scope(|scope| {
        let faults = scope.spawn(|| {
            for round in 0..rounds {
                std::thread::sleep(Duration::from_millis(1_500 + round * 700 % 2_000));
                fault(&nodes, round);
            }
            over.store(true, Ordering::Relaxed);
        });
        let sender = Sender::new(&servers.brokers);
        let (mut commands, mut records) = (0, 0);
        // all the time: somebody is always in the middle of a transaction
        while !over.load(Ordering::Relaxed) || commands < COMMANDS_MIN {
            records += record(&sender, commands);
            commands += 1;
            std::thread::sleep(Duration::from_millis(4));
        }
        sender.flush();
        faults.join().unwrap();
        (commands, records)
    });
    let begun = Instant::now();
    let replies = replies(&servers.brokers, records as usize, Duration::from_secs(180));
    say(&format!(
        "{records} records, {rounds} faults: all answered {:.1} s after the last",
        begun.elapsed().as_secs_f64()
    ));
    let events = events(&a.engine);
    let mut effects: HashMap<String, u64> = HashMap::new();
    for n in 0..commands {
        let of = &replies[&n.to_string()];
        let mut statuses: Vec<_> = of.iter().map(|o| o["status"].as_str().unwrap()).collect();
        statuses.sort_unstable();
        let expected: &[&str] = match n % 30 {
            0 => &["accepted", "duplicate"],
            _ => &["accepted"],
        };
        assert_eq!(statuses, expected, "{n}: {of:?}");
        let position = of[0]["positions"][0].as_u64().unwrap();
        let event = &events[position as usize - 1];
        let agent = format!("thinker-{}", n % AGENTS);
        assert_eq!(event.header.aggregate_id, agent, "{n}: {of:?}");
        // in the order in which they were sent, and none twice
        let sequence = effects.entry(agent).or_default();
        *sequence += 1;
        assert_eq!(event.header.sequence, *sequence, "{n}: {of:?}");
    }
    assert_eq!(events.len() as u64, commands, "each command once");
    for node in nodes {
        node.engine.settle();
        let verified = node.engine.run(&["verify", "--against", "kafka", "--json"]);
        assert_eq!(verified.code, 0, "{verified:?}");
    }
}
