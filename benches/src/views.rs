//! The four views together: events a second from memory into rows, in transactions that also move
//! the checkpoints.
//!
//! 200,000 events of 2,000 agents (a few of them busy, most not), with trades and approvals; the
//! chain is checked where batches join, payloads are decoded, and each of the four views gets every
//! event.
//! - `ours` is the projector as it ships, over Postgres, on one thread: one core by construction.
//! - `stock` is `cqrs-es`' `GenericQuery` over `postgres-es`' `PostgresViewRepository`: for each event
//!   it loads a JSON view, updates it and writes it back, for the event's own view and for its
//!   department's. It keeps no position, so it can neither resume nor say how far it is. It gets
//!   fewer events, because it needs longer for each.
//! - `copy` writes nothing but the rows that are left at the end, by binary COPY from memory: no
//!   view can be faster than its final rows.
//!
//! Time on the CPU is that of our thread (`/proc/thread-self/schedstat`); that of Postgres stands
//! beside it.

mod arms;
mod input;
mod stock;

use std::path::Path;

use sovereign_servers::Wanted;

use crate::protocol::{Arm, Report};
use crate::servers::BenchServers;

/// Events of `ours` and `copy`.
const EVENTS: usize = 200_000;
/// Events of `stock`.
const STOCK_EVENTS: usize = 4_000;
/// What the issue asks for.
const GOAL_PER_S: f64 = 30_000.0;

pub(crate) async fn run(rounds: usize, out: &Path) -> anyhow::Result<()> {
    let servers = BenchServers::start(Wanted {
        postgres: true,
        kafka: false,
    })
    .await?;
    let mut report = Report::new("views");
    let done = cases(&servers, &mut report, rounds).await;
    servers.stop().await;
    done?;
    report.finish(out)
}

async fn cases(servers: &BenchServers, report: &mut Report, rounds: usize) -> anyhow::Result<()> {
    let input = input::Input::new(EVENTS);
    let rows = arms::final_rows(servers, &input).await?;
    let arms = vec![
        Arm::new("ours", |_| arms::ours(servers, &input)),
        Arm::new("stock", |_| stock::run(servers, &input, STOCK_EVENTS)),
        Arm::new("copy", |_| arms::copy(servers, &input, &rows)),
    ];
    report.case("four", "events/s", rounds, arms).await?;
    report.ratio("four", "ours", "stock");
    report.ratio("four", "ours", "copy");
    let rate = report.extra("four", "ours", "events_per_s");
    report.goal_at_least("events_per_s_on_one_core", GOAL_PER_S, rate);
    let ours = |name: &str| report.extra("four", "ours", name);
    // stricter: as if Postgres had to work on the same core
    let shared = 1e6 / (ours("cpu_us_per_event") + ours("postgres_us_per_event"));
    let note = format!(
        "ours: {:.1} us of our thread and {:.1} us of Postgres for each event",
        ours("cpu_us_per_event"),
        ours("postgres_us_per_event"),
    );
    report.note(note);
    report.goal_at_least(
        "events_per_s_on_one_core_shared_with_postgres",
        GOAL_PER_S,
        shared,
    );
    Ok(())
}
