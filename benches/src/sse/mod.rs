//! **sse**: from a command to a client that follows the events, at 5,000 a second.
//!
//! Open loop: each command is sent at its planned moment, whatever became of those before it, and its
//! time runs from that moment over the API, the guard, the ledger's commit and the push to a client of
//! `/api/v1/events/stream` in this process. `raw` pushes frames of the same size over a loopback
//! connection at the same moments: no server, no ledger, no disk.

mod emit;
mod follow;

use std::path::Path;
use std::time::{Duration, Instant};

use crate::api::{register_all, warm_up};
use crate::http::Engine;
use crate::protocol::{Arm, Reading, Report};

const CASE: &str = "5000-per-s";
const PER_S: u64 = 5_000;
const SECONDS: u64 = 6;
const COUNT: u64 = PER_S * SECONDS;
/// The first second is not counted.
const WARM: usize = PER_S as usize;
const GOAL_P99_MS: f64 = 30.0;
/// How long a frame may take before the run is given up.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) async fn run(rounds: usize, out: &Path) -> anyhow::Result<()> {
    let mut report = Report::new("sse");
    let engine = Engine::start().await?;
    let done = case(&engine, &mut report, rounds).await;
    let stopped = engine.stop().await;
    done?;
    stopped?;
    report.finish(out)
}

async fn case(engine: &Engine, report: &mut Report, rounds: usize) -> anyhow::Result<()> {
    let token = &engine.operator("bench-emit").await?;
    register_all(engine, token).await?;
    warm_up(engine, std::slice::from_ref(token)).await?;
    let arms = vec![
        Arm::new("raw", |_| follow::raw()),
        Arm::new("ours", move |round| ours(engine, token, round as u64)),
    ];
    report.case(CASE, "events/s", rounds, arms).await?;
    let p99 = report.extra(CASE, "ours", "p99_ms");
    report.goal_at_most("p99-ms-at-5000-per-s", GOAL_P99_MS, p99);
    report.note(
        "load generator, engine with relay, views and agents, PostgreSQL and Kafka share the cores; \
         raw has them nearly to itself",
    );
    Ok(())
}

/// When number n (from 0) is due.
fn due(start: Instant, n: u64) -> Instant {
    start + Duration::from_nanos(n * 1_000_000_000 / PER_S)
}

async fn ours(engine: &Engine, token: &str, round: u64) -> anyhow::Result<Reading> {
    let chunks = emit::chunks(round)?;
    let head = engine.settle().await?;
    let follower = follow::Follower::open(engine.addr, token, head).await?;
    let start = Instant::now() + Duration::from_millis(300);
    let came = tokio::spawn(follower.all(round));
    emit::all(engine.addr, token, start, chunks).await?;
    Ok(reading(start, &came.await??))
}

/// Over all that was counted: how many came in a second, and how long after their moments.
fn reading(start: Instant, came: &[Instant]) -> Reading {
    let late = |(n, at): (usize, &Instant)| {
        let late = at.saturating_duration_since(due(start, n as u64));
        late.as_secs_f64() * 1e3
    };
    let mut late: Vec<f64> = came.iter().enumerate().skip(WARM).map(late).collect();
    late.sort_by(f64::total_cmp);
    let at = |share: f64| late[((late.len() - 1) as f64 * share).round() as usize];
    let last = came.iter().max().map_or(start, |at| *at);
    let took = last.saturating_duration_since(due(start, WARM as u64));
    Reading::new(late.len() as f64 / took.as_secs_f64())
        .with("p50_ms", at(0.5))
        .with("p99_ms", at(0.99))
        .with("max_ms", at(1.0))
}
