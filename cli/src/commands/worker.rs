//! A worker: a process of its own that does jobs.

use std::sync::Arc;
use std::time::Duration;

use sovereign_aggregates::policy::POLICY_ID;
use sovereign_aggregates::{AnyState, policy::Policy};
use sovereign_effects::{Recording, Script, Tools};
use sovereign_event_store::{Gate, JobQueueStore, Ledger, LedgerOptions, LedgerReader};
use sovereign_jobs::{Reach, Worker, WorkerOptions};
use sovereign_schemas::{AggregateType, ErrorCode, Identifier, Problem, Uuid};
use sovereign_sinks::{Live, LiveOptions, Secrets, SinkMode, Sinks};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::args::WorkerArgs;
use crate::config;
use crate::engine;
use crate::engine::gateway::Door;
use crate::engine::lanes::Agents;
use crate::failure::{Failure, Result, file, internal};
use crate::location::{EngineState, Location};
use crate::output::Output;
use crate::reveal;

/// How often it looks for another policy, and whether the engine's servers are where they were.
const LOOK: Duration = Duration::from_secs(2);

pub(crate) async fn run(location: &Location, output: Output, args: WorkerArgs) -> Result<()> {
    engine::logging(output.json);
    // first of all: one that is asked to stop while it starts ends in order as well
    let stop = CancellationToken::new();
    signals(stop.clone())?;
    let state = location.running()?;
    let config = config::load(state.config.as_deref())?;
    let database = state.worker_database.clone();
    let options = LedgerOptions::new(&database, config.departments.clone());
    let ledger = Ledger::open(options).await.map_err(|e| e.problem())?;
    let keys = reveal::worker_key_store(location, &state)?;
    let queue = JobQueueStore::connect(&database).map_err(|e| e.problem())?;
    let door = Door::new(Gate::new(config.departments, keys), ledger.clone());

    let reader = ledger.reader();
    let programs = config.processes;
    let tools = adopted(&reader).await?;
    let (sinks, live) = sinks(location, &args, &tools, &programs)?;
    let (tell, reach) = watch::channel(Arc::new(Reach { tools, programs }));

    let name = name()?;
    let agents = match args.jobs_only {
        true => None,
        false => {
            let member = args.member.as_deref().unwrap_or(name.as_str());
            Some(Agents::start(location, &state, member, &ledger, door.clone()).await?)
        }
    };
    let follower = tokio::spawn(follow(
        Followed {
            location: location.clone(),
            state,
            reader,
            tell,
            live,
            parent: args.parent,
        },
        stop.clone(),
    ));
    let mut options = WorkerOptions::new(name);
    options.queues = args.queues.iter().map(|q| q.number()).collect();
    options.slots = usize::from(args.slots);
    options.lease = Duration::from_millis(u64::from(args.lease_ms));
    output.hint(format!("worker {} works", options.name));
    let grace = Duration::from_secs(u64::from(args.grace_s));
    let worker = Worker::new(options, door, queue, Arc::new(sinks), reach);
    let leave = async {
        stop.cancelled().await;
        if let Some(agents) = &agents {
            agents.stop().await;
        }
    };
    tokio::join!(worker.run(stop.clone(), grace), leave);
    let moved = follower.is_finished();
    follower.abort();
    ledger.close().await;
    if moved {
        return Err(Failure::new(
            ErrorCode::EngineNotRunning,
            "the engine's database is elsewhere now; start the worker again",
        ));
    }
    Ok(())
}

/// No two processes have the same: it is the fence's second name.
fn name() -> Result<Identifier> {
    let luck = Uuid::now_v7().simple().to_string();
    let name = format!("worker-{}-{}", std::process::id(), &luck[24..]);
    name.parse().map_err(internal)
}

fn signals(stop: CancellationToken) -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).map_err(internal)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(internal)?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.cancel();
    });
    Ok(())
}

/// What the adopted policy lets effects reach.
async fn adopted(reader: &LedgerReader) -> Result<Tools, Problem> {
    let mut state = AnyState::new(AggregateType::Policy);
    let mut after = 0;
    loop {
        let events = reader
            .read_aggregate(AggregateType::Policy, POLICY_ID, after, 100)
            .await
            .map_err(|e| e.problem())?;
        for event in &events {
            state.apply_recorded(event).map_err(Problem::from)?;
            after = event.header.sequence;
        }
        if events.len() < 100 {
            break;
        }
    }
    let AnyState::Policy(adopted) = state else {
        return Ok(Policy::built_in().tools.clone());
    };
    Ok(adopted.policy().tools.clone())
}

fn sinks(
    location: &Location,
    args: &WorkerArgs,
    tools: &Tools,
    programs: &sovereign_effects::Programs,
) -> Result<(Sinks, Option<Arc<Live>>)> {
    Ok(match args.sinks {
        SinkMode::Live => {
            let options = LiveOptions {
                tools: tools.clone(),
                programs: programs.clone(),
                secrets: Secrets::in_folder(location.path("secrets")),
                ..LiveOptions::default()
            };
            let live = Arc::new(Live::new(options)?);
            (Sinks::live(Arc::clone(&live)), Some(live))
        }
        SinkMode::Mock => {
            let path = args.script.as_deref().ok_or_else(|| {
                Problem::new(ErrorCode::InvalidUsage, "mock sinks answer from a script")
                    .field("--script")
            })?;
            let text = std::fs::read_to_string(path).map_err(|e| file(path, &e))?;
            (Sinks::mock(Script::parse(&text)?, tools.clone()), None)
        }
        // nothing is recorded of jobs that are new: every effect fails closed
        SinkMode::Recorded => (Sinks::recorded(Recording::default()), None),
    })
}

/// What a worker looks after besides its jobs.
struct Followed {
    location: Location,
    state: EngineState,
    reader: LedgerReader,
    tell: watch::Sender<Arc<Reach>>,
    live: Option<Arc<Live>>,
    parent: Option<i32>,
}

/// Lets another policy hold as soon as it is adopted; ends, and ends the worker, when the engine's
/// database is another.
async fn follow(followed: Followed, stop: CancellationToken) {
    let Followed {
        location,
        state,
        reader,
        tell,
        live,
        parent,
    } = followed;
    loop {
        tokio::time::sleep(LOOK).await;
        let own = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get());
        if parent.is_some() && own != parent {
            tracing::warn!("the engine that started this worker is gone");
            stop.cancel();
            return;
        }
        if let Ok(Some(now)) = location.state()
            && now.database != state.database
        {
            stop.cancel();
            return;
        }
        match adopted(&reader).await {
            Ok(tools) if tools != tell.borrow().tools => {
                if let Some(live) = &live {
                    live.adopt(tools.clone());
                }
                let programs = tell.borrow().programs.clone();
                tell.send_replace(Arc::new(Reach { tools, programs }));
                tracing::info!("another policy says what effects may reach");
            }
            Ok(_) => {}
            Err(problem) => tracing::debug!(code = %problem.code, "policy cannot be read"),
        }
    }
}
