//! A ledger in memory: real aggregates, real headers and hashes, ids that are remembered.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use sovereign_agents::market::MarketFile;
use sovereign_agents::{
    CheckpointStore, Clock, Gateway, MarketSource, RawRequest, Runner, RunnerHandle, RunnerOptions,
};
use sovereign_aggregates::job::{Ended, How, JobCommand, Start, Step, Then, effect_id};
use sovereign_aggregates::{AnyCommand, AnyEvent, AnyState, Decision};
use sovereign_effects::{Effect, EffectId, Exchange, Order};
use sovereign_guard::admit;
use sovereign_guard::scrub::Scrubber;
use sovereign_schemas::chain::{self, Head};
use sovereign_schemas::events::Verdict;
use sovereign_schemas::{
    AggregateId, AggregateType, CommandContext, DepartmentId, Digest, ErrorCode, EventHeader,
    LogError, Outcome, Position, Problem, RawText, RecordedEvent, Status, Tail, Timestamp, Uuid,
    catalog,
};
use tokio::sync::watch;

static SCRUBBER: LazyLock<Scrubber> = LazyLock::new(Scrubber::standard);

#[derive(Default)]
struct Inner {
    states: HashMap<(AggregateType, String), (AnyState, u64)>,
    events: Vec<Arc<RecordedEvent>>,
    outcomes: HashMap<Uuid, Outcome>,
    head: Option<Head>,
}

/// What can go wrong with a command, from a seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Faults {
    None,
    /// Some commands are not taken; of some the outcome is lost.
    Some,
}

pub(crate) struct Ledger {
    inner: Mutex<Inner>,
    length: watch::Sender<usize>,
    faults: Mutex<Faults>,
    seed: AtomicU64,
    now_us: AtomicI64,
    /// How long a command takes until it is durable.
    pub(crate) latency_ms: AtomicU64,
    pub(crate) refused: Mutex<Vec<(String, ErrorCode)>>,
    pub(crate) submitted: AtomicU64,
    /// Whether somebody does the jobs.
    pub(crate) works: AtomicBool,
}

