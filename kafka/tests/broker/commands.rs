//! Commands as records: each has one outcome for a read-committed consumer, whatever happens to
//! who takes them.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Header, Headers as _, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::{Offset, TopicPartitionList};
use serde_json::{Value, json};
use sovereign_kafka::commands::GROUP;
use sovereign_kafka::{
    Answer, CommandHandler, CommandLine, Commands, CommandsHandle, CommandsOptions, DeadLetters,
    KafkaOptions, LetterError, RegistryOptions,
};
use sovereign_schemas::{
    CommandRecord, ErrorCode, Outcome, Position, Problem, Status, Timestamp, Uuid,
};

use crate::bad;
use crate::support::{kafka_with_topics, plain_consumer, until};

const PARTITIONS: i32 = 3;

/// A ledger that remembers which record's command took effect first.
#[derive(Default)]
struct Book {
    effects: Mutex<HashMap<String, (Uuid, u64)>>,
    /// Numbers of commands, by the aggregate that they are for, in the order of their effects.
    orders: Mutex<BTreeMap<String, Vec<u64>>>,
    away: AtomicBool,
}

impl Book {
    fn take_effect(&self, command: &CommandLine) -> Outcome {
        let Ok(line) = serde_json::from_slice::<Value>(&command.line) else {
            let problem = Problem::new(ErrorCode::MalformedJson, "is not JSON");
            return Outcome::failed(Status::Invalid, problem);
        };
        if line["command"] != "count" {
            let problem = Problem::new(ErrorCode::UnknownCommand, "no such command");
            return Outcome::failed(Status::Invalid, problem);
        }
        let own = command.record.to_string();
        let id = line["command_id"].as_str().map_or(own, str::to_owned);
        let mut effects = self.effects.lock().unwrap();
        let next = effects.len() as u64 + 1;
        let (first, position) = *effects.entry(id.clone()).or_insert_with(|| {
            let number = line["data"]["n"].as_u64().unwrap();
            let mut orders = self.orders.lock().unwrap();
            let aggregate = line["id"].as_str().unwrap().to_owned();
            orders.entry(aggregate).or_default().push(number);
            (command.record, next)
        });
        let status = if first == command.record {
            Status::Accepted
        } else {
            Status::Duplicate
        };
        let position = Position(position);
        Outcome::effective(status, Some((position, position))).of(id)
    }
}

#[async_trait]
impl CommandHandler for Book {
    async fn handle(&self, command: &CommandLine) -> Answer {
        if self.away.load(Ordering::Relaxed) {
            return Answer::NotNow(Problem::new(ErrorCode::DatabaseUnreachable, "is away"));
        }
        // before and behind: a record that is given up may have taken effect or not
        let pause = Duration::from_millis(u64::from(command.record.as_bytes()[0] % 8));
        tokio::time::sleep(pause).await;
        let outcome = self.take_effect(command);
        tokio::time::sleep(pause).await;
        Answer::Outcome(outcome)
    }
}

fn options(kafka: &KafkaOptions, engine: &str) -> CommandsOptions {
    let registry = RegistryOptions::new("http://127.0.0.1:9");
    let mut options = CommandsOptions::new(kafka.clone(), registry, engine);
    options.in_flight_max = 200;
    options.batch_max = 50;
    options
}

fn start(kafka: &KafkaOptions, engine: &str, book: &Arc<Book>) -> CommandsHandle {
    Commands::start(options(kafka, engine), book.clone()).unwrap()
}

struct Sender {
    topic: String,
    producer: BaseProducer,
}

impl Sender {
    fn new(kafka: &KafkaOptions) -> Self {
        let producer = ClientConfig::new()
            .set("bootstrap.servers", &kafka.brokers)
            .set("enable.idempotence", "true")
            .set("message.max.bytes", "8388608")
            .create()
            .unwrap();
        let topic = kafka.topic("commands");
        Self { topic, producer }
    }

    fn send(&self, key: Option<&str>, value: &[u8], correlation: &str) {
        let headers = OwnedHeaders::new().insert(Header {
            key: "correlation-id",
            value: Some(correlation),
        });
        let mut record: BaseRecord<'_, str, [u8]> =
            BaseRecord::to(&self.topic).payload(value).headers(headers);
        if let Some(key) = key {
            record = record.key(key);
        }
        self.producer.send(record).map_err(|(e, _)| e).unwrap();
        self.producer.poll(Duration::ZERO);
    }

