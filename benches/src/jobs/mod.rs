//! **jobs**: from the call that enqueues a job, over the start of its one effect, to its end in the
//! database.
//!
//! Arms: ours; the crate `awa`; the npm package `pg-boss` in a Node process of its own. All with 64
//! callers that enqueue one job each and wait, 64 places to work in, on the same PostgreSQL. Then
//! the same arm at half of its own rate: how long a job waits until its effect begins.

mod awa;
mod boss;
mod drive;
mod ours;

use std::path::Path;

use sovereign_servers::Wanted;

use crate::protocol::{Arm, Report};
use crate::servers::BenchServers;

const CASE: &str = "one-effect";

pub(crate) async fn run(rounds: usize, out: &Path) -> anyhow::Result<()> {
    let boss = boss::Boss::fetch()?;
    let servers = BenchServers::start(Wanted {
        postgres: true,
        kafka: false,
    })
    .await?;
    let result = measure(&servers, &boss, rounds, out).await;
    servers.stop().await;
    result
}

async fn measure(
    servers: &BenchServers,
    boss: &boss::Boss,
    rounds: usize,
    out: &Path,
) -> anyhow::Result<()> {
    let mut report = Report::new("jobs");
    let arms = vec![
        Arm::new("ours", |_| async {
            ours::run(&servers.database().await?).await
        }),
        Arm::new("awa", |_| async {
            awa::run(&servers.database().await?).await
        }),
        Arm::new("pg-boss", |_| async {
            boss.run(&servers.database().await?).await
        }),
    ];
    report.case(CASE, "jobs/s", rounds, arms).await?;
    for (name, under, target) in [("awa", "awa", 1.5), ("pg-boss", "pg-boss", 5.0)] {
        let ratio = report.ratio(CASE, "ours", under);
        report.goal_at_least(name, target, ratio.median);
    }
    report
        .note("a job of ours is six events, a sealed text and a row; a job of the peers is a row");
    report.note(
        "pg-boss: fetch and complete by 64, in four loops; its own loop polls twice a second",
    );
    report.finish(out)
}
