//! Records that are no events, each wrong in one way.

use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::ClientContext;
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::{ClientConfig, TopicPartitionList};
use sovereign_kafka::{KafkaOptions, TopicSettings, ensure_topics};
use sovereign_schemas::events::{AgentRegistered, MarketObservedV1};
use sovereign_schemas::{
    Date, DepartmentId, Departments, Digest, ErrorCode, EventHeader, PAYLOAD_BYTES_MAX, Position,
    RecordedEvent, Timestamp, Uuid, avro, catalog,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinHandle;

use crate::support::{EPOCH, kafka, plain_consumer};

/// Where all of them go: partition 0 of this topic.
pub(crate) const TOPIC: &str = "dept.trader";
/// The id under which the test's registry has the schema of the good events.
const SCHEMA_ID: u32 = 7;

#[derive(Debug, Clone)]
pub(crate) struct Raw {
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Raw {
    pub(crate) fn text(text: &str) -> Self {
        Self {
            key: None,
            value: Some(text.into()),
            headers: Vec::new(),
        }
    }

    fn of(event: &RecordedEvent, schema_id: u32) -> Self {
        let header = &event.header;
        let mut canonical = Vec::new();
        header.encode(&mut canonical);
        let mut value = vec![0];
        value.extend_from_slice(&schema_id.to_be_bytes());
        value.extend_from_slice(&event.payload);
        let name = format!("sovereign.{}.{}", header.aggregate_type, header.event_type);
        let text = |name: &str, value: String| (name.to_owned(), Some(value.into_bytes()));
        Self {
            key: Some(header.aggregate_id.clone().into_bytes()),
            value: Some(value),
            headers: vec![
                text("ce_id", header.event_id.to_string()),
                text("ce_type", name),
                text("sovereign_position", header.position.to_string()),
                text("sovereign_hash", event.hash.to_string()),
                ("sovereign_header".to_owned(), Some(canonical)),
                // foreign headers are kept as well
                ("x-null".to_owned(), None),
            ],
        }
    }

    fn header(&mut self, name: &str) -> &mut Option<Vec<u8>> {
        let found = self.headers.iter_mut().find(|(n, _)| n == name);
        &mut found.unwrap().1
    }

    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }
}

fn recorded(position: u64, name: &'static str, payload: Vec<u8>) -> RecordedEvent {
    let schema = catalog::find(name, 1).unwrap();
    RecordedEvent {
        header: EventHeader {
            position: Position(position),
            event_id: Uuid::from_u128(u128::from(position)),
            aggregate_type: "agent".into(),
            aggregate_id: format!("agent-{position}"),
            sequence: 1,
            event_type: name.into(),
            event_version: 1,
            department: DepartmentId::TRADER,
            actor: "tester".to_owned(),
            command_id: Uuid::from_u128(1),
            correlation_id: Uuid::from_u128(1),
            causation_id: None,
            recorded_at: Timestamp(EPOCH),
            schema_fingerprint: schema.fingerprint,
        },
        payload: payload.into(),
        hash: Digest::ZERO,
        traceparent: None,
    }
}

/// An event, and the same with a version that no build knows.
pub(crate) fn records(position: u64) -> (RecordedEvent, Raw) {
    let role = "tester".to_owned();
    let event = recorded(
        position,
        "AgentRegistered",
        avro::encode(&AgentRegistered { role }),
    );
    let mut newer = event.clone();
    newer.header.event_version = 99;
    (event, Raw::of(&newer, SCHEMA_ID))
}

pub(crate) fn good(position: u64) -> Raw {
    Raw::of(&records(position).0, SCHEMA_ID)
}

/// An event of a version that is read and no longer written.
pub(crate) fn market_v1(position: u64) -> Raw {
    let price = "100.25".parse().unwrap();
    let bar = MarketObservedV1 {
        instrument: "IBM".to_owned(),
        date: Date(11_017),
        open: price,
        high: price,
        low: price,
        close: price,
        volume: price,
    };
    Raw::of(&recorded(position, "MarketObserved", avro::encode(&bar)), 8)
}

/// A canonical header with one lie, which its copies in other headers do not repeat.
fn lying(change: impl FnOnce(&mut EventHeader)) -> Raw {
    let (mut event, _) = records(1_000);
    let mut raw = Raw::of(&event, SCHEMA_ID);
    change(&mut event.header);
    let mut canonical = Vec::new();
    event.header.encode(&mut canonical);
    *raw.header("sovereign_header") = Some(canonical);
    raw
}

/// What is wrong, the code that the letter must have, the record.
pub(crate) fn cases() -> Vec<(String, ErrorCode, Raw)> {
    let base = || good(1_000);
    let mut all = vec![
        ("text", ErrorCode::NotAnEvent, Raw::text("{\"a\": 1}")),
        (
            "no value",
            ErrorCode::NotAnEvent,
            base().with(|r| r.value = None),
        ),
        (
            "empty value",
            ErrorCode::NotAnEvent,
            base().with(|r| r.value = Some(Vec::new())),
        ),
        (
            "wrong magic byte",
            ErrorCode::NotAnEvent,
            base().with(|r| r.value.as_mut().unwrap()[0] = 1),
        ),
        (
            "unknown schema id",
            ErrorCode::SchemaUnknown,
            base().with(|r| r.value.as_mut().unwrap()[4] = 99),
        ),
        (
            "schema id of another schema",
            ErrorCode::SchemaUnknown,
            base().with(|r| r.value.as_mut().unwrap()[4] = 8),
        ),
        (
            "truncated avro",
            ErrorCode::PayloadInvalid,
            base().with(|r| assert!(r.value.as_mut().unwrap().pop().is_some())),
        ),
        (
            "over-long avro",
            ErrorCode::PayloadInvalid,
            base().with(|r| r.value.as_mut().unwrap().push(0)),
        ),
        (
            "no payload",
            ErrorCode::PayloadInvalid,
            base().with(|r| r.value.as_mut().unwrap().truncate(5)),
        ),
        (
            "a value of 5 MiB",
            ErrorCode::PayloadTooLarge,
            base().with(|r| r.value.as_mut().unwrap().resize(5 << 20, 0)),
        ),
        (
            "one byte too large",
            ErrorCode::PayloadTooLarge,
            base().with(|r| r.value.as_mut().unwrap().resize(PAYLOAD_BYTES_MAX + 6, 0)),
        ),
        (
            "a version that no build knows",
            ErrorCode::EventUnknown,
            records(1_000).1,
        ),
        (
            "lying position",
            ErrorCode::HeaderContradiction,
            base().with(|r| *r.header("sovereign_position") = Some(b"1001".to_vec())),
        ),
        (
            "position in another spelling",
            ErrorCode::HeaderContradiction,
            base().with(|r| *r.header("sovereign_position") = Some(b"01000".to_vec())),
        ),
        (
            "lying id",
            ErrorCode::HeaderContradiction,
            base().with(|r| *r.header("ce_id") = Some(Uuid::nil().to_string().into_bytes())),
        ),
        (
            "lying type",
            ErrorCode::HeaderContradiction,
            base().with(|r| *r.header("ce_type") = Some(b"sovereign.agent.TaskStarted".to_vec())),
        ),
        (
            "lying key",
            ErrorCode::HeaderContradiction,
            base().with(|r| r.key = Some(b"agent-1".to_vec())),
        ),
        (
            "no key",
            ErrorCode::HeaderContradiction,
            base().with(|r| r.key = None),
        ),
        (
            "malformed hash",
            ErrorCode::HeaderInvalid,
            base().with(|r| *r.header("sovereign_hash") = Some(b"x".to_vec())),
        ),
        (
            "cut canonical header",
            ErrorCode::HeaderInvalid,
            base().with(|r| {
                assert!(
                    r.header("sovereign_header")
                        .as_mut()
                        .unwrap()
                        .pop()
                        .is_some()
                )
            }),
        ),
        (
            "long canonical header",
            ErrorCode::HeaderInvalid,
            base().with(|r| r.header("sovereign_header").as_mut().unwrap().push(0)),
        ),
        (
            "canonical header with another position",
            ErrorCode::HeaderContradiction,
            lying(|h| h.position = Position(9)),
        ),
        (
            "canonical header with another aggregate",
            ErrorCode::HeaderContradiction,
            lying(|h| h.aggregate_id = "a".to_owned()),
        ),
        (
            "canonical header with another aggregate type",
            ErrorCode::HeaderContradiction,
            lying(|h| h.aggregate_type = "trade".into()),
        ),
        (
            "canonical header with another fingerprint",
            ErrorCode::SchemaUnknown,
            lying(|h| h.schema_fingerprint = [1; 8]),
        ),
    ]
    .into_iter()
    .map(|(name, code, raw)| (name.to_owned(), code, raw))
    .collect::<Vec<_>>();
    for name in [
        "ce_id",
        "ce_type",
        "sovereign_position",
        "sovereign_hash",
        "sovereign_header",
    ] {
        let code = ErrorCode::HeaderInvalid;
        let missing = base().with(|r| r.headers.retain(|(n, _)| n != name));
        all.push((format!("{name} missing"), code, missing));
        let twice = base().with(|r| {
            let value = r.header(name).clone();
            r.headers.push((name.to_owned(), value));
        });
        all.push((format!("{name} doubled"), code, twice));
        all.push((
            format!("{name} null"),
            code,
            base().with(|r| *r.header(name) = None),
        ));
    }
    all
}

/// A record that the broker does not take fails the test.
struct AllTaken;

impl ClientContext for AllTaken {}

impl ProducerContext for AllTaken {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        assert!(result.is_ok(), "{result:?}");
    }
}

