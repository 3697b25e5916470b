//! The main job, with the engine killed in the middle of it, five times.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;
use sovereign_aggregates::AnyEvent;
use sovereign_event_store::LedgerReader;
use sovereign_schemas::RecordedEvent;

use crate::contract::all;
use crate::harness::{Engine, binary, signal};
use crate::memory;

const KILLS: u64 = 5;
/// Of each instrument in the vendored file, which `make up` takes whole; one of the five has fewer.
const BARS_EACH: usize = 750;
pub(crate) const BARS: u64 = 4 * BARS_EACH as u64 + 196;

pub(crate) fn market() -> String {
    static FILE: LazyLock<PathBuf> = LazyLock::new(|| {
        // beside the programs of this run, and the same for each
        let path = binary().with_file_name("test-market.csv");
        std::fs::write(&path, memory::short_csv(BARS_EACH)).unwrap();
        path
    });
    FILE.to_str().unwrap().to_owned()
}

/// The same bars, done without a disturbance.
pub(crate) fn undisturbed() -> Arc<memory::Ledger> {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async { memory::run(&memory::market(Some(BARS_EACH))).await })
}

/// An engine that did the main job, and what `trade` said at its end.
struct Job {
    engine: Engine,
    report: Value,
    events: Vec<RecordedEvent>,
}

fn seed() -> u64 {
    let given = std::env::var("SOVEREIGN_TEST_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    given.unwrap_or_else(|| {
        SystemTime::UNIX_EPOCH
            .elapsed()
            .map_or(1, |since| u64::from(since.subsec_micros()) + 1)
    })
}

/// xorshift64*
fn random(state: &mut u64, below: u64) -> u64 {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % below
}

