//! Jobs of the real binary: workers and engine are killed, and what the target saw is compared with
//! what the ledger says.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Engine, signal};

/// How often the target was told what, by path and idempotency key (empty without one).
type Told = Arc<Mutex<BTreeMap<(String, String), u32>>>;

/// The target answers after so long, unless a test says otherwise: time to die in.
const ANSWER: Duration = Duration::from_millis(120);

/// A target that counts. It answers after a moment, so that there is time to die in.
pub(crate) struct Target {
    address: String,
    told: Told,
}

impl Target {
    pub(crate) fn start() -> Self {
        Self::answering_after(ANSWER)
    }

    fn answering_after(pause: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let told = Told::default();
        let noted = told.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let noted = noted.clone();
                std::thread::spawn(move || answer(stream, &noted, pause));
            }
        });
        Self { address, told }
    }

    /// What was told below a path: for each path how often, keys counted once each.
    fn seen(&self, below: &str) -> BTreeMap<String, u32> {
        let mut seen = BTreeMap::new();
        for ((path, key), times) in self.told.lock().unwrap().iter() {
            if path.starts_with(below) {
                *seen.entry(path.clone()).or_insert(0) += if key.is_empty() { *times } else { 1 };
            }
        }
        seen
    }
}

fn answer(mut stream: TcpStream, noted: &Told, pause: Duration) {
    let mut request = Vec::new();
    let mut buffer = [0; 4_096];
    let head = loop {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(n) => request.extend_from_slice(&buffer[..n]),
        }
        let end = request.windows(4).position(|w| w == b"\r\n\r\n");
        if let Some(end) = end {
            break String::from_utf8_lossy(&request[..end]).into_owned();
        }
    };
    let header = |name: &str| {
        let line = |line: &str| {
            let (found, value) = line.split_once(':')?;
            found
                .eq_ignore_ascii_case(name)
                .then(|| value.trim().to_owned())
        };
        head.lines().find_map(line)
    };
    let length: usize = header("content-length")
        .and_then(|l| l.parse().ok())
        .unwrap_or(0);
    let body = head.len() + 4;
    while request.len() < body + length {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(n) => request.extend_from_slice(&buffer[..n]),
        }
    }
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let key = header("idempotency-key").unwrap_or_default();
    *noted
        .lock()
        .unwrap()
        .entry((path.clone(), key))
        .or_insert(0) += 1;
    std::thread::sleep(pause);
    let body = if path.contains("/red") {
        "{\"ok\":false}"
    } else {
        "{\"ok\":true}"
    };
    let _ = write!(
        stream,
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n{body}",
        body.len()
    );
}

/// xorshift64*.
struct Luck(u64);

impl Luck {
    fn new() -> Self {
        let seed = std::env::var("SOVEREIGN_TEST_SEED")
            .ok()
            .and_then(|s| s.parse().ok());
        let seed = seed.unwrap_or_else(|| u64::from(std::process::id()) * 7_919 + 1);
        eprintln!("SOVEREIGN_TEST_SEED={seed}");
        Self(seed | 1)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % n
    }
}

fn points(default: u64) -> u64 {
    let wanted = std::env::var("SOVEREIGN_TEST_KILLS").ok();
    wanted.and_then(|n| n.parse().ok()).unwrap_or(default)
}

/// An engine whose policy lets effects reach the target, with and without keys.
pub(crate) fn engine(target: &Target) -> Engine {
    engine_with(target, "")
}

/// The same with a `sovereign.toml`.
fn engine_with(target: &Target, config: &str) -> Engine {
    let engine = Engine::new("jobs");
    std::fs::write(engine.data.join("sovereign.toml"), config).unwrap();
    engine.up();
    let policy = format!(
        "version = 2\n\n[[rules]]\nname = \"everything\"\napprovals = [{{ above = \"1000\", people = 1 }}]\n\n\
         [tools.keyed]\nbase = \"http://{0}\"\nmethods = [\"POST\"]\npaths = [\"/\"]\n\
         reach = [\"loopback\"]\nidempotency_header = \"idempotency-key\"\n\n\
         [tools.plain]\nbase = \"http://{0}\"\nmethods = [\"POST\"]\npaths = [\"/\"]\n\
         reach = [\"loopback\"]\n",
        target.address
    );
    let file = engine.data.join("policy.toml");
    std::fs::write(&file, policy).unwrap();
    engine.json(&["policy", "adopt", file.to_str().unwrap()]);
    engine
}

