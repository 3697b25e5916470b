use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use sovereign_kafka::{KafkaLog, KafkaOptions, Start, Subscription};
use sovereign_schemas::chain::{self, Head};
use sovereign_schemas::{
    Cursor, Departments, EventLog, LogError, MemoryLog, Position, RecordedEvent,
};

use crate::support::{events, kafka_with_topics, relay_all};

const PATIENCE: Duration = Duration::from_secs(30);

fn log(kafka: &KafkaOptions) -> KafkaLog {
    KafkaLog::new(kafka.clone(), Departments::default())
}

/// Writes events as the relay does, but whichever the test likes.
pub(crate) fn write(kafka: &KafkaOptions, events: &[&RecordedEvent]) {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &kafka.brokers)
        .create()
        .unwrap();
    send(&producer, kafka, events);
}

fn send(producer: &BaseProducer, kafka: &KafkaOptions, events: &[&RecordedEvent]) {
    let departments = Departments::default();
    for event in events {
        let header = &event.header;
        let mut canonical = Vec::new();
        header.encode(&mut canonical);
        let mut value = vec![0, 0, 0, 0, 7];
        value.extend_from_slice(&event.payload);
        let name = format!("sovereign.{}.{}", header.aggregate_type, header.event_type);
        let text = |key, value: &str| (key, value.as_bytes().to_vec());
        let all = [
            text("ce_id", &header.event_id.to_string()),
            text("ce_type", &name),
            text("sovereign_position", &header.position.to_string()),
            text("sovereign_hash", &event.hash.to_string()),
            ("sovereign_header", canonical),
        ];
        let headers = all
            .iter()
            .fold(OwnedHeaders::new(), |headers, (key, value)| {
                headers.insert(Header {
                    key,
                    value: Some(value),
                })
            });
        let topic = kafka.topic(&departments.get(header.department).unwrap().topic());
        let record = BaseRecord::to(&topic)
            .key(&header.aggregate_id)
            .payload(&value)
            .headers(headers);
        producer.send(record).map_err(|(e, _)| e).unwrap();
    }
    producer.flush(PATIENCE).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_give_the_very_events_of_the_ledger() {
    let kafka = kafka_with_topics().await;
    let source = events(30_000, 20);
    relay_all(&kafka, source.clone()).await;
    let mut log = log(&kafka);
    let began = Instant::now();
    let (mut cursor, mut head) = (Cursor::default(), Head::EMPTY);
    loop {
        let (found, next) = log.read(cursor, 1000).await.unwrap();
        if found.is_empty() {
            break;
        }
        for event in &found {
            assert_eq!(*event, *source[event.position().0 as usize - 1]);
            chain::advance(&mut head, event).unwrap();
        }
        cursor = next;
    }
    let took = began.elapsed();
    println!(
        "read 30000 events in {took:?}, {:.0}/s",
        30_000.0 / took.as_secs_f64()
    );
    assert_eq!(head.position, Position(30_000));
    assert_eq!(head.hash, source.last().unwrap().hash);
    assert_eq!(log.end().await.unwrap(), Position(30_000));
    assert!(!log.schema_ids().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_cursor_and_limit_reads_as_memory_does() {
    let kafka = kafka_with_topics().await;
    let source = events(3_000, 21);
    relay_all(&kafka, source[..2_000].to_vec()).await;
    let mut log = log(&kafka);
    let mut memory = MemoryLog::new(source.iter().map(|e| (**e).clone()).collect());
    for (after, limit) in [
        (0, 1),
        (1, 7),
        (1_500, 100),
        (10, 3),
        (1_998, 1),
        (1_999, 1),
    ] {
        let cursor = Cursor::from(Position(after));
        let mut found = Vec::new();
        let mut at = cursor;
        while found.len() < limit {
            let (more, next) = log.read(at, limit - found.len()).await.unwrap();
            assert!(!more.is_empty(), "end too early after {after}");
            found.extend(more);
            at = next;
        }
        let (expected, _) = memory.read(cursor, limit).await.unwrap();
        assert_eq!(found, expected, "after {after}, limit {limit}");
    }
    let end = Cursor::from(Position(2_000));
    assert_eq!(log.read(end, 10).await.unwrap(), (Vec::new(), end));
    // what comes later is seen by the same log
    relay_all(&kafka, source.clone()).await;
    let (found, _) = log.read(end, 10).await.unwrap();
    assert_eq!(
        found.first().map(RecordedEvent::position),
        Some(Position(2_001))
    );
}

/// A transaction that is open hides what stands behind it in its partitions, so a search cannot
/// tell where a position is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_beside_an_open_transaction_shows_nothing_earlier() {
    let kafka = kafka_with_topics().await;
    let source = events(300, 24);
    let open: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &kafka.brokers)
        .set("transactional.id", kafka.topic("open"))
        .create()
        .unwrap();
    open.init_transactions(PATIENCE).unwrap();
    open.begin_transaction().unwrap();
    let (first, rest): (Vec<_>, Vec<_>) = source
        .iter()
        .map(|e| &**e)
        .partition(|e| e.position() <= Position(100));
    send(&open, &kafka, &first);
    write(&kafka, &rest);
    let from = Position(150);
    let mut log = log(&kafka);
    let cursor = Cursor::from(Position(from.0 - 1));
    assert_eq!(log.read(cursor, 10).await.unwrap().0, Vec::new());
    let mut seen = Subscription::builder(kafka.clone())
        .start(Start::Position(from))
        .open()
        .await
        .unwrap();
    let mut group = Subscription::builder(kafka.clone())
        .group(kafka.topic("group"))
        .start(Start::Position(from))
        .open()
        .await
        .unwrap();
    open.commit_transaction(PATIENCE).unwrap();
    let mut found = Vec::new();
    let mut at = cursor;
    until_read(&mut log, &mut at, &mut found, 151).await;
    assert_eq!(found, (150..=300).collect::<Vec<_>>());
    for subscription in [&mut seen, &mut group] {
        let mut found = Vec::new();
        while found.len() < 151 {
            let next = tokio::time::timeout(PATIENCE, subscription.next()).await;
            found.push(next.unwrap().unwrap().event.position().0);
        }
        found.sort_unstable();
        assert_eq!(found, (150..=300).collect::<Vec<_>>());
    }
}

async fn until_read(log: &mut KafkaLog, at: &mut Cursor, found: &mut Vec<u64>, count: usize) {
    let began = Instant::now();
    while found.len() < count {
        assert!(
            began.elapsed() < PATIENCE,
            "only {} events came",
            found.len()
        );
        let (more, next) = log.read(*at, 1000).await.unwrap();
        found.extend(more.iter().map(|e| e.position().0));
        *at = next;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_log_has_no_events() {
    let kafka = kafka_with_topics().await;
    let mut log = log(&kafka);
    assert_eq!(log.read(Cursor::default(), 10).await.unwrap().0, Vec::new());
    assert_eq!(log.end().await.unwrap(), Position::START);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_position_is_named_after_all_before_it() {
    let kafka = kafka_with_topics().await;
    let source = events(100, 22);
    let without: Vec<&RecordedEvent> = source
        .iter()
        .map(|e| &**e)
        .filter(|e| e.position() != Position(50))
        .collect();
    write(&kafka, &without);
    let mut log = log(&kafka);
    let (mut cursor, mut count) = (Cursor::default(), 0);
    let error = loop {
        match log.read(cursor, 1000).await {
            Ok((found, next)) => {
                assert!(!found.is_empty());
                count += found.len();
                cursor = next;
            }
            Err(error) => break error,
        }
    };
    assert_eq!(count, 49);
    let gap = matches!(
        error,
        LogError::Gap {
            expected: Position(50),
            found: Position(51)
        }
    );
    assert!(gap, "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_or_foreign_record_is_named() {
    let kafka = kafka_with_topics().await;
    let source = events(20, 23);
    let mut twice: Vec<&RecordedEvent> = source.iter().map(|e| &**e).collect();
    twice.push(&source[9]);
    write(&kafka, &twice);
    let mut first = log(&kafka);
    let error = read_to_failure(&mut first).await;
    assert!(error.contains("position 10"), "{error}");

    let kafka = kafka_with_topics().await;
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &kafka.brokers)
        .create()
        .unwrap();
    let topic = kafka.topic("dept.trader");
    producer
        .send(BaseRecord::to(&topic).key("x").payload("{}"))
        .map_err(|(e, _)| e)
        .unwrap();
    producer.flush(PATIENCE).unwrap();
    let error = read_to_failure(&mut log(&kafka)).await;
    assert!(
        error.contains("dept.trader") && error.contains("offset 0"),
        "{error}"
    );
}

async fn read_to_failure(log: &mut KafkaLog) -> String {
    let mut cursor = Cursor::default();
    loop {
        match log.read(cursor, 1000).await {
            Ok((found, next)) => {
                assert!(!found.is_empty(), "no failure");
                cursor = next;
            }
            Err(error) => return error.to_string(),
        }
    }
}
