//! Jobs with an amount: people approve with a passkey that one runs, starts at once, or is given up.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::approvals::{enrol, give, passkey, signed};
use crate::harness::Engine;

#[track_caller]
fn until(engine: &Engine, job: &str, status: &str) -> Value {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let found = engine.json(&["jobs", "show", job]);
        if found["status"] == status {
            return found;
        }
        assert!(Instant::now() < deadline, "not {status}: {found}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn submit(engine: &Engine, jobs: &[Value]) {
    let file = engine.data.join("jobs.ndjson");
    let lines: Vec<String> = jobs.iter().map(Value::to_string).collect();
    std::fs::write(&file, lines.join("\n")).unwrap();
    engine.run(&["jobs", "submit", file.to_str().unwrap()]).ok();
}

fn job(id: &str, amount: &str, until: &str) -> Value {
    json!({ "kind": "plan", "id": id, "amount": amount, "currency": "USD",
        "arguments": { "steps": [{ "effect": { "kind": "timer", "until": until } }] } })
}

/// Waits for the request, and lets alice approve it.
fn approve(engine: &Engine, approval: &str, alice: &sovereign_passkeys::soft::Soft) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while engine.run(&["approvals", "show", approval, "--json"]).code != 0 {
        assert!(Instant::now() < deadline, "no request {approval}");
        std::thread::sleep(Duration::from_millis(100));
    }
    engine.send_all(&[give(approval, "alice", &signed(engine, approval, alice))]);
}

#[test]
fn jobs_above_the_limit_run_start_and_end_as_people_approve() {
    let engine = Engine::with_worker("stakes");
    engine.up();
    let alice = passkey("alice");
    engine.send_all(&[enrol("alice", &alice)]);
    let (past, never) = ("2026-01-01T00:00:00Z", "2099-01-01T00:00:00Z");
    // an abort ends a wait
    let long = job("long", "1500", never);
    let mut later = job("later", "2000", past);
    later["run_at"] = json!(never);
    submit(
        &engine,
        &[
            job("small", "1000", past),
            job("large", "1000.01", past),
            job("denied", "5000", past),
            long,
            later,
        ],
    );
    until(&engine, "small", "green");
    for held in ["large", "denied", "long", "later"] {
        let found = until(&engine, held, "held");
        assert_eq!(found["approval_id"], format!("run_{held}"));
    }

    approve(&engine, "run_large", &alice);
    let done = until(&engine, "large", "green");
    assert_eq!(done["authority"], "approval:run_large");
    engine
        .run(&["approvals", "deny", "run_denied", "--reason", "no"])
        .ok();
    assert_eq!(
        until(&engine, "denied", "aborted")["reason"],
        "approval_denied"
    );

    // one that runs is given up only when somebody has approved that, too
    approve(&engine, "run_long", &alice);
    until(&engine, "long", "running");
    let abort = || engine.run(&["jobs", "abort", "long", "--json"]);
    let problem = abort().fails(4, "approval-required");
    assert_eq!(problem["expected"], "abort_long, granted", "{problem}");
    // asked again it is the same request
    assert_eq!(
        abort().fails(4, "approval-required")["expected"],
        problem["expected"]
    );
    until(&engine, "long", "running");
    approve(&engine, "abort_long", &alice);
    let ended = until(&engine, "long", "aborted");
    assert_eq!(ended["reason"], "approved");
    assert_eq!(ended["report"], "0:not_done", "{ended}");

    approve(&engine, "run_later", &alice);
    until(&engine, "later", "queued");
    let force = engine.run(&["jobs", "force-start", "later", "--json"]);
    assert_eq!(
        force.fails(4, "approval-required")["expected"],
        "start_later, granted"
    );
    approve(&engine, "start_later", &alice);
    let done = until(&engine, "later", "green");
    assert_eq!(done["forced_by"], "approval:start_later");
    engine.settle();
    engine
        .run(&["verify", "--against", "kafka", "--quiet"])
        .ok();

    // and anybody can check it, from a file alone
    let file = engine.data.join("stakes.avro");
    let file = file.to_str().unwrap();
    engine.run(&["export", file]).ok();
    let report = engine.json(&["approvals", "verify", file]);
    assert_eq!(report["ok"], true, "{report}");
    let proofs = report["approvals"].as_array().unwrap();
    let proof = |id: &str| proofs.iter().find(|p| p["approval_id"] == id).unwrap();
    assert_eq!(proof("run_large")["action"]["amount"], "1000.01");
    assert_eq!(proof("run_large")["used"]["target_id"], "large");
    assert_eq!(proof("start_later")["given"][0]["approver"], "alice");
}
