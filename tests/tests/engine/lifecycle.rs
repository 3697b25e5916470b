//! Starting, stopping, dying.

use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::{Engine, register, signal, sturdy, thought};

/// Children of a killed engine have ended by then.
const ORPHANS_END_WITHIN: Duration = Duration::from_secs(30);

fn ports(engine: &Engine) -> Value {
    let text = std::fs::read(engine.data.join("servers.json")).unwrap();
    let servers: Value = serde_json::from_slice(&text).unwrap();
    let port = |server: &str| servers[server]["port"].clone();
    let console = engine.status()["console"].clone();
    Value::Array(vec![port("postgres"), port("kafka"), console])
}

#[track_caller]
fn all_end(engine: &Engine, limit: Duration) {
    let deadline = Instant::now() + limit;
    loop {
        let left = engine.processes();
        if left.is_empty() {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "still there after {limit:?}: {left:?}"
        );
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_second_up_is_refused_and_says_who_holds_the_folder() {
    let engine = sturdy();
    let pid = engine.pid("engine");
    let problem = engine.run(&["up", "--json"]).fails(1, "data-folder-locked");
    assert!(
        problem["message"]
            .as_str()
            .unwrap()
            .contains(&pid.to_string()),
        "{problem}"
    );
    assert_eq!(engine.pid("engine"), pid, "the first one is untouched");
    assert_eq!(
        engine.json(&["up", "--ensure"])["pid"],
        pid,
        "or it is content"
    );
}

#[test]
fn down_leaves_no_process_and_a_restart_keeps_head_and_ports() {
    let engine = sturdy();
    let (head, hash) = (engine.head(), engine.status()["head_hash"].clone());
    let before = ports(&engine);
    assert!(engine.processes().len() >= 3, "this test sees processes");
    engine.run(&["down"]).ok();
    let left = engine.processes();
    assert!(left.is_empty(), "{left:?}");
    engine
        .run(&["status", "--json"])
        .fails(5, "engine-not-running");
    engine
        .run(&["down", "--json"])
        .fails(5, "engine-not-running");

    // whatever an engine that ended badly left behind
    for stale in ["{\"pid\": 4194301, \"star", "", "null"] {
        std::fs::write(engine.data.join("engine.json"), stale).unwrap();
    }
    engine.up();
    assert_eq!(
        (engine.head(), engine.status()["head_hash"].clone()),
        (head, hash)
    );
    assert_eq!(ports(&engine), before);
    engine.settle();
}

#[test]
fn a_killed_engine_takes_its_servers_along_and_the_next_goes_on() {
    let engine = sturdy();
    engine.send_all(&[thought("first", "before the kill")]);
    let head = engine.head();
    // engine.json now names a dead process
    signal(engine.pid("engine"), "-KILL");
    all_end(&engine, ORPHANS_END_WITHIN);
    engine
        .run(&["status", "--json"])
        .fails(5, "engine-not-running");
    engine.up();
    assert_eq!(engine.head(), head);
    engine.send_all(&[thought("first", "after the kill")]);
    engine.settle();
    engine.run(&["verify", "--against", "kafka"]).ok();
}

#[test]
fn a_new_engine_does_not_wait_for_the_servers_of_a_killed_one() {
    let engine = sturdy();
    let head = engine.head();
    signal(engine.pid("engine"), "-KILL");
    engine.up();
    assert_eq!(engine.head(), head);
}

#[test]
fn servers_that_die_are_started_again() {
    let engine = sturdy();
    let head = engine.head();
    for server in ["postgres", "kafka"] {
        let pid = engine.pid(server);
        signal(pid, "-KILL");
        engine.wait_for("restarted", Duration::from_secs(90), |status| {
            let now = &status["servers"][server]["pid"];
            now.is_u64() && *now != pid && status["healthy"] == true
        });
    }
    engine.send_all(&[thought("first", "after both servers died")]);
    assert_eq!(engine.head(), head + 1);
    engine.settle();
    engine.run(&["verify", "--against", "kafka"]).ok();
}

#[test]
fn a_half_initialised_folder_heals_itself() {
    let engine = Engine::new("halfway");
    for pause_ms in [300, 1_500] {
        let mut child = engine
            .command(&["up", "--foreground"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(pause_ms));
        for (pid, line) in engine.processes() {
            if line.contains("--foreground") {
                // `timeout` may have ended with its child already
                let _ = std::process::Command::new("kill")
                    .args(["-9", &pid.to_string()])
                    .status();
            }
        }
        child.wait().unwrap();
    }
    engine.up();
    engine.send_all(&[register("healed")]);
    assert_eq!(engine.head(), 1);
    engine.run(&["down"]).ok();
    all_end(&engine, Duration::ZERO);
}
