//! Programs as agents: one that trades in the main job, and those that misbehave beside it.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use serde_json::Value;
use sovereign_servers::{LimitedLaunch, Limits};
use sovereign_tests::owned::engine_program;

use crate::harness::{Engine, bar, register, signal};
use crate::memory;

const PYTHON: &str = "/usr/bin/python3";
/// Of each instrument.
const BARS: usize = 150;

/// Puts a program where its account can read it.
fn script(engine: &Engine, name: &str, text: &str) -> String {
    let path = engine.data.join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    path.to_str().unwrap().to_owned()
}

fn momentum() -> String {
    let path = sovereign_tests::root().join("tests/clients/python/momentum.py");
    fs::read_to_string(path).unwrap()
}

fn program(name: &str, script: &str, arguments: &[&str], more: &str) -> String {
    let mut arguments = arguments.to_vec();
    arguments.insert(0, script);
    format!(
        "[[programs]]\nname = \"{name}\"\ncommand = \"{PYTHON}\"\narguments = {arguments:?}\n\
         agents = [\"{name}\"]\nevents = [\"MarketObserved\", \"VerdictGiven\", \"TradeHeld\", \
         \"TradeFilled\", \"TradeCancelled\", \"ExecutionCleared\"]\n{more}\n"
    )
}

fn configure(engine: &Engine, programs: &str) {
    fs::write(engine.data.join("sovereign.toml"), programs).unwrap();
}

/// What the status says of a program.
fn shown<'a>(status: &'a Value, name: &str) -> &'a Value {
    let all = status["programs"].as_array().unwrap();
    all.iter().find(|p| p["name"] == name).unwrap()
}

fn events(engine: &Engine, aggregate: &str) -> Vec<Value> {
    engine
        .run(&["log", "--json", "--aggregate", aggregate])
        .ok()
        .lines()
}

/// Trades by id, with what happened to each: those of the program, and all others.
fn trades(engine: &Engine) -> (Vec<Value>, Vec<Value>) {
    let all = engine.run(&["views", "show", "trades"]).ok().lines();
    all.into_iter()
        .partition(|row| row["agent_id"] == "momentum")
}

