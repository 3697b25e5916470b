//! A poisoned partition goes on, and `sovereign dead-letters` deals with what was poison.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use serde_json::Value;
use sovereign_kafka::{
    Delivery, KafkaOptions, RegistryOptions, Rejected, RetryPolicy, Subscription,
};

use crate::harness::{Engine, register, thought};

/// A record that is no event, onto partition 0 of the traders' topic.
fn poison(brokers: &str, value: &str) {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .create()
        .unwrap();
    let record = BaseRecord::to("dept.trader").key("x").payload(value);
    producer
        .send(record.partition(0))
        .map_err(|(e, _)| e)
        .unwrap();
    producer.flush(Duration::from_secs(10)).unwrap();
}

fn traders(engine: &Engine, from: u64, count: u64) {
    let commands: Vec<Value> = (from..from + count)
        .flat_map(|n| {
            let id = format!("agent-{n}");
            [register(&id), thought(&id, "all is well")]
        })
        .map(|mut command| {
            command["department"] = "trader".into();
            command
        })
        .collect();
    engine.send_all(&commands);
    engine.settle();
}

async fn next(events: &mut Subscription) -> Delivery {
    let next = tokio::time::timeout(Duration::from_secs(120), events.next()).await;
    next.expect("an event within 120 s").unwrap()
}

/// Reads on until it has all of these positions; rejects one of them.
async fn read(events: &mut Subscription, count: u64, reject: u64) -> Vec<u64> {
    let mut good = Vec::new();
    while (good.len() as u64) < count {
        let delivery = next(events).await;
        let position = delivery.event.position().0;
        if position != reject {
            good.push(position);
            continue;
        }
        let rejected = events
            .reject(delivery, "no-price", "ask 203.0.113.7 later")
            .await;
        if let Rejected::Dead { .. } = rejected.unwrap() {
            good.push(0);
        }
    }
    good.retain(|position| *position > 0);
    good
}

fn letters(engine: &Engine, args: &[&str]) -> Vec<Value> {
    let args = [&["dead-letters", "list", "--json"], args].concat();
    engine.run(&args).ok().lines()
}

#[test]
fn a_poisoned_partition_goes_on_and_its_letters_are_retried_and_dropped() {
    let engine = Engine::new("letters");
    engine.up();
    traders(&engine, 0, 20);
    let status = engine.status();
    let (brokers, registry) = (status["brokers"].as_str().unwrap(), &status["registry"]);
    poison(brokers, "{\"password\": \"hunter2hunter2\"}");
    traders(&engine, 20, 20);
    assert_eq!(letters(&engine, &["--all"]).len(), 0);

    let runtime = tokio::runtime::Runtime::new().unwrap();
    let subscribe = || {
        Subscription::builder(KafkaOptions::new(brokers))
            .group("risk")
            .departments(["trader"])
            .dead_letters(RetryPolicy::default())
            .registry(RegistryOptions::new(registry.as_str().unwrap()))
            .open()
    };
    let mut events = runtime.block_on(async { subscribe().await.unwrap() });
    let head = engine.head();
    let good = runtime.block_on(read(&mut events, head, 30));
    let mut sorted = good.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, (1..=head).filter(|p| *p != 30).collect::<Vec<_>>());
    runtime.block_on(events.commit()).unwrap();

    // both letters are listed, counted and shown
    let found = letters(&engine, &[]);
    assert_eq!(found.len(), 2, "{found:?}");
    let of = |code: &str| found.iter().find(|l| l["failing"]["code"] == code).unwrap();
    let (foreign, rejected) = (of("not-an-event"), of("no-price"));
    assert_eq!(foreign["origin"]["topic"], "dept.trader");
    assert_eq!(
        (&rejected["failing"]["attempts"], &rejected["group"]),
        (&3.into(), &"risk".into())
    );
    assert_eq!(
        rejected["failing"]["message"],
        "ask [IP_ADDRESS_REDACTED] later"
    );
    engine.wait_for("counted", Duration::from_secs(20), |s| {
        s["dead_letters"]["open"] == 2
    });
    assert!(engine.run(&["status"]).stdout.contains("2 open"));
    let (foreign, rejected) = (
        foreign["id"].as_str().unwrap(),
        rejected["id"].as_str().unwrap(),
    );
    let shown = engine.json(&["dead-letters", "show", foreign]);
    assert_eq!(
        shown["event"]["undecodable"]["code"], "not-an-event",
        "{shown}"
    );
    assert_eq!(
        shown["value_hex"],
        hex(b"{\"password\": \"hunter2hunter2\"}")
    );
    let shown = engine.json(&["dead-letters", "show", rejected]);
    assert_eq!(shown["event"]["position"], 30, "{shown}");
    assert!(
        engine
            .run(&["dead-letters", "show", rejected])
            .ok()
            .stdout
            .contains("no-price")
    );
    // the topic holds a record too many, which verification names as well
    let verified = engine.run(&["verify", "--source", "kafka", "--json"]);
    assert_eq!(verified.code, 3, "{verified:?}");

    // what still does not decode stays; what does comes back to its group
    engine
        .run(&["dead-letters", "retry", foreign, "--json"])
        .fails(3, "not-an-event");
    assert_eq!(
        engine.json(&["dead-letters", "show", foreign])["failing"]["attempts"],
        2
    );
    engine.json(&["dead-letters", "retry", rejected]);
    engine
        .run(&["dead-letters", "retry", rejected, "--json"])
        .fails(4, "wrong-state");
    let back = runtime.block_on(next(&mut events));
    assert_eq!(
        back.letter.map(|id| id.to_string()).as_deref(),
        Some(rejected)
    );
    assert_eq!(back.event.position().0, 30);
    runtime.block_on(events.commit()).unwrap();
    engine.wait_for("done", Duration::from_secs(20), |s| {
        s["dead_letters"]["done"] == 1
    });

    // dropped, with a reason that holds no secret
    let reason = "written by 203.0.113.9";
    let dropped = engine.json(&["dead-letters", "drop", foreign, "--reason", reason]);
    assert_eq!(dropped["reason"], "written by [IP_ADDRESS_REDACTED]");
    assert_eq!(letters(&engine, &[]).len(), 0);
    assert_eq!(letters(&engine, &["--all", "--group", "risk"]).len(), 2);
    assert_eq!(letters(&engine, &["--all", "--group", "other"]).len(), 0);
    let again = ["dead-letters", "drop", foreign, "--reason", "x", "--json"];
    engine.run(&again).fails(4, "wrong-state");
    let nobody = "00000000-0000-0000-0000-000000000001";
    engine
        .run(&["dead-letters", "show", nobody, "--json"])
        .fails(4, "not-found");
    assert_eq!(engine.run(&["dead-letters", "show", "x"]).code, 2);
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