/// A worker that is killed when it goes out of sight.
pub(crate) struct Worker(Child);

impl Worker {
    pub(crate) fn start(engine: &Engine) -> Self {
        Self::with_slots(engine, 2)
    }

    pub(crate) fn with_slots(engine: &Engine, slots: u32) -> Self {
        let mut command = std::process::Command::new(crate::harness::binary());
        command
            .args([
                "worker",
                "--slots",
                &slots.to_string(),
                "--lease-ms",
                "1000",
                "--grace-s",
                "5",
            ])
            .arg("--data")
            .arg(&engine.data);
        let log = engine.data.join("logs/test-worker.log");
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(log);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.unwrap());
        Self(command.spawn().unwrap())
    }

    fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// Asks it to stop; its exit code.
    pub(crate) fn stop(mut self) -> i32 {
        signal(self.0.id(), "-TERM");
        self.0.wait().unwrap().code().unwrap_or(-1)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn call(tool: &str, path: &str) -> Value {
    json!({ "kind": "http", "tool": tool, "method": "POST", "path": path, "body": { "n": 1 } })
}

/// Submits one job; its id.
#[track_caller]
pub(crate) fn submit(engine: &Engine, job: &Value) -> String {
    let file = engine.data.join("job.ndjson");
    std::fs::write(&file, format!("{job}\n")).unwrap();
    let answer = engine.json(&["jobs", "submit", file.to_str().unwrap()]);
    answer["job_id"].as_str().unwrap().to_owned()
}

pub(crate) fn plan(steps: Vec<Value>) -> Value {
    json!({ "kind": "plan", "name": "trade_eth", "arguments": { "steps": steps } })
}

#[track_caller]
pub(crate) fn wait(engine: &Engine, job: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let done = engine.run(&["jobs", "show", job, "--json"]);
        if done.code == 0 {
            let shown = done.json();
            if wanted(&shown) {
                return shown;
            }
            assert!(Instant::now() < until, "{shown}");
        }
        assert!(Instant::now() < until, "{done:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

pub(crate) fn ended(shown: &Value) -> bool {
    shown["ended_at"].is_string() || shown["status"] == "in_doubt"
}

/// The report, by effect.
fn report(shown: &Value) -> BTreeMap<u32, String> {
    let report = shown["report"].as_str().unwrap();
    let one = |part: &str| {
        let (index, what) = part.split_once(':').unwrap();
        (index.parse().unwrap(), what.to_owned())
    };
    report.split(' ').map(one).collect()
}

/// What the ledger says of each effect is what the target saw of it.
#[track_caller]
fn is_true(shown: &Value, seen: &BTreeMap<String, u32>, below: &str) {
    for (index, what) in report(shown) {
        let times = seen.get(&format!("{below}/{index}")).copied().unwrap_or(0);
        let undone = seen.contains_key(&format!("{below}/undo-{index}"));
        assert!(
            times <= 1,
            "effect {index} happened {times} times: {seen:?} {shown}"
        );
        match what.as_str() {
            "done" => assert!(times == 1 && !undone, "{index}: {seen:?} {shown}"),
            "compensated" => assert!(times == 1 && undone, "{index}: {seen:?} {shown}"),
            "not_done" => assert!(times == 0, "{index}: {seen:?} {shown}"),
            "in_doubt" => {}
            other => panic!("{other}"),
        }
    }
}

#[test]
fn jobs_survive_kills_of_worker_and_engine_and_no_effect_happens_twice() {
    let target = Target::start();
    let engine = engine(&target);
    let mut luck = Luck::new();
    let (mut doubts, mut taken_over) = (0, 0);
    let mut worker = Worker::start(&engine);
    for point in 0..points(8) {
        let below = format!("/kill-{point}");
        // every third effect is at a target that knows no keys
        let tool = |n: u32| if n == 2 { "plain" } else { "keyed" };
        let steps = (0..5).map(|n| json!({ "effect": call(tool(n), &format!("{below}/{n}")) }));
        let job = submit(&engine, &plan(steps.collect()));
        std::thread::sleep(Duration::from_millis(luck.below(1_000)));
        if point % 6 == 5 {
            signal(engine.pid("engine"), "-KILL");
            engine.ensure_up();
        }
        worker.kill();
        worker = Worker::start(&engine);
        let mut shown = wait(&engine, &job, ended);
        is_true(&shown, &target.seen(&below), &below);
        taken_over += u32::from(shown["attempt"].as_u64().unwrap() > 1);
        if shown["status"] == "in_doubt" {
            doubts += 1;
            // somebody looks at the target, and says so
            let done = target.seen(&below).contains_key(&format!("{below}/2"));
            let done = if done { "--done" } else { "--not-done" };
            engine.json(&["jobs", "resolve", &job, "2", done]);
            shown = wait(&engine, &job, |s| s["ended_at"].is_string());
        }
        assert_eq!(shown["status"], "green", "{shown}");
        let seen = target.seen(&below);
        is_true(&shown, &seen, &below);
        assert_eq!(seen.len(), 5, "{seen:?}");
    }
    eprintln!("taken over {taken_over}, in doubt {doubts}");
    assert!(taken_over > 0, "no kill met a job that was under way");
    // the last worker may have found nothing to do: one job more shows that it has started
    let job = submit(
        &engine,
        &plan(vec![json!({ "effect": call("keyed", "/last") })]),
    );
    assert_eq!(wait(&engine, &job, ended)["status"], "green");
    assert_eq!(worker.stop(), 0);
    engine.run(&["verify", "--json"]).ok();
}

/// Asks the API itself, and says how it answers: a process that asks takes longer than the target.
#[track_caller]
fn abort_at(address: &str, token: &str, job: &str) -> u16 {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(
        stream,
        "POST /api/v1/jobs/{job}/abort HTTP/1.1\r\nhost: {address}\r\n\
         authorization: Bearer {token}\r\ncontent-type: application/json\r\n\
         content-length: 2\r\nconnection: close\r\n\r\n{{}}"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}

/// The abort comes at 20 points of a job's course, spread over its five calls and within each:
/// `SOVEREIGN_TEST_ABORTS` of them, 7 if it is not set.
#[test]
fn aborts_at_any_point_leave_a_true_report() {
    /// Points within one call.
    const WITHIN: u64 = 4;
    let pause = Duration::from_millis(50);
    let target = Target::answering_after(pause);
    let engine = engine(&target);
    let worker = Worker::start(&engine);
    let status = engine.status();
    let address = status["console"].as_str().unwrap();
    let address = address.strip_prefix("http://").unwrap();
    let token = std::fs::read_to_string(engine.data.join("api.token")).unwrap();
    let wanted = std::env::var("SOVEREIGN_TEST_ABORTS").ok();
    let wanted: u64 = wanted.and_then(|n| n.parse().ok()).unwrap_or(7);
    let (mut statuses, mut kinds) = (BTreeMap::new(), BTreeMap::new());
    for number in 0..wanted {
        let point = number * 5 * WITHIN / wanted;
        let below = format!("/abort-{number}");
        let steps = (0..5).map(|n| {
            let effect = call("keyed", &format!("{below}/{n}"));
            // the odd ones cannot be undone
            match n % 2 {
                0 => {
                    json!({ "effect": effect, "undo": call("keyed", &format!("{below}/undo-{n}")) })
                }
                _ => json!({ "effect": effect }),
            }
        });
        let job = submit(&engine, &plan(steps.collect()));
        let during = format!("{below}/{}", point / WITHIN);
        let until = Instant::now() + Duration::from_secs(60);
        while !target.seen(&below).contains_key(&during) {
            assert!(Instant::now() < until, "no {during}");
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(pause * u32::try_from(point % WITHIN).unwrap() / 4);
        let answer = abort_at(address, token.trim(), &job);
        // one that has ended meanwhile cannot be aborted
        let shown = wait(&engine, &job, ended);
        let status = shown["status"].as_str().unwrap().to_owned();
        assert!(answer == 200 || status == "green", "{answer} {shown}");
        is_true(&shown, &target.seen(&below), &below);
        assert_eq!(report(&shown).len(), 5, "{shown}");
        // the abort takes effect before the next effect, in the ledger's order
        let log = [
            "log",
            "--aggregate",
            &format!("job/{job}"),
            "--json",
            "--sealed",
        ];
        let events = engine.run(&log).ok().lines();
        let asked = |e: &Value| e["event_type"] == "JobAbortRequested";
        let behind = events.iter().skip_while(|e| !asked(e));
        for event in behind.filter(|e| e["event_type"] == "EffectIntended") {
            assert!(event["data"]["compensates"].is_number(), "{point}: {event}");
        }
        for what in report(&shown).into_values() {
            *kinds.entry(what).or_insert(0) += 1;
        }
        *statuses.entry(status).or_insert(0) += 1;
    }
    eprintln!("{statuses:?} {kinds:?}");
    // what is asked for during the last call may find the job ended
    let aborted: u64 = statuses.get("aborted").copied().unwrap_or(0);
    assert!(aborted * 5 >= wanted * 3, "{statuses:?}");
    assert_eq!(worker.stop(), 0);
}

#[test]
fn jobs_wait_for_verdicts_queues_pause_and_bad_ones_are_refused() {
    let target = Target::start();
    let engine = engine(&target);
    engine.json(&["jobs", "pause", "default"]);
    let named = |id: &str, path: &str, after: Value| {
        let green_if = json!({ "pointer": "/body/ok", "equals": true });
        let step = json!({ "effect": call("keyed", path), "green_if": green_if });
        let mut job = plan(vec![step]);
        (job["id"], job["after"]) = (json!(id), after);
        job
    };
    let batch = [
        named("c1", "/c1", json!([{ "job": "b1", "verdict": "green" }])),
        named("b1", "/b1", json!(["a1"])),
        named("a1", "/a1", json!([])),
        named("b2", "/b2", json!(["a2"])),
        named("c2", "/c2", json!(["b2"])),
        named("a2", "/red", json!([])),
    ];
    let lines: Vec<String> = batch.iter().map(Value::to_string).collect();
    let file = engine.data.join("batch.ndjson");
    std::fs::write(&file, lines.join("\n")).unwrap();
    engine.run(&["jobs", "submit", file.to_str().unwrap()]).ok();
    let worker = Worker::start(&engine);
    std::thread::sleep(Duration::from_secs(1));
    assert!(target.seen("/").is_empty(), "the queue is paused");
    engine.json(&["jobs", "resume", "default"]);
    assert_eq!(wait(&engine, "c1", ended)["status"], "green");
    let cancelled = wait(&engine, "c2", ended);
    assert_eq!(cancelled["status"], "cancelled");
    assert_eq!(cancelled["because"], "b2");
    let because = wait(&engine, "b2", ended);
    assert_eq!(
        (&because["because"], &because["reason"]),
        (&json!("a2"), &json!("dependency-red"))
    );
    assert_eq!(target.seen("/").len(), 4, "{:?}", target.seen("/"));

    let refused = |job: &Value, exit: i32, code: &str| {
        std::fs::write(&file, job.to_string()).unwrap();
        engine
            .run(&["jobs", "submit", file.to_str().unwrap(), "--json"])
            .fails(exit, code)
    };
    refused(&named("d", "/d", json!(["nobody"])), 2, "job-dependency");
    refused(&named("e", "/e", json!(["e"])), 2, "job-dependency");
    refused(
        &json!({ "kind": "magic", "arguments": {} }),
        2,
        "wrong-type",
    );
    let mut large = named("f", "/f", json!([]));
    large["arguments"]["steps"][0]["effect"]["body"] = json!("x".repeat(5 << 20));
    let done = {
        std::fs::write(&file, large.to_string()).unwrap();
        engine.run(&["jobs", "submit", file.to_str().unwrap(), "--json"])
    };
    let code = done.problem()["code"].as_str().unwrap().to_owned();
    assert!(
        ["payload-too-large", "text-too-long"].contains(&code.as_str()),
        "{done:?}"
    );
    engine
        .run(&["jobs", "abort", "nobody", "--json"])
        .fails(4, "not-found");
    assert_eq!(engine.run(&["jobs", "show", "nobody", "--json"]).code, 4);

    // a key stands for one job as long as that has not ended
    engine.json(&["jobs", "pause", "low"]);
    let mut once = plan(vec![json!({ "effect": call("keyed", "/once") })]);
    (once["unique"], once["queue"]) = (json!("rebalance_eth"), json!("low"));
    let first = submit(&engine, &once);
    assert_eq!(
        (first.as_str(), submit(&engine, &once).as_str()),
        ("rebalance_eth", "rebalance_eth")
    );
    engine.json(&["jobs", "resume", "low"]);
    wait(&engine, &first, ended);
    assert_eq!(submit(&engine, &once), "rebalance_eth_2");
    wait(&engine, "rebalance_eth_2", ended);
    let drained = engine.json(&["jobs", "drain"]);
    assert_eq!(drained["queues"][0]["paused_by"], "operator");
    assert_eq!(worker.stop(), 0);
    engine.run(&["verify", "--json"]).ok();
}

#[test]
fn handlers_decide_again_what_is_recorded_and_reach_nothing() {
    let target = Target::start();
    let names = [
        (1, "orchestrator"),
        (5, "trader"),
        (7, "hunter"),
        (8, "sentry"),
        (10, "guardian"),
        (12, "auditor"),
        (15, "historian"),
    ];
    // without keys a file alone must do
    let plain = names
        .map(|(id, name)| format!("[[departments]]\nid = {id}\nname = \"{name}\"\nseal = false\n"));
    let engine = engine_with(&target, &plain.concat());
    let worker = Worker::start(&engine);
    let order = json!({ "kind": "order", "exchange": "mock", "instrument": "AAPL", "side": "BUY",
        "quantity": "1", "price": "100", "at": "2000-03-02" });
    let red = json!({ "pointer": "/body/ok", "equals": true });
    let green = submit(
        &engine,
        &plan(vec![
            json!({ "effect": call("keyed", "/again/0") }),
            json!({ "effect": { "kind": "random", "integers": { "count": 3, "low": 1, "high": 6 } } }),
            json!({ "effect": order }),
        ]),
    );
    let judged = submit(
        &engine,
        &plan(vec![
            json!({ "effect": call("keyed", "/again/red"), "green_if": red }),
        ]),
    );
    let failed = submit(
        &engine,
        &plan(vec![
            json!({ "effect": call("keyed", "/again/1"), "undo": call("keyed", "/again/undo-1") }),
            json!({ "effect": call("unknown", "/again/2") }),
        ]),
    );
    for (job, status) in [(&green, "green"), (&judged, "red"), (&failed, "failed")] {
        assert_eq!(wait(&engine, job, ended)["status"], status, "{job}");
    }
    assert_eq!(worker.stop(), 0);
    let told = target.seen("/again");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("log.avro");
    let file = file.to_str().unwrap();
    engine.run(&["export", file]).ok();
    let live = engine.json(&["replay", "--sinks", "recorded"])["jobs"].clone();
    assert_eq!(live["recorded"], live["decided"]);
    assert_eq!(
        json!([live["jobs"], live["effects"], live["open"], live["ends"]]),
        json!([3, 7, 0, 3])
    );
    let again = [
        "replay",
        "--sinks",
        "recorded",
        "--source",
        file,
        "--offline",
        "--json",
    ];
    assert_eq!(engine.run(&again).ok().json()["jobs"], live);
    let binary = crate::harness::binary();
    let mut empty = std::process::Command::new("unshare");
    let empty = empty.args(["-r", "-n"]).arg(binary).args(again).output();
    match empty {
        Ok(output) if output.status.success() => {
            let report: Value = serde_json::from_slice(&output.stdout).unwrap();
            assert_eq!(report["jobs"], live);
        }
        // a container may forbid namespaces; what was reached is counted in any case
        other => eprintln!("no network namespaces here: {other:?}"),
    }
    assert_eq!(target.seen("/again"), told);
}