/// To partition 0, in order.
pub(crate) fn write_raw(kafka: &KafkaOptions, records: &[&Raw]) {
    let producer: BaseProducer<AllTaken> = ClientConfig::new()
        .set("bootstrap.servers", &kafka.brokers)
        .set("message.max.bytes", "33554432")
        .set("enable.idempotence", "true")
        .set("batch.num.messages", "1")
        .create_with_context(AllTaken)
        .unwrap();
    let topic = kafka.topic(TOPIC);
    for raw in records {
        let headers = raw
            .headers
            .iter()
            .fold(OwnedHeaders::new(), |all, (key, value)| {
                let value = value.as_deref();
                all.insert(Header { key, value })
            });
        let mut record: BaseRecord<'_, [u8], [u8]> =
            BaseRecord::to(&topic).partition(0).headers(headers);
        if let Some(key) = &raw.key {
            record = record.key(key);
        }
        if let Some(value) = &raw.value {
            record = record.payload(value);
        }
        producer.send(record).map_err(|(e, _)| e).unwrap();
    }
    producer.flush(Duration::from_secs(30)).unwrap();
    assert_eq!(producer.in_flight_count(), 0);
}

fn admin(kafka: &KafkaOptions) -> AdminClient<DefaultClientContext> {
    ClientConfig::new()
        .set("bootstrap.servers", &kafka.brokers)
        .create()
        .unwrap()
}

