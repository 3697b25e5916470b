//! The real append, relay and view logic in a simulated world: clock, database, broker, network and
//! scheduler are one thread and one seed. Processes are killed and stopped, servers crash (the
//! database loses what it has not flushed), answers come late, in another order or never, relays
//! replace each other. Invariants I1 to I5 are checked after each step.
//!
//! `SOVEREIGN_SIM_SEEDS=n` runs n seeds; `SOVEREIGN_SIM_SEED=s` runs only that one and prints
//! what happens in it.

#![allow(clippy::unwrap_used)]

mod broker;
mod brokers;
mod checks;
mod clients;
mod database;
mod engine;
mod kernel;
mod postgres;
mod sabotage;
mod trace;
mod views;
mod world;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use sabotage::Sabotage;
use trace::Mode;

/// Seeds that `make test` runs.
const SEEDS: u64 = 10_000;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{variable} must be a number, not {text:?}")),
    )
}

fn replay(seed: u64) -> String {
    format!(
        "replay it: SOVEREIGN_SIM_SEED={seed} cargo test -p sovereign-tests --test simulation \
         every_invariant -- --nocapture"
    )
}

#[test]
fn every_invariant_holds_after_every_step_for_every_seed() {
    if let Some(seed) = number("SOVEREIGN_SIM_SEED") {
        let ran = world::run(seed, None, Mode::Printed);
        let summary = ran.unwrap_or_else(|(violation, _)| panic!("seed {seed}: {violation:?}"));
        println!(
            "seed {seed}: {} events, {} steps",
            summary.events, summary.steps
        );
        return;
    }
    let seeds = number("SOVEREIGN_SIM_SEEDS").unwrap_or(SEEDS);
    let began = Instant::now();
    let total = all(seeds);
    println!(
        "{seeds} seeds in {:?}: {} events, {} commands acknowledged, {} faults, {} commits undone \
         by crashes, {} steps checked",
        began.elapsed(),
        total.events,
        total.acknowledged,
        total.faults,
        total.lost_by_crash,
        total.steps,
    );
    // a world in which nothing happens proves nothing
    assert!(total.events as u64 >= seeds * 5, "worlds are empty");
    assert!(
        seeds < 100 || total.lost_by_crash > 0,
        "no crash has undone anything"
    );
}

/// What all worlds came to together. A world is one thread; several worlds run side by side.
fn all(seeds: u64) -> world::Summary {
    let next = AtomicU64::new(1);
    let some = || {
        let mut sum = world::Summary::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed > seeds {
                return sum;
            }
            match world::run(seed, None, Mode::Off) {
                Ok(summary) => add(&mut sum, &summary),
                Err((violation, _)) => {
                    // the other threads need not go on
                    next.store(seeds + 1, Ordering::Relaxed);
                    panic!("seed {seed}: {violation:?}; {}", replay(seed));
                }
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(some)).collect();
        let mut total = world::Summary::default();
        for thread in running {
            match thread.join() {
                Ok(sum) => add(&mut total, &sum),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        total
    })
}

fn add(total: &mut world::Summary, one: &world::Summary) {
    total.events += one.events;
    total.acknowledged += one.acknowledged;
    total.steps += one.steps;
    total.faults += one.faults;
    total.lost_by_crash += one.lost_by_crash;
}

#[test]
fn a_seed_gives_the_same_world_each_time() {
    for seed in (1..=20).chain([2_760, 1_000_003]) {
        let run = || world::run(seed, None, Mode::Kept).map(|s| s.trace);
        let (first, second) = (run().unwrap(), run().unwrap());
        assert!(first.len() > 10, "seed {seed}: only {} lines", first.len());
        let differs = first.iter().zip(&second).find(|(a, b)| a != b);
        assert_eq!(differs, None, "seed {seed}");
        assert_eq!(first.len(), second.len(), "seed {seed}");
    }
}

/// Seeds within which a broken promise must be noticed.
const NOTICED_WITHIN: u64 = 300;

/// The first seed that notices, and what it says.
fn caught(sabotage: Sabotage) -> (u64, String) {
    for seed in 1..=NOTICED_WITHIN {
        if let Err((violation, _)) = world::run(seed, Some(sabotage), Mode::Off) {
            println!(
                "{sabotage:?}: seed {seed}: {}: {}",
                violation.promise, violation.what
            );
            return (seed, violation.promise.to_owned());
        }
    }
    panic!("{sabotage:?} is not noticed within {NOTICED_WITHIN} seeds");
}

#[test]
fn i1_two_writers_that_take_the_head_are_caught() {
    assert_eq!(caught(Sabotage::TwoWritersTakeTheHead).1, "I1");
}

#[test]
fn i1_a_tail_that_skips_an_event_is_caught() {
    assert_eq!(caught(Sabotage::TailSkipsAnEvent).1, "I1");
}

#[test]
fn i2_command_ids_that_are_not_unique_are_caught() {
    assert_eq!(caught(Sabotage::CommandIdsAreNotUnique).1, "I2");
}

#[test]
fn i3_a_flipped_bit_is_caught() {
    assert_eq!(caught(Sabotage::DiskFlipsABit).1, "I3");
}

#[test]
fn i4_a_take_over_without_fencing_is_caught() {
    assert_eq!(caught(Sabotage::TakeOverDoesNotFence).1, "I4");
}

#[test]
fn i4_records_sent_behind_the_flush_are_caught() {
    assert_eq!(caught(Sabotage::FlushReturnsEarly).1, "I4");
}

#[test]
fn i5_a_checkpoint_apart_from_its_rows_is_caught() {
    assert_eq!(caught(Sabotage::CheckpointApartFromRows).1, "I5");
}

#[test]
fn i5_a_checkpoint_that_is_not_compared_is_caught() {
    assert_eq!(caught(Sabotage::CheckpointIsNotCompared).1, "I5");
}

#[test]
fn a_flush_that_lies_is_caught() {
    assert_eq!(caught(Sabotage::FlushLies).1, "durable");
}

#[test]
fn a_broker_that_acknowledges_and_loses_is_caught() {
    // nobody is told, so it shows only when the topics are held against the ledger
    assert_eq!(caught(Sabotage::BrokerAcknowledgesAndLoses).1, "healing");
}