    fn count(&self, key: &str, command_id: Option<&str>, n: u64, correlation: &str) {
        let line = json!({ "aggregate": "agent", "id": key, "command": "count",
            "data": { "n": n }, "command_id": command_id });
        self.send(Some(key), line.to_string().as_bytes(), correlation);
    }

    fn flush(&self) {
        self.producer.flush(Duration::from_secs(60)).unwrap();
        assert_eq!(self.producer.in_flight_count(), 0);
    }
}

#[derive(Debug, Clone)]
struct Reply {
    partition: i32,
    /// Of the record: partition and offset.
    origin: (i32, i64),
    key: Option<Vec<u8>>,
    correlation: Option<String>,
    outcome: Value,
}

impl Reply {
    fn status(&self) -> &str {
        self.outcome["status"].as_str().unwrap()
    }
}

/// All replies that a read-committed consumer sees, at least so many, and what comes within a
/// while behind them.
fn replies(kafka: &KafkaOptions, count: usize, limit_s: u64) -> Vec<Reply> {
    let consumer: BaseConsumer = plain_consumer(kafka);
    let topic = kafka.topic("commands.reply");
    let mut list = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        list.add_partition_offset(&topic, partition, Offset::Beginning)
            .unwrap();
    }
    consumer.assign(&list).unwrap();
    let deadline = Instant::now() + Duration::from_secs(limit_s);
    let (mut all, mut heard) = (Vec::new(), Instant::now());
    while all.len() < count || heard.elapsed() < Duration::from_millis(1_500) {
        assert!(
            Instant::now() < deadline,
            "{} of {count} replies",
            all.len()
        );
        let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) else {
            continue;
        };
        heard = Instant::now();
        let header = |name: &str| {
            let found = message.headers().unwrap().iter().find(|h| h.key == name)?;
            Some(String::from_utf8(found.value?.to_vec()).unwrap())
        };
        let number = |name: &str| header(name).unwrap().parse::<i64>().unwrap();
        assert_eq!(
            header("sovereign_command_topic"),
            Some(kafka.topic("commands"))
        );
        all.push(Reply {
            partition: message.partition(),
            origin: (
                number("sovereign_command_partition") as i32,
                number("sovereign_command_offset"),
            ),
            key: message.key().map(<[u8]>::to_vec),
            correlation: header("correlation-id"),
            outcome: serde_json::from_slice(message.payload().unwrap()).unwrap(),
        });
    }
    all
}

