//! From a command's planned moment to a read-committed consumer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use async_trait::async_trait;
use rdkafka::message::{Headers as _, Message as _};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::{ClientConfig, Offset};
use sovereign_aggregates::agent::{AgentCommand, ObserveMarket, Register};
use sovereign_aggregates::{AnyCommand, CommandPort as _, CommandRequest};
use sovereign_event_store::{Ledger, LedgerOptions, LedgerReader};
use sovereign_kafka::{KafkaOptions, LedgerProbe, Relay, RelayOptions, RelayState};
use sovereign_schemas::chain::Head;
use sovereign_schemas::{
    CommandContext, DepartmentId, Departments, Digest, EventLog as _, LogError, Position, Status,
    Timestamp,
};

use super::ledger::{consumer, events, fresh, schema_ids, until};
use crate::protocol::{Arm, Reading, Report};
use crate::servers::BenchServers;

const PER_S: u64 = 5_000;
const SECONDS: u64 = 4;
/// The first second is not counted.
const WARM: u64 = PER_S;
const AGENTS: u64 = 500;
const GOAL_P99_MS: f64 = 25.0;

pub(super) async fn case(
    servers: &BenchServers,
    report: &mut Report,
    rounds: usize,
) -> anyhow::Result<()> {
    let brokers = &servers.brokers()?.to_owned();
    let arms = vec![
        Arm::new("raw", move |_| async move { raw(brokers).await }),
        Arm::new("ours", move |_| async move {
            ours(brokers, &servers.database().await?).await
        }),
    ];
    report.case("latency", "events/s", rounds, arms).await?;
    let p99 = report.extra("latency", "ours", "p99_ms");
    report.goal_at_most("latency.p99_ms", GOAL_P99_MS, p99);
    Ok(())
}

/// When event number n (from 0) is due.
fn due(start: Instant, n: u64) -> Instant {
    start + Duration::from_nanos(n * 1_000_000_000 / PER_S)
}

/// Notes when each of `count` records came, by position, in a thread of its own.
fn watch(
    kafka: KafkaOptions,
    first: u64,
    count: u64,
    ready: Arc<AtomicBool>,
) -> std::thread::JoinHandle<anyhow::Result<Vec<Instant>>> {
    std::thread::spawn(move || {
        let consumer = consumer(&kafka, Offset::Beginning)?;
        ready.store(true, Ordering::Release);
        let mut came = vec![None; count as usize];
        let mut left = count;
        let mut heard = Instant::now();
        while left > 0 {
            anyhow::ensure!(
                heard.elapsed() < Duration::from_secs(30),
                "{left} of {count} records did not come"
            );
            let Some(message) = consumer.poll(Duration::from_millis(50)) else {
                continue;
            };
            let message = message?;
            heard = Instant::now();
            let headers = message.headers().context("record without headers")?;
            let at = headers
                .iter()
                .find(|h| h.key == "sovereign_position")
                .and_then(|h| h.value);
            let at: u64 = std::str::from_utf8(at.context("record without a position")?)?.parse()?;
            let Some(index) = at.checked_sub(first) else {
                continue;
            };
            let place = came
                .get_mut(index as usize)
                .context("position beyond the last")?;
            anyhow::ensure!(
                place.replace(heard).is_none(),
                "position {at} is visible twice"
            );
            left -= 1;
        }
        Ok(came.into_iter().flatten().collect())
    })
}

/// Positions may stand in another order than the commands were due: the n-th position is held
/// against the n-th due moment, which adds up to the same delays.
fn reading(start: Instant, came: &[Instant]) -> Reading {
    let mut delays: Vec<f64> = came
        .iter()
        .enumerate()
        .skip(WARM as usize)
        .map(|(n, at)| {
            at.saturating_duration_since(due(start, n as u64))
                .as_secs_f64()
                * 1e3
        })
        .collect();
    delays.sort_by(f64::total_cmp);
    let quantile = |q: f64| delays[((delays.len() - 1) as f64 * q) as usize];
    let last = came.iter().max().map_or(start, |at| *at);
    Reading::new(came.len() as f64 / last.saturating_duration_since(start).as_secs_f64())
        .with("p50_ms", quantile(0.5))
        .with("p99_ms", quantile(0.99))
        .with("max_ms", quantile(1.0))
}

