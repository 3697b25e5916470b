//! Ours: `Ledger::send` with real aggregates.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use sovereign_aggregates::agent::{AgentCommand, RecordThought, Register};
use sovereign_aggregates::{AnyCommand, CommandPort as _, CommandRequest};
use sovereign_event_store::{Ledger, LedgerOptions};
use sovereign_guard::{admit, scrub::Scrubber};
use sovereign_schemas::chain::{self, Head};
use sovereign_schemas::{
    AggregateId, CommandContext, Cursor, DepartmentId, Departments, EventLog as _, Identifier,
    Position, RawText, Status, Tail as _, Text, Uuid,
};

use super::load::{AGGREGATES, Caller, Plan, Random, TEXT_BYTES, Times, Unit, drive};
use crate::protocol::Reading;

/// What is special about an arm.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) in_flight: usize,
    pub(crate) aggregates: usize,
    pub(crate) conflicts_percent: u64,
    /// Command ids as a client that knows no better makes them: random, without time.
    pub(crate) random_ids: bool,
    /// Somebody follows the ledger and gets every event.
    pub(crate) follower: bool,
}

impl Shape {
    pub(crate) const fn full(in_flight: usize) -> Self {
        Self {
            in_flight,
            aggregates: AGGREGATES,
            conflicts_percent: 5,
            random_ids: false,
            follower: false,
        }
    }
}

/// Texts as agents think them: letters and spaces, nothing to scrub.
pub(crate) fn text(random: &mut Random) -> String {
    (0..TEXT_BYTES)
        .map(|_| char::from(b"etaoin shrdlu "[(random.next() % 14) as usize]))
        .collect()
}

/// What does not change from unit to unit.
#[derive(Debug)]
pub(crate) struct Fixed {
    pub(crate) ids: Vec<AggregateId>,
    pub(crate) texts: Vec<Text>,
    pub(crate) actor: Identifier,
    pub(crate) role: Identifier,
}

impl Fixed {
    pub(crate) fn new() -> anyhow::Result<Arc<Self>> {
        let mut random = Random(7);
        let scrubber = Scrubber::standard();
        let mut texts = Vec::new();
        for _ in 0..64 {
            let clean = admit::clean(&scrubber, &RawText::new(text(&mut random)))
                .map_err(|e| anyhow::anyhow!("{e}"))?;
            texts.push(admit::plain(clean));
        }
        let ids = (0..AGGREGATES).map(|n| format!("agent_{n:06}").parse());
        Ok(Arc::new(Self {
            ids: ids.collect::<Result<_, _>>()?,
            texts,
            actor: "bench".parse()?,
            role: "trader".parse()?,
        }))
    }

    pub(crate) fn command(&self, first: bool, random: &mut Random) -> AgentCommand {
        if first {
            let role = self.role.clone();
            return AgentCommand::Register(Register { role });
        }
        let text = self.texts[random.next() as usize % self.texts.len()].clone();
        AgentCommand::RecordThought(RecordThought::of(text))
    }
}

struct Sender {
    ledger: Ledger,
    fixed: Arc<Fixed>,
    random_ids: bool,
}

impl Sender {
    fn request(&self, unit: Unit, first: bool, random: &mut Random) -> CommandRequest {
        let mut context =
            CommandContext::fresh(self.fixed.actor.clone(), DepartmentId::ORCHESTRATOR);
        if self.random_ids {
            let id = u128::from(random.next()) << 64 | u128::from(random.next());
            context.command_id = uuid::Builder::from_random_bytes(id.to_be_bytes()).into_uuid();
            context.correlation_id = context.command_id;
        }
        CommandRequest {
            aggregate_id: self.fixed.ids[unit.aggregate].clone(),
            command: AnyCommand::Agent(self.fixed.command(first, random)),
            context,
            expected_sequence: unit.conflict.then_some(u64::MAX),
            source: None,
        }
    }
}

impl Caller for Sender {
    async fn unit(&mut self, unit: Unit, random: &mut Random) -> anyhow::Result<usize> {
        let sends: Vec<_> = (0..unit.events)
            .map(|n| {
                let request = self.request(unit, unit.first && n == 0, random);
                self.ledger.send(request)
            })
            .collect();
        for outcome in futures::future::join_all(sends).await {
            let expected = if unit.conflict {
                Status::Conflict
            } else {
                Status::Accepted
            };
            ensure!(outcome.status == expected, "{outcome:?}");
        }
        Ok(if unit.conflict { 0 } else { unit.events })
    }
}

