//! A deterministic ledger in memory, and a plain consumer to check with.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message};
use rdkafka::{Offset, TopicPartitionList};
use sovereign_kafka::{
    KafkaOptions, LedgerProbe, Relay, RelayHandle, RelayOptions, SchemaIds, ensure_topics,
};
use sovereign_schemas::chain::{self, Head};
use sovereign_schemas::{
    DepartmentId, Departments, Digest, EventHeader, LogError, Position, RecordedEvent, Tail,
    Timestamp, Uuid, catalog,
};
use tokio::sync::watch;

pub(crate) fn brokers() -> String {
    std::env::var("SOVEREIGN_TEST_BROKERS").expect(
        "SOVEREIGN_TEST_BROKERS must name a Kafka broker (host:port); `make test` starts one",
    )
}

/// The test broker, with a namespace of its own.
pub(crate) fn kafka() -> KafkaOptions {
    let mut options = KafkaOptions::new(brokers());
    options.namespace = format!("t{}.", Uuid::now_v7().simple());
    options
}

pub(crate) async fn kafka_with_topics() -> KafkaOptions {
    let options = kafka();
    ensure_topics(&options, &Departments::default(), &Default::default())
        .await
        .unwrap();
    options
}

/// Microseconds of the first event: 2026-02-04T12:00:00Z; one event a millisecond after it.
pub(crate) const EPOCH: i64 = 1_770_206_400_000_000;

/// The same events for the same arguments, whoever asks: 300 bytes each, over all departments.
pub(crate) fn events(count: u64, seed: u64) -> Vec<Arc<RecordedEvent>> {
    let departments: Vec<DepartmentId> = Departments::default().iter().map(|d| d.id).collect();
    let mut sequences: HashMap<String, u64> = HashMap::new();
    let mut previous = Digest::ZERO;
    (1..=count)
        .map(|n| {
            let schema = &catalog::all()[n as usize % catalog::all().len()];
            let aggregate_id = format!("agent-{}", (n * 7 + seed) % 61);
            let sequence = sequences.entry(aggregate_id.clone()).or_default();
            *sequence += 1;
            let header = EventHeader {
                position: Position(n),
                event_id: Uuid::from_u128(u128::from(seed) << 64 | u128::from(n)),
                aggregate_type: schema.subject.split('.').nth(1).unwrap().to_owned().into(),
                aggregate_id,
                sequence: *sequence,
                event_type: schema.name.into(),
                event_version: schema.version,
                department: departments[(n / 3) as usize % departments.len()],
                actor: "tester".to_owned(),
                command_id: Uuid::from_u128(u128::from(n)),
                correlation_id: Uuid::from_u128(1),
                causation_id: None,
                recorded_at: Timestamp(EPOCH + n as i64 * 1000),
                schema_fingerprint: schema.fingerprint,
            };
            let payload = vec![(n ^ seed) as u8; 300];
            let hash = chain::expected_hash(&previous, &header, &payload);
            previous = hash;
            let traceparent =
                (n % 2 == 0).then(|| format!("00-{:032x}-{n:016x}-01", u128::from(seed) + 1));
            Arc::new(RecordedEvent {
                header,
                payload: payload.into(),
                hash,
                traceparent,
            })
        })
        .collect()
}

pub(crate) fn schema_ids() -> SchemaIds {
    let ids = catalog::all().iter().zip(100..);
    SchemaIds::known(ids.map(|(s, id)| ((s.name.to_owned(), s.version), id)))
}

/// A ledger in memory of which the first so many events exist.
#[derive(Clone)]
pub(crate) struct Ledger {
    events: Arc<Vec<Arc<RecordedEvent>>>,
    exist: watch::Receiver<u64>,
}

impl Ledger {
    pub(crate) fn new(events: Vec<Arc<RecordedEvent>>) -> (Self, watch::Sender<u64>) {
        let (tell, exist) = watch::channel(events.len() as u64);
        (
            Self {
                events: Arc::new(events),
                exist,
            },
            tell,
        )
    }
}

