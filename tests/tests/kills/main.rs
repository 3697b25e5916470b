//! Real kills: 64 writers and two engines on one database and one broker, and in each round one or
//! two faults at random. Afterwards nothing acknowledged is lost, nothing shown has changed,
//! nothing stands twice, and health has said so in time.
//!
//! `cargo build --workspace && cargo test -p sovereign-tests --test kills`. `SOVEREIGN_KILLS` is the
//! number of rounds (25), `SOVEREIGN_KILLS_SEED` repeats a plan, `SOVEREIGN_KILLS_ROUND` runs one
//! round of it, `SOVEREIGN_KILLS_JSON` names a file for the report.

#![allow(clippy::unwrap_used)]
#![allow(clippy::disallowed_methods)] // threads that only wait, and a clock for a seed

mod check;
mod health;
mod plan;
mod report;
mod topics;
mod watchers;
mod world;
mod writers;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use check::Checker;
use health::Health;
use plan::{Fault, Kind};
use report::{Report, Round};
use sovereign_tests::owned::engine_program;
use watchers::{Sources, Watchers};
use world::{DATABASE, Struck, TAKE_OVER_MAX, World};
use writers::Ledgerwork;

const ROUNDS: u64 = 25;
/// Both engines are green again so soon after the last healing.
const GREEN_WITHIN: Duration = Duration::from_secs(60);
/// Followers are told to end, and have ended after this.
const FOLLOWERS_END: Duration = Duration::from_millis(300);
/// Health says so soon that something stands still; and the samples are 0.1 s apart.
const RED_WITHIN: Duration = Duration::from_millis(10_200);
/// All rows of all views are folded again in each such round, and at the end.
const FOLD_EVERY: u64 = 5;

fn main() -> ExitCode {
    // what cargo's own harness understands: a name that is asked for, and options
    let asked: Vec<String> = std::env::args().skip(1).collect();
    let names: Vec<&String> = asked.iter().filter(|arg| !arg.starts_with('-')).collect();
    let elsewhere = !names.is_empty() && !names.iter().any(|name| "kills".contains(name.as_str()));
    if elsewhere || asked.iter().any(|arg| arg == "--list") {
        return ExitCode::SUCCESS;
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut report = Report {
        seed: number("SOVEREIGN_KILLS_SEED").unwrap_or_else(plan_seed),
        ..Report::default()
    };
    println!(
        "kills: seed {} (SOVEREIGN_KILLS_SEED repeats it)",
        report.seed
    );
    let folder = tempfile::Builder::new()
        .prefix("sovereign-test-kills-")
        .tempdir_in("/tmp")
        .unwrap();
    let done = runtime.block_on(run(folder.path(), &mut report));
    let failed = done.as_ref().err().map(|error| format!("{error:#}"));
    report.failure.clone_from(&failed);
    report.print();
    report.write().unwrap();
    match failed {
        None => {
            println!("test result: ok. {} rounds", report.rounds.len());
            ExitCode::SUCCESS
        }
        Some(failure) => {
            let kept = folder.keep();
            println!(
                "test result: FAILED. {failure}\nlogs are in {}",
                kept.display()
            );
            ExitCode::FAILURE
        }
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{variable} is no number: {text:?}")),
    )
}

fn plan_seed() -> u64 {
    uuid::Uuid::now_v7().as_u64_pair().1 >> 16
}

struct Kills {
    world: World,
    work: Arc<Ledgerwork>,
    health: Arc<Health>,
    watchers: Watchers,
    checker: Checker,
}

async fn run(folder: &Path, report: &mut Report) -> anyhow::Result<()> {
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o711))?;
    let world = World::start(folder).await?;
    report.left_out = world.without();
    let engines = world.handles();
    writers::register_shared(&engines[0]).await?;
    let watchers = Watchers::start(Sources {
        brokers: &world.kafka.brokers(),
        database: &world.url(),
        superuser: world.postgres.superuser_options(DATABASE),
        program: engine_program()?,
        folders: engines
            .iter()
            .map(|engine| engine.data().to_owned())
            .collect(),
    })?;
    let mut kills = Kills {
        work: Ledgerwork::start(&engines, report.seed),
        health: Health::start(&engines),
        checker: Checker::new(&world.url())?,
        watchers,
        world,
    };
    let done = kills.rounds(report).await;
    // also after a failure: followers wait for a database that is gone
    kills.work.stop();
    kills.watchers.stop();
    tokio::time::sleep(FOLLOWERS_END).await;
    done
}

