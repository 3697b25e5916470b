//! Instructions for each event, counted by valgrind on fixed inputs: a second reading beside the
//! benchmarks that no busy machine can change.
//!
//! `instructions` counts every path, compares it with `instructions.json` beside this crate, and
//! fails if one grew by more than 5 %; `--update` writes the file. Each path runs twice, with no
//! event and with all of them, and the difference is divided by the number of events: start and
//! preparation fall out.
//!
//! Valgrind does not know the processor's SHA instructions, so SHA-256 is counted as it runs
//! without them. A path that hashes has a larger number than it has on a processor with them, and
//! what is gained by hashing less shows larger.

#![allow(clippy::unwrap_used)]

mod paths;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, bail};
use clap::Parser;
use serde::{Deserialize, Serialize};

/// A path may grow by this much, in percent.
const GROWTH_MAX: f64 = 5.0;

/// Instructions for each event, counted by valgrind on fixed inputs.
#[derive(Parser, Debug)]
struct Args {
    /// Write what was counted instead of comparing with it.
    #[arg(long)]
    update: bool,
    /// Only this path.
    #[arg(long)]
    path: Option<String>,
    /// Run a path with so many events and count nothing; what valgrind is given.
    #[arg(long, hide = true, requires = "path")]
    events: Option<u64>,
}

/// What is kept.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Kept {
    /// By path, rounded to whole instructions.
    instructions_per_event: BTreeMap<String, u64>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(args: &Args) -> anyhow::Result<bool> {
    if let (Some(path), Some(events)) = (&args.path, args.events) {
        let run = paths::find(path).with_context(|| format!("no path is called {path}"))?;
        // printed, so that no result can be optimised away
        println!("{}", run(events));
        return Ok(true);
    }
    if Command::new("valgrind").arg("--version").output().is_err() {
        bail!("valgrind is missing: install the package valgrind; without it nothing is counted");
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("instructions.json");
    let kept: Kept = match std::fs::read(&file) {
        Ok(bytes) => serde_json::from_slice(&bytes)?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Kept::default(),
        Err(error) => return Err(error.into()),
    };
    let mut counted = BTreeMap::new();
    for name in paths::names().filter(|n| args.path.as_deref().is_none_or(|p| p == *n)) {
        let per_event = (count(name, paths::EVENTS)? - count(name, 0)?) / paths::EVENTS as f64;
        counted.insert(name.to_owned(), per_event.round() as u64);
    }
    anyhow::ensure!(!counted.is_empty(), "no such path");
    let good = report(&counted, &kept, args.update);
    if args.update {
        let mut all = kept.instructions_per_event;
        // a path that is gone goes, one that was not asked for stays
        all.retain(|name, _| paths::find(name).is_some());
        all.extend(counted);
        let new = Kept {
            instructions_per_event: all,
        };
        let mut text = serde_json::to_string_pretty(&new)?;
        text.push('\n');
        std::fs::write(&file, text)?;
        println!("written to {}", file.display());
    }
    Ok(good || args.update)
}

fn report(counted: &BTreeMap<String, u64>, kept: &Kept, update: bool) -> bool {
    let mut good = true;
    println!("instructions per event{:>12}{:>10}", "before", "now");
    for (name, now) in counted {
        let before = kept.instructions_per_event.get(name);
        let (text, verdict) = match before {
            None => {
                good = false;
                ("-".to_owned(), "not kept yet; run with --update".to_owned())
            }
            Some(before) => {
                let growth = (*now as f64 / *before as f64 - 1.0) * 100.0;
                let over = growth > GROWTH_MAX;
                good &= !over;
                let verdict = if over {
                    format!("{growth:+.1} %: more than {GROWTH_MAX} %")
                } else {
                    format!("{growth:+.1} %")
                };
                (before.to_string(), verdict)
            }
        };
        println!("{name:<22}{text:>12}{now:>10}  {verdict}");
    }
    if !good && !update {
        println!(
            "a path grew, or is not kept; `make bench-instructions UPDATE=1` keeps what is now"
        );
    }
    good
}

/// Instructions of one run under callgrind.
fn count(path: &str, events: u64) -> anyhow::Result<f64> {
    let folder = tempfile::tempdir()?;
    let out: PathBuf = folder.path().join("callgrind.out");
    let output = Command::new("valgrind")
        .arg("--tool=callgrind")
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(std::env::current_exe()?)
        .args(["--path", path, "--events", &events.to_string()])
        .output()
        .context("valgrind")?;
    let text = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "{path}: {text}");
    let total = text
        .lines()
        .find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok());
    total.with_context(|| format!("{path}: valgrind told no count: {text}"))
}
