//! Topics that lie: `verify` over Kafka names the position.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use sovereign_kafka::dead_letters::RawRecord;
use sovereign_kafka::{KafkaLog, KafkaOptions, TopicSettings, ensure_topics};
use sovereign_replay::{Expectations, Options, Range, ReplayError, verify};
use sovereign_schemas::{Departments, Digest, EventLog, LogError, RecordedEvent, Uuid};

use crate::harness::small;

const AT: u64 = 60;

/// Topics of their own on the engine's broker, holding these records.
async fn topics(brokers: &str, events: &[RecordedEvent], lie: &dyn Fn(&mut RawRecord)) -> KafkaLog {
    let mut kafka = KafkaOptions::new(brokers);
    kafka.namespace = format!("lies-{}.", Uuid::now_v7().simple());
    let departments = Departments::default();
    ensure_topics(&kafka, &departments, &TopicSettings::default())
        .await
        .unwrap();
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("enable.idempotence", "true")
        .create()
        .unwrap();
    for event in events {
        let mut record = RawRecord::of_event(event, 1);
        if event.position().0 == AT {
            lie(&mut record);
        }
        let topic = kafka.topic(&departments.get(event.header.department).unwrap().topic());
        let headers = record
            .headers
            .iter()
            .fold(OwnedHeaders::new(), |all, (key, value)| {
                let value = value.as_deref();
                all.insert(Header { key, value })
            });
        let sent = BaseRecord::to(&topic)
            .key(record.key.as_deref().unwrap())
            .payload(record.value.as_deref().unwrap())
            .headers(headers);
        producer.send(sent).map_err(|(e, _)| e).unwrap();
    }
    producer.flush(Duration::from_secs(20)).unwrap();
    KafkaLog::new(kafka, departments)
}

fn set(record: &mut RawRecord, name: &str, value: Vec<u8>) {
    let header = record.headers.iter_mut().find(|(n, _)| n == name).unwrap();
    header.1 = Some(value.into());
}

#[test]
fn verification_of_topics_names_the_position_that_lies() {
    let brokers = small().status()["brokers"].as_str().unwrap().to_owned();
    let good = sovereign_replay::sample::events(3, 100, 9);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let hash = |r: &mut RawRecord| set(r, "sovereign_hash", Digest([7; 32]).to_string().into());
    let payload = |r: &mut RawRecord| {
        let mut value = r.value.as_deref().unwrap().to_vec();
        *value.last_mut().unwrap() ^= 1;
        r.value = Some(value.into());
    };
    let canonical = |r: &mut RawRecord| {
        let header = r
            .headers
            .iter()
            .find(|(n, _)| n == "sovereign_header")
            .unwrap();
        let mut header =
            sovereign_schemas::EventHeader::decode(header.1.as_deref().unwrap()).unwrap();
        header.actor = "somebody".to_owned();
        let mut bytes = Vec::new();
        header.encode(&mut bytes);
        set(r, "sovereign_header", bytes);
    };
    let position = |r: &mut RawRecord| set(r, "sovereign_position", b"61".to_vec());
    let id = |r: &mut RawRecord| set(r, "ce_id", Uuid::nil().to_string().into());
    let missing = |r: &mut RawRecord| r.headers.retain(|(n, _)| n != "sovereign_header");
    type Lie<'a> = (&'a str, &'a dyn Fn(&mut RawRecord));
    let lies: [Lie; 6] = [
        ("hash", &hash),
        ("payload", &payload),
        ("canonical header", &canonical),
        ("position", &position),
        ("id", &id),
        ("no canonical header", &missing),
    ];
    runtime.block_on(async {
        let mut log = topics(&brokers, &good, &|_| {}).await;
        check(&mut log).await.unwrap();
        for (name, lie) in lies {
            let mut log = topics(&brokers, &good, lie).await;
            let error = check(&mut log).await.unwrap_err();
            let at = match &error {
                ReplayError::Difference(difference) => difference.position.0,
                ReplayError::Log(LogError::Malformed { after, .. }) => after.0 + 1,
                other => panic!("{name}: {other}"),
            };
            // a record that lies about itself may stand anywhere behind what its partition gave last
            assert!(at <= AT && at + 30 > AT, "{name}: {at}: {error}");
        }
    });
}

async fn check(log: &mut KafkaLog) -> Result<(), ReplayError> {
    let log: &mut dyn EventLog = log;
    let nothing = Expectations::default();
    verify(log, Range::WHOLE, nothing, Options::default(), &mut |_| {})
        .await
        .map(drop)
}
