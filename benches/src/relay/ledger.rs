//! A deterministic ledger in memory, and consumers to check with.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use async_trait::async_trait;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Headers as _, Message as _, OwnedHeaders};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use sovereign_kafka::{
    KafkaOptions, LedgerProbe, Relay, RelayHandle, RelayOptions, RelayState, SchemaIds,
    ensure_topics,
};
use sovereign_schemas::chain::{self, Head};
use sovereign_schemas::{
    DepartmentId, Departments, Digest, EventHeader, LogError, Position, RecordedEvent, Tail,
    Timestamp, Uuid, catalog,
};
use tokio::sync::watch;

/// Of each payload.
const PAYLOAD_BYTES: usize = 300;

/// The same events for the same count: over all departments and 61 aggregates.
pub(super) fn events(count: u64) -> Vec<Arc<RecordedEvent>> {
    let departments: Vec<DepartmentId> = Departments::default().iter().map(|d| d.id).collect();
    let schemas = catalog::all();
    let mut sequences: HashMap<String, u64> = HashMap::new();
    let mut previous = Digest::ZERO;
    (1..=count)
        .map(|n| {
            let schema = &schemas[n as usize % schemas.len()];
            let aggregate_id = format!("agent-{}", n * 7 % 61);
            let sequence = sequences.entry(aggregate_id.clone()).or_default();
            *sequence += 1;
            let header = EventHeader {
                position: Position(n),
                event_id: Uuid::from_u128(u128::from(n)),
                aggregate_type: schema.subject.split('.').nth(1).unwrap().to_owned().into(),
                aggregate_id,
                sequence: *sequence,
                event_type: schema.name.into(),
                event_version: schema.version,
                department: departments[n as usize % departments.len()],
                actor: "bench".to_owned(),
                command_id: Uuid::from_u128(u128::from(n)),
                correlation_id: Uuid::from_u128(1),
                causation_id: None,
                recorded_at: Timestamp(1_770_206_400_000_000 + n as i64 * 1000),
                schema_fingerprint: schema.fingerprint,
            };
            let payload = vec![n as u8; PAYLOAD_BYTES];
            let hash = chain::expected_hash(&previous, &header, &payload);
            previous = hash;
            Arc::new(RecordedEvent {
                header,
                payload: payload.into(),
                hash,
                traceparent: None,
            })
        })
        .collect()
}

pub(super) fn schema_ids() -> SchemaIds {
    let ids = catalog::all().iter().zip(100..);
    SchemaIds::known(ids.map(|(s, id)| ((s.name.to_owned(), s.version), id)))
}

/// A ledger in memory of which the first so many events exist.
#[derive(Clone)]
pub(crate) struct Memory {
    events: Arc<Vec<Arc<RecordedEvent>>>,
    exist: watch::Receiver<u64>,
}

impl Memory {
    pub(crate) fn new(
        events: Arc<Vec<Arc<RecordedEvent>>>,
        exist: u64,
    ) -> (Self, watch::Sender<u64>) {
        let (tell, exist) = watch::channel(exist);
        (Self { events, exist }, tell)
    }
}

#[async_trait]
impl Tail for Memory {
    async fn next(
        &mut self,
        after: Position,
        limit: usize,
        wait: Duration,
    ) -> Result<Vec<Arc<RecordedEvent>>, LogError> {
        let some = self.exist.wait_for(|n| *n > after.0);
        let Ok(Ok(exist)) = tokio::time::timeout(wait, some).await else {
            return Ok(Vec::new());
        };
        let end = exist.min(after.0 + limit as u64);
        Ok(self.events[after.0 as usize..end as usize].to_vec())
    }
}

#[async_trait]
impl LedgerProbe for Memory {
    async fn head(&self) -> Result<Head, LogError> {
        let exist = *self.exist.borrow();
        let last = exist.checked_sub(1).map(|i| &self.events[i as usize]);
        Ok(last.map_or(Head::EMPTY, |e| Head {
            position: e.position(),
            hash: e.hash,
        }))
    }

    async fn hash_at(&self, position: Position) -> Result<Option<Digest>, LogError> {
        let exist = *self.exist.borrow();
        Ok((position.0 <= exist && position.0 > 0)
            .then(|| self.events[position.0 as usize - 1].hash))
    }
}