impl Ledger {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            inner: Mutex::default(),
            length: watch::Sender::new(0),
            faults: Mutex::new(Faults::None),
            seed: AtomicU64::new(1),
            latency_ms: AtomicU64::new(0),
            now_us: AtomicI64::new(1_750_000_000_000_000),
            refused: Mutex::default(),
            submitted: AtomicU64::new(0),
            works: AtomicBool::new(true),
        })
    }

    pub(crate) fn set_faults(&self, faults: Faults, seed: u64) {
        *self.faults.lock().unwrap() = faults;
        self.seed.store(seed.max(1), Ordering::Relaxed);
    }

    /// xorshift64*
    pub(crate) fn random(&self, below: u64) -> u64 {
        let mut x = self.seed.load(Ordering::Relaxed);
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        self.seed.store(x, Ordering::Relaxed);
        (x.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % below
    }

    pub(crate) fn len(&self) -> usize {
        *self.length.borrow()
    }

    pub(crate) fn events(&self) -> Vec<Arc<RecordedEvent>> {
        self.inner.lock().unwrap().events.clone()
    }

    /// Damages the event at this index.
    pub(crate) fn replace(&self, index: usize, event: RecordedEvent) {
        self.inner.lock().unwrap().events[index] = Arc::new(event);
    }

    pub(crate) fn advance_clock(&self, seconds: i64) {
        self.now_us
            .fetch_add(seconds * 1_000_000, Ordering::Relaxed);
    }

    pub(crate) async fn reaches(&self, length: usize) {
        self.length
            .subscribe()
            .wait_for(|l| *l >= length)
            .await
            .unwrap();
    }

    pub(crate) fn tail(self: &Arc<Self>) -> Box<dyn Tail> {
        Box::new(MemoryTail {
            ledger: self.clone(),
            length: self.length.subscribe(),
        })
    }

    pub(crate) fn decide(&self, request: RawRequest) -> Outcome {
        let mut inner = self.inner.lock().unwrap();
        let context = request.context;
        if let Some(outcome) = inner.outcomes.get(&context.command_id) {
            return Outcome {
                status: Status::Duplicate,
                ..outcome.clone()
            };
        }
        let kind = request.command.aggregate_type();
        for (field, value) in request.command.identifiers() {
            admit::check_identifier(&SCRUBBER, field, value).unwrap();
        }
        let mut alike = None;
        let mut command: AnyCommand = request
            .command
            .try_map_text(|raw| {
                let clean = admit::clean(&SCRUBBER, &raw)?;
                alike = Some(admit::likeness_of(&clean, None));
                Ok::<_, Problem>(admit::plain(clean))
            })
            .unwrap();
        if let (Some(to), Some(alike)) = (command.likeness_mut(), alike) {
            *to = alike.to_vec();
        }
        let name = command.name();
        let order = order_of(&command);
        let id = request.aggregate_id;
        let decision = Decision::new(id.clone(), self.now(), context.actor.clone());
        let key = (kind, id.to_string());
        let (state, mut sequence) = inner
            .states
            .remove(&key)
            .unwrap_or_else(|| (AnyState::new(kind), 0));
        let mut state = state;
        let events = match state.handle(command, &decision) {
            Ok(events) => events,
            Err(refusal) => {
                inner.states.insert(key, (state, sequence));
                let problem = refusal.problem;
                self.refused
                    .lock()
                    .unwrap()
                    .push((format!("{name} {id}"), problem.code));
                return Outcome::failed(Status::Refused, problem);
            }
        };
        let first = inner.head.unwrap_or(Head::EMPTY).position.next();
        let refused = events.iter().find_map(AnyEvent::recorded_refusal);
        for event in events {
            sequence += 1;
            let head = inner.head.unwrap_or(Head::EMPTY);
            let kind = event.event_type();
            let schema = catalog::latest(kind);
            let header = EventHeader {
                position: head.position.next(),
                event_id: Uuid::now_v7(),
                aggregate_type: key.0.as_str().into(),
                aggregate_id: key.1.clone(),
                sequence,
                event_type: kind.as_str().into(),
                event_version: kind.latest_version(),
                department: context.department,
                actor: context.actor.to_string(),
                command_id: context.command_id,
                correlation_id: context.correlation_id,
                causation_id: context.causation_id,
                recorded_at: decision.at,
                schema_fingerprint: schema.fingerprint,
            };
            let mut payload = Vec::new();
            event.encode(&mut payload);
            let hash = chain::expected_hash(&head.hash, &header, &payload);
            inner.head = Some(Head {
                position: header.position,
                hash,
            });
            let payload = payload.into();
            inner.events.push(Arc::new(RecordedEvent {
                header,
                payload,
                hash,
                traceparent: None,
            }));
        }
        inner.states.insert(key, (state, sequence));
        let last = inner.head.unwrap_or(Head::EMPTY).position;
        let mut outcome = Outcome::effective(Status::Accepted, Some((first, last)));
        if let Some(refusal) = refused {
            self.refused
                .lock()
                .unwrap()
                .push((format!("{name} {id}"), refusal.problem.code));
            outcome = Outcome {
                error: Some(refusal.problem),
                status: Status::Refused,
                ..outcome
            };
        }
        inner.outcomes.insert(context.command_id, outcome.clone());
        let length = inner.events.len();
        // under the lock, so that it never goes back
        self.length.send_replace(length);
        drop(inner);
        if let Some(order) = order.filter(|_| self.works.load(Ordering::Relaxed)) {
            self.work(&id, &order);
        }
        outcome
    }

    /// What a worker makes of a job that is one order: three commands and the exchange's answer.
    fn work(&self, job: &AggregateId, order: &Order) {
        let effect = Effect::Order(order.clone());
        let id = EffectId(effect_id(job, 0));
        let fill = Exchange::default().fill(id, order).unwrap();
        let words = |value: Value| RawText::new(value.to_string());
        let start = JobCommand::Start(Start {
            attempt: 1,
            takes_over: false,
            worker: "worker-memory".parse().unwrap(),
            lease_ms: 10_000,
            then: Then::Effect {
                kind: effect.kind().parse().unwrap(),
                effect: words(json!(effect)),
                repeatable: true,
                compensates: None,
            },
        });
        let step = JobCommand::Step(Step {
            attempt: 1,
            ended: Some(Ended {
                index: 0,
                how: How::Done,
                result: Some(words(json!(fill))),
                fill: Some(fill),
            }),
            then: Then::Finish {
                verdict: Verdict::Green,
                result: None,
            },
        });
        for command in [start, step] {
            let actor = "worker-memory".parse().unwrap();
            let outcome = self.decide(RawRequest {
                aggregate_id: job.clone(),
                command: AnyCommand::Job(command),
                context: CommandContext::fresh(actor, DepartmentId::TRADER),
            });
            assert_eq!(outcome.status, Status::Accepted, "{outcome:?}");
        }
    }
}

