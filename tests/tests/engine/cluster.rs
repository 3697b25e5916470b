//! Two engines with a data folder each, on one PostgreSQL and one Kafka that belong to neither.
//!
//! `SOVEREIGN_TEST_KILLS` says how often the relay's owner is killed, 2 times if it is not set;
//! each take-over is timed and printed.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sovereign_event_store::LedgerReader;
use sovereign_schemas::RecordedEvent;
use sqlx::{Connection as _, Executor as _, PgConnection};

use crate::contract::all;
use crate::harness::{Done, Engine, bar, binary, register, signal, thought};
use crate::job::{BARS, add, market, told, undisturbed};

/// Pieces of work that are divided.
const UNITS: usize = 24;
/// A session of the group lasts 6 s; this machine may be busy.
const TAKE_OVER_MAX: Duration = Duration::from_secs(30);
/// What a take-over should take.
const TAKE_OVER_GOAL: Duration = Duration::from_secs(10);

/// Past the test runner, which keeps what it captures.
pub(crate) fn say(text: &str) {
    let mut stderr = std::io::stderr().lock();
    writeln!(stderr, "cluster: {text}").unwrap();
}

/// PostgreSQL and Kafka that end with this process, a little later than its engines.
pub(crate) struct Servers {
    database: String,
    pub(crate) brokers: String,
    child: Child,
}