/// One reply for each record, in the order of each partition.
#[track_caller]
fn assert_one_each(replies: &[Reply], count: usize) {
    let mut offsets: BTreeMap<i32, Vec<i64>> = BTreeMap::new();
    for reply in replies {
        assert_eq!(reply.partition, reply.origin.0);
        offsets
            .entry(reply.partition)
            .or_default()
            .push(reply.origin.1);
    }
    for (partition, offsets) in &offsets {
        let grows = offsets.is_sorted_by(|a, b| a < b);
        assert!(grows, "replies of partition {partition} repeat or reorder");
    }
    assert_eq!(replies.len(), count);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_record_has_its_outcome_under_its_key_and_correlation() {
    let kafka = kafka_with_topics().await;
    let (book, sender) = (Arc::new(Book::default()), Sender::new(&kafka));
    // sent before anybody is there
    for n in 0..200 {
        let id = format!("c-{}", n / 2);
        sender.count(
            &format!("agent-{}", n / 2 % 7),
            Some(&id),
            n,
            &n.to_string(),
        );
    }
    sender.send(None, b"{\"command\": \"fly\"}", "200");
    sender.flush();
    let commands = start(&kafka, "one", &book);
    let all = replies(&kafka, 201, 60);
    assert_one_each(&all, 201);
    for reply in &all {
        let n: u64 = reply.correlation.as_ref().unwrap().parse().unwrap();
        let (key, status) = match n {
            200 => (None, "invalid"),
            // the same command id in two records: the second is told so
            _ if n % 2 == 1 => (Some(format!("agent-{}", n / 2 % 7)), "duplicate"),
            _ => (Some(format!("agent-{}", n / 2 % 7)), "accepted"),
        };
        assert_eq!(reply.status(), status, "{reply:?}");
        assert_eq!(reply.key, key.map(String::into_bytes));
    }
    assert_eq!(book.effects.lock().unwrap().len(), 100);
    until("its work is done", 10, || {
        let health = commands.health();
        health.healthy && health.in_flight == 0 && health.lag == 0 && health.replies == 201
    })
    .await;
    assert_eq!(commands.health().partitions, [0, 1, 2]);
    commands.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_that_come_go_and_fence_each_other_answer_each_record_once() {
    const RECORDS: u64 = 6_000;
    let kafka = kafka_with_topics().await;
    let (book, sender) = (Arc::new(Book::default()), Sender::new(&kafka));
    let stop = Arc::new(AtomicBool::new(false));
    let churn = tokio::spawn({
        let (kafka, book, stop) = (kafka.clone(), Arc::clone(&book), Arc::clone(&stop));
        async move {
            let mut members = vec![start(&kafka, "a", &book)];
            // a second one, one with the name of the first, one that comes back
            for (round, name) in ["b", "a", "c", "b", "b", "d"].iter().cycle().enumerate() {
                tokio::time::sleep(Duration::from_millis(2_500)).await;
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                members.push(start(&kafka, name, &book));
                if members.len() > 2 {
                    // without waiting for what it has in hand
                    drop(members.remove(round % 2));
                }
            }
            members
        }
    });
    for n in 0..RECORDS {
        let key = format!("agent-{}", n % 40);
        let id = format!("c-{n}");
        let id = (n % 3 == 0).then_some(id.as_str());
        sender.count(&key, id, n, &n.to_string());
        if n % 200 == 0 {
            tokio::time::sleep(Duration::from_millis(700)).await;
        }
    }
    sender.flush();
    stop.store(true, Ordering::Relaxed);
    let members = churn.await.unwrap();
    let reader = kafka.clone();
    let all = tokio::task::spawn_blocking(move || replies(&reader, RECORDS as usize, 180));
    let all = all.await.unwrap();
    assert_one_each(&all, RECORDS as usize);
    let other = all.iter().find(|r| r.status() != "accepted");
    assert!(other.is_none(), "nobody sent anything twice: {other:?}");
    assert_eq!(book.effects.lock().unwrap().len() as u64, RECORDS);
    for (aggregate, numbers) in &*book.orders.lock().unwrap() {
        assert!(numbers.is_sorted(), "{aggregate} is out of order");
    }
    for member in members {
        member.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_away_is_waited_for_and_nothing_is_answered_falsely() {
    let kafka = kafka_with_topics().await;
    let (book, sender) = (Arc::new(Book::default()), Sender::new(&kafka));
    book.away.store(true, Ordering::Relaxed);
    let mut options = options(&kafka, "one");
    options.red_after = Duration::from_secs(1);
    let commands = Commands::start(options, book.clone()).unwrap();
    for n in 0..1_000 {
        sender.count("agent-1", None, n, "");
    }
    sender.flush();
    until("red, and says why", 30, || {
        let problem = commands.health().problem;
        problem.is_some_and(|p| p.code == ErrorCode::DatabaseUnreachable)
    })
    .await;
    let in_flight = commands.health().in_flight;
    assert!((1..=200).contains(&in_flight), "bounded: {in_flight}");
    assert_eq!(bad::count(&kafka, "commands.reply"), 0);
    book.away.store(false, Ordering::Relaxed);
    let reader = kafka.clone();
    let all = tokio::task::spawn_blocking(move || replies(&reader, 1_000, 60));
    assert_one_each(&all.await.unwrap(), 1_000);
    assert!(book.orders.lock().unwrap()["agent-1"].is_sorted());
    until("green again", 10, || commands.health().healthy).await;
    commands.stop().await;
}

/// Confluent's wire format.
fn avro(schema_id: u32, datum: &[u8]) -> Vec<u8> {
    [&[0][..], &schema_id.to_be_bytes(), datum].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn avro_is_read_and_garbage_is_answered_and_kept() {
    let kafka = kafka_with_topics().await;
    let (book, sender) = (Arc::new(Book::default()), Sender::new(&kafka));
    let (url, _server) = bad::registry().await;
    let mut options = options(&kafka, "one");
    options.registry = RegistryOptions::new(url);
    let commands = Commands::start(options, book.clone()).unwrap();
    let mut datum = Vec::new();
    let command = CommandRecord {
        aggregate: "agent".to_owned(),
        id: "agent-1".to_owned(),
        command: "count".to_owned(),
        data: "{\"n\": 1}".to_owned(),
        command_id: Some("by-avro".to_owned()),
        ..CommandRecord::default()
    };
    command.encode(&mut datum);
    let large = vec![b' '; 3 << 20];
    let cases: [(&str, Vec<u8>); 9] = [
        ("accepted", avro(9, &datum)),
        ("duplicate", avro(9, &datum)),
        ("payload-invalid", avro(9, &datum[1..])),
        ("payload-invalid", vec![0, 0]),
        // one that the registry does not have, and one of an event
        ("schema-unknown", avro(77, &datum)),
        ("schema-unknown", avro(7, &datum)),
        ("malformed-json", b"\x01garbage".to_vec()),
        ("malformed-json", large),
        ("malformed-json", Vec::new()),
    ];
    for (number, (_, value)) in cases.iter().enumerate() {
        sender.send(Some("k"), value, &number.to_string());
        // so that large ones do not come in another batch than the small ones behind them
        sender.flush();
    }
    let reader = kafka.clone();
    let all = tokio::task::spawn_blocking(move || replies(&reader, 9, 60));
    let all = all.await.unwrap();
    assert_one_each(&all, 9);
    let letters = DeadLetters::new(kafka.clone()).list().await.unwrap();
    assert_eq!(letters.len(), 7, "{letters:?}");
    for (number, (expected, value)) in cases.iter().enumerate() {
        let number_text = number.to_string();
        let reply = all
            .iter()
            .find(|r| r.correlation.as_ref() == Some(&number_text));
        let outcome = &reply.unwrap().outcome;
        if number < 2 {
            assert_eq!(outcome["status"], *expected, "{outcome}");
            assert_eq!(outcome["command_id"], "by-avro");
            continue;
        }
        assert_eq!(outcome["status"], "invalid");
        assert_eq!(outcome["error"]["code"], *expected, "{number}: {outcome}");
        let origin = reply.unwrap().origin;
        let letter = letters
            .iter()
            .find(|l| (l.origin.partition, l.origin.offset) == origin)
            .unwrap();
        assert_eq!(letter.group, kafka.topic(GROUP));
        assert_eq!(
            (letter.failing.code.as_str(), letter.failing.attempts),
            (*expected, 1)
        );
        let show = DeadLetters::new(kafka.clone()).show(letter.id).await;
        assert_eq!(show.unwrap().1.record.value.as_deref(), Some(&value[..]));
    }
    let retried = DeadLetters::new(kafka.clone())
        .retry(letters[0].id, false, Timestamp::now())
        .await;
    assert!(
        matches!(retried, Err(LetterError::OfCommand { .. })),
        "{retried:?}"
    );
    commands.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_whose_place_was_forgotten_goes_on_behind_its_replies() {
    let kafka = kafka_with_topics().await;
    let (book, sender) = (Arc::new(Book::default()), Sender::new(&kafka));
    let mut options = options(&kafka, "one");
    options.session_timeout = Duration::from_secs(6);
    let commands = Commands::start(options.clone(), book.clone()).unwrap();
    for n in 0..100 {
        sender.count(&format!("agent-{}", n % 9), None, n, "");
    }
    sender.flush();
    let reader = kafka.clone();
    let first = tokio::task::spawn_blocking(move || replies(&reader, 100, 60));
    assert_one_each(&first.await.unwrap(), 100);
    commands.stop().await;
    // as brokers do when a group has had no members for a week
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", &kafka.brokers)
        .create()
        .unwrap();
    let group = kafka.topic(GROUP);
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let done = admin.delete_groups(&[&group], &AdminOptions::new()).await;
        if done.unwrap().iter().all(Result::is_ok) {
            break;
        }
        assert!(Instant::now() < deadline, "the session does not end");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    for n in 100..150 {
        sender.count(&format!("agent-{}", n % 9), None, n, "");
    }
    sender.flush();
    let commands = Commands::start(options, book.clone()).unwrap();
    let reader = kafka.clone();
    let all = tokio::task::spawn_blocking(move || replies(&reader, 150, 60));
    assert_one_each(&all.await.unwrap(), 150);
    commands.stop().await;
}