/// The order that a job of the exchange is about.
fn order_of(command: &AnyCommand) -> Option<Order> {
    let AnyCommand::Job(JobCommand::Submit(submit)) = command else {
        return None;
    };
    let plan: Value = serde_json::from_slice(submit.arguments.bytes()).ok()?;
    match Effect::from_value(plan["steps"][0]["effect"].clone()).ok()? {
        Effect::Order(order) => Some(order),
        _ => None,
    }
}

fn busy(code: ErrorCode) -> Outcome {
    Outcome::failed(
        Status::Invalid,
        Problem::new(code, "not now").retry_after_ms(1),
    )
}

#[async_trait]
impl Gateway for Ledger {
    async fn submit(&self, request: RawRequest) -> Outcome {
        self.submitted.fetch_add(1, Ordering::Relaxed);
        let latency = self.latency_ms.load(Ordering::Relaxed);
        if latency > 0 {
            tokio::time::sleep(Duration::from_millis(latency)).await;
        }
        let faults = *self.faults.lock().unwrap();
        if faults == Faults::None {
            return self.decide(request);
        }
        match self.random(20) {
            0 => return busy(ErrorCode::Busy),
            1 => {
                self.decide(request);
                return busy(ErrorCode::TimedOut);
            }
            2 => tokio::task::yield_now().await,
            _ => {}
        }
        let outcome = self.decide(request);
        if self.random(3) == 0 {
            // a crash can fall between effect and answer
            tokio::task::yield_now().await;
        }
        outcome
    }
}

impl Clock for Ledger {
    fn now(&self) -> Timestamp {
        Timestamp(self.now_us.load(Ordering::Relaxed))
    }
}

struct MemoryTail {
    ledger: Arc<Ledger>,
    length: watch::Receiver<usize>,
}

#[async_trait]
impl Tail for MemoryTail {
    async fn next(
        &mut self,
        after: Position,
        limit: usize,
        wait: Duration,
    ) -> Result<Vec<Arc<RecordedEvent>>, LogError> {
        let start = usize::try_from(after.0).unwrap();
        let _ = tokio::time::timeout(wait, self.length.wait_for(|l| *l > start)).await;
        let inner = self.ledger.inner.lock().unwrap();
        Ok(inner
            .events
            .iter()
            .skip(start)
            .take(limit)
            .cloned()
            .collect())
    }
}

/// Remembers the checkpoints, and how they were asked to be wrong: an older one is always allowed.
#[derive(Default)]
pub(crate) struct Checkpoints(pub(crate) Mutex<HashMap<String, Position>>);

#[async_trait]
impl CheckpointStore for Checkpoints {
    async fn load(&self, name: &str) -> Result<Position, Problem> {
        let all = self.0.lock().unwrap();
        Ok(all.get(name).copied().unwrap_or_default())
    }
    async fn save(&self, positions: &[(String, Position)]) -> Result<(), Problem> {
        self.0.lock().unwrap().extend(positions.iter().cloned());
        Ok(())
    }
}

pub(crate) struct OneFile(pub(crate) Arc<MarketFile>);

