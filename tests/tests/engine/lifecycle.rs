//! Starting, stopping, dying.

use std::path::Path;
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

/// The engine of `up --foreground`, killed as soon as `reached` says so of its processes.
fn killed_start(engine: &Engine, reached: impl Fn(&[(u32, String)]) -> bool) {
    let mut child = engine
        .command(&["up", "--foreground"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while !reached(&engine.processes()) {
        assert!(Instant::now() < deadline, "{:?}", engine.processes());
        std::thread::sleep(Duration::from_millis(5));
    }
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

#[test]
fn a_half_initialised_folder_heals_itself() {
    let engine = Engine::new("halfway");
    for pause_ms in [300, 1_500] {
        let start = Instant::now();
        let pause = Duration::from_millis(pause_ms);
        killed_start(&engine, |_| start.elapsed() >= pause);
    }
    engine.up();
    engine.send_all(&[register("healed")]);
    assert_eq!(engine.head(), 1);
    engine.run(&["down"]).ok();
    all_end(&engine, Duration::ZERO);
}

/// What `initdb` does when its engine dies is to clean up, at its leisure.
#[test]
fn a_helper_that_outlives_its_engine_does_not_disturb_the_next() {
    let engine = Engine::new("outlived");
    // those that have begun to fill their folder
    let helpers = |processes: &[(u32, String)]| -> Vec<u32> {
        let begun = |line: &str| {
            let mut words = line.split(' ');
            words.next().is_some_and(|name| name.ends_with("/initdb"))
                && words
                    .find(|word| word.starts_with(engine.data.to_str().unwrap()))
                    .is_some_and(|folder| Path::new(folder).join("pg_wal").exists())
        };
        let found = processes.iter().filter(|(_, line)| begun(line));
        found.map(|(pid, _)| *pid).collect()
    };
    let found = std::cell::Cell::new(0);
    let outlived = (0..10).find_map(|_| {
        all_end(&engine, ORPHANS_END_WITHIN);
        killed_start(&engine, |processes| {
            found.set(helpers(processes).first().copied().unwrap_or(0));
            found.get() != 0
        });
        // Not before its engine dies: the system wakes stopped processes that lose their parent.
        // It may be through with it all by now.
        let pid = found.get();
        let stop = ["-STOP", &pid.to_string()];
        let _ = std::process::Command::new("kill").args(stop).status();
        std::thread::sleep(Duration::from_millis(100));
        let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        state.contains(") T ").then_some(pid)
    });
    let stopped = outlived.expect("one that is still there after its engine");
    let up = engine
        .command(&["up"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while helpers(&engine.processes())
        .iter()
        .all(|pid| *pid == stopped)
    {
        assert!(Instant::now() < deadline, "{:?}", engine.processes());
        std::thread::sleep(Duration::from_millis(5));
    }
    signal(stopped, "-CONT");
    let up = up.wait_with_output().unwrap();
    assert!(
        up.status.success(),
        "{}",
        String::from_utf8_lossy(&up.stderr)
    );
    engine.send_all(&[register("undisturbed")]);
    assert_eq!(engine.head(), 1);
    engine.run(&["down"]).ok();
    all_end(&engine, ORPHANS_END_WITHIN);
}
