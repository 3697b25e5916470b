//! One log for all arms.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context as _;
use sovereign_replay::sample::Sample;
use sovereign_replay::{
    Digests, FileInfo, FileWriter, Options, Range, ReplayReport, Source, replay,
};
use sovereign_schemas::{Digest, MemoryLog, Position, RecordedEvent};

use crate::protocol::Reading;

pub(super) const AGGREGATES: u64 = 100_000;
pub(super) const EVENTS: u64 = 1_000_000;
/// Of those, for the arms with servers.
pub(super) const SERVED: u64 = 200_000;
const SEED: u64 = 7;
/// So long is a thought, and so an event has about 300 bytes.
const THOUGHT_BYTES: usize = 480;

pub(super) struct Log {
    folder: tempfile::TempDir,
    /// The first [`SERVED`].
    pub(super) served: Vec<RecordedEvent>,
    /// After [`SERVED`], and after [`EVENTS`].
    pub(super) digests: (Digests, Digests),
    pub(super) bytes_each: u64,
}

fn sample() -> Sample {
    Sample::new(SEED, AGGREGATES as usize).with_thoughts_of(THOUGHT_BYTES)
}

impl Log {
    pub(super) async fn make() -> anyhow::Result<Self> {
        let started = Instant::now();
        let folder = tempfile::Builder::new()
            .prefix("sovereign-bench-")
            .tempdir()?;
        let events: Vec<_> = sample().take(EVENTS as usize).collect();
        let last = events.last().context("an empty sample")?;
        let info = FileInfo {
            first: Position(1),
            last: last.position(),
            previous_hash: Digest::ZERO,
            last_hash: last.hash,
        };
        let path = folder.path().join("log.avro");
        let mut writer = FileWriter::create(&path, info)?;
        for event in &events {
            writer.push(event)?;
        }
        writer.finish()?;
        let served = events[..SERVED as usize].to_vec();
        let digests = (expected(served.clone()).await?, expected(events).await?);
        let bytes_each = std::fs::metadata(&path)?.len() / EVENTS;
        eprintln!(
            "replay · data made in {:.1} s",
            started.elapsed().as_secs_f64()
        );
        Ok(Self {
            folder,
            served,
            digests,
            bytes_each,
        })
    }

    pub(super) fn path(&self) -> PathBuf {
        Path::join(self.folder.path(), "log.avro")
    }
}

async fn expected(events: Vec<RecordedEvent>) -> anyhow::Result<Digests> {
    let mut log = MemoryLog::new(events);
    let options = Options {
        threads: 1,
        ..Options::default()
    };
    let report = replay(&mut log, Range::WHOLE, options, &mut |_| {}).await?;
    Ok(report.digests)
}

/// Replays the whole of a source and checks what came out.
pub(super) async fn measured(
    source: impl Into<Source<'_>>,
    options: Options,
    events: u64,
    digests: &Digests,
) -> anyhow::Result<Reading> {
    let started = Instant::now();
    let report = replay(source, Range::WHOLE, options, &mut |_| {}).await?;
    let took = started.elapsed();
    check(&report, events, digests)?;
    Ok(Reading::new(events as f64 / took.as_secs_f64()))
}

fn check(report: &ReplayReport, events: u64, digests: &Digests) -> anyhow::Result<()> {
    anyhow::ensure!(report.events == events, "{} events folded", report.events);
    anyhow::ensure!(report.digests == *digests, "digests differ");
    Ok(())
}