impl Servers {
    pub(crate) fn start() -> Self {
        let with_servers = binary().with_file_name("with-servers");
        let script =
            r#"echo "$SOVEREIGN_TEST_DATABASE"; echo "$SOVEREIGN_TEST_BROKERS"; cat; sleep 3"#;
        let mut child = Command::new(with_servers)
            .args(["sh", "-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut line = || lines.next().expect("servers have started").unwrap();
        Self {
            database: line(),
            brokers: line(),
            child,
        }
    }

    /// A database with a role that owns it, and a namespace of its own is not needed: each ledger
    /// has its own servers.
    pub(crate) fn database(&self, name: &str) -> String {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let mut connection = PgConnection::connect(&self.database).await.unwrap();
            let sql = format!("create database {name}");
            connection.execute(sql.as_str()).await.unwrap();
        });
        let (server, _) = self.database.rsplit_once('/').unwrap();
        let options = self.database.split_once('?').map_or("", |(_, o)| o);
        let server = server.split('?').next().unwrap();
        format!("{server}/{name}?{options}")
            .trim_end_matches('?')
            .to_owned()
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// One engine of several.
pub(crate) struct Node {
    pub(crate) engine: Engine,
    args: Vec<String>,
}

impl Node {
    pub(crate) fn new(
        name: &str,
        servers: &Servers,
        databases: [&str; 2],
        key: Option<PathBuf>,
    ) -> Self {
        let [database, keys] = databases;
        let mut args = ["--database", database, "--keys-database", keys, "--brokers"]
            .map(str::to_owned)
            .to_vec();
        args.push(servers.brokers.clone());
        if let Some(key) = key {
            args.extend(["--master-key".to_owned(), key.display().to_string()]);
        }
        Self {
            engine: Engine::new(name),
            args,
        }
    }

    fn try_up(&self) -> Done {
        let mut args = vec!["up", "--json"];
        args.extend(self.args.iter().map(String::as_str));
        self.engine.run(&args)
    }

    #[track_caller]
    pub(crate) fn up(&self) {
        self.try_up().ok();
    }

    pub(crate) fn units(&self) -> BTreeSet<String> {
        let status = self.engine.status();
        let units = status["units"].as_array().unwrap().iter();
        units.map(|u| u.as_str().unwrap().to_owned()).collect()
    }

    fn relay(&self) -> String {
        let status = self.engine.status();
        status["relay"]["state"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }
}

pub(crate) struct Pair {
    pub(crate) nodes: [Node; 2],
    // after the engines
    _servers: Servers,
}

impl Pair {
    pub(crate) fn new(name: &str) -> Self {
        Self::of(name, 0)
    }

    /// Each with so many workers.
    fn of(name: &str, workers: u8) -> Self {
        let servers = Servers::start();
        let (ledger, keys) = (servers.database("ledger"), servers.database("subject_keys"));
        let mut a = Node::new(&format!("{name}-a"), &servers, [&ledger, &keys], None);
        a.engine.workers = workers;
        a.up();
        let key = a.engine.data.join("master.key");
        let mut b = Node::new(&format!("{name}-b"), &servers, [&ledger, &keys], Some(key));
        b.engine.workers = workers;
        b.up();
        let pair = Self {
            nodes: [a, b],
            _servers: servers,
        };
        pair.divided();
        pair
    }

    /// Waits until both have work, each piece once, and one relays.
    #[track_caller]
    fn divided(&self) {
        let deadline = Instant::now() + TAKE_OVER_MAX;
        loop {
            let [a, b] = self.nodes.each_ref().map(Node::units);
            let relays = self.nodes.each_ref().map(Node::relay);
            let one =
                relays.contains(&"running".to_owned()) && relays.contains(&"standby".to_owned());
            if !a.is_empty()
                && !b.is_empty()
                && a.is_disjoint(&b)
                && a.len() + b.len() == UNITS
                && one
            {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "not divided: {a:?} {b:?} {relays:?}"
            );
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// The index of the one that relays.
    #[track_caller]
    fn relaying(&self) -> usize {
        self.divided();
        usize::from(self.nodes[1].relay() == "running")
    }

    /// Both see the same, whole and settled; ledger and topics are equal.
    #[track_caller]
    fn check(&self) {
        for node in &self.nodes {
            node.engine.settle();
        }
        let [a, b] = self.nodes.each_ref().map(|n| n.engine.status());
        assert_eq!(a["head"], b["head"]);
        assert_eq!(a["head_hash"], b["head_hash"]);
        let [a, b] = &self.nodes;
        let ledger = a.engine.json(&["verify", "--against", "kafka"]);
        let kafka = b
            .engine
            .json(&["verify", "--source", "kafka", "--against", "ledger"]);
        assert_eq!(ledger["last"], kafka["last"]);
        assert_eq!(ledger["last"], b.engine.status()["head"]);
        for view in ["agents", "trades", "approvals", "departments", "passkeys"] {
            let [a, b] = [a, b].map(|n| n.engine.run(&["views", "show", view]).ok().stdout);
            assert_eq!(a, b, "{view}");
        }
    }

    fn events(&self) -> Vec<RecordedEvent> {
        let status = self.nodes[0].engine.status();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let reader = LedgerReader::connect(status["database"].as_str().unwrap(), 2).unwrap();
            all(&mut reader.log()).await
        })
    }
}

/// A pair that is running when a test gets it.
fn pair() -> MutexGuard<'static, Pair> {
    static PAIR: LazyLock<Mutex<Pair>> = LazyLock::new(|| Mutex::new(Pair::new("pair")));
    let pair = PAIR.lock().unwrap_or_else(PoisonError::into_inner);
    for node in &pair.nodes {
        let mut args = vec!["up", "--ensure", "--quiet"];
        args.extend(node.args.iter().map(String::as_str));
        node.engine.run(&args).ok();
    }
    pair.divided();
    pair
}

fn commands(agent: &str, count: u64) -> Vec<u8> {
    let mut lines = vec![register(agent)];
    for number in 0..count {
        let mut command = bar(agent, number);
        if number % 2 == 1 {
            command = thought(agent, &format!("bar {number} looks like yesterday"));
        }
        command["command_id"] = json!(format!("{agent}-{number}"));
        lines.push(command);
    }
    let lines: Vec<String> = lines.iter().map(Value::to_string).collect();
    lines.join("\n").into_bytes()
}

/// Sends and takes the time; every command must be accepted.
fn send(node: &Node, input: &[u8]) -> Duration {
    let begun = Instant::now();
    let (code, outcomes) = node.engine.send(input);
    let bad = outcomes.iter().find(|o| o["status"] != "accepted");
    assert_eq!((code, bad), (0, None));
    begun.elapsed()
}

#[test]
fn appends_from_both_at_once_lose_and_double_nothing() {
    const COUNT: u64 = 4_000;
    let pair = pair();
    let [a, b] = &pair.nodes;
    let before = a.engine.head().max(b.engine.head());
    let run = &format!("at-once-{before}");
    let alone = send(a, &commands(&format!("{run}-alone"), COUNT));
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for (index, node) in pair.nodes.iter().enumerate() {
            scope.spawn(move || send(node, &commands(&format!("{run}-{index}"), COUNT)));
        }
    });
    let both = begun.elapsed();
    // one agent from both sides: each command once, whoever got it
    let shared = commands(&format!("{run}-shared"), 400);
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let shared = &shared;
        let sending = pair
            .nodes
            .each_ref()
            .map(|node| scope.spawn(move || node.engine.send(shared).1));
        sending
            .into_iter()
            .flat_map(|s| s.join().unwrap())
            .collect()
    });
    let mut accepted: BTreeMap<&str, u32> = BTreeMap::new();
    for outcome in &outcomes {
        if outcome["status"] == "accepted"
            && outcome["command_id"].as_str().unwrap().starts_with(run)
        {
            *accepted
                .entry(outcome["command_id"].as_str().unwrap())
                .or_default() += 1;
        }
    }
    assert!(accepted.values().all(|n| *n == 1), "{accepted:?}");
    pair.check();
    let rate = |events: u64, took: Duration| events as f64 / took.as_secs_f64();
    say(&format!(
        "appends/s by `sovereign send`: one engine {:.0}, two engines {:.0} together",
        rate(COUNT + 1, alone),
        rate(2 * (COUNT + 1), both)
    ));
    let events = pair.events();
    let of = |suffix: &str| {
        let id = format!("{run}-{suffix}");
        events
            .iter()
            .filter(|e| e.header.aggregate_id == id)
            .count() as u64
    };
    assert_eq!([of("alone"), of("0"), of("1")], [COUNT + 1; 3]);
    assert_eq!(of("shared"), 401);
}