#[test]
fn a_program_trades_in_the_main_job_and_the_built_in_agents_do_the_same_trades() {
    let engine = Engine::with_worker("programs");
    let path = script(&engine, "momentum.py", &momentum());
    configure(
        &engine,
        &program("momentum", &path, &["momentum", "AAPL"], ""),
    );
    engine.up();
    let csv = engine.data.join("market.csv");
    fs::write(&csv, memory::short_csv(BARS)).unwrap();
    engine
        .run(&["trade", "--quiet", csv.to_str().unwrap()])
        .ok();
    engine.settle();
    let (own, others) = trades(&engine);
    let filled = own.iter().filter(|t| t["filled_at"].is_string()).count();
    assert!(filled > 0, "{own:?}");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let reference = runtime.block_on(memory::run(&memory::market(Some(BARS))));
    let expected: BTreeSet<String> = reference
        .events()
        .iter()
        .filter(|e| e.header.event_type == "TradeProposed")
        .map(|e| e.header.aggregate_id.clone())
        .collect();
    let found: BTreeSet<String> = others
        .iter()
        .map(|t| t["trade_id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(found, expected);

    // killed in the middle of its life it comes back, knows what it knew, and does nothing twice
    let before = engine.head();
    let runs = shown(&engine.status(), "momentum")["runs"]
        .as_i64()
        .unwrap();
    let pid = engine
        .processes()
        .into_iter()
        .find(|(_, line)| line.starts_with(PYTHON))
        .unwrap()
        .0;
    signal(pid, "-KILL");
    engine.wait_for("started again", Duration::from_secs(30), |status| {
        let program = shown(status, "momentum");
        program["runs"].as_i64() > Some(runs) && program["state"] == "running"
    });
    engine.send_all(&[register("somebody")]);
    let head = engine.head();
    engine.wait_for("caught up", Duration::from_secs(30), |status| {
        shown(status, "momentum")["position"].as_u64() >= Some(head - 1)
    });
    let faults: Vec<Value> = events(&engine, "agent/momentum")
        .into_iter()
        .filter(|e| e["position"].as_u64() > Some(before))
        .collect();
    assert_eq!(faults.len(), 1, "{faults:?}");
    assert_eq!(faults[0]["event_type"], "ProgramFaulted");
    assert_eq!(trades(&engine).0, own);
    assert_eq!(engine.run(&["verify", "--quiet"]).code, 0);
}

/// Programs of one name at two engines of one machine, told apart by `owner`.
fn twin(owner: &str) -> LimitedLaunch {
    LimitedLaunch {
        shim: engine_program().unwrap(),
        name: "twin".into(),
        owner: owner.into(),
        program: "/bin/sleep".into(),
        args: vec!["60".into()],
        limits: Limits {
            memory_bytes: 64 << 20,
            cpu_s: 10,
            processes: 4,
        },
        run: format!("{owner}/1"),
    }
}

#[tokio::test]
async fn who_ends_a_program_leaves_one_of_its_name_at_another_engine_alone() {
    let one = twin("/one").start().await.unwrap();
    let mut other = twin("/other").start().await.unwrap();
    // both are past the shim, and in their accounts
    tokio::time::sleep(Duration::from_millis(500)).await;
    one.end().await;
    let ended = tokio::time::timeout(Duration::from_secs(1), other.ended()).await;
    assert!(ended.is_err(), "{ended:?}");
    other.end().await;
}

/// Programs that do what no program should, each with the fault that it ends by.
const BAD: &[(&str, &str, &str)] = &[
    (
        "garbage",
        "import sys\nfor line in sys.stdin:\n    print('?' * 100, flush=True)\n    print('[]\\n' * 20, flush=True)\n",
        "garbage",
    ),
    (
        "endless",
        "import sys\nsys.stdin.readline()\nwhile True:\n    sys.stdout.write('x' * 65536)\n",
        "line_too_long",
    ),
    (
        "flood",
        "import json, sys\nfor line in sys.stdin:\n    told = json.loads(line)\n    n = 0\n    while told['type'] == 'event':\n        n += 1\n        print(json.dumps({'type': 'command', 'id': str(n), 'position': told['position'], 'agent': 'flood', 'aggregate': 'agent', 'aggregate_id': 'flood', 'command': 'record_thought', 'data': {'text': f'thought {n}'}}), flush=True)\n",
        "flood",
    ),
    (
        "silent",
        "import time\nwhile True:\n    time.sleep(60)\n",
        "silent",
    ),
    (
        "mute",
        "import os, time\nos.close(1)\ntime.sleep(600)\n",
        "stdout_closed",
    ),
    (
        "quitter",
        "import sys\nprint('no ' + 'sk-' + 'x' * 3, 'of 203.0.113.7', file=sys.stderr)\nsys.exit(3)\n",
        "exited",
    ),
    (
        "bomb",
        "import os, sys, time\nsys.stdin.readline()\nwhile True:\n    try:\n        os.fork()\n        os.setsid()\n    except OSError:\n        time.sleep(0.01)\n",
        "silent",
    ),
    (
        "liar",
        "import json, sys\nfor line in sys.stdin:\n    told = json.loads(line)\n    if told['type'] != 'event':\n        continue\n    at = told['position']\n    for agent, upon, position in (('trader-test', 'trader-test', at), ('liar', 'trader-test', at), ('liar', 'liar', at + 1000)) * 4:\n        print(json.dumps({'type': 'command', 'id': 'x', 'position': position, 'agent': agent, 'aggregate': 'agent', 'aggregate_id': upon, 'command': 'record_thought', 'data': {'text': 'I am another'}}), flush=True)\n",
        "lied",
    ),
];

#[test]
fn programs_that_misbehave_are_contained_and_stall_nobody() {
    let engine = Engine::new("misbehave");
    let mut programs = String::new();
    for (name, text, _) in BAD {
        let path = script(&engine, &format!("{name}.py"), text);
        let more = "answer_ms = 4000\nfaults = 2\nprocesses = 16\ncommands_per_event = 20";
        let _ = write!(programs, "{}", program(name, &path, &[], more));
    }
    let good = script(&engine, "momentum.py", &momentum());
    // that the machine is busy is not its fault
    let patient = "answer_ms = 60000";
    programs.push_str(&program("momentum", &good, &["momentum", "TEST"], patient));
    configure(&engine, &programs);
    engine.up();
    engine.send_all(&[register("hunter-test")]);
    for number in 0..20 {
        engine.send_all(&[bar("hunter-test", number)]);
    }
    engine.wait_for("all given up", Duration::from_secs(90), |status| {
        BAD.iter()
            .all(|(name, _, _)| shown(status, name)["state"] == "given_up")
    });
    let status = engine.status();
    for (name, _, fault) in BAD {
        let program = shown(&status, name);
        assert_eq!(program["last_fault"], *fault, "{program}");
        let own = events(&engine, &format!("agent/{name}"));
        let faults = own.iter().filter(|e| e["event_type"] == "ProgramFaulted");
        let faults: Vec<bool> = faults.map(|e| e["data"]["given_up"] == true).collect();
        assert_eq!(faults, [false, true], "{name}: {own:?}");
        let last = own.last().unwrap();
        assert_eq!(last["data"]["to"], "SAFE_MODE", "{name}: {last}");
        let left = engine.processes();
        let script = format!("{name}.py");
        assert!(
            left.iter().all(|(_, line)| !line.contains(&script)),
            "{name}: {left:?}"
        );
    }
    assert_eq!(status["problems"]["programs"]["code"], "program-failed");
    let thoughts = events(&engine, "agent/flood");
    let thoughts = thoughts
        .iter()
        .filter(|e| e["event_type"] == "ThoughtRecorded");
    assert!(thoughts.count() <= 2 * 20, "no more than its share");
    assert!(
        events(&engine, "agent/trader-test").is_empty(),
        "nobody spoke for another"
    );
    let log = fs::read_to_string(engine.data.join("logs/program-quitter.log")).unwrap();
    assert!(
        log.contains("[IP_ADDRESS_REDACTED]") && !log.contains("203.0.113.7"),
        "{log}"
    );
    // the good one was never held up, and neither was anybody else
    let momentum = shown(&status, "momentum");
    assert_eq!(momentum["state"], "running", "{momentum}");
    assert_eq!(momentum["faults"], 0, "{momentum}");
    engine.send_all(&[bar("hunter-test", 20)]);
    let head = engine.head();
    engine.wait_for("seen", Duration::from_secs(20), |status| {
        shown(status, "momentum")["position"].as_u64() >= Some(head)
    });
}