/// Topics of which one takes records that are larger than ours ever are, as a foreign cluster may.
pub(crate) async fn kafka_with_large_topic() -> KafkaOptions {
    let kafka = kafka();
    let topic = kafka.topic(TOPIC);
    let large = NewTopic::new(&topic, 3, TopicReplication::Fixed(1));
    let large = large.set("max.message.bytes", "33554432");
    let done = admin(&kafka)
        .create_topics(&[large], &AdminOptions::new())
        .await;
    assert!(done.unwrap().iter().all(Result::is_ok));
    ensure_topics(&kafka, &Departments::default(), &TopicSettings::default())
        .await
        .unwrap();
    kafka
}

pub(crate) async fn delete_topic(kafka: &KafkaOptions, name: &str) {
    let topic = kafka.topic(name);
    let done = admin(kafka)
        .delete_topics(&[&topic], &AdminOptions::new())
        .await;
    assert!(done.unwrap().iter().all(Result::is_ok));
    tokio::time::sleep(Duration::from_secs(1)).await;
}

/// Records on all partitions of a topic.
pub(crate) fn count(kafka: &KafkaOptions, name: &str) -> i64 {
    let consumer = plain_consumer(kafka);
    let topic = kafka.topic(name);
    let wait = Duration::from_secs(10);
    (0..3)
        .map(|partition| {
            consumer
                .fetch_watermarks(&topic, partition, wait)
                .unwrap()
                .1
        })
        .sum()
}

/// Where a group stands in partition 0; negative if it committed nothing.
pub(crate) fn committed(kafka: &KafkaOptions, group: &str) -> i64 {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &kafka.brokers)
        .set("group.id", format!("{}{group}", kafka.namespace))
        .create()
        .unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition(&kafka.topic(TOPIC), 0);
    let found = consumer
        .committed_offsets(list, Duration::from_secs(10))
        .unwrap();
    found.elements()[0].offset().to_raw().unwrap_or(-1)
}

/// A registry with three schemas: 7 of AgentRegistered, 8 of MarketObserved, 9 of commands.
pub(crate) async fn registry() -> (String, JoinHandle<()>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let serve = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.windows(4).any(|w| w == b"\r\n\r\n") {
                let mut bytes = [0; 4_096];
                let count = stream.read(&mut bytes).await.unwrap();
                head.extend_from_slice(&bytes[..count]);
                if count == 0 {
                    break;
                }
            }
            let head = String::from_utf8(head).unwrap();
            let path = head.split(' ').nth(1).unwrap_or_default();
            let schema = match path.split('?').next() {
                Some("/schemas/ids/7") => catalog::find("AgentRegistered", 1),
                Some("/schemas/ids/8") => catalog::find("MarketObserved", 1),
                Some("/schemas/ids/9") => Some(catalog::command_record()),
                _ => None,
            };
            let (status, body) = match schema {
                Some(schema) => ("200 OK", serde_json::json!({ "schema": schema.json })),
                None => (
                    "404 Not Found",
                    serde_json::json!({ "error_code": 40403, "message": "Schema not found" }),
                ),
            };
            let body = body.to_string();
            let answer = format!(
                "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
                 connection: close\r\n\r\n{body}",
                body.len()
            );
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    (url, serve)
}
