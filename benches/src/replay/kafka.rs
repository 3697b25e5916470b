//! From the departments' topics, filled by the relay.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::Offset;
use sovereign_kafka::{KafkaLog, KafkaOptions};
use sovereign_replay::Options;
use sovereign_schemas::{Departments, EventLog};

use super::data::{Log, SERVED, measured};
use crate::protocol::{Arm, Reading, Report};
use crate::relay::ledger::{Memory, consumer, fresh, running, until};
use crate::servers::BenchServers;

const GOAL: f64 = 0.5;

pub(super) async fn case(
    servers: &BenchServers,
    log: &Log,
    report: &mut Report,
    rounds: usize,
) -> anyhow::Result<()> {
    let kafka = &filled(servers.brokers()?, log).await?;
    let arms = vec![
        Arm::new("raw", move |_| async move {
            // nothing else runs on this thread
            raw(kafka, log)
        }),
        Arm::new("ours", move |_| async move {
            let mut topics = KafkaLog::new(kafka.clone(), Departments::default());
            let topics: &mut dyn EventLog = &mut topics;
            measured(topics, Options::default(), SERVED, &log.digests.0).await
        }),
    ];
    report.case("kafka", "events/s", rounds, arms).await?;
    let ratio = report.ratio("kafka", "ours", "raw");
    report.goal_at_least("kafka.ours-raw", GOAL, ratio.median);
    Ok(())
}

async fn filled(brokers: &str, log: &Log) -> anyhow::Result<KafkaOptions> {
    let kafka = fresh(brokers).await?;
    let events = log.served.iter().cloned().map(Arc::new).collect();
    let (ledger, tell) = Memory::new(Arc::new(events), 0);
    let relay = running(&kafka, &ledger).await?;
    tell.send_replace(SERVED);
    until(120, || relay.health().position.0 == SERVED).await?;
    relay.stop().await;
    Ok(kafka)
}

fn raw(kafka: &KafkaOptions, log: &Log) -> anyhow::Result<Reading> {
    // the clock starts where that of our reader does: before it connects
    let started = Instant::now();
    let consumer = consumer(kafka, Offset::Beginning)?;
    let (mut count, mut bytes) = (0, 0);
    let mut heard = Instant::now();
    while count < SERVED {
        let Some(message) = consumer.poll(Duration::from_millis(100)) else {
            anyhow::ensure!(heard.elapsed() < Duration::from_secs(20), "{count} records");
            continue;
        };
        bytes += message?.payload_len();
        count += 1;
        heard = Instant::now();
    }
    let took = started.elapsed();
    // magic byte and schema id stand before each payload
    let expected: usize = log.served.iter().map(|e| e.payload.len() + 5).sum();
    anyhow::ensure!(bytes == expected, "{bytes} bytes of values, not {expected}");
    Ok(Reading::new(SERVED as f64 / took.as_secs_f64()))
}
