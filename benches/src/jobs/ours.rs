//! Ours: the ledger with guard and sealing, the feeder of the queue, and a worker with a sink that
//! only notes.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sovereign_aggregates::job::{JobCommand, Submit};
use sovereign_aggregates::{AnyCommand, CommandPort as _};
use sovereign_effects::{EffectId, Outcome as Came, Request};
use sovereign_event_store::{Gate, JobQueueStore, KeyStore, Ledger, LedgerOptions, RawCommand};
use sovereign_guard::seal::MasterKey;
use sovereign_jobs::{Feeder, JobLedger, JobRequest, Reach, Reveal, Worker, WorkerOptions};
use sovereign_schemas::events::JobQueue;
use sovereign_schemas::{
    AggregateId, AggregateType, CommandContext, DepartmentId, Departments, Identifier, Outcome,
    Problem, RawText, RecordedEvent, Status, Text,
};
use sovereign_sinks::Sink;
use sqlx::PgPool;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::drive::{self, AT_ONCE, JOBS_MAX, Seen, System};
use crate::protocol::Reading;

const ARGUMENTS: &str = "{\"steps\":[{\"effect\":{\"kind\":\"random\",\"bytes\":4}}]}";

/// Guard and ledger, as the engine puts them behind one door.
struct Front {
    gate: Gate,
    ledger: Ledger,
}

#[async_trait]
impl Reveal for Front {
    async fn reveal(&self, text: &Text) -> Result<String, Problem> {
        self.gate.keys().reveal(text).await.map_err(|e| e.problem())
    }
}

#[async_trait]
impl JobLedger for Front {
    async fn events(&self, job: &AggregateId) -> Result<Vec<RecordedEvent>, Problem> {
        let reader = self.ledger.reader();
        let events = reader.read_aggregate(AggregateType::Job, job.as_str(), 0, 1_000);
        events.await.map_err(|e| e.problem())
    }

    fn scrub(&self, text: &str) -> String {
        self.gate.scrub(text)
    }

    async fn submit(&self, request: JobRequest) -> Outcome {
        let raw = RawCommand {
            aggregate_id: request.job,
            command: AnyCommand::Job(request.command),
            context: request.context,
            expected_sequence: None,
            subject: request.subject,
            source: None,
        };
        match self.gate.admit(raw).await {
            Ok(request) => self.ledger.send(request).await,
            Err(problem) => Outcome::failed(Status::Invalid, problem),
        }
    }
}

/// The effect of every job.
struct Note {
    seen: Arc<Seen>,
    numbers: std::collections::HashMap<EffectId, u64>,
}

impl std::fmt::Debug for Note {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Note")
    }
}

#[async_trait]
impl Sink for Note {
    async fn run(&self, request: &Request, _: &CancellationToken) -> Came {
        if let Some(number) = self.numbers.get(&request.id) {
            self.seen.effect(*number);
        }
        Came::done(serde_json::json!({ "hex": "00000000" }))
    }
}

#[derive(Clone)]
struct Ours {
    front: Arc<Front>,
    actor: Identifier,
    pool: PgPool,
}

impl System for Ours {
    async fn enqueue(&self, job: u64) -> anyhow::Result<()> {
        let command = JobCommand::Submit(Submit {
            kind: "plan".parse()?,
            queue: JobQueue::Default,
            arguments: RawText::new(ARGUMENTS),
            planned: Some(1),
            run_at: None,
            after: Vec::new(),
            unique_key: None,
            attempts_max: 5,
            backoff_ms: 1_000,
            amount: None,
            currency: None,
            schedule: None,
        });
        let context = CommandContext::fresh(self.actor.clone(), DepartmentId::ORCHESTRATOR);
        let outcome = self.front.submit(JobRequest {
            job: name(job).parse()?,
            command,
            context,
            subject: None,
        });
        let outcome = outcome.await;
        anyhow::ensure!(outcome.status == Status::Accepted, "{outcome:?}");
        Ok(())
    }

    async fn ended(&self) -> anyhow::Result<u64> {
        let sql = "select count(*) from ledger.jobs where status = 'green'";
        let ended: i64 = sqlx::query_scalar(sql).fetch_one(&self.pool).await?;
        Ok(ended as u64)
    }
}

fn name(job: u64) -> String {
    format!("bench_{job}")
}

pub(crate) async fn run(database: &str) -> anyhow::Result<Reading> {
    let ledger = Ledger::open(LedgerOptions::new(database, Departments::default())).await?;
    let keys = KeyStore::open(database, MasterKey::from_hex(&"5a".repeat(32))?).await?;
    let gate = Gate::new(Departments::default(), keys);
    let front = Arc::new(Front {
        gate,
        ledger: ledger.clone(),
    });
    let queue = JobQueueStore::connect(database)?;
    let seen = Seen::new();
    let numbers = (0..JOBS_MAX)
        .map(|n| (EffectId::of(&name(n), 0), n))
        .collect();
    let sink = Arc::new(Note {
        seen: Arc::clone(&seen),
        numbers,
    });

    let (on, feeds) = watch::channel(true);
    let feeder = Feeder::new(queue.clone(), front.clone(), "orchestrator".parse()?);
    let feeder = tokio::spawn(feeder.run(Box::new(ledger.tail()), feeds));
    let mut options = WorkerOptions::new("bench-worker".parse()?);
    // one place is kept for the urgent
    options.slots = AT_ONCE + 1;
    let (_reach, reach) = watch::channel(Arc::new(Reach::default()));
    let worker = Worker::new(options, front.clone(), queue, sink, reach);
    let stop = CancellationToken::new();
    let worker = tokio::spawn(worker.run(stop.clone(), Duration::from_secs(5)));

    let ours = Ours {
        front,
        actor: "bench".parse()?,
        pool: PgPool::connect(database).await?,
    };
    let reading = drive::run(&ours, &seen).await;
    stop.cancel();
    worker.await?;
    drop(on);
    feeder.await?;
    ours.pool.close().await;
    ledger.close().await;
    reading
}