#[async_trait]
impl Tail for Ledger {
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
impl LedgerProbe for Ledger {
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

pub(crate) fn start(kafka: &KafkaOptions, ledger: &Ledger) -> RelayHandle {
    start_with(RelayOptions::new(kafka.clone()), ledger)
}

pub(crate) fn start_with(options: RelayOptions, ledger: &Ledger) -> RelayHandle {
    Relay::start(
        options,
        Box::new(ledger.clone()),
        Arc::new(ledger.clone()),
        schema_ids(),
        Departments::default(),
    )
}

pub(crate) async fn until(what: &str, limit_s: u64, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(limit_s);
    while !holds() {
        assert!(Instant::now() < deadline, "not within {limit_s} s: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) async fn until_some<T>(
    what: &str,
    limit_s: u64,
    mut find: impl FnMut() -> Option<T>,
) -> T {
    let mut found = None;
    until(what, limit_s, || {
        found = find();
        found.is_some()
    })
    .await;
    found.unwrap()
}

/// Relays everything and stops.
pub(crate) async fn relay_all(kafka: &KafkaOptions, events: Vec<Arc<RecordedEvent>>) {
    let count = events.len() as u64;
    let (ledger, _tell) = Ledger::new(events);
    let relay = start(kafka, &ledger);
    until("all relayed", 60, || relay.health().position.0 == count).await;
    relay.stop().await;
    // brokers write markers behind the answer to a commit
    let (committed, all) = (plain_consumer(kafka), uncommitted_consumer(kafka));
    until("all visible", 60, || {
        ends(&committed, kafka) == ends(&all, kafka)
    })
    .await;
}

/// The end of each partition of the departments' topics, as this consumer sees it.
fn ends(consumer: &BaseConsumer, kafka: &KafkaOptions) -> Vec<i64> {
    let limit = Duration::from_secs(10);
    let metadata = consumer.fetch_metadata(None, limit).unwrap();
    let prefix = kafka.topic("dept.");
    let topics = metadata.topics().iter();
    let ours = topics.filter(|t| t.name().starts_with(&prefix));
    let partitions = ours.flat_map(|t| t.partitions().iter().map(|p| (t.name(), p.id())));
    let end = |(topic, partition)| {
        consumer
            .fetch_watermarks(topic, partition, limit)
            .unwrap()
            .1
    };
    partitions.map(end).collect()
}

fn uncommitted_consumer(kafka: &KafkaOptions) -> BaseConsumer {
    ClientConfig::new()
        .set("bootstrap.servers", &kafka.brokers)
        .set("group.id", format!("{}check", kafka.namespace))
        .set("isolation.level", "read_uncommitted")
        .create()
        .unwrap()
}

pub(crate) fn plain_consumer(kafka: &KafkaOptions) -> BaseConsumer {
    ClientConfig::new()
        .set("bootstrap.servers", &kafka.brokers)
        .set("group.id", format!("{}check", kafka.namespace))
        .set("isolation.level", "read_committed")
        .set("enable.auto.commit", "false")
        .set("fetch.wait.max.ms", "10")
        .create()
        .unwrap()
}

pub(crate) fn assign_all(consumer: &BaseConsumer, kafka: &KafkaOptions) {
    let metadata = consumer
        .fetch_metadata(None, Duration::from_secs(10))
        .unwrap();
    let prefix = kafka.topic("dept.");
    let mut list = TopicPartitionList::new();
    for topic in metadata
        .topics()
        .iter()
        .filter(|t| t.name().starts_with(&prefix))
    {
        for partition in topic.partitions() {
            list.add_partition_offset(topic.name(), partition.id(), Offset::Beginning)
                .unwrap();
        }
    }
    assert_eq!(list.count(), 21);
    consumer.assign(&list).unwrap();
}

/// Positions as a stock read-committed consumer sees them, by partition and in order; waits until
/// nothing comes for a while.
pub(crate) fn visible(kafka: &KafkaOptions) -> BTreeMap<(String, i32), Vec<u64>> {
    let consumer = plain_consumer(kafka);
    assign_all(&consumer, kafka);
    let mut seen: BTreeMap<(String, i32), Vec<u64>> = BTreeMap::new();
    let mut heard = Instant::now();
    while heard.elapsed() < Duration::from_millis(1500) {
        let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) else {
            continue;
        };
        heard = Instant::now();
        let headers = message.headers().unwrap();
        let position = headers
            .iter()
            .find(|h| h.key == "sovereign_position")
            .unwrap();
        let position = std::str::from_utf8(position.value.unwrap())
            .unwrap()
            .parse()
            .unwrap();
        let at = (message.topic().to_owned(), message.partition());
        seen.entry(at).or_default().push(position);
    }
    seen
}

/// Each position once, growing in each partition (I4), none missing.
pub(crate) fn assert_exactly(kafka: &KafkaOptions, count: u64) {
    let seen = visible(kafka);
    for (partition, positions) in &seen {
        assert!(
            positions.is_sorted_by(|a, b| a < b),
            "{partition:?} does not grow"
        );
    }
    let mut all: Vec<u64> = seen.into_values().flatten().collect();
    let total = all.len();
    all.sort_unstable();
    all.dedup();
    assert_eq!(total, all.len(), "positions are visible twice");
    assert_eq!(all, (1..=count).collect::<Vec<_>>());
}
