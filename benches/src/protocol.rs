//! The protocol all benchmarks share.
//!
//! A *case* (such as "256 in flight") has *arms* (peer, ours, limit). Arms run interleaved: every
//! round runs each arm once, and each round starts with another arm, so that a machine that gets
//! slower does not favour one. The first round is dropped. A ratio is taken within a round; of the
//! rounds' ratios the median counts, with min and max beside it. An arm whose correctness check
//! fails ends the benchmark: a wrong answer has no speed.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;

use serde::Serialize;

/// What one run of one arm gave.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Reading {
    /// The number that is compared, in the case's unit; more is better.
    pub(crate) value: f64,
    /// Anything else worth keeping, such as `p99_ms`.
    pub(crate) extra: BTreeMap<String, f64>,
}

impl Reading {
    pub(crate) fn new(value: f64) -> Self {
        Self {
            value,
            extra: BTreeMap::new(),
        }
    }

    pub(crate) fn with(mut self, name: &str, value: f64) -> Self {
        self.extra.insert(name.to_owned(), value);
        self
    }
}

type Run<'a> =
    Box<dyn FnMut(usize) -> Pin<Box<dyn Future<Output = anyhow::Result<Reading>> + 'a>> + 'a>;

/// One arm of a case.
pub(crate) struct Arm<'a> {
    name: String,
    run: Run<'a>,
}

impl<'a> Arm<'a> {
    /// `run` gets the number of the round, makes everything fresh, measures, and checks that what
    /// it measured is right.
    pub(crate) fn new<F, O>(name: &str, mut run: F) -> Self
    where
        F: FnMut(usize) -> O + 'a,
        O: Future<Output = anyhow::Result<Reading>> + 'a,
    {
        Self {
            name: name.to_owned(),
            run: Box::new(move |round| Box::pin(run(round))),
        }
    }
}

/// All rounds of one arm.
#[derive(Debug, Serialize)]
pub(crate) struct ArmResult {
    unit: &'static str,
    median: f64,
    rounds: Vec<Reading>,
}

/// Median, min and max over rounds.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// Of a list that is not empty.
    pub(crate) fn of(values: &[f64]) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        Self {
            median: sorted[sorted.len() / 2],
            min: sorted[0],
            max: sorted[sorted.len() - 1],
        }
    }
}

/// A target, and whether it was met.
#[derive(Debug, Serialize)]
pub(crate) struct Goal {
    target: String,
    measured: f64,
    met: bool,
}

/// What a benchmark writes.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    name: String,
    /// By `case.arm`.
    arms: BTreeMap<String, ArmResult>,
    /// By `case.over-under`.
    ratios: BTreeMap<String, Spread>,
    goals: BTreeMap<String, Goal>,
    /// Where numbers come from that are no ratio, such as what is left as the bottleneck.
    notes: Vec<String>,
    machine: crate::machine::Machine,
    versions: BTreeMap<String, String>,
}