#[async_trait]
impl MarketSource for OneFile {
    async fn open(&self, digest: Digest) -> Result<Arc<MarketFile>, Problem> {
        if digest == self.0.digest() {
            return Ok(self.0.clone());
        }
        Err(Problem::new(ErrorCode::NotFound, "no such file"))
    }
}

/// The vendored file, or the first `bars` of each instrument in it.
pub(crate) fn market(bars: Option<usize>) -> Arc<MarketFile> {
    let file = match bars {
        None => MarketFile::parse(VENDORED),
        Some(bars) => MarketFile::parse(short_csv(bars).as_bytes()),
    };
    Arc::new(file.unwrap())
}

const VENDORED: &[u8] = include_bytes!("../../data/stocks.csv.gz");

/// The first `bars` of each instrument in the vendored file, as a file.
pub(crate) fn short_csv(bars: usize) -> String {
    let whole = MarketFile::parse(VENDORED).unwrap();
    let mut csv = "Ticker,Date,Open,High,Low,Close,Volume\n".to_owned();
    for (_, series) in whole.iter() {
        for b in series.bars.iter().take(bars) {
            let day = b.opened_at.to_string();
            let day = &day[..10];
            csv += &format!(
                "{},{day},{},{},{},{},{}\n",
                series.instrument, b.open, b.high, b.low, b.close, b.volume
            );
        }
    }
    csv
}

pub(crate) fn runner(
    ledger: &Arc<Ledger>,
    checkpoints: &Arc<Checkpoints>,
    file: &Arc<MarketFile>,
) -> (Runner, RunnerHandle) {
    runner_with(RunnerOptions::default(), ledger, checkpoints, file)
}

/// The same with some options, and short times.
pub(crate) fn runner_with(
    options: RunnerOptions,
    ledger: &Arc<Ledger>,
    checkpoints: &Arc<Checkpoints>,
    file: &Arc<MarketFile>,
) -> (Runner, RunnerHandle) {
    let options = RunnerOptions {
        checkpoint_interval: Duration::from_millis(5),
        retry_min: Duration::from_micros(200),
        retry_max: Duration::from_millis(2),
        ..options
    };
    Runner::new(
        options,
        ledger.tail(),
        ledger.clone(),
        checkpoints.clone(),
        Arc::new(OneFile(file.clone())),
        ledger.clone(),
    )
}

/// Waits until the job is done and nothing follows any more.
pub(crate) async fn done(ledger: &Ledger, handle: &RunnerHandle) {
    let mut quiet = 0;
    let mut length = 0;
    let mut stalled = 0;
    while quiet < 5 {
        tokio::time::sleep(Duration::from_millis(60)).await;
        assert!(handle.health().healthy, "{:?}", handle.health());
        let progress = handle.progress();
        let same = ledger.len() == length && !progress.running && progress.total > 0;
        quiet = if same { quiet + 1 } else { 0 };
        stalled = if ledger.len() == length {
            stalled + 1
        } else {
            0
        };
        let refused = &ledger.refused;
        assert!(
            stalled < 100,
            "stalled: {progress:?}, {:?}, {refused:?}",
            ledger.events().last()
        );
        length = ledger.len();
    }
}

/// Runs the whole job without a crash.
pub(crate) async fn run(file: &Arc<MarketFile>) -> Arc<Ledger> {
    let ledger = Ledger::new();
    let (runner, handle) = runner(&ledger, &Arc::default(), file);
    let running = tokio::spawn(runner.run());
    handle.start_task(file.clone()).await.unwrap();
    done(&ledger, &handle).await;
    assert!(handle.stop().await);
    running.await.unwrap().unwrap();
    ledger
}

/// The events of each aggregate in their order, without what differs from run to run.
pub(crate) fn stories(ledger: &Ledger) -> HashMap<String, Vec<(String, u16, Vec<u8>)>> {
    let mut all: HashMap<String, Vec<_>> = HashMap::new();
    for event in ledger.events() {
        let header = &event.header;
        all.entry(format!("{}/{}", header.aggregate_type, header.aggregate_id))
            .or_default()
            .push((
                header.event_type.to_string(),
                header.department.0,
                event.payload.to_vec(),
            ));
    }
    all
}
