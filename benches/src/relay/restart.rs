//! A new relay on topics with history.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::Offset;
use rdkafka::message::Message as _;
use sovereign_kafka::{Relay, RelayOptions};
use sovereign_schemas::Departments;

use super::ledger::{Memory, consumer, events, fresh, running, schema_ids, until};
use crate::protocol::{Arm, Reading, Report};
use crate::servers::BenchServers;

const HISTORY: u64 = 50_000;
const GOAL_S: f64 = 1.0;

pub(super) async fn case(
    servers: &BenchServers,
    report: &mut Report,
    rounds: usize,
) -> anyhow::Result<()> {
    let events = Arc::new(events(HISTORY + 1_000));
    let (brokers, events) = (&servers.brokers()?.to_owned(), &events);
    let arm = Arm::new("ours", move |_| async move {
        let kafka = fresh(brokers).await?;
        let (ledger, tell) = Memory::new(Arc::clone(events), HISTORY);
        let first = running(&kafka, &ledger).await?;
        until(120, || first.health().position.0 == HISTORY).await?;
        // the transactional ids stay taken, as after a crash; one that only was told to stop would
        // still relay what comes now
        first.stop().await;
        tell.send_replace(HISTORY + 1_000);
        let watched = kafka.clone();
        let seen = std::thread::spawn(move || -> anyhow::Result<Instant> {
            let consumer = consumer(&watched, Offset::End)?;
            let deadline = Instant::now() + Duration::from_secs(60);
            while Instant::now() < deadline {
                if let Some(message) = consumer.poll(Duration::from_millis(20)) {
                    anyhow::ensure!(message?.payload().is_some(), "record without a value");
                    return Ok(Instant::now());
                }
            }
            anyhow::bail!("nothing came within 60 s")
        });
        tokio::time::sleep(Duration::from_millis(500)).await;
        let started = Instant::now();
        let relay = Relay::start(
            RelayOptions::new(kafka.clone()),
            Box::new(ledger.clone()),
            Arc::new(ledger.clone()),
            schema_ids(),
            Departments::default(),
        );
        let at = tokio::task::spawn_blocking(move || seen.join()).await?;
        let at = at.map_err(|_| anyhow::anyhow!("the consumer panicked"))??;
        let took = at.saturating_duration_since(started).as_secs_f64();
        relay.stop().await;
        Ok(Reading::new(1.0 / took).with("first_record_s", took))
    });
    report.case("restart", "1/s", rounds, vec![arm]).await?;
    let took = report.extra("restart", "ours", "first_record_s");
    report.goal_at_most("restart.first_record_s", GOAL_S, took);
    Ok(())
}