async fn raw(brokers: &str) -> anyhow::Result<Reading> {
    let kafka = fresh(brokers).await?;
    let count = PER_S * SECONDS;
    let ready = Arc::new(AtomicBool::new(false));
    let watcher = watch(kafka.clone(), 1, count, Arc::clone(&ready));
    until(30, || ready.load(Ordering::Acquire)).await?;
    let events = events(count);
    let sender = std::thread::spawn(move || -> anyhow::Result<Instant> {
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", &kafka.brokers)
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("linger.ms", "1")
            .create()?;
        let topics: std::collections::HashMap<_, _> = Departments::default()
            .iter()
            .map(|d| (d.id, kafka.topic(&d.topic())))
            .collect();
        let start = Instant::now() + Duration::from_millis(200);
        for (n, event) in events.iter().enumerate() {
            let wait = due(start, n as u64).saturating_duration_since(Instant::now());
            if !wait.is_zero() {
                std::thread::sleep(wait);
            }
            let position = event.position().to_string();
            let headers = rdkafka::message::OwnedHeaders::new_with_capacity(1).insert(
                rdkafka::message::Header {
                    key: "sovereign_position",
                    value: Some(&position),
                },
            );
            let record = BaseRecord::to(&topics[&event.header.department])
                .key(&event.header.aggregate_id)
                .payload(&event.payload[..])
                .headers(headers);
            producer.send(record).map_err(|(e, _)| e)?;
            producer.poll(Duration::ZERO);
        }
        while producer.in_flight_count() > 0 {
            producer.poll(Duration::from_millis(1));
        }
        Ok(start)
    });
    let (start, came) =
        tokio::task::spawn_blocking(move || (sender.join(), watcher.join())).await?;
    let start = start.map_err(|_| anyhow::anyhow!("the sender panicked"))??;
    let came = came.map_err(|_| anyhow::anyhow!("the consumer panicked"))??;
    Ok(reading(start, &came))
}

/// The ledger, as the relay asks it.
struct Probe(LedgerReader);

#[async_trait]
impl LedgerProbe for Probe {
    async fn head(&self) -> Result<Head, LogError> {
        Ok(self.0.head().await?)
    }

    async fn hash_at(&self, position: Position) -> Result<Option<Digest>, LogError> {
        let (events, _) = self
            .0
            .log()
            .read(Position(position.0 - 1).into(), 1)
            .await?;
        Ok(events.first().map(|e| e.hash))
    }
}

fn request(agent: u64, command: AgentCommand) -> anyhow::Result<CommandRequest> {
    Ok(CommandRequest {
        aggregate_id: format!("agent-{agent}").parse()?,
        command: AnyCommand::Agent(command),
        context: CommandContext::fresh("bench".parse()?, DepartmentId(1 + (agent % 2 * 4) as u16)),
        expected_sequence: None,
        source: None,
    })
}

fn bar(n: u64) -> anyhow::Result<AgentCommand> {
    let price = |p: u64| -> anyhow::Result<_> { Ok(format!("{p}.25").parse()?) };
    Ok(AgentCommand::ObserveMarket(ObserveMarket {
        instrument: "BENCH".parse()?,
        opened_at: Timestamp(1_770_206_400_000_000 + (n / AGENTS) as i64 * 60_000_000),
        interval_s: 60,
        open: price(100)?,
        high: price(102)?,
        low: price(99)?,
        close: price(101)?,
        volume: price(1_200)?,
    }))
}

async fn ours(brokers: &str, database: &str) -> anyhow::Result<Reading> {
    let kafka = fresh(brokers).await?;
    let ledger = Ledger::open(LedgerOptions::new(database, Departments::default())).await?;
    let relay = Relay::start(
        RelayOptions::new(kafka.clone()),
        Box::new(ledger.tail()),
        Arc::new(Probe(ledger.reader())),
        schema_ids(),
        Departments::default(),
    );
    until(60, || relay.health().state == RelayState::Running).await?;
    for agent in 0..AGENTS {
        let outcome = ledger
            .send(request(
                agent,
                AgentCommand::Register(Register {
                    role: "trader".parse()?,
                }),
            )?)
            .await;
        anyhow::ensure!(outcome.status == Status::Accepted, "{outcome:?}");
    }
    let count = PER_S * SECONDS;
    let ready = Arc::new(AtomicBool::new(false));
    let watcher = watch(kafka.clone(), AGENTS + 1, count, Arc::clone(&ready));
    until(30, || ready.load(Ordering::Acquire)).await?;
    let start = Instant::now() + Duration::from_millis(200);
    // an agent's bars come in order; each agent waits for nobody but itself
    let mut agents = tokio::task::JoinSet::new();
    for agent in 0..AGENTS {
        let ledger = ledger.clone();
        agents.spawn(async move {
            for n in (agent..count).step_by(AGENTS as usize) {
                tokio::time::sleep_until(due(start, n).into()).await;
                let outcome = ledger.send(request(agent, bar(n)?)?).await;
                anyhow::ensure!(outcome.status == Status::Accepted, "{outcome:?}");
            }
            Ok(())
        });
    }
    while let Some(done) = agents.join_next().await {
        done??;
    }
    let came = tokio::task::spawn_blocking(move || watcher.join()).await?;
    let came = came.map_err(|_| anyhow::anyhow!("the consumer panicked"))??;
    relay.stop().await;
    ledger.close().await;
    Ok(reading(start, &came))
}
