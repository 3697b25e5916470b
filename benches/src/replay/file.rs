//! From a recorded file.

use std::time::Instant;

use sovereign_replay::{FileLog, Options};

use super::data::{EVENTS, Log, measured};
use super::value;
use crate::protocol::{Arm, Reading, Report};

const GOAL_EVENTS_PER_S: f64 = 2_500_000.0;
const GOAL_TWO_CORES: f64 = 1.8;
const GOAL_OVER_VALUE: f64 = 2.5;

pub(super) async fn case(log: &Log, report: &mut Report, rounds: usize) -> anyhow::Result<()> {
    let ours = |threads| {
        move |_| async move {
            let options = Options {
                threads,
                ..Options::default()
            };
            let mut file = FileLog::open(log.path())?;
            measured(&mut file, options, EVENTS, &log.digests.1).await
        }
    };
    let arms = vec![
        Arm::new("ours-1", ours(1)),
        Arm::new("ours-2", ours(2)),
        Arm::new("avro-value", move |_| async move {
            let started = Instant::now();
            let digests = value::fold(&log.path())?;
            let took = started.elapsed();
            anyhow::ensure!(digests == log.digests.1, "digests differ");
            Ok(Reading::new(EVENTS as f64 / took.as_secs_f64()))
        }),
    ];
    report.case("file", "events/s", rounds, arms).await?;
    let rate = report.median("file", "ours-1");
    report.goal_at_least("file.events_per_s_on_one_core", GOAL_EVENTS_PER_S, rate);
    let two = report.ratio("file", "ours-2", "ours-1");
    report.goal_at_least("file.ours-2-ours-1", GOAL_TWO_CORES, two.median);
    let value = report.ratio("file", "ours-1", "avro-value");
    report.goal_at_least("file.ours-1-avro-value", GOAL_OVER_VALUE, value.median);
    Ok(())
}
