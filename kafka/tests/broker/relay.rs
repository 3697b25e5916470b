use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::message::{Headers, Message};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use sovereign_kafka::{KafkaOptions, RelayOptions, RelayState};
use sovereign_schemas::{ErrorCode, Position};

use crate::support::{
    Ledger, assert_exactly, assign_all, events, kafka, kafka_with_topics, plain_consumer,
    relay_all, start, start_with, until, until_some,
};

const KILLED: u64 = 20_000;

/// Small batches, so that a kill falls into the middle of many transactions.
fn slow(kafka: &KafkaOptions) -> RelayOptions {
    let mut options = RelayOptions::new(kafka.clone());
    options.batch_events_max = 100;
    options
}

/// Not a test of its own: the process that the next test kills.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relay_child() {
    let Ok(namespace) = std::env::var("SOVEREIGN_TEST_RELAY_CHILD") else {
        return;
    };
    let mut kafka = kafka();
    kafka.namespace = namespace;
    let (ledger, _tell) = Ledger::new(events(KILLED, 1));
    let relay = start_with(slow(&kafka), &ledger);
    let first = until_some("first transaction", 60, || {
        let now = relay.health();
        (now.state == RelayState::Running).then_some(now.position.0)
    });
    let first = first.await;
    until("first transaction", 60, || {
        relay.health().position.0 > first.min(KILLED - 1)
    })
    .await;
    // what the parent waits for
    println!("\nat work");
    let began = Instant::now();
    let mut told = None;
    until("all relayed", 120, || {
        let now = relay.health();
        let news = (
            std::mem::discriminant(&now.state),
            began.elapsed().as_secs(),
        );
        if told.replace(news) != Some(news) {
            eprintln!("{:?} {now:?}", began.elapsed());
        }
        now.position.0 == KILLED
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_leave_each_position_visible_once_and_in_order() {
    let kafka = kafka_with_topics().await;
    let mut killed_at_work = 0;
    for run in 0..5_u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "relay::relay_child",
                "--test-threads",
                "1",
                "--nocapture",
            ])
            .env("SOVEREIGN_TEST_RELAY_CHILD", &kafka.namespace)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(
            lines.any(|line| line.unwrap() == "at work"),
            "relay never worked"
        );
        tokio::time::sleep(Duration::from_millis(run * 37)).await;
        killed_at_work += u32::from(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let (ledger, _tell) = Ledger::new(events(KILLED, 1));
    let began = Instant::now();
    let relay = start(&kafka, &ledger);
    until("relay runs", 30, || {
        relay.health().state == RelayState::Running
    })
    .await;
    println!(
        "{killed_at_work} of 5 killed at work; took over at {} in {:?}",
        relay.health().position,
        began.elapsed()
    );
    until("all relayed", 60, || relay.health().position.0 == KILLED).await;
    relay.stop().await;
    assert!(killed_at_work > 0);
    assert_exactly(&kafka, KILLED);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replaced_relay_is_fenced_and_leaves_no_duplicate() {
    let kafka = kafka_with_topics().await;
    let (ledger, tell) = Ledger::new(events(10_000, 2));
    tell.send(2_000).unwrap();
    let old = start(&kafka, &ledger);
    until("old relay works", 30, || old.health().position.0 == 2_000).await;
    let new = start(&kafka, &ledger);
    until("new relay runs", 30, || {
        new.health().state == RelayState::Running
    })
    .await;
    // both see new events now; the old one believes that it is in charge
    for exist in (2_000..=10_000).step_by(500) {
        tell.send(exist).unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    until("new relay done", 30, || new.health().position.0 == 10_000).await;
    let stopped = || matches!(old.health().state, RelayState::Stopped { problem: Some(_) });
    until("old relay stopped", 30, stopped).await;
    let RelayState::Stopped {
        problem: Some(problem),
    } = old.health().state
    else {
        unreachable!()
    };
    assert!(
        problem.message.contains("another relay took over"),
        "{problem}"
    );
    assert!(!old.health().healthy);
    new.stop().await;
    assert_exactly(&kafka, 10_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_ahead_of_the_ledger_stop_the_relay() {
    let kafka = kafka_with_topics().await;
    relay_all(&kafka, events(1_000, 3)).await;
    let (ledger, _tell) = Ledger::new(events(400, 3));
    let relay = start(&kafka, &ledger);
    let stopped = || {
        matches!(
            relay.health().state,
            RelayState::Stopped { problem: Some(_) }
        )
    };
    until("relay stopped", 30, stopped).await;
    let RelayState::Stopped {
        problem: Some(problem),
    } = relay.health().state
    else {
        return;
    };
    assert_eq!(problem.code, ErrorCode::TopicAhead);
    assert!(
        problem.message.contains("1000") && problem.message.contains("400"),
        "{problem}"
    );
    assert_exactly(&kafka, 1_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_history_stops_the_relay_and_harms_no_other() {
    let kafka = kafka_with_topics().await;
    let (good, tell) = Ledger::new(events(3_000, 4));
    tell.send(1_000).unwrap();
    let good = start(&kafka, &good);
    until("good relay works", 30, || good.health().position.0 == 1_000).await;
    let (other, _tell) = Ledger::new(events(2_000, 5));
    let bad = start(&kafka, &other);
    let stopped = || matches!(bad.health().state, RelayState::Stopped { problem: Some(_) });
    until("bad relay stopped", 30, stopped).await;
    let RelayState::Stopped {
        problem: Some(problem),
    } = bad.health().state
    else {
        return;
    };
    assert_eq!(problem.code, ErrorCode::LedgerDiverged);
    assert!(problem.message.contains("position 1000"), "{problem}");
    tell.send(3_000).unwrap();
    until("good relay goes on", 30, || {
        good.health().position.0 == 3_000
    })
    .await;
    good.stop().await;
    assert_exactly(&kafka, 3_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_checkpoint_topic_is_made_up_for_by_the_events() {
    let kafka = kafka_with_topics().await;
    relay_all(&kafka, events(1_000, 6)).await;
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", &kafka.brokers)
        .create()
        .unwrap();
    let topic = kafka.topic("sovereign.relay");
    admin
        .delete_topics(&[&topic], &AdminOptions::new())
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    relay_all(&kafka, events(2_500, 6)).await;
    assert_exactly(&kafka, 2_500);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn brokers_that_are_away_turn_health_red_and_are_named() {
    let mut options = RelayOptions::new(KafkaOptions::new("127.0.0.1:9"));
    options.topics.timeout = Duration::from_millis(500);
    options.red_after = Duration::from_secs(1);
    let (ledger, _tell) = Ledger::new(events(10, 7));
    let relay = start_with(options, &ledger);
    until("health is red", 20, || {
        let health = relay.health();
        !health.healthy && matches!(health.state, RelayState::Waiting { .. })
    })
    .await;
    let health = relay.health();
    assert_eq!(health.lag, 10);
    let RelayState::Waiting { problem, .. } = health.state else {
        unreachable!()
    };
    assert_eq!(problem.code, ErrorCode::BrokerUnreachable);
    relay.stop().await;
}

/// Whatever holds a partition's readers back: here a transaction that somebody leaves open.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_that_readers_do_not_see_turn_health_red_until_they_do() {
    let kafka = kafka_with_topics().await;
    let mine = events(300, 11);
    let topic = kafka.topic("dept.trader");
    let open: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &kafka.brokers)
        .set("transactional.id", kafka.topic("somebody"))
        .create()
        .unwrap();
    let wait = Duration::from_secs(10);
    open.init_transactions(wait).unwrap();
    open.begin_transaction().unwrap();
    for partition in 0..3 {
        let record = BaseRecord::<(), [u8]>::to(&topic).partition(partition);
        open.send(record.payload(b"left open")).unwrap();
    }
    open.flush(wait).unwrap();

    let (ledger, _tell) = Ledger::new(mine);
    let relay = start(&kafka, &ledger);
    until("all committed", 30, || relay.health().position.0 == 300).await;
    until("red", 15, || !relay.health().healthy).await;
    let health = relay.health();
    assert_eq!(health.lag, 0);
    let problem = health.hidden.unwrap();
    assert_eq!(problem.code, ErrorCode::EventsHidden);
    assert!(problem.message.contains(&topic), "{problem}");

    open.abort_transaction(wait).unwrap();
    until("green", 15, || relay.health().healthy).await;
    relay.stop().await;
    assert_exactly(&kafka, 300);
}

/// Insert to read-committed consumer at 5,000 events/s; prints percentiles without the first second,
/// in which new partitions are opened. How long it takes is the benchmark's to judge.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_that_come_one_by_one_become_visible_while_more_come() {
    const EVENTS: u64 = 20_000;
    let kafka = kafka_with_topics().await;
    let (ledger, tell) = Ledger::new(events(EVENTS, 8));
    tell.send(0).unwrap();
    let relay = start(&kafka, &ledger);
    until("relay runs", 30, || {
        relay.health().state == RelayState::Running
    })
    .await;
    let began = Instant::now() + Duration::from_secs(1);
    let due = move |position: u64| began + Duration::from_micros(position * 200);
    let check = kafka.clone();
    let reader = tokio::task::spawn_blocking(move || {
        let consumer = plain_consumer(&check);
        assign_all(&consumer, &check);
        let (mut waits, mut first) = (Vec::new(), None);
        while waits.len() < EVENTS as usize {
            let Some(Ok(message)) = consumer.poll(Duration::from_secs(20)) else {
                break;
            };
            let now = Instant::now();
            let headers = message.headers().unwrap();
            let position = headers
                .iter()
                .find(|h| h.key == "sovereign_position")
                .unwrap();
            let position = std::str::from_utf8(position.value.unwrap())
                .unwrap()
                .parse()
                .unwrap();
            first.get_or_insert(now);
            waits.push(now.saturating_duration_since(due(position)));
        }
        (waits, first)
    });
    let mut exist = 0;
    while exist < EVENTS {
        tokio::time::sleep(Duration::from_millis(1)).await;
        let elapsed = Instant::now().saturating_duration_since(began);
        exist = ((elapsed.as_micros() / 200) as u64).min(EVENTS);
        tell.send_if_modified(|n| std::mem::replace(n, exist) != exist);
    }
    let (mut waits, first) = reader.await.unwrap();
    assert_eq!(waits.len(), EVENTS as usize);
    assert!(
        first.unwrap() < due(EVENTS),
        "nothing was visible before all was there"
    );
    waits.drain(..5_000);
    waits.sort();
    let at = |share: f64| waits[(waits.len() as f64 * share) as usize];
    println!(
        "visible after: p50 {:?}, p99 {:?}, max {:?}",
        at(0.5),
        at(0.99),
        at(0.9999)
    );
    assert_eq!(relay.health().position, Position(EVENTS));
    relay.stop().await;
}
