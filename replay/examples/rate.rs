//! Events per second of export, verify and replay over a recorded file of sample events:
//! `cargo run -p sovereign-replay --example rate -- [EVENTS] [AGGREGATES] [FILE]`.
//! The file is kept if one is named.

#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use std::time::Instant;

use sovereign_replay::sample::Sample;
use sovereign_replay::{
    Expectations, FileInfo, FileLog, FileWriter, Options, Range, replay, verify,
};
use sovereign_schemas::{Digest, Position};

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default: usize| {
        arguments
            .next()
            .map_or(default, |text| text.parse().expect("expected a number"))
    };
    let (count, aggregates) = (number(500_000), number(50_000));
    let folder = tempfile::tempdir().unwrap();
    let path = arguments
        .next()
        .map_or_else(|| folder.path().join("log.avro"), PathBuf::from);

    let events: Vec<_> = Sample::new(1, aggregates).take(count).collect();
    let info = FileInfo {
        first: Position(1),
        last: Position(count as u64),
        previous_hash: Digest::ZERO,
        last_hash: events.last().unwrap().hash,
    };
    let started = Instant::now();
    let mut writer = FileWriter::create(&path, info).unwrap();
    for event in &events {
        writer.push(event).unwrap();
    }
    writer.finish().unwrap();
    drop(events);
    let bytes = std::fs::metadata(&path).unwrap().len();
    let per_s = count as f64 / started.elapsed().as_secs_f64();
    println!(
        "write            {per_s:>10.0} events/s, {} bytes each",
        bytes / count as u64
    );

    for threads in [1, 2] {
        let options = Options {
            threads,
            ..Options::default()
        };
        for _ in 0..3 {
            let mut file = FileLog::open(&path).unwrap();
            let none = Expectations::default();
            let report = verify(&mut file, Range::WHOLE, none, options, &mut |_| {}).await;
            println!(
                "verify {threads} threads {:>10} events/s",
                report.unwrap().events_per_s
            );
            let mut file = FileLog::open(&path).unwrap();
            let report = replay(&mut file, Range::WHOLE, options, &mut |_| {})
                .await
                .unwrap();
            println!(
                "replay {threads} threads {:>10} events/s",
                report.events_per_s
            );
        }
    }
}
