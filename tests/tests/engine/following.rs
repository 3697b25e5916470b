//! `sovereign log`, from the ledger and from Kafka.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::sync::mpsc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Engine, bar, register, small, thought};

/// A running `log --follow`, ended with the test.
struct Follower {
    child: std::process::Child,
    lines: mpsc::Receiver<Value>,
}

impl Follower {
    fn start(engine: &Engine, args: &[&str]) -> Self {
        let mut child = engine
            .command(&[&["log", "--follow", "--json"], args].concat())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let _ = sender.send(serde_json::from_str(&line).unwrap());
            }
        });
        Self { child, lines }
    }

    fn next(&self) -> Value {
        self.lines
            .recv_timeout(Duration::from_secs(30))
            .expect("no event came in 30 s")
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        // `timeout` passes the signal on
        let _ = std::process::Command::new("kill")
            .arg(self.child.id().to_string())
            .status();
        let _ = self.child.wait();
    }
}

#[test]
fn following_prints_old_and_new_events_in_order_over_all_departments() {
    let engine = small();
    let head = engine.head();
    let from = (head - 20).to_string();
    let follower = Follower::start(&engine, &["--from", &from]);
    for position in head - 20..=head {
        assert_eq!(follower.next()["position"], position);
    }
    let mut commands = Vec::new();
    for number in 0..60 {
        let mut command = register(&format!("followed-{number}"));
        command["department"] = json!(["trader", "hunter", "sentry"][number % 3]);
        commands.push(command);
    }
    engine.send_all(&commands);
    for (number, position) in (head + 1..=head + 60).enumerate() {
        let event = follower.next();
        assert_eq!(event["position"], position);
        assert_eq!(event["aggregate_id"], format!("followed-{number}"));
    }
}

#[test]
fn following_keeps_to_its_filters_and_shows_texts_to_the_owner() {
    let engine = small();
    let from = (engine.head() + 1).to_string();
    let aggregate = ["--from", &from, "--aggregate", "agent/filler"];
    let plain = Follower::start(&engine, &aggregate);
    let sealed = Follower::start(&engine, &[&aggregate[..], &["--sealed"]].concat());
    engine.send_all(&[
        register("unfollowed"),
        thought("filler", "seen by its owner"),
        thought("unfollowed", "not this one"),
        bar("filler", 320),
    ]);
    assert_eq!(plain.next()["data"]["text"], "seen by its owner");
    assert_eq!(plain.next()["event_type"], "MarketObserved");
    let text = &sealed.next()["data"]["text"];
    assert!(
        text["bytes"].is_string() && text["key_id"].is_string(),
        "{text}"
    );
}

#[test]
fn the_log_takes_ranges_moments_and_departments() {
    let engine = small();
    let log = |args: &[&str]| {
        engine
            .run(&[&["log", "--json"], args].concat())
            .ok()
            .lines()
    };
    let some = log(&["--from", "5", "--to", "9"]);
    let positions: Vec<_> = some
        .iter()
        .map(|e| e["position"].as_u64().unwrap())
        .collect();
    assert_eq!(positions, [5, 6, 7, 8, 9]);
    let moment = some[2]["recorded_at"].as_str().unwrap();
    let since = log(&["--from", moment, "--to", "9"]);
    let first = since[0]["position"].as_u64().unwrap();
    assert!(first <= 7, "{first}");
    assert!(
        since
            .iter()
            .all(|e| e["recorded_at"].as_str().unwrap() >= moment)
    );
    let hunters = log(&["--department", "hunter"]);
    assert!(!hunters.is_empty() && hunters.iter().all(|e| e["department"] == "hunter"));
    assert_eq!(
        engine.run(&["log", "--from", "0"]).code,
        2,
        "positions start at 1"
    );
}
