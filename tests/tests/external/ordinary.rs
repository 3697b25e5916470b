//! What the engine does with servers of its own it does with these as well.

use std::path::PathBuf;
use std::process::Stdio;

use serde_json::json;
use sovereign_kafka::{KafkaOptions, Start, Subscription};

use crate::harness::{Engine, bar, register, thought};
use crate::site::{BROKER_SECRET, Way, site, wait};

/// Servers that somebody else has started.
fn given() -> Option<Way> {
    let variable = |name: &str| std::env::var(format!("SOVEREIGN_EXTERNAL_{name}")).ok();
    let database = variable("DATABASE")?;
    let keys_database = variable("KEYS_DATABASE").unwrap_or_else(|| database.clone());
    let brokers = variable("BROKERS").expect("SOVEREIGN_EXTERNAL_BROKERS belongs to it");
    // an empty file: plain connections
    let properties = variable("KAFKA_PROPERTIES").unwrap_or_else(|| "/dev/null".to_owned());
    Some(Way {
        database,
        keys_database,
        brokers,
        properties: PathBuf::from(properties),
        one_topic_more: false,
    })
}

/// As an application subscribes, with the settings of the file.
async fn subscribed(way: &Way, count: u64) {
    let text = std::fs::read_to_string(&way.properties).unwrap();
    let mut options = KafkaOptions::new(&way.brokers);
    for (name, value) in text.lines().filter_map(|line| line.split_once('=')) {
        options.properties.insert(name.to_owned(), value.to_owned());
    }
    let group = format!("sovereign.test.{}", uuid::Uuid::now_v7().simple());
    let mut events = Subscription::builder(options)
        .group(group)
        .start(Start::Beginning)
        .open()
        .await
        .unwrap();
    let mut positions = Vec::new();
    for _ in 0..count {
        positions.push(events.next().await.unwrap().event.position().0);
    }
    events.commit().await.unwrap();
    positions.sort_unstable();
    assert_eq!(positions, (1..=count).collect::<Vec<_>>());
}

fn small_market(engine: &Engine) -> PathBuf {
    let path = engine.data.join("short.csv");
    let mut text = "Ticker,Date,Open,High,Low,Close,Volume\n".to_owned();
    for day in 1..=60 {
        let (month, day_of_month) = (day / 28 + 1, day % 28 + 1);
        let price = 100 + day % 7;
        text += &format!(
            "TEST,2020-{month:02}-{day_of_month:02},{price},{},{},{price},1000\n",
            price + 1,
            price - 1
        );
    }
    std::fs::write(&path, text).unwrap();
    path
}

#[test]
fn the_engine_works_with_servers_that_it_did_not_start() {
    let (way, _site) = match given() {
        Some(way) => (way, None),
        None => {
            let site = site();
            let properties = site.properties("sovereign", BROKER_SECRET);
            let way = Way {
                database: site.good_url(&site.main[0]),
                keys_database: site.good_url(&site.main[1]),
                brokers: site.kafka.listener("GOOD"),
                properties: site.properties_file(&properties),
                one_topic_more: false,
            };
            (way, Some(site))
        }
    };
    let engine = Engine::with_worker("external");
    way.up(&engine).ok();
    let before = engine.head();
    assert_eq!(
        before, 0,
        "the databases and topics of this test start empty"
    );

    let mut commands = vec![register("abroad")];
    for number in 0..40 {
        commands.push(bar("abroad", number));
        commands.push(thought("abroad", &format!("bar {number} came over TLS")));
    }
    engine.send_all(&commands);
    let market = small_market(&engine);
    engine
        .run(&["trade", market.to_str().unwrap(), "--quiet"])
        .ok();
    engine.settle();
    let head = engine.head();
    assert!(head > 81, "{head}");

    let log = engine.run(&["log", "--json"]).ok().lines();
    assert_eq!(log.len() as u64, head);
    assert_eq!(log[2]["data"]["text"], "bar 0 came over TLS");
    engine.run(&["verify"]).ok();
    engine.run(&["verify", "--source", "kafka"]).ok();
    engine
        .run(&["verify", "--source", "kafka", "--against", "ledger"])
        .ok();
    let ledger = engine.json(&["replay"]);
    let kafka = engine.json(&["replay", "--source", "kafka"]);
    assert_eq!(ledger["digests"], kafka["digests"]);
    let departments = engine.run(&["views", "show", "departments", "--json"]).ok();
    let counted: u64 = departments
        .lines()
        .iter()
        .filter_map(|row| row["events"].as_u64())
        .sum();
    assert_eq!(counted, head);
    let file = engine.data.join("export.svl");
    engine.run(&["export", file.to_str().unwrap()]).ok();
    let from_file = engine.json(&["replay", "--source", file.to_str().unwrap(), "--offline"]);
    assert_eq!(ledger["digests"], from_file["digests"]);

    // a follower over TLS gets what comes next
    let mut follower = engine
        .command(&[
            "log",
            "--follow",
            "--json",
            "--from",
            &(head + 1).to_string(),
            "--to",
            &(head + 1).to_string(),
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    engine.send_all(&[json!(thought("abroad", "one more"))]);
    assert!(follower.wait().unwrap().success());
    wait(subscribed(&way, head + 1));

    // and again on what is there: killed, and started by the same words
    crate::harness::signal(engine.pid("engine"), "-KILL");
    while engine.run(&["status"]).code != 5 {}
    way.up(&engine).ok();
    engine.settle();
    assert_eq!(engine.head(), head + 1);
    engine
        .run(&["verify", "--source", "kafka", "--against", "ledger"])
        .ok();
}
