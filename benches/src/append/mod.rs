//! **append**: commands a caller waits for, from 1 to 256 of them in flight.
//!
//! Arms: ours; the stock crates `cqrs-es` and `postgres-es`; `UmaDB`; and, as the limit, binary COPY
//! of the same rows. All on the same disk, durable before they answer; PostgreSQL with the same
//! settings in every arm. Further arms of ours show what one thing costs.

pub(crate) mod copy;
mod fill;
mod load;
mod ours;
mod stock;
mod uma;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sovereign_event_store::{Ledger, LedgerOptions};
use sovereign_schemas::Departments;
use sovereign_servers::Wanted;

use crate::protocol::{Arm, Reading, Report};
use crate::servers::BenchServers;
use load::AGGREGATES;
use ours::Shape;

pub(crate) use load::{Caller, Plan, Random, Times, Unit, drive};
pub(crate) use ours::{Fixed, text};
pub(crate) use uma::{SUBCOMMAND as UMA_SUBCOMMAND, serve as uma_serve};

const UNIT: &str = "events/s";
const PRICE: &str = "price-at-256";
const SIZE: &str = "ledger-size";
/// A ledger that has been in use for a while.
const EVENTS_LARGE: u64 = 5_000_000;

fn times(in_flight: usize) -> Times {
    Times {
        warm: Duration::from_millis(if in_flight == 1 { 300 } else { 700 }),
        measured: Duration::from_millis(if in_flight == 1 { 1_000 } else { 2_000 }),
    }
}

/// With `full`, also on a ledger of 5 million events, which takes some minutes to fill.
pub(crate) async fn run(rounds: usize, out: &Path, only: &str, full: bool) -> anyhow::Result<()> {
    let wanted = Wanted {
        postgres: true,
        kafka: false,
    };
    let servers = BenchServers::start(wanted).await?;
    let result = measure(&servers, rounds, out, only, full).await;
    servers.stop().await;
    result
}

async fn measure(
    servers: &BenchServers,
    rounds: usize,
    out: &Path,
    only: &str,
    full: bool,
) -> anyhow::Result<()> {
    let mut report = Report::new("append");
    let fixed = Fixed::new()?;
    for in_flight in [1, 16, 64, 256] {
        let case = format!("{in_flight}-in-flight");
        if !case.contains(only) {
            continue;
        }
        let arms = arms(servers, &fixed, in_flight);
        report.case(&case, UNIT, rounds, arms).await?;
        for under in ["stock", "umadb", "copy"] {
            report.ratio(&case, "ours", under);
        }
    }
    if PRICE.contains(only) {
        price(servers, &fixed, &mut report, rounds).await?;
    }
    goals(&mut report, only);
    if full && SIZE.contains(only) {
        size(servers, &fixed, &mut report, rounds).await?;
    }
    report.finish(out)
}

fn arms<'a>(servers: &'a BenchServers, fixed: &'a Arc<Fixed>, in_flight: usize) -> Vec<Arm<'a>> {
    let times = times(in_flight);
    vec![
        ours("ours", servers, fixed, Shape::full(in_flight)),
        Arm::new("stock", move |_| async move {
            stock::run(&servers.database().await?, fixed, in_flight, times).await
        }),
        Arm::new("umadb", move |_| uma::run(fixed, in_flight, times)),
        Arm::new("copy", move |_| async move {
            copy::run(&servers.database().await?, fixed, in_flight, times).await
        }),
    ]
}

fn ours<'a>(name: &str, servers: &'a BenchServers, fixed: &'a Arc<Fixed>, shape: Shape) -> Arm<'a> {
    Arm::new(name, move |_| async move {
        let database = servers.database().await?;
        ours::run(&database, fixed, shape, times(shape.in_flight)).await
    })
}

/// What aggregates, conflicts, readers and ids without time cost, each alone.
async fn price(
    servers: &BenchServers,
    fixed: &Arc<Fixed>,
    report: &mut Report,
    rounds: usize,
) -> anyhow::Result<()> {
    let full = Shape::full(256);
    let shapes = [
        ("full", full),
        (
            "few-aggregates",
            Shape {
                aggregates: AGGREGATES / 100,
                ..full
            },
        ),
        (
            "no-conflicts",
            Shape {
                conflicts_percent: 0,
                ..full
            },
        ),
        (
            "random-ids",
            Shape {
                random_ids: true,
                ..full
            },
        ),
        (
            "a-follower",
            Shape {
                follower: true,
                ..full
            },
        ),
    ];
    let arms = shapes.map(|(name, shape)| ours(name, servers, fixed, shape));
    report
        .case("price-at-256", UNIT, rounds, arms.into())
        .await?;
    for (name, _) in &shapes[1..] {
        report.ratio(PRICE, name, "full");
    }
    Ok(())
}

/// The rate at 5 million events beside the rate at none; all aggregates in memory in both.
async fn size(
    servers: &BenchServers,
    fixed: &Arc<Fixed>,
    report: &mut Report,
    rounds: usize,
) -> anyhow::Result<()> {
    let large = servers.database().await?;
    fill::fill(&large, fixed, EVENTS_LARGE).await?;
    let large = Ledger::open(LedgerOptions::new(large, Departments::default())).await?;
    ours::touch_all(&large, fixed, false).await?;
    let arms = vec![
        Arm::new("at-0", |_| async {
            let database = servers.database().await?;
            let ledger = Ledger::open(LedgerOptions::new(database, Departments::default())).await?;
            ours::touch_all(&ledger, fixed, true).await?;
            let reading = warm(&ledger, fixed).await;
            ledger.close().await;
            reading
        }),
        Arm::new("at-5-million", |_| warm(&large, fixed)),
    ];
    report.case(SIZE, UNIT, rounds, arms).await?;
    large.close().await;
    let ratio = report.ratio(SIZE, "at-5-million", "at-0");
    report.goal_at_least("rate-at-5-million-events", 0.9, ratio.median);
    Ok(())
}

async fn warm(ledger: &Ledger, fixed: &Arc<Fixed>) -> anyhow::Result<Reading> {
    let shape = Shape::full(256);
    let plan = Plan::new(shape.aggregates, shape.conflicts_percent);
    plan.found_all();
    ours::measure(ledger, fixed, &plan, shape, times(shape.in_flight)).await
}

fn goals(report: &mut Report, only: &str) {
    for (name, in_flight, under, target) in [
        ("stock-at-1", 1, "stock", 1.4),
        ("stock-at-64", 64, "stock", 20.0),
        ("stock-at-256", 256, "stock", 35.0),
        ("umadb-at-256", 256, "umadb", 8.0),
        ("copy-at-64", 64, "copy", 1.0),
        ("copy-at-256", 256, "copy", 1.0),
    ] {
        let case = format!("{in_flight}-in-flight");
        if !case.contains(only) {
            continue;
        }
        let ratio = report.ratio(&case, "ours", under);
        report.goal_at_least(name, target, ratio.median);
    }
    if "256-in-flight".contains(only) {
        let p99 = report.extra("256-in-flight", "ours", "p99_ms");
        report.goal_at_most("p99-ms-at-256", 5.0, p99);
    }
    report.note(
        "a command of this release causes one event: a caller sends 1 to 3 commands to one \
         aggregate at once and waits for all; stock, umadb and copy take them as one append",
    );
    report.note("stock takes no expected sequence: its conflicts are only those that happen");
}
