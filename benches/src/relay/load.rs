//! As fast as possible.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use sovereign_schemas::RecordedEvent;

use super::ledger::{Memory, Record, events, fresh, records, running, until};
use crate::protocol::{Arm, Reading, Report};
use crate::servers::BenchServers;

const EVENTS: u64 = 200_000;
const GOAL: f64 = 0.8;

pub(super) async fn case(
    servers: &BenchServers,
    report: &mut Report,
    rounds: usize,
) -> anyhow::Result<()> {
    let brokers = servers.brokers()?.to_owned();
    let events = Arc::new(events(EVENTS));
    // what the raw arm sends is what a consumer of the relay got
    let kafka = fresh(&brokers).await?;
    relay(&kafka, &events).await?;
    let made = RefCell::new(records(&kafka, EVENTS)?);
    let prefix = kafka.namespace.clone();
    let (made, prefix, brokers, events) = (&made, &prefix, &brokers, &events);
    let arms = vec![
        Arm::new("raw", move |_| async move {
            let kafka = fresh(brokers).await?;
            let taken = made.take();
            let (took, back) = raw(&kafka, prefix, taken)?;
            made.replace(back);
            Ok(Reading::new(EVENTS as f64 / took.as_secs_f64()))
        }),
        Arm::new("ours", move |_| async move {
            let kafka = fresh(brokers).await?;
            let took = relay(&kafka, events).await?;
            records(&kafka, EVENTS)?;
            Ok(Reading::new(EVENTS as f64 / took.as_secs_f64()))
        }),
    ];
    report.case("load", "events/s", rounds, arms).await?;
    let ratio = report.ratio("load", "ours", "raw");
    report.goal_at_least("load.ours-raw", GOAL, ratio.median);
    Ok(())
}

async fn relay(
    kafka: &sovereign_kafka::KafkaOptions,
    events: &Arc<Vec<Arc<RecordedEvent>>>,
) -> anyhow::Result<Duration> {
    let (ledger, tell) = Memory::new(Arc::clone(events), 0);
    let relay = running(kafka, &ledger).await?;
    let started = Instant::now();
    tell.send_replace(EVENTS);
    until(120, || relay.health().position.0 == EVENTS).await?;
    let took = started.elapsed();
    relay.stop().await;
    Ok(took)
}

fn raw(
    kafka: &sovereign_kafka::KafkaOptions,
    prefix: &str,
    records: Vec<Record>,
) -> anyhow::Result<(Duration, Vec<Record>)> {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &kafka.brokers)
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("batch.num.messages", "10000")
        .set("queue.buffering.max.messages", "1000000")
        .set("partitioner", "murmur2_random")
        .create()?;
    let topics: Vec<String> = records
        .iter()
        .map(|r| kafka.topic(r.topic.strip_prefix(prefix).unwrap_or(&r.topic)))
        .collect();
    // ready before the clock starts
    let ready: Vec<_> = records.iter().map(|r| r.headers.clone()).collect();
    let started = Instant::now();
    for ((record, topic), headers) in records.iter().zip(&topics).zip(ready) {
        let mut next = BaseRecord::to(topic)
            .key(&record.key)
            .payload(&record.value)
            .headers(headers);
        while let Err((error, back)) = producer.send(next) {
            anyhow::ensure!(
                error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull),
                "{error}"
            );
            producer.poll(Duration::from_millis(1));
            next = back;
        }
    }
    while producer.in_flight_count() > 0 {
        producer.poll(Duration::from_millis(1));
    }
    let took = started.elapsed();
    Ok((took, records))
}
