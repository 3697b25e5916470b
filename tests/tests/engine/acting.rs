//! Agents by HTTP against the real engine: one in Python from its first thought to its fill, and
//! those that want more than is theirs.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use reqwest::{Client, RequestBuilder};
use serde_json::{Value, json};

use crate::harness::{Engine, bar, register, thought};

/// An agent from outside.
struct Agent {
    base: String,
    token: String,
    client: Client,
    runtime: tokio::runtime::Runtime,
}

impl Agent {
    /// With a token of this name that acts as these.
    fn new(engine: &Engine, name: &str, agents: &[&str]) -> Self {
        let mut args = vec!["tokens", "create", name, "--role", "agent"];
        args.extend(agents.iter().flat_map(|id| ["--agent", id]));
        let made = engine.json(&args);
        assert_eq!(made["agents"], json!(agents));
        Self {
            base: engine.status()["console"].as_str().unwrap().to_owned(),
            token: made["token"].as_str().unwrap().to_owned(),
            client: crate::api::client(),
            runtime: tokio::runtime::Runtime::new().unwrap(),
        }
    }

    fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let url = format!("{}/api/v1/agents/{path}", self.base);
        self.answer(self.client.post(url).json(body))
    }

    fn answer(&self, request: RequestBuilder) -> (u16, Value) {
        self.runtime.block_on(async {
            let answer = request.bearer_auth(&self.token).send().await.unwrap();
            (answer.status().as_u16(), answer.json().await.unwrap())
        })
    }

    #[track_caller]
    fn does(&self, path: &str, body: &Value) -> Value {
        let (status, outcome) = self.post(path, body);
        assert_eq!(status, 200, "{path}: {outcome}");
        outcome
    }

    #[track_caller]
    fn may_not(&self, path: &str, body: &Value, status: u16, code: &str) -> Value {
        let (found, problem) = self.post(path, body);
        assert_eq!(
            (found, &problem["code"]),
            (status, &json!(code)),
            "{path}: {problem}"
        );
        problem
    }

    fn get(&self, path: &str) -> (u16, Value) {
        self.answer(self.client.get(format!("{}/api/v1/{path}", self.base)))
    }

    /// All that it is told, in small pages.
    fn decisions(&self, id: &str) -> Vec<Value> {
        let (mut after, mut all) = (0, Vec::new());
        loop {
            let path = format!("agents/{id}/decisions?limit=3&after={after}");
            let (status, page) = self.get(&path);
            assert_eq!(status, 200, "{page}");
            all.extend(page["events"].as_array().unwrap().iter().cloned());
            after = page["next"].as_u64().unwrap();
            if page["next"] == page["head"] {
                return all;
            }
        }
    }

    #[track_caller]
    fn until_told(&self, id: &str, event_type: &str) -> Vec<Value> {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let told = self.decisions(id);
            if told.iter().any(|e| e["event_type"] == event_type) {
                return told;
            }
            assert!(Instant::now() < deadline, "no {event_type}: {told:?}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

fn types(events: &[Value]) -> Vec<&str> {
    let types = events.iter();
    types.map(|e| e["event_type"].as_str().unwrap()).collect()
}

fn intent(quantity: &str) -> Value {
    json!({ "instrument": "TEST", "side": "BUY", "quantity": quantity, "price": "100",
        "decided_on": "2000-01-03", "rationale": "it looks cheap" })
}

fn market(engine: &Engine) {
    engine.send_all(&[
        register("hunter-test"),
        bar("hunter-test", 1),
        bar("hunter-test", 2),
    ]);
}

#[test]
fn an_agent_in_python_buys_by_http_and_does_nothing_twice() {
    let engine = Engine::with_worker("buyer");
    engine.up();
    market(&engine);
    engine.send_all(&[register("buyer")]);
    let agent = Agent::new(&engine, "key-of-buyer", &["buyer"]);
    let script = sovereign_tests::root().join("tests/clients/python/buyer.py");
    let start = || {
        Command::new("timeout")
            .args(["120", "/usr/bin/python3"])
            .arg(&script)
            .args([&agent.base, "buyer", "TEST", "100", "2000-01-03"])
            .env("SOVEREIGN_TOKEN", &agent.token)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let expected = [
        "VerdictGiven",
        "TradeAuthorized",
        "ExecutionCleared",
        "StateTransitioned",
        "StateTransitioned",
        "TradePlaced",
        "TradeFilled",
    ];
    let mut buyer = start();
    let lines = BufReader::new(buyer.stdout.take().unwrap()).lines();
    let mut told = Vec::new();
    for line in lines {
        let line: (u64, String) = serde_json::from_str(&line.unwrap()).unwrap();
        told.push(line);
        // it is done with its order: the market goes on
        if told.len() == expected.len() - 2 {
            engine.send_all(&[bar("hunter-test", 3)]);
        }
    }
    assert!(buyer.wait().unwrap().success());
    let kinds: Vec<&str> = told.iter().map(|(_, kind)| kind.as_str()).collect();
    assert_eq!(kinds, expected);
    let before = agent.decisions("buyer");
    let again = start().wait_with_output().unwrap();
    assert!(again.status.success());
    let repeated: Vec<(u64, String)> = String::from_utf8(again.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(repeated, told);
    assert_eq!(agent.decisions("buyer"), before);
    let own = engine
        .run(&["log", "--json", "--aggregate", "agent/buyer"])
        .ok()
        .lines();
    let thoughts = own.iter().filter(|e| e["event_type"] == "ThoughtRecorded");
    let thoughts: Vec<&Value> = thoughts.collect();
    assert_eq!(thoughts.len(), 1);
    assert_eq!(thoughts[0]["actor"], "buyer");
    assert_eq!(
        thoughts[0]["data"]["text"],
        "TEST costs 100 on 2000-01-03, which is cheap"
    );
}

#[test]
fn an_agent_by_http_gets_what_is_its_own_and_meets_the_guards_of_everybody() {
    let engine = Engine::with_worker("acting");
    engine.up();
    market(&engine);
    engine.send_all(&[register("left"), register("right"), register("seller")]);
    let (left, right) = (
        Agent::new(&engine, "key-of-left", &["left", "nobody"]),
        Agent::new(&engine, "key-of-right", &["right"]),
    );
    let start = engine.head();

    // lies
    left.may_not("right/thoughts", &json!({ "text": "x" }), 403, "forbidden");
    let mut lie = intent("1");
    lie["agent_id"] = "right".into();
    let problem = left.may_not("left/intents", &lie, 403, "forbidden");
    assert_eq!(problem["field"], "agent_id");
    let problem = left.may_not("nobody/thoughts", &json!({ "text": "x" }), 404, "not-found");
    let remedy = problem["remedy"].as_str().unwrap();
    assert!(remedy.contains("register"), "{remedy}");
    let mut unregistered = intent("1");
    unregistered["trade_id"] = "trade_of_nobody".into();
    left.may_not("nobody/intents", &unregistered, 404, "not-found");
    assert_eq!(left.get("events").0, 403);
    assert_eq!(left.get("agents").0, 403);
    assert_eq!(left.get("agents/right/decisions").0, 403);
    let all = json!({ "aggregate": "agent", "id": "left", "command": "record_thought",
        "data": { "text": "x" } });
    let url = format!("{}/api/v1/commands", left.base);
    assert_eq!(left.answer(left.client.post(url).json(&all)).0, 403);
    assert_eq!(engine.head(), start, "nothing of it was recorded");

    // garbage and what the guards say, with the fields of the body
    let problem = left.may_not("left/thoughts", &json!({}), 400, "missing-field");
    assert_eq!(problem["field"], "text");
    left.may_not(
        "left/thoughts",
        &json!({ "text": "x", "mood": "good" }),
        400,
        "unknown-field",
    );
    left.may_not(
        "left/transitions",
        &json!({ "to": "FLYING", "reason": "x" }),
        400,
        "wrong-type",
    );
    let secret = format!("sk-{}", "a1B2".repeat(12));
    let text = format!("grün ↑ 🚀, from 203.0.113.7 with {secret}");
    left.does("left/thoughts", &json!({ "text": text }));
    let problem = left.may_not(
        "left/transitions",
        &json!({ "to": "EXECUTING", "reason": "now" }),
        409,
        "illegal-transition",
    );
    assert_eq!(problem["outcome"]["status"], "refused");

    // own intents can be given up, those of others not
    let mut quiet = intent("1");
    quiet["instrument"] = "QUIET".into(); // which nobody watches, so nobody judges it
    let own = left.does("left/intents", &quiet);
    let mut others = intent("1");
    others["agent_id"] = "seller".into();
    engine.send_all(&[
        json!({ "aggregate": "trade", "id": "trade_of_seller", "command": "propose",
            "data": others }),
    ]);
    let reason = json!({ "reason": "too_late" });
    for trade in ["trade_of_seller", "trade_of_none"] {
        let path = format!("left/intents/{trade}/cancel");
        left.may_not(&path, &reason, 403, "forbidden");
    }
    let own_id = own["trade_id"].as_str().unwrap();
    right.may_not(
        &format!("right/intents/{own_id}/cancel"),
        &reason,
        403,
        "forbidden",
    );
    left.does(&format!("left/intents/{own_id}/cancel"), &reason);

    // a large one waits for people, and the agent is told what they said
    let large = left.does("left/intents", &intent("15"));
    let large_id = large["trade_id"].as_str().unwrap();
    left.until_told("left", "ApprovalRequested");
    let approval = format!("approval_{large_id}");
    engine
        .run(&["approvals", "deny", &approval, "--reason", "not today"])
        .ok();
    let deadline = Instant::now() + Duration::from_secs(60);
    let ended = |told: &[Value]| {
        let mut of_large = told.iter().filter(|e| e["aggregate_id"] == large_id);
        of_large
            .next_back()
            .is_some_and(|e| e["event_type"] == "TradeCancelled")
    };
    while !ended(&left.decisions("left")) {
        assert!(Instant::now() < deadline, "not cancelled");
        std::thread::sleep(Duration::from_millis(100));
    }

    // eight equal thoughts: the loop guard, which it cannot undo itself
    for _ in 0..8 {
        left.does("left/thoughts", &json!({ "text": "again and again" }));
    }
    let told = left.until_told("left", "LoopDetected");
    left.may_not(
        "left/transitions",
        &json!({ "to": "IDLE", "reason": "fine" }),
        409,
        "illegal-transition",
    );

    let of = |id: &str| -> Vec<Value> {
        let events = told.iter().filter(|e| e["aggregate_id"] == id);
        events.cloned().collect()
    };
    assert_eq!(
        types(&of(&approval)),
        ["ApprovalRequested", "ApprovalDenied"]
    );
    let trade = of(large_id);
    assert_eq!(
        types(&trade),
        [
            "TradeProposed",
            "VerdictGiven",
            "TradeHeld",
            "TradeCancelled"
        ]
    );
    assert!(
        trade[0]["data"]["rationale"]["key_id"].is_string(),
        "sealed"
    );
    assert_eq!(
        types(&of("left")),
        [
            "AgentRegistered",
            "TransitionRefused",
            "LoopDetected",
            "StateTransitioned"
        ]
    );
    let foreign = ["right", "seller", "hunter-test", "trade_of_seller"];
    assert!(foreign.iter().all(|id| of(id).is_empty()), "{told:?}");
    let positions: Vec<u64> = told
        .iter()
        .map(|e| e["position"].as_u64().unwrap())
        .collect();
    assert!(positions.is_sorted_by(|a, b| a < b), "{positions:?}");
    assert_eq!(types(&right.decisions("right")), ["AgentRegistered"]);

    // what it thought is scrubbed, sealed, and its own
    let log = engine.run(&["log", "--json"]).ok().stdout;
    assert!(!log.contains(&secret) && !log.contains("203.0.113.7"));
    assert!(
        log.contains("grün ↑ 🚀, from [IP_ADDRESS_REDACTED]"),
        "{log}"
    );
    engine.send_all(&[thought("left", "somebody else may still write here")]);
    assert_eq!(engine.run(&["verify", "--quiet"]).code, 0);
}