/// Sends one event after the other to a node until told to stop; what was accepted.
fn trickle(node: &Node, agent: &str, until: impl Fn() -> bool) -> u64 {
    let mut sent = 0;
    node.engine.send_all(&[register(agent)]);
    while !until() {
        node.engine
            .send_all(&[thought(agent, &format!("still here at {sent}"))]);
        sent += 1;
        std::thread::sleep(Duration::from_millis(100));
    }
    sent + 1
}

#[test]
fn a_killed_relay_is_taken_over_and_its_engine_gets_work_again() {
    let pair = pair();
    let kills = std::env::var("SOVEREIGN_TEST_KILLS").ok();
    let kills: u32 = kills.and_then(|n| n.parse().ok()).unwrap_or(2);
    for kill in 0..kills {
        let owner = pair.relaying();
        let (dies, lives) = (&pair.nodes[owner], &pair.nodes[1 - owner]);
        let agent = format!("heir-{kill}-{}", lives.engine.head());
        signal(dies.engine.pid("engine"), "-KILL");
        let begun = Instant::now();
        let took = Cell::new(None);
        // the relay is taken over when an event that came after the kill is on the topics
        lives.engine.send_all(&[register(&agent)]);
        let mark = lives.engine.head();
        let sent = trickle(lives, &format!("{agent}-more"), || {
            let relay = &lives.engine.status()["relay"];
            if relay["position"].as_u64() >= Some(mark) && relay["state"] == "running" {
                took.set(Some(begun.elapsed()));
            }
            took.get().is_some() || begun.elapsed() > TAKE_OVER_MAX
        });
        assert!(sent > 0);
        let took = took.get().expect("taken over in time");
        say(&format!(
            "kill {kill}: relay taken over in {:.1} s (goal {} s)",
            took.as_secs_f64(),
            TAKE_OVER_GOAL.as_secs()
        ));
        lives.engine.wait_for("all units", TAKE_OVER_MAX, |status| {
            status["units"].as_array().map(Vec::len) == Some(UNITS)
        });
        lives.engine.settle();
        dies.up();
        pair.divided();
    }
    pair.check();
}

/// How often relays have taken over since the engines' logs began.
fn takeovers(pair: &Pair) -> usize {
    let logs = pair.nodes.iter().map(|node| {
        let log = node.engine.data.join("logs/engine.log");
        std::fs::read_to_string(log).unwrap()
    });
    logs.map(|log| log.matches("\"relay runs\"").count()).sum()
}