/// Follows the ledger until told to stop; returns how many events it got.
async fn follow(ledger: Ledger, stop: Arc<AtomicBool>, seen: Arc<AtomicU64>) -> anyhow::Result<()> {
    let (mut tail, mut after) = (ledger.tail(), Position::START);
    while !stop.load(Ordering::Relaxed) {
        for event in tail.next(after, 1_024, Duration::from_millis(50)).await? {
            ensure!(event.position() == after.next(), "the follower saw a gap");
            after = event.position();
        }
        seen.store(after.0, Ordering::Relaxed);
    }
    Ok(())
}

/// One run on a fresh database.
pub(crate) async fn run(
    database: &str,
    fixed: &Arc<Fixed>,
    shape: Shape,
    times: Times,
) -> anyhow::Result<Reading> {
    let ledger = Ledger::open(LedgerOptions::new(database, Departments::default())).await?;
    let plan = Plan::new(shape.aggregates, shape.conflicts_percent);
    let reading = measure(&ledger, fixed, &plan, shape, times).await;
    ledger.close().await;
    reading
}

/// One run on an open ledger.
pub(crate) async fn measure(
    ledger: &Ledger,
    fixed: &Arc<Fixed>,
    plan: &Arc<Plan>,
    shape: Shape,
    times: Times,
) -> anyhow::Result<Reading> {
    let before = ledger.reader().head().await?;
    let (stop, seen) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let follower = shape
        .follower
        .then(|| tokio::spawn(follow(ledger.clone(), Arc::clone(&stop), Arc::clone(&seen))));
    let callers = (0..shape.in_flight)
        .map(|_| Sender {
            ledger: ledger.clone(),
            fixed: Arc::clone(fixed),
            random_ids: shape.random_ids,
        })
        .collect();
    let done = drive(plan, times, callers).await?;
    if let Some(follower) = follower {
        tokio::time::sleep(Duration::from_millis(200)).await;
        stop.store(true, Ordering::Relaxed);
        follower.await??;
        let (seen, events) = (seen.load(Ordering::Relaxed), done.events);
        ensure!(seen == events, "the follower saw {seen} of {events} events");
    }
    let head = verified(ledger, before).await?;
    ensure!(
        head.position.0 - before.position.0 == done.events,
        "{} events were acknowledged, the ledger went from {} to {}",
        done.events,
        before.position,
        head.position
    );
    Ok(done.reading())
}

/// One event for each aggregate, so that all are in memory; founds them if they are not there.
pub(crate) async fn touch_all(
    ledger: &Ledger,
    fixed: &Arc<Fixed>,
    found: bool,
) -> anyhow::Result<()> {
    let sender = Sender {
        ledger: ledger.clone(),
        fixed: Arc::clone(fixed),
        random_ids: false,
    };
    let mut random = Random(3);
    let all: Vec<usize> = (0..AGGREGATES).collect();
    for chunk in all.chunks(2_048) {
        let requests = chunk.iter().map(|aggregate| {
            let unit = Unit {
                aggregate: *aggregate,
                events: 1,
                conflict: false,
                first: found,
            };
            ledger.send(sender.request(unit, found, &mut random))
        });
        for outcome in futures::future::join_all(requests).await {
            ensure!(outcome.status == Status::Accepted, "{outcome:?}");
        }
    }
    Ok(())
}

/// Every event after `head`: positions dense, chain whole.
async fn verified(ledger: &Ledger, mut head: Head) -> anyhow::Result<Head> {
    let mut log = ledger.reader().log();
    let mut cursor = Cursor::from(head.position);
    loop {
        let (events, next) = log.read(cursor, 10_000).await?;
        if events.is_empty() {
            break;
        }
        for event in &events {
            chain::advance(&mut head, event).context("the chain is broken")?;
        }
        cursor = next;
    }
    let stored = ledger.reader().head().await?;
    ensure!(head == stored, "the head row is not the last event");
    Ok(head)
}

/// A stranger's id.
pub(crate) fn fresh_id() -> Uuid {
    Uuid::now_v7()
}