/// The broker, with topics that nobody has used.
pub(crate) async fn fresh(brokers: &str) -> anyhow::Result<KafkaOptions> {
    let mut options = KafkaOptions::new(brokers);
    options.namespace = format!("b{}.", Uuid::now_v7().simple());
    ensure_topics(
        &options,
        &Departments::default(),
        &sovereign_kafka::TopicSettings::default(),
    )
    .await?;
    Ok(options)
}

/// A relay that has taken over and waits for events.
pub(crate) async fn running(kafka: &KafkaOptions, ledger: &Memory) -> anyhow::Result<RelayHandle> {
    let relay = Relay::start(
        RelayOptions::new(kafka.clone()),
        Box::new(ledger.clone()),
        Arc::new(ledger.clone()),
        schema_ids(),
        Departments::default(),
    );
    until(60, || relay.health().state == RelayState::Running).await?;
    Ok(relay)
}

pub(crate) async fn until(limit_s: u64, mut holds: impl FnMut() -> bool) -> anyhow::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(limit_s);
    while !holds() {
        anyhow::ensure!(Instant::now() < deadline, "not within {limit_s} s");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}

/// Every partition of the departments' topics, from `from` on.
pub(crate) fn consumer(kafka: &KafkaOptions, from: Offset) -> anyhow::Result<BaseConsumer> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &kafka.brokers)
        .set("group.id", format!("{}bench", kafka.namespace))
        .set("isolation.level", "read_committed")
        .set("enable.auto.commit", "false")
        .set("fetch.queue.backoff.ms", "2")
        .set("enable.partition.eof", "false")
        .create()?;
    let metadata = consumer.fetch_metadata(None, Duration::from_secs(10))?;
    let prefix = kafka.topic("dept.");
    let mut list = TopicPartitionList::new();
    for topic in metadata
        .topics()
        .iter()
        .filter(|t| t.name().starts_with(&prefix))
    {
        for partition in topic.partitions() {
            list.add_partition_offset(topic.name(), partition.id(), from)?;
        }
    }
    anyhow::ensure!(
        list.count() == 21,
        "{} partitions instead of 21",
        list.count()
    );
    consumer.assign(&list)?;
    Ok(consumer)
}

/// One record as a consumer got it.
pub(super) struct Record {
    pub(super) topic: String,
    pub(super) key: String,
    pub(super) value: Vec<u8>,
    pub(super) headers: OwnedHeaders,
}

fn position(headers: &OwnedHeaders) -> anyhow::Result<u64> {
    let found = headers
        .iter()
        .find(|h| h.key == "sovereign_position")
        .and_then(|h| h.value);
    Ok(std::str::from_utf8(found.context("record without a position")?)?.parse()?)
}

/// All `count` records that a read-committed consumer sees; fails unless each position from 1 on is
/// there exactly once.
pub(super) fn records(kafka: &KafkaOptions, count: u64) -> anyhow::Result<Vec<Record>> {
    let consumer = consumer(kafka, Offset::Beginning)?;
    let mut records = Vec::with_capacity(count as usize);
    let mut seen = vec![false; count as usize];
    let mut heard = Instant::now();
    while (records.len() as u64) < count {
        anyhow::ensure!(
            heard.elapsed() < Duration::from_secs(20),
            "{} of {count} records",
            records.len()
        );
        let Some(message) = consumer.poll(Duration::from_millis(100)) else {
            continue;
        };
        let message = message?;
        heard = Instant::now();
        let headers = message
            .headers()
            .context("record without headers")?
            .detach();
        let at = position(&headers)?;
        let place = seen
            .get_mut(at as usize - 1)
            .context("position beyond the last")?;
        anyhow::ensure!(
            !std::mem::replace(place, true),
            "position {at} is visible twice"
        );
        records.push(Record {
            topic: message.topic().to_owned(),
            key: String::from_utf8(message.key().unwrap_or_default().to_vec())?,
            value: message.payload().unwrap_or_default().to_vec(),
            headers,
        });
    }
    Ok(records)
}
