//! The policy that says when humans are asked, adopted while the engine runs.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Engine, small_of_its_own};

fn written(engine: &Engine, name: &str, text: &str) -> String {
    let path = engine.data.join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

const SECOND: &str = r#"version = 2
approval_ttl_s = 60

[[rules]]
name = "coins"
asset = "BTC-USD"
approvals = [{ above = "10", people = 1 }]

[[rules]]
name = "auditors"
department = "auditor"
approvals = []

[[rules]]
name = "everything"
approvals = [{ above = "1000", people = 1 }]
"#;

/// A Green intent, as the guardian finds it.
fn intent(engine: &Engine, id: &str, instrument: &str, department: &str, price: &str) {
    let propose = json!({ "aggregate": "trade", "id": id, "command": "propose",
        "department": department, "data": { "agent_id": "someone", "instrument": instrument,
        "side": "BUY", "quantity": "1", "price": price, "decided_on": "2000-03-01",
        "rationale": "a test" } });
    let green = json!({ "aggregate": "trade", "id": id, "command": "give_verdict",
        "data": { "verdict": "GREEN", "rule": "within_limits", "note": "a test" } });
    engine.send_all(&[propose, green]);
}

fn apply(engine: &Engine, id: &str) -> String {
    let apply = json!({ "aggregate": "trade", "id": id, "command": "apply_policy", "data": {} });
    engine.send_all(&[apply]);
    let events = engine
        .run(&["log", "--json", "--aggregate", &format!("trade/{id}")])
        .ok()
        .lines();
    events.last().unwrap()["event_type"]
        .as_str()
        .unwrap()
        .to_owned()
}

#[test]
fn a_policy_holds_from_the_event_on_that_adopted_it() {
    let engine = small_of_its_own();
    let shown = engine.json(&["policy", "show"]);
    assert_eq!(
        (&shown["version"], &shown["position"]),
        (&json!(1), &Value::Null)
    );
    intent(&engine, "t-before", "BTC-USD", "trader", "500");
    assert_eq!(apply(&engine, "t-before"), "TradeAuthorized");

    let file = written(&engine, "second.toml", SECOND);
    let checked = engine.json(&["policy", "check", &file]);
    assert_eq!(
        (&checked["version"], &checked["rules"]),
        (&json!(2), &json!(3))
    );
    let adopted = engine.json(&["policy", "adopt", &file]);
    assert_eq!(adopted["status"], "accepted");
    let shown = engine.json(&["policy", "show"]);
    assert_eq!(shown["digest"], checked["digest"]);
    assert_eq!(shown["text"], SECOND);
    assert_eq!(shown["adopted_by"], "operator");

    for (id, instrument, department, price, expected) in [
        ("t-coins", "BTC-USD", "trader", "500", "TradeHeld"),
        ("t-few-coins", "BTC-USD", "trader", "10", "TradeAuthorized"),
        ("t-shares", "AAPL", "trader", "500", "TradeAuthorized"),
        ("t-many-shares", "AAPL", "trader", "1000.01", "TradeHeld"),
        ("t-auditor", "AAPL", "auditor", "900000", "TradeAuthorized"),
    ] {
        intent(&engine, id, instrument, department, price);
        assert_eq!(apply(&engine, id), expected, "{id}");
    }
    let authorize =
        |id: &str| json!({ "aggregate": "trade", "id": id, "command": "authorize", "data": {} });
    intent(&engine, "t-direct", "BTC-USD", "trader", "500");
    let (code, outcomes) = engine.send(format!("{}\n", authorize("t-direct")).as_bytes());
    assert_eq!(
        (code, &outcomes[0]["error"]["code"]),
        (4, &json!("approval-required"))
    );

    // whoever starts with an empty memory decides the same
    engine.run(&["down"]).ok();
    engine.up();
    assert_eq!(engine.json(&["policy", "show"])["text"], SECOND);
    intent(&engine, "t-after", "BTC-USD", "trader", "500");
    assert_eq!(apply(&engine, "t-after"), "TradeHeld");
    let events = engine
        .run(&["log", "--json", "--aggregate", "trade/t-after"])
        .ok()
        .lines();
    assert_eq!(
        events.last().unwrap()["data"]["approval_id"],
        "approval_t-after"
    );
    engine.run(&["verify", "--against", "kafka"]).ok();
    let replayed = engine.json(&["replay", "--source", "ledger"]);
    assert!(replayed["digests"]["policy"].is_string(), "{replayed}");
    engine.wait_for("views", Duration::from_secs(30), |status| {
        status["healthy"] == true
    });
}

#[test]
fn a_policy_that_cannot_hold_is_refused_with_its_line() {
    let engine = small_of_its_own();
    let shadowed = SECOND.replace("asset = \"BTC-USD\"\n", "");
    let line = 1 + shadowed
        .lines()
        .position(|l| l.contains("[[rules]]"))
        .unwrap() as u64;
    for (text, at, says) in [
        (SECOND.replace("asset", "colour"), Some(6), "unknown field"),
        (shadowed, Some(line + 4), "never reached"),
        ("x".repeat(100_000), None, "too long"),
    ] {
        let file = written(&engine, "bad.toml", &text);
        for command in ["check", "adopt"] {
            let problem = engine
                .run(&["policy", command, &file, "--json"])
                .fails(2, "invalid-policy");
            assert_eq!(problem["line"].as_u64(), at, "{problem}");
            let message = problem["message"].as_str().unwrap();
            assert!(message.contains(says), "{problem}");
        }
    }
    let third = written(
        &engine,
        "third.toml",
        &SECOND.replace("version = 2", "version = 3"),
    );
    let problem = engine
        .run(&["policy", "adopt", &third, "--json"])
        .fails(2, "invalid-policy");
    assert_eq!(
        (&problem["expected"], &problem["found"]),
        (&json!("2"), &json!("3"))
    );
    let secret = SECOND.replace("coins", "AKIAIOSFODNN7EXAMPLE");
    let file = written(&engine, "secret.toml", &secret);
    let problem = engine
        .run(&["policy", "adopt", &file, "--json"])
        .fails(4, "sensitive-identifier");
    assert!(!problem.to_string().contains("AKIA"), "{problem}");
    assert_eq!(engine.json(&["policy", "show"])["version"], 1);
}
