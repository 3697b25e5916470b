//! Jobs that are done again and again, on two engines of which one is paused and both are killed.

use std::collections::BTreeSet;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::cluster::Pair;
use crate::harness::{Engine, signal};

const EVERY_MINUTE: &str = r#"version = 1

[[schedules]]
name = "tick"
cron = "* * * * *"
zone = "Europe/Berlin"

[schedules.job]
kind = "plan"
queue = "low"
[[schedules.job.arguments.steps]]
effect = { kind = "timer", until = "2026-01-01T00:00:00Z" }

[[schedules]]
name = "leap"
cron = "0 0 29 2 *"
zone = "America/New_York"
job = { kind = "plan", arguments = { steps = [{ effect = { kind = "random", integers = { count = 1, low = 1, high = 6 } } }] } }
"#;

fn now_s() -> u64 {
    #[allow(clippy::disallowed_methods)] // the moments of this test are those of the clock
    let now = SystemTime::now();
    now.duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// Sleeps until so many seconds before the next full minute, which it answers; at least that long
/// from now.
fn before_the_minute(seconds: u64) -> u64 {
    let mut minute = now_s() / 60 + 1;
    if now_s() + seconds + 2 > minute * 60 {
        minute += 1;
    }
    std::thread::sleep(Duration::from_secs(minute * 60 - seconds - now_s()));
    minute
}

/// The id of the job that is due in this minute since 1970.
fn id_of(minute: u64) -> String {
    let moment = sovereign_schemas::Timestamp(i64::try_from(minute).unwrap() * 60_000_000);
    let text = moment.to_string();
    format!(
        "tick_{}{}{}_{}{}",
        &text[5..7],
        &text[8..10],
        &text[2..4],
        &text[11..13],
        &text[14..16]
    )
}

/// Jobs of the schedule as the ledger has them, in its order.
#[track_caller]
fn submitted(engine: &Engine) -> Vec<String> {
    let lines = engine
        .run(&["log", "--aggregate", "job", "--json"])
        .ok()
        .lines();
    let submitted = lines.iter().filter(|e| e["event_type"] == "JobSubmitted");
    let of = |e: &Value| {
        assert_eq!(e["data"]["schedule"], "tick", "{e}");
        e["aggregate_id"].as_str().unwrap().to_owned()
    };
    submitted.map(of).collect()
}

#[track_caller]
fn wait_for(engine: &Engine, job: &str) {
    let until = Instant::now() + Duration::from_secs(50);
    while !submitted(engine).contains(&job.to_owned()) {
        assert!(Instant::now() < until, "no {job}: {:?}", submitted(engine));
        std::thread::sleep(Duration::from_millis(300));
    }
}

fn nonsense_is_refused(engine: &Engine) {
    let file = engine.data.join("wrong.toml");
    let refused = |from: &str, to: &str, line: u64, field: &str, found: &str| {
        std::fs::write(&file, EVERY_MINUTE.replacen(from, to, 1)).unwrap();
        for command in ["check", "adopt"] {
            let args = [
                "jobs",
                "schedules",
                command,
                file.to_str().unwrap(),
                "--json",
            ];
            let problem = engine.run(&args).fails(2, "invalid-schedule");
            assert_eq!(problem["line"], line, "{problem}");
            if !field.is_empty() {
                assert_eq!(problem["field"], field, "{problem}");
                assert_eq!(problem["found"], found, "{problem}");
                assert!(problem["expected"].is_string(), "{problem}");
            }
        }
    };
    refused("* * * * *", "61 * * * *", 5, "cron", "61");
    refused("0 0 29 2 *", "0 0 31 2 *", 16, "cron", "0 0 31 2 *");
    refused("Europe/Berlin", "Europe/Mordor", 6, "zone", "Europe/Mordor");
    refused("queue", "colour", 10, "", "");
    refused("\"leap\"", "\"tick\"", 14, "", "");
    // what no handler does
    std::fs::write(&file, EVERY_MINUTE.replacen("\"plan\"", "\"magic\"", 1)).unwrap();
    let args = [
        "jobs",
        "schedules",
        "check",
        file.to_str().unwrap(),
        "--json",
    ];
    assert_eq!(engine.run(&args).fails(2, "wrong-type")["line"], 3);
}

#[test]
fn a_schedule_makes_one_job_a_minute_over_a_pause_and_kills_of_two_engines() {
    let pair = Pair::new("schedules");
    let [a, b] = pair.nodes.each_ref().map(|node| &node.engine);
    nonsense_is_refused(a);
    let file = a.data.join("schedules.toml");
    std::fs::write(&file, EVERY_MINUTE).unwrap();
    let adopt = ["jobs", "schedules", "adopt", file.to_str().unwrap()];
    a.json(&adopt);
    // the same version again is another one's
    a.run(&[&adopt[..], &["--json"]].concat())
        .fails(2, "invalid-schedule");
    assert_eq!(b.json(&["jobs", "schedules", "show"])["text"], EVERY_MINUTE);

    // whoever submits is paused over a full minute, longer than its session lasts
    let owner = usize::from(pair.nodes[1].units().contains("jobs"));
    let (paused, other) = (pair.nodes[owner].engine.pid("engine"), [b, a][owner]);
    let first = before_the_minute(3);
    signal(paused, "-STOP");
    wait_for(other, &id_of(first));
    signal(paused, "-CONT");
    // now both think for a moment that it is theirs
    std::thread::sleep(Duration::from_secs(3));

    let second = before_the_minute(4);
    for node in &pair.nodes {
        signal(node.engine.pid("engine"), "-KILL");
    }
    std::thread::sleep(Duration::from_secs(second * 60 + 1 - now_s()));
    for node in &pair.nodes {
        node.up();
    }
    wait_for(a, &id_of(second));
    let last = now_s() / 60;
    let jobs = submitted(a);
    let all: BTreeSet<String> = (first..=last + 1).map(id_of).collect();
    let once: BTreeSet<String> = jobs.iter().cloned().collect();
    assert_eq!(once.len(), jobs.len(), "{jobs:?}");
    assert!(once.is_subset(&all), "{jobs:?} beyond {all:?}");
    assert!(once.contains(&id_of(first)) && once.contains(&id_of(second)));

    let listed = b.run(&["jobs", "schedules", "--json"]).ok().lines();
    assert_eq!(listed.len(), 2, "{listed:?}");
    assert_eq!(listed[0]["zone"], "Europe/Berlin");
    let newest = listed[0]["last_job"]["job_id"].as_str().unwrap();
    assert!(newest >= id_of(second).as_str(), "{newest}");
    assert!(
        listed[0]["next_at"]
            .as_str()
            .unwrap()
            .ends_with(":00.000000Z")
    );
    assert_eq!(listed[1]["last_job"], Value::Null);
    assert_eq!(listed[1]["next_at"], "2028-02-29T05:00:00.000000Z");
    let shown = a.json(&["jobs", "show", newest]);
    assert_eq!(shown["schedule"], "tick");
    a.run(&["verify", "--json"]).ok();
}
