use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use sovereign_kafka::{KafkaOptions, Start, Subscription, SubscriptionError};
use sovereign_schemas::{DepartmentId, ErrorCode, Position, Timestamp};

use crate::support::{EPOCH, Ledger, events, kafka_with_topics, relay_all, start, until};

/// Positions until nothing comes for a second; three for the first, as groups must join.
async fn drain(events: &mut Subscription) -> Vec<u64> {
    let mut found = Vec::new();
    let wait = |first: bool| Duration::from_secs(if first { 3 } else { 1 });
    while let Ok(next) = tokio::time::timeout(wait(found.is_empty()), events.next()).await {
        found.push(next.unwrap().event.position().0);
    }
    found
}

async fn sorted(events: &mut Subscription) -> Vec<u64> {
    let mut found = drain(events).await;
    found.sort_unstable();
    found
}

fn range(from: u64, to: u64) -> Vec<u64> {
    (from..=to).collect()
}

async fn relayed(count: u64, seed: u64) -> KafkaOptions {
    let kafka = kafka_with_topics().await;
    relay_all(&kafka, events(count, seed)).await;
    kafka
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn starts_at_beginning_position_time_and_offset() {
    let kafka = relayed(3_000, 30).await;
    let open = |start| Subscription::builder(kafka.clone()).start(start).open();
    let mut all = open(Start::Beginning).await.unwrap();
    assert_eq!(sorted(&mut all).await, range(1, 3_000));
    for position in [2, 1_234, 3_000] {
        let mut some = open(Start::Position(Position(position))).await.unwrap();
        assert_eq!(sorted(&mut some).await, range(position, 3_000));
    }
    let mut none = open(Start::Position(Position(3_001))).await.unwrap();
    assert!(drain(&mut none).await.is_empty());
    let moment = Start::Time(Timestamp(EPOCH + 2_000_000));
    assert_eq!(
        sorted(&mut open(moment).await.unwrap()).await,
        range(2_000, 3_000)
    );
    let late = Start::Time(Timestamp(EPOCH + 9_000_000_000));
    assert!(drain(&mut open(late).await.unwrap()).await.is_empty());
    let mut clamped = open(Start::Offset(i64::MAX)).await.unwrap();
    assert!(drain(&mut clamped).await.is_empty());
    let error = all.commit().await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::InvalidConfig);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn live_starts_behind_what_is_there() {
    let kafka = relayed(500, 31).await;
    // a commit is answered before its markers are written
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut live = Subscription::builder(kafka.clone())
        .start(Start::Live)
        .open()
        .await
        .unwrap();
    relay_all(&kafka, events(800, 31)).await;
    assert_eq!(sorted(&mut live).await, range(501, 800));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn patterns_and_filters_let_through_only_what_was_asked_for() {
    let kafka = relayed(2_000, 32).await;
    let source = events(2_000, 32);
    let mut some = Subscription::builder(kafka.clone())
        .departments(["trader", "hun*"])
        .event_type("ThoughtRecorded")
        .open()
        .await
        .unwrap();
    let expected: Vec<u64> = source
        .iter()
        .map(|e| &e.header)
        .filter(|h| [DepartmentId::TRADER, DepartmentId::HUNTER].contains(&h.department))
        .filter(|h| h.event_type == "ThoughtRecorded")
        .map(|h| h.position.0)
        .collect();
    assert!(!expected.is_empty());
    assert_eq!(sorted(&mut some).await, expected);
    let nobody = Subscription::builder(kafka)
        .departments(["nobody"])
        .open()
        .await
        .unwrap_err();
    assert!(nobody.to_string().contains("dept.nobody"), "{nobody}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_goes_on_where_it_committed() {
    let kafka = relayed(1_000, 33).await;
    let group = format!("{}risk", kafka.namespace);
    let builder = Subscription::builder(kafka.clone())
        .group(&group)
        .departments(["*"])
        .start(Start::Position(Position(101)));
    let began = Instant::now();
    let mut first = builder.clone().open().await.unwrap();
    let mut done = BTreeSet::new();
    for _ in 0..400 {
        done.insert(first.next().await.unwrap().event.position().0);
        if done.len() == 1 {
            println!("group delivered first after {:?}", began.elapsed());
        }
    }
    first.commit().await.unwrap();
    // read on, but never committed: these come again
    for _ in 0..100 {
        first.next().await.unwrap();
    }
    drop(first);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let began = Instant::now();
    let mut second = builder.start(Start::Beginning).open().await.unwrap();
    // a group that has just changed is handed out anew with the next heartbeat, every 5 s
    let wait = Duration::from_secs(20);
    let next = tokio::time::timeout(wait, second.next())
        .await
        .unwrap()
        .unwrap();
    println!("rejoined after {:?}", began.elapsed());
    let mut rest: BTreeSet<u64> = drain(&mut second).await.into_iter().collect();
    rest.insert(next.event.position().0);
    let again: Vec<u64> = done.intersection(&rest).copied().collect();
    assert!(
        again.is_empty(),
        "handed out again after a commit: {again:?}"
    );
    let both: Vec<u64> = done.union(&rest).copied().collect();
    assert_eq!(both, range(101, 1_000));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_of_a_group_share_the_partitions() {
    let kafka = kafka_with_topics().await;
    let (ledger, tell) = Ledger::new(events(4_000, 34));
    tell.send(0).unwrap();
    let relay = start(&kafka, &ledger);
    let builder = Subscription::builder(kafka.clone()).group(format!("{}pair", kafka.namespace));
    let mut first = builder.clone().open().await.unwrap();
    let mut second = builder.open().await.unwrap();
    // until both have their share
    tokio::time::sleep(Duration::from_secs(8)).await;
    tell.send(4_000).unwrap();
    until("all relayed", 30, || relay.health().position.0 == 4_000).await;
    let (a, b) = tokio::join!(drain(&mut first), drain(&mut second));
    println!("members got {} and {}", a.len(), b.len());
    assert!(!a.is_empty() && !b.is_empty());
    let all: BTreeSet<u64> = a.into_iter().chain(b).collect();
    assert_eq!(all.into_iter().collect::<Vec<_>>(), range(1, 4_000));
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_poison_record_is_named_and_the_stream_goes_on() {
    let kafka = relayed(300, 35).await;
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &kafka.brokers)
        .create()
        .unwrap();
    let topic = kafka.topic("dept.trader");
    for partition in 0..3 {
        let record = BaseRecord::to(&topic)
            .key("x")
            .payload("not an event")
            .partition(partition);
        producer.send(record).map_err(|(e, _)| e).unwrap();
    }
    producer.flush(Duration::from_secs(10)).unwrap();
    relay_all(&kafka, events(600, 35)).await;
    let mut all = Subscription::builder(kafka).open().await.unwrap();
    let (mut good, mut poison) = (BTreeSet::new(), 0);
    while good.len() < 600 {
        match all.next().await {
            Ok(delivery) => {
                good.insert(delivery.event.position().0);
            }
            Err(SubscriptionError::Poison(error)) => {
                assert_eq!(error.code(), ErrorCode::NotAnEvent);
                assert_eq!(error.topic, topic);
                poison += 1;
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(poison, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_loses_nothing() {
    let kafka = relayed(20_000, 36).await;
    let mut all = Subscription::builder(kafka).open().await.unwrap();
    let mut found = vec![all.next().await.unwrap().event.position().0];
    // long enough for the queue to fill and the partitions to be paused
    tokio::time::sleep(Duration::from_secs(3)).await;
    let began = Instant::now();
    found.extend(drain(&mut all).await);
    println!(
        "20000 events in {:?}",
        began.elapsed() - Duration::from_secs(1)
    );
    found.sort_unstable();
    assert_eq!(found, range(1, 20_000));
}