impl Kills {
    async fn rounds(&mut self, report: &mut Report) -> anyhow::Result<()> {
        let rounds = match number("SOVEREIGN_KILLS_ROUND") {
            Some(round) => round..round + 1,
            None => 0..number("SOVEREIGN_KILLS").unwrap_or(ROUNDS),
        };
        let last = rounds.end - 1;
        for number in rounds {
            let faults = plan::round(report.seed, number, &report.left_out);
            let kinds: Vec<Kind> = faults.iter().map(|fault| fault.kind).collect();
            let round = self.round(number, &faults, number == last).await;
            report.acknowledged = self.work.count();
            report.events = self.checker.head();
            report.losses = self.checker.losses;
            report.duplicates = self
                .watchers
                .duplicates
                .load(std::sync::atomic::Ordering::SeqCst);
            report.silent = self
                .watchers
                .silent
                .times
                .load(std::sync::atomic::Ordering::SeqCst);
            let round = round.with_context(|| format!("round {number} {kinds:?}"))?;
            println!("{}", serde_json::to_string(&round)?);
            report.rounds.push(round);
        }
        Ok(())
    }

    async fn round(&mut self, number: u64, faults: &[Fault], last: bool) -> anyhow::Result<Round> {
        let began = Instant::now();
        let from = self.checker.head();
        self.health.forget();
        self.work.resume();
        let struck = self.let_happen(faults).await?;
        let healed = Instant::now();
        let supervised = self.until_green(healed).await?;
        let green = healed.elapsed();
        let first = struck.iter().map(|one| one.at).min().context("no fault")?;
        let red = self.health.red_after(first);
        judge(&struck, red)?;

        ensure!(
            self.work.pause(Duration::from_secs(45)).await,
            "writers do not get answers"
        );
        self.checker.read().await?;
        self.checker.acknowledged(&self.work)?;
        self.checker.copies(&self.watchers, from).await?;
        if last || number.is_multiple_of(FOLD_EVERY) {
            self.checker.folds().await?;
        }
        let folder = self.world.folder.join("engine-0");
        check::verify(
            &engine_program()?,
            &folder,
            if last { 1 } else { from.max(1) },
        )?;
        ensure!(
            self.checker.head() > from,
            "nothing was written in this round"
        );
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Ok(Round {
            round: number,
            faults: struck,
            head: self.checker.head(),
            acknowledged: self.work.count(),
            red_after_ms: red.map(millis),
            green_after_ms: millis(green),
            supervised,
            took_ms: millis(began.elapsed()),
        })
    }

    /// All faults at their times, and what heals them.
    async fn let_happen(&mut self, faults: &[Fault]) -> anyhow::Result<Vec<Struck>> {
        let began = Instant::now();
        let mut steps: Vec<(Duration, bool, &Fault)> = faults
            .iter()
            .flat_map(|fault| {
                [
                    (fault.after, false, fault),
                    (fault.after + fault.holds, true, fault),
                ]
            })
            .collect();
        steps.sort_by_key(|(at, heals, _)| (*at, *heals));
        let mut struck = Vec::new();
        for (at, heals, fault) in steps {
            tokio::time::sleep_until((began + at).into()).await;
            if heals {
                tokio::task::block_in_place(|| self.world.heal(fault.kind))?;
            } else {
                struck.push(self.world.strike(fault, &self.watchers.topics).await?);
            }
        }
        Ok(struck)
    }

    async fn until_green(&mut self, healed: Instant) -> anyhow::Result<usize> {
        let mut supervised = 0;
        while !self.health.green_since(healed) {
            ensure!(
                healed.elapsed() < GREEN_WITHIN,
                "not green: {:?}",
                self.health.last()
            );
            supervised += tokio::task::block_in_place(|| self.world.supervise())?;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(supervised)
    }
}

/// Health has said in time that something stands still, and the relay was taken over in time.
fn judge(struck: &[Struck], red: Option<Duration>) -> anyhow::Result<()> {
    for one in struck {
        if matches!(one.kind, Kind::HeadLockedLong | Kind::BrokerPausedLong) {
            ensure!(
                red.is_some_and(|red| red <= RED_WITHIN),
                "red after {red:?}"
            );
        }
        if let Some(took) = one.take_over_ms {
            ensure!(
                Duration::from_millis(took) <= TAKE_OVER_MAX,
                "taken over after {took} ms"
            );
        }
    }
    Ok(())
}
