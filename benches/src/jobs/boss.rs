//! The peer in JavaScript: `pg-boss` on Node, fetched by npm into the target folder.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use super::drive::{AT_ONCE, HALF, JOBS, WARM};
use crate::protocol::Reading;

/// The last line that runs on Node 20.
const PACKAGE: &str = "pg-boss@10.4.2";
const SCRIPT: &str = include_str!("boss.mjs");

/// The package, as it was fetched.
#[derive(Debug)]
pub(crate) struct Boss {
    script: PathBuf,
}

impl Boss {
    pub(crate) fn fetch() -> anyhow::Result<Self> {
        let folder = PathBuf::from("target/bench-peers/pg-boss");
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join("package.json"), "{\"private\":true}")?;
        let done = Command::new("npm")
            .args([
                "install",
                "--no-audit",
                "--no-fund",
                "--ignore-scripts",
                "--silent",
                PACKAGE,
            ])
            .current_dir(&folder)
            .stdout(Stdio::null())
            .status()
            .context("npm is missing: see tools/prerequisites bench")?;
        ensure!(done.success(), "npm cannot fetch {PACKAGE}");
        let script = folder.join("boss.mjs");
        std::fs::write(&script, SCRIPT)?;
        Ok(Self { script })
    }

    pub(crate) async fn run(&self, database: &str) -> anyhow::Result<Reading> {
        let numbers = [WARM, JOBS, AT_ONCE as u64, HALF.as_millis() as u64];
        let output = tokio::process::Command::new("node")
            .arg(&self.script)
            .env("BENCH_DATABASE", database)
            .args(numbers.map(|n| n.to_string()))
            .stderr(Stdio::inherit())
            .output()
            .await?;
        ensure!(output.status.success(), "pg-boss failed");
        let read: Value = serde_json::from_slice(&output.stdout)?;
        let number = |name: &str| read[name].as_f64().context("a number is missing");
        ensure!(number("twice")? == 0.0, "effects happened twice: {read}");
        Ok(Reading::new(number("rate")?)
            .with("p50_ms", number("p50_ms")?)
            .with("p99_ms", number("p99_ms")?))
    }
}
