//! A flood of unimportant jobs: what is urgent waits for a step at most, and the flood goes on.
//!
//! `SOVEREIGN_FLOOD` says how many jobs it has, 2,000 if it is not set.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sovereign_schemas::Timestamp;

use crate::harness::Engine;
use crate::jobs::{Target, Worker, call, ended, engine, plan, submit, wait};

/// A timer that is over: the quickest effect.
fn quick() -> Value {
    json!({ "kind": "timer", "until": "2026-01-01T00:00:00Z" })
}

#[track_caller]
fn queued(engine: &Engine, queue: usize) -> u64 {
    let queues = engine.json(&["jobs", "queues"]);
    queues["queues"][queue]["queued"].as_u64().unwrap()
}

/// Submits by `send`, which does not take a request for each.
#[track_caller]
fn flood(engine: &Engine, jobs: u64, queue: &str, effect: &Value) {
    let arguments = json!({ "steps": [{ "effect": effect }] }).to_string();
    let name = queue.to_lowercase();
    let commands: Vec<Value> = (0..jobs)
        .map(|n| {
            json!({ "aggregate": "job", "id": format!("flood-{name}-{n}"), "command": "submit",
                "data": { "kind": "plan", "queue": queue, "arguments": arguments } })
        })
        .collect();
    engine.send_all(&commands);
}

/// Milliseconds from the submission of a job to its start, as the ledger has them.
#[track_caller]
fn waited_ms(engine: &Engine, job: &str) -> i64 {
    let aggregate = format!("job/{job}");
    let log = engine
        .run(&["log", "--aggregate", &aggregate, "--json"])
        .ok()
        .lines();
    let at = |kind: &str| {
        let event = log.iter().find(|e| e["event_type"] == kind).unwrap();
        event["recorded_at"]
            .as_str()
            .unwrap()
            .parse::<Timestamp>()
            .unwrap()
            .0
    };
    (at("JobStarted") - at("JobSubmitted")) / 1_000
}

#[test]
fn an_urgent_job_waits_for_a_step_at_most_and_a_flood_of_low_ones_goes_on() {
    let wanted = std::env::var("SOVEREIGN_FLOOD").ok();
    let wanted: u64 = wanted.and_then(|n| n.parse().ok()).unwrap_or(2_000);
    let target = Target::start();
    let engine = engine(&target);
    let begun = Instant::now();
    flood(&engine, wanted, "LOW", &quick());
    eprintln!("{wanted} jobs submitted in {:?}", begun.elapsed());
    let until = Instant::now() + Duration::from_secs(120);
    while queued(&engine, 2) < wanted {
        assert!(Instant::now() < until, "the queue has not all of them");
        std::thread::sleep(Duration::from_millis(200));
    }
    // two places: one is kept for what is urgent
    let worker = Worker::with_slots(&engine, 2);
    while queued(&engine, 2) == wanted {
        std::thread::sleep(Duration::from_millis(50));
    }
    let (first, begun) = (queued(&engine, 2), Instant::now());
    let mut waits = Vec::new();
    for _ in 0..8 {
        let mut alert = plan(vec![json!({ "effect": quick() })]);
        (alert["name"], alert["queue"]) = (json!("guardian_alert"), json!("high"));
        let job = submit(&engine, &alert);
        assert_eq!(wait(&engine, &job, ended)["status"], "green");
        waits.push(waited_ms(&engine, &job));
    }
    let (left, took) = (queued(&engine, 2), begun.elapsed());
    waits.sort_unstable();
    let low = first - left;
    eprintln!(
        "urgent ones began after {waits:?} ms; {low} low ones meanwhile, {:.0}/s",
        low as f64 / took.as_secs_f64()
    );
    // all eight while the flood was there, or they prove nothing
    assert!(left > 0, "the flood ended too early");
    assert!(low > 0, "the low queue stood still");
    // a step of these takes milliseconds; the machine may be busy
    assert!(waits[7] < 1_500 && waits[3] < 500, "{waits:?}");
    assert_eq!(worker.stop(), 0);
    engine.run(&["verify", "--json"]).ok();
}

#[test]
fn each_queue_gets_its_turns_at_a_worker_with_one_place() {
    let target = Target::start();
    let engine = engine(&target);
    for queue in ["high", "default", "low"] {
        engine.json(&["jobs", "pause", queue]);
    }
    flood(&engine, 84, "HIGH", &call("keyed", "/high"));
    flood(&engine, 40, "DEFAULT", &quick());
    flood(&engine, 40, "LOW", &quick());
    let until = Instant::now() + Duration::from_secs(60);
    while (0..3).map(|q| queued(&engine, q)).sum::<u64>() < 164 {
        assert!(Instant::now() < until, "the queues have not all of them");
        std::thread::sleep(Duration::from_millis(100));
    }
    for queue in ["low", "default", "high"] {
        engine.json(&["jobs", "resume", queue]);
    }
    let worker = Worker::with_slots(&engine, 1);
    wait(&engine, "flood-high-83", ended);
    let log = engine
        .run(&["log", "--aggregate", "job", "--json"])
        .ok()
        .lines();
    let started: Vec<&str> = log
        .iter()
        .filter(|e| e["event_type"] == "JobStarted")
        .map(|e| {
            e["aggregate_id"]
                .as_str()
                .unwrap()
                .split('-')
                .nth(1)
                .unwrap()
        })
        .collect();
    // as long as all three have something
    let all = started.iter().rposition(|q| *q == "high").unwrap();
    let count = |queue: &str| started[..all].iter().filter(|q| **q == queue).count();
    let (high, default, low) = (count("high"), count("default"), count("low"));
    eprintln!("high {high}, default {default}, low {low} of {all}");
    for turns in started[..all].windows(2 * 21) {
        for queue in ["high", "default", "low"] {
            assert!(turns.contains(&queue), "{queue} was left out: {turns:?}");
        }
    }
    // 16 : 4 : 1, give or take one round
    assert!(
        (3..=6).contains(&low) && (16..=24).contains(&default),
        "{default} {low}"
    );
    assert_eq!(worker.stop(), 0);
}