#[test]
fn a_paused_relay_is_replaced_and_stands_by_when_it_wakes() {
    let pair = pair();
    let owner = pair.relaying();
    let (sleeps, lives) = (&pair.nodes[owner], &pair.nodes[1 - owner]);
    let agent = format!("sleeper-{}", lives.engine.head());
    // in the middle of its work
    send(sleeps, &commands(&format!("{agent}-before"), 500));
    let pid = sleeps.engine.pid("engine");
    signal(pid, "-STOP");
    let begun = Instant::now();
    send(lives, &commands(&agent, 200));
    let mark = lives.engine.head();
    lives.engine.wait_for("relaying", TAKE_OVER_MAX, |status| {
        status["relay"]["state"] == "running" && status["relay"]["position"].as_u64() >= Some(mark)
    });
    say(&format!(
        "pause: relay taken over in {:.1} s",
        begun.elapsed().as_secs_f64()
    ));
    signal(pid, "-CONT");
    // it wakes up while the other is busy
    std::thread::scope(|scope| {
        for (index, node) in pair.nodes.iter().enumerate() {
            let input = commands(&format!("{agent}-{index}"), 1_000);
            scope.spawn(move || send(node, &input));
        }
    });
    pair.check();
    pair.divided();
    let before = takeovers(&pair);
    std::thread::sleep(Duration::from_secs(5));
    pair.divided();
    assert_eq!(takeovers(&pair), before, "they do not throw each other out");
    pair.check();
}

#[test]
fn an_engine_with_another_master_key_does_not_start() {
    let pair = pair();
    let args = &pair.nodes[0].args;
    let stranger = Node {
        engine: Engine::new("stranger"),
        args: args.clone(),
    };
    stranger.try_up().fails(2, "wrong-master-key");
    let missing = Node {
        engine: Engine::new("missing"),
        args: [
            &args[..],
            &["--master-key".to_owned(), "/nowhere/master.key".to_owned()],
        ]
        .concat(),
    };
    missing.try_up().fails(4, "key-missing");
    pair.check();
}

#[test]
fn texts_of_either_engine_are_read_at_both() {
    let pair = pair();
    let agent = format!("reader-{}", pair.nodes[0].engine.head());
    pair.nodes[0]
        .engine
        .send_all(&[register(&agent), thought(&agent, "said at the first")]);
    pair.nodes[1]
        .engine
        .send_all(&[thought(&agent, "said at the second")]);
    for node in &pair.nodes {
        let shown = node
            .engine
            .run(&["log", "--aggregate", &format!("agent/{agent}")])
            .ok();
        for words in ["said at the first", "said at the second"] {
            assert!(shown.stdout.contains(words), "{}", shown.stdout);
        }
    }
}

#[test]
fn the_main_job_on_two_engines_with_one_killed_tells_the_undisturbed_story() {
    let pair = Pair::of("cluster-job", 1);
    let [dies, lives] = &pair.nodes;
    let mut trade = dies
        .engine
        .command(&["trade", &market(), "--quiet"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // the other one never saw the file, and tells how far it is
    lives
        .engine
        .wait_for("a third", Duration::from_secs(240), |status| {
            status["task"]["done"].as_u64() > Some(BARS / 3)
        });
    signal(dies.engine.pid("engine"), "-KILL");
    signal(trade.id(), "-TERM");
    trade.wait().unwrap();
    let report = lives.engine.json(&["trade", &market()]);
    assert_eq!(report["digests_equal"], true);
    dies.up();
    pair.divided();
    pair.check();
    let events = pair.events();
    let undisturbed = undisturbed();
    let (mut found, mut expected) = (BTreeMap::new(), BTreeMap::new());
    for event in &events {
        add(&mut found, event);
    }
    for event in undisturbed.events() {
        add(&mut expected, &event);
    }
    assert_eq!(
        told(&events),
        told(undisturbed.events().iter().map(Arc::as_ref)),
        "as many events"
    );
    assert!(
        found.keys().eq(expected.keys()),
        "the same agents, trades and approvals"
    );
    for (name, story) in &expected {
        assert_eq!(&found[name], story, "{name}");
    }
    let again = dies.engine.run(&["trade", &market()]).ok();
    assert!(
        again.stderr.contains("nothing is done twice"),
        "{}",
        again.stderr
    );
}
