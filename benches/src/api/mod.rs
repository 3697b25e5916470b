//! **api**: commands accepted by the real engine over HTTP, in a process of its own with its own
//! PostgreSQL and Kafka, while relay, views and agents do their work.
//!
//! - `64-connections`: 64 connections, each with one command under way, a thought of 270 bytes. The
//!   limits beside it: `echo`, a bare axum route in a process of its own that answers with the body;
//!   `append`, the same commands, ready made, into a ledger in this process (no HTTP, no guard, no
//!   relay, no views); `guarded`, the same lines through parser, scrubber and sealing into such a ledger.
//! - `ndjson`: four connections that stream commands to the same route, beside the same `append` with
//!   256 in flight.
//!
//! The load generator, the engine, PostgreSQL and Kafka share the cores of one machine.

mod echo;
mod local;
mod stream;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use serde_json::json;
use sovereign_servers::Wanted;

use crate::append::{Caller, Fixed, Plan, Random, Times, Unit, drive, text};
use crate::http::{Connection, Engine, command, position_of};
use crate::protocol::{Arm, Reading, Report};
use crate::servers::BenchServers;

pub(crate) use echo::{SUBCOMMAND as ECHO_SUBCOMMAND, serve as echo_serve};
pub(crate) use stream::register_all;

const CONNECTIONS: usize = 64;
/// Agents that commands go to, by Zipf's law.
pub(crate) const AGENTS: usize = 10_000;
const UNIT: &str = "commands/s";
const CASE: &str = "64-connections";
const NDJSON: &str = "ndjson";
/// The engine takes commands for so long before anything is measured: a broker that has just been
/// started spends a quarter of two cores on compiling itself.
const WARM_UP: Times = Times {
    warm: Duration::from_secs(25),
    measured: Duration::from_millis(500),
};
/// Actors that share the connections: each may send 20,000 commands a second.
const ACTORS: usize = 4;
const GOAL_PER_S: f64 = 10_000.0;
const GOAL_P99_MS: f64 = 20.0;

const TIMES: Times = Times {
    warm: Duration::from_millis(1_000),
    measured: Duration::from_millis(3_000),
};

pub(crate) async fn run(rounds: usize, out: &Path, only: &str) -> anyhow::Result<()> {
    let servers = BenchServers::start(Wanted {
        postgres: true,
        kafka: false,
    })
    .await?;
    let mut report = Report::new("api");
    let done = measure(&servers, &mut report, rounds, only).await;
    servers.stop().await;
    done?;
    report.finish(out)
}

async fn measure(
    servers: &BenchServers,
    report: &mut Report,
    rounds: usize,
    only: &str,
) -> anyhow::Result<()> {
    let engine = Engine::start().await?;
    let cases = cases(servers, &engine, report, rounds, only).await;
    let stopped = engine.stop().await;
    cases?;
    stopped
}

async fn cases(
    servers: &BenchServers,
    engine: &Engine,
    report: &mut Report,
    rounds: usize,
    only: &str,
) -> anyhow::Result<()> {
    let mut tokens = Vec::new();
    for actor in 0..ACTORS {
        tokens.push(engine.operator(&format!("bench-{actor}")).await?);
    }
    let fixed = Fixed::new()?;
    let (tokens, fixed) = (&tokens, &fixed);
    register_all(engine, &tokens[0]).await?;
    let plan = Plan::new(AGENTS, 0);
    plan.found_all();
    let plan = &plan;
    warm_up(engine, tokens).await?;
    if CASE.contains(only) {
        let echo = echo::Server::start().await?;
        let echo = &echo;
        let arms = vec![
            Arm::new("ours", move |_| ours(engine, tokens, plan)),
            Arm::new("guarded", move |_| async move {
                local::guarded(&servers.database().await?, CONNECTIONS).await
            }),
            Arm::new("append", move |_| async move {
                local::append(&servers.database().await?, fixed, CONNECTIONS).await
            }),
            Arm::new("echo", move |_| echoes(echo)),
        ];
        report.case(CASE, UNIT, rounds, arms).await?;
        for under in ["guarded", "append", "echo"] {
            report.ratio(CASE, "ours", under);
        }
        let rate = report.median(CASE, "ours");
        report.goal_at_least("commands-per-s-at-64", GOAL_PER_S, rate);
        let p99 = report.extra(CASE, "ours", "p99_ms");
        report.goal_at_most("p99-ms-at-64", GOAL_P99_MS, p99);
    }
    if NDJSON.contains(only) {
        let arms = vec![
            Arm::new("ours", move |_| stream::run(engine, tokens, plan)),
            Arm::new("append", move |_| async move {
                local::append(&servers.database().await?, fixed, 256).await
            }),
        ];
        report.case(NDJSON, UNIT, rounds, arms).await?;
        report.ratio(NDJSON, "ours", "append");
    }
    report.note(
        "ours: load generator, engine with relay, views and agents, PostgreSQL and Kafka share the \
         cores; append, guarded: the load generator's process is the ledger's; echo: generator and server",
    );
    Ok(())
}

/// What a unit of the plan is as a line of the API.
fn line(unit: Unit, random: &mut Random) -> Vec<u8> {
    if unit.first {
        return command(unit.aggregate, "register", &json!({ "role": "trader" }));
    }
    let thought = json!({ "text": text(random) });
    command(unit.aggregate, "record_thought", &thought)
}

/// One connection to the engine.
struct Client(Connection);

impl Caller for Client {
    async fn unit(&mut self, unit: Unit, random: &mut Random) -> anyhow::Result<usize> {
        let answer = self.0.post(&line(unit, random)).await?;
        ensure!(
            answer.status == 200 && position_of(answer.body).is_some(),
            "{} {}",
            answer.status,
            String::from_utf8_lossy(answer.body)
        );
        Ok(1)
    }
}

async fn clients(engine: &Engine, tokens: &[String]) -> anyhow::Result<Vec<Client>> {
    let mut clients = Vec::new();
    for number in 0..CONNECTIONS {
        let token = &tokens[number % tokens.len()];
        clients.push(Client(
            Connection::open(engine.addr, "/api/v1/commands", token).await?,
        ));
    }
    Ok(clients)
}

/// Lets the engine, and above all its broker, get warm. All agents have to be registered.
pub(crate) async fn warm_up(engine: &Engine, tokens: &[String]) -> anyhow::Result<()> {
    let plan = Plan::new(AGENTS, 0);
    plan.found_all();
    drive(&plan, WARM_UP, clients(engine, tokens).await?).await?;
    Ok(())
}

async fn ours(engine: &Engine, tokens: &[String], plan: &Arc<Plan>) -> anyhow::Result<Reading> {
    let before = engine.settle().await?;
    let clients = clients(engine, tokens).await?;
    let done = drive(plan, TIMES, clients).await?;
    let head = engine.settle().await?;
    ensure!(
        head - before == done.events,
        "{} commands were accepted, the ledger went from {before} to {head}",
        done.events
    );
    Ok(done.reading())
}

/// One connection to the echo.
struct Echo(Connection);

impl Caller for Echo {
    async fn unit(&mut self, unit: Unit, random: &mut Random) -> anyhow::Result<usize> {
        let line = line(unit, random);
        let answer = self.0.post(&line).await?;
        ensure!(answer.status == 200 && answer.body == line, "not an echo");
        Ok(1)
    }
}

async fn echoes(server: &echo::Server) -> anyhow::Result<Reading> {
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        clients.push(Echo(Connection::open(server.addr, "/", "none").await?));
    }
    let done = drive(&Plan::new(AGENTS, 0), TIMES, clients).await?;
    Ok(done.reading())
}