impl Report {
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            arms: BTreeMap::new(),
            ratios: BTreeMap::new(),
            goals: BTreeMap::new(),
            notes: Vec::new(),
            machine: crate::machine::Machine::read(),
            versions: crate::machine::versions(),
        }
    }

    /// Runs one case: `rounds` rounds, of which the first is dropped.
    pub(crate) async fn case(
        &mut self,
        case: &str,
        unit: &'static str,
        rounds: usize,
        mut arms: Vec<Arm<'_>>,
    ) -> anyhow::Result<()> {
        let count = arms.len();
        let mut readings: Vec<Vec<Reading>> = (0..count).map(|_| Vec::new()).collect();
        for round in 0..rounds.max(2) {
            for step in 0..count {
                let at = (round + step) % count;
                let reading = (arms[at].run)(round)
                    .await
                    .map_err(|e| e.context(format!("{case}: arm {}", arms[at].name)))?;
                eprintln!(
                    "{} · {case} · round {round} · {:<24} {:>14.1} {unit}",
                    self.name, arms[at].name, reading.value
                );
                if round > 0 {
                    readings[at].push(reading);
                }
            }
        }
        for (arm, rounds) in arms.iter().zip(readings) {
            let values: Vec<f64> = rounds.iter().map(|r| r.value).collect();
            self.arms.insert(
                format!("{case}.{}", arm.name),
                ArmResult {
                    unit,
                    median: Spread::of(&values).median,
                    rounds,
                },
            );
        }
        Ok(())
    }

    /// The ratio of two arms of a case, round by round.
    pub(crate) fn ratio(&mut self, case: &str, over: &str, under: &str) -> Spread {
        let over_arm = &self.arms[&format!("{case}.{over}")];
        let under_arm = &self.arms[&format!("{case}.{under}")];
        let ratios: Vec<f64> = over_arm
            .rounds
            .iter()
            .zip(&under_arm.rounds)
            .map(|(a, b)| a.value / b.value)
            .collect();
        let spread = Spread::of(&ratios);
        self.ratios.insert(format!("{case}.{over}-{under}"), spread);
        spread
    }

    /// Median over rounds of an arm.
    pub(crate) fn median(&self, case: &str, arm: &str) -> f64 {
        self.arms[&format!("{case}.{arm}")].median
    }

    /// Median over rounds of an arm's extra number.
    pub(crate) fn extra(&self, case: &str, arm: &str, name: &str) -> f64 {
        let rounds = &self.arms[&format!("{case}.{arm}")].rounds;
        let values: Vec<f64> = rounds
            .iter()
            .filter_map(|r| r.extra.get(name).copied())
            .collect();
        Spread::of(&values).median
    }

    pub(crate) fn goal_at_least(&mut self, name: &str, target: f64, measured: f64) {
        self.goals.insert(
            name.to_owned(),
            Goal {
                target: format!("≥ {target}"),
                measured,
                met: measured >= target,
            },
        );
    }

    pub(crate) fn goal_at_most(&mut self, name: &str, target: f64, measured: f64) {
        self.goals.insert(
            name.to_owned(),
            Goal {
                target: format!("≤ {target}"),
                measured,
                met: measured <= target,
            },
        );
    }

    pub(crate) fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    /// Writes `<name>.json` and prints the table.
    pub(crate) fn finish(&self, out: &Path) -> anyhow::Result<()> {
        std::fs::create_dir_all(out)?;
        let path = out.join(format!("{}.json", self.name));
        std::fs::write(&path, serde_json::to_vec_pretty(self)?)?;
        println!("\n{}", self.name);
        for (name, arm) in &self.arms {
            let extras: Vec<String> = arm.rounds[0]
                .extra
                .keys()
                .map(|key| {
                    let values: Vec<f64> = arm
                        .rounds
                        .iter()
                        .filter_map(|r| r.extra.get(key).copied())
                        .collect();
                    format!("{key} {:.2}", Spread::of(&values).median)
                })
                .collect();
            println!(
                "  {name:<44} {:>14.1} {:<10} {}",
                arm.median,
                arm.unit,
                extras.join("  ")
            );
        }
        for (name, ratio) in &self.ratios {
            println!(
                "  {name:<44} {:>13.2}x  {:.2} to {:.2}",
                ratio.median, ratio.min, ratio.max
            );
        }
        for (name, goal) in &self.goals {
            let verdict = if goal.met { "met" } else { "missed" };
            println!(
                "  goal {name:<39} {:>14.2} {:<10} {verdict}",
                goal.measured, goal.target
            );
        }
        for note in &self.notes {
            println!("  {note}");
        }
        println!("  written to {}", path.display());
        Ok(())
    }
}

/// One table over the goals of these benchmarks, from what they wrote.
pub(crate) fn summary(out: &Path, names: &[&str]) -> anyhow::Result<()> {
    println!(
        "\n{:<10} {:<42} {:>14} {:>16}",
        "benchmark", "goal", "target", "measured"
    );
    for name in names {
        let path = out.join(format!("{name}.json"));
        let report: serde_json::Value = serde_json::from_slice(&std::fs::read(&path)?)?;
        let goals = report["goals"].as_object().cloned().unwrap_or_default();
        for (goal, found) in goals {
            let verdict = if found["met"] == true {
                "met"
            } else {
                "missed"
            };
            println!(
                "{name:<10} {goal:<42} {:>14} {:>16.2} {verdict}",
                found["target"].as_str().unwrap_or_default(),
                found["measured"].as_f64().unwrap_or(f64::NAN),
            );
        }
    }
    Ok(())
}