/// Each kill falls into its own sixth of the work, so that all five hit.
fn kill_in_the_middle(engine: &Engine, kill: u64, state: &mut u64) {
    let mut trade = engine
        .command(&["trade", &market(), "--quiet"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let part = BARS / (KILLS + 1);
    let at = kill * part + random(state, part);
    engine.wait_for("that far", Duration::from_secs(240), |status| {
        status["task"]["done"]
            .as_u64()
            .is_some_and(|done| done >= at)
    });
    let pid = engine.pid("engine");
    // anywhere between two looks at the status
    std::thread::sleep(Duration::from_millis(random(state, 150)));
    signal(pid, "-KILL");
    // the command would wait for the next engine and go on; here it dies too
    signal(trade.id(), "-TERM");
    trade.wait().unwrap();
    engine.up();
}

fn job() -> MutexGuard<'static, Job> {
    static JOB: LazyLock<Mutex<Job>> = LazyLock::new(|| {
        let seed = seed();
        // past the test runner, which keeps what it captures unless this very test fails
        let mut stderr = std::io::stderr().lock();
        writeln!(stderr, "SOVEREIGN_TEST_SEED={seed}").unwrap();
        drop(stderr);
        let mut state = seed;
        let engine = Engine::with_worker("job");
        engine.up();
        for kill in 0..KILLS {
            kill_in_the_middle(&engine, kill, &mut state);
        }
        let report = engine.json(&["trade", &market()]);
        engine.settle();
        let status = engine.status();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let events = runtime.block_on(async {
            let reader = LedgerReader::connect(status["database"].as_str().unwrap(), 2).unwrap();
            all(&mut reader.log()).await
        });
        Mutex::new(Job {
            engine,
            report,
            events,
        })
    });
    JOB.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn five_kills_in_the_middle_leave_ledger_and_topics_equal_and_dense() {
    let job = job();
    let head = job.engine.head();
    assert!(head > 12_000, "{head}");
    assert_eq!(job.events.len() as u64, head);
    let dense = job
        .events
        .iter()
        .zip(1..)
        .all(|(event, at)| event.position().0 == at);
    assert!(dense, "each position once");
    let ids: BTreeSet<_> = job.events.iter().map(|e| e.header.event_id).collect();
    assert_eq!(ids.len(), job.events.len(), "each event id once");
    let verified = job.engine.json(&["verify", "--against", "kafka"]);
    assert_eq!(verified["last"], head);
    let verified = job
        .engine
        .json(&["verify", "--source", "kafka", "--against", "ledger"]);
    assert_eq!(verified["last"], head);
    assert_eq!(verified["head"]["hash"], job.engine.status()["head_hash"]);
    assert_eq!(job.report["digests_equal"], true);
}

/// Whether every run has it: what workers do about a job depends on who is killed when.
fn is_told(event: &RecordedEvent) -> bool {
    event.header.aggregate_type != "job"
}

/// How many events every run has.
pub(crate) fn told<'a>(events: impl IntoIterator<Item = &'a RecordedEvent>) -> usize {
    events.into_iter().filter(|e| is_told(e)).count()
}

/// The events of each aggregate in their order, thoughts apart: under retries one may come just
/// before the transition that it was sent with.
pub(crate) type Story = (usize, Vec<(String, u16, Value)>);

pub(crate) fn add(stories: &mut BTreeMap<String, Story>, event: &RecordedEvent) {
    let header = &event.header;
    if !is_told(event) {
        return;
    }
    let key = format!("{}/{}", header.aggregate_type, header.aggregate_id);
    let (thoughts, story) = stories.entry(key).or_default();
    if header.event_type == "ThoughtRecorded" {
        *thoughts += 1;
        return;
    }
    // words are sealed with fresh nonces, the digest of an action covers them, and approvals
    // expire at a moment of their run
    let mut data = AnyEvent::decode(event).unwrap().json(&|_| Value::Null);
    for field in ["action_digest", "expires_at"] {
        data.get_mut(field).map(Value::take);
    }
    story.push((header.event_type.to_string(), header.department.0, data));
}

#[test]
fn a_killed_run_tells_the_stories_of_an_undisturbed_one() {
    let job = job();
    let undisturbed = undisturbed();
    let (mut found, mut expected) = (BTreeMap::new(), BTreeMap::new());
    for event in &job.events {
        add(&mut found, event);
    }
    for event in undisturbed.events() {
        add(&mut expected, &event);
    }
    let expected_events = undisturbed.events();
    assert_eq!(
        told(&job.events),
        told(expected_events.iter().map(Arc::as_ref)),
        "as many events"
    );
    let names: Vec<_> = expected.keys().collect();
    assert_eq!(
        found.keys().collect::<Vec<_>>(),
        names,
        "the same agents, trades and approvals"
    );
    for (name, story) in &expected {
        assert_eq!(&found[name], story, "{name}");
    }
}

#[test]
fn each_order_is_a_job_that_was_carried_out_once_by_a_worker() {
    let job = job();
    let ids = |kind: &str| {
        let of_kind = job.events.iter().filter(|e| e.header.event_type == kind);
        let ids: Vec<_> = of_kind.map(|e| e.header.aggregate_id.as_str()).collect();
        let once: BTreeSet<_> = ids.iter().map(|id| (*id).to_owned()).collect();
        assert_eq!(once.len(), ids.len(), "{kind} once for each");
        once
    };
    let orders = ids("OrderFilled");
    assert!(orders.len() > 40, "{}", orders.len());
    assert_eq!(ids("JobFinished"), orders);
    assert_eq!(ids("JobSubmitted"), orders);
    let filled = ids("TradeFilled")
        .iter()
        .map(|t| format!("order_{t}"))
        .collect();
    assert_eq!(orders, filled);
    let workers = |e: &&RecordedEvent| e.header.event_type == "EffectFinished";
    for event in job.events.iter().filter(workers) {
        assert!(
            event.header.actor.starts_with("worker-"),
            "{}",
            event.header.actor
        );
    }
}

#[test]
fn no_intent_is_doubled() {
    let job = job();
    let proposed: Vec<_> = job
        .events
        .iter()
        .filter(|e| e.header.event_type == "TradeProposed")
        .map(|e| &e.header.aggregate_id)
        .collect();
    let unique: BTreeSet<_> = proposed.iter().collect();
    assert_eq!(unique.len(), proposed.len());
    assert!(proposed.len() > 60, "{}", proposed.len());
    let bars = job
        .events
        .iter()
        .filter(|e| e.header.event_type == "MarketObserved")
        .count();
    assert_eq!(bars as u64, BARS);
}

#[test]
fn views_equal_a_fold_of_the_ledger() {
    let job = job();
    let count = |wanted: &dyn Fn(&RecordedEvent) -> bool| {
        job.events.iter().filter(|e| wanted(e)).count() as u64
    };
    let show = |view: &str| job.engine.run(&["views", "show", view]).ok().lines();

    let departments = show("departments");
    let ids: BTreeSet<_> = job.events.iter().map(|e| e.header.department.0).collect();
    assert_eq!(departments.len(), ids.len());
    for row in &departments {
        let of = |e: &RecordedEvent| u64::from(e.header.department.0) == row["department"];
        assert_eq!(row["events"], count(&of), "{row}");
        for (kind, events) in row["events_by_type"].as_object().unwrap() {
            assert_eq!(
                *events,
                count(&|e| of(e) && e.header.event_type == *kind),
                "{row}"
            );
        }
    }
    let agents = show("agents");
    assert_eq!(
        agents.len() as u64,
        count(&|e| e.header.event_type == "AgentRegistered")
    );
    for row in &agents {
        for (field, kind) in [
            ("thoughts", "ThoughtRecorded"),
            ("observations", "MarketObserved"),
            ("transitions", "StateTransitioned"),
            ("transitions_refused", "TransitionRefused"),
        ] {
            let of = |e: &RecordedEvent| {
                e.header.event_type == kind && e.header.aggregate_id == row["agent_id"]
            };
            assert_eq!(row[field], count(&of), "{field}: {row}");
        }
    }
    let mut last: HashMap<&str, &str> = HashMap::new();
    for event in &job.events {
        last.insert(&event.header.aggregate_id, &event.header.event_type);
    }
    let trades = show("trades");
    assert_eq!(
        trades.len() as u64,
        count(&|e| e.header.event_type == "TradeProposed")
    );
    for row in &trades {
        let expected = match last[row["trade_id"].as_str().unwrap()] {
            "VerdictGiven" => "rejected",
            "TradeHeld" => "held",
            "TradeAuthorized" => "authorized",
            "TradePlaced" => "placed",
            "TradeCancelled" => "cancelled",
            "TradeFilled" => "filled",
            "TradeConcluded" => "concluded",
            other => panic!("{other}: {row}"),
        };
        assert_eq!(row["status"], expected, "{row}");
    }
    let approvals = show("approvals");
    assert_eq!(
        approvals.len() as u64,
        count(&|e| e.header.event_type == "ApprovalRequested")
    );
    let waiting = job
        .engine
        .run(&["approvals", "list", "--json"])
        .ok()
        .lines();
    assert_eq!(
        waiting.len(),
        approvals.len(),
        "nobody has answered, none is due"
    );
}

#[test]
fn a_rebuilt_view_has_the_same_rows() {
    let job = job();
    let show = |view: &str| job.engine.run(&["views", "show", view]).ok().stdout;
    for view in ["trades", "departments"] {
        let before = show(view);
        job.engine.run(&["views", "rebuild", view]).ok();
        // the rows that serve are there all the time, and then they are others
        let deadline = Instant::now() + Duration::from_secs(120);
        loop {
            assert!(show(view) == before, "{view} differs during a rebuild");
            let builds = job.engine.run(&["views", "list", "--json"]).ok().lines();
            let rebuilt =
                |b: &Value| b["view"] == view && b["role"] == "serving" && b["generation"] != 0;
            if builds.iter().any(rebuilt) {
                break;
            }
            assert!(Instant::now() < deadline, "still {builds:?}");
        }
        assert!(show(view) == before, "{view} differs after a rebuild");
    }
}

#[test]
fn digests_are_equal_from_every_source_with_any_threads_and_batches() {
    let job = job();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("job.avro");
    let file = file.to_str().unwrap();
    job.engine.run(&["export", file]).ok();
    job.engine
        .run(&["verify", "--source", file, "--against", "kafka"])
        .ok();
    let digests = |args: &[&str]| {
        let report = job.engine.json(&[&["replay"], args].concat());
        (report["digests"].clone(), report["head"].clone())
    };
    let whole = digests(&["--threads", "1"]);
    assert_eq!(whole.0, job.report["live"]["digests"], "live and replayed");
    for source in ["ledger", "kafka", file] {
        for threads in ["1", "2"] {
            assert_eq!(
                digests(&["--source", source, "--threads", threads]),
                whole,
                "{source}"
            );
        }
    }
    let range = ["--from", "1", "--to", "3000"];
    let part = digests(&range);
    assert_ne!(part, whole);
    for source in ["ledger", "kafka", file] {
        for (threads, batch) in [("1", "1"), ("2", "7"), ("1", "4096"), ("2", "4096")] {
            let how = ["--source", source, "--threads", threads, "--batch", batch];
            assert_eq!(digests(&[&range[..], &how].concat()), part, "{how:?}");
        }
    }
}

#[test]
fn the_same_file_again_does_nothing_twice() {
    let job = job();
    let head = job.engine.head();
    let done = job.engine.run(&["trade", &market()]).ok();
    assert!(
        done.stderr.contains("nothing is done twice"),
        "{}",
        done.stderr
    );
    for heading in [
        "Agents",
        "Trades",
        "Approvals waiting",
        "chain head",
        "equal",
    ] {
        assert!(done.stdout.contains(heading), "{heading}: {}", done.stdout);
    }
    assert_eq!(job.engine.head(), head);
}
