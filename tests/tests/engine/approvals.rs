//! Approvals with a passkey in software: from an intent above the limit to its fill, over a kill.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sovereign_passkeys::soft::Soft;
use sovereign_passkeys::{Algorithm, Assertion, Base64Url, Challenge, Terms};
use sovereign_schemas::{Digest, Timestamp};

use crate::harness::{Engine, bar, binary, register, signal};

/// Intents that are granted at once before the engine is killed.
const INTENTS: usize = 6;

fn b64(bytes: Vec<u8>) -> Base64Url {
    bytes.into()
}

pub(crate) fn passkey(name: &str) -> Soft {
    let mut soft = Soft::new(Algorithm::Es256);
    soft.id = name.as_bytes().to_vec();
    soft
}

pub(crate) fn enrol(name: &str, soft: &Soft) -> Value {
    let challenge = Challenge([7; 32]);
    json!({ "aggregate": "approver", "id": name, "command": "enrol", "actor": name, "data": {
        "credential_id": b64(soft.id.clone()), "public_key": b64(soft.cose()),
        "rp_id": soft.party_id, "origin": soft.origin, "aaguid": b64(vec![9; 16]),
        "backup_eligible": false, "sign_count": 0, "label": "test",
        "registration": soft.register(&challenge), "challenge": b64(challenge.0.to_vec()) } })
}

fn propose(trade: &str, agent: &str) -> Value {
    json!({ "aggregate": "trade", "id": trade, "command": "propose", "department": "trader",
        "data": { "agent_id": agent, "instrument": "TEST", "side": "BUY", "quantity": "15",
            "price": "100", "decided_on": "2000-01-02", "rationale": "a test" } })
}

/// What a passkey signs for an approval as the command line shows it.
pub(crate) fn signed(engine: &Engine, approval: &str, soft: &Soft) -> Assertion {
    let row = engine.json(&["approvals", "show", approval]);
    let digest: Digest = row["action_digest"].as_str().unwrap().parse().unwrap();
    let expires: Timestamp = row["expires_at"].as_str().unwrap().parse().unwrap();
    let terms = Terms {
        approval_id: approval,
        action_digest: digest.0,
        policy_version: i32::try_from(row["policy_version"].as_i64().unwrap()).unwrap(),
        expires_at_us: expires.0,
    };
    soft.assert(&terms.challenge())
}

pub(crate) fn give(approval: &str, who: &str, assertion: &Assertion) -> Value {
    json!({ "aggregate": "approval", "id": approval, "command": "give", "actor": who,
        "data": { "assertion": assertion } })
}

fn of_type(engine: &Engine, aggregate: &str, event_type: &str) -> Vec<Value> {
    let lines = engine
        .run(&["log", "--json", "--aggregate", aggregate])
        .ok();
    let all = lines.lines().into_iter();
    all.filter(|e| e["event_type"] == event_type).collect()
}

#[track_caller]
fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < deadline, "{what} does not happen");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// The code of an attempt that is refused and recorded.
#[track_caller]
fn refused(engine: &Engine, command: &Value) -> String {
    let (exit, outcomes) = engine.send(format!("{command}\n").as_bytes());
    assert_eq!((exit, &outcomes[0]["status"]), (4, &json!("refused")));
    assert!(outcomes[0]["positions"].is_array(), "{}", outcomes[0]);
    outcomes[0]["error"]["code"].as_str().unwrap().to_owned()
}

#[test]
fn what_a_passkey_signed_is_done_once_over_a_kill_and_proven_from_a_file() {
    let engine = Engine::with_worker("approvals");
    engine.up();
    let (alice, mallory) = (passkey("alice"), passkey("mallory"));
    let trades: Vec<String> = (0..INTENTS)
        .map(|n| format!("trade_approved_{n}"))
        .collect();
    let approvals: Vec<String> = trades.iter().map(|t| format!("approval_{t}")).collect();
    engine.send_all(&[
        enrol("alice", &alice),
        enrol("mallory", &mallory),
        register("hunter-test"),
        bar("hunter-test", 1),
    ]);
    let proposals = trades.iter().enumerate();
    let proposals: Vec<Value> = proposals
        .map(|(n, t)| propose(t, &format!("agent-{n}")))
        .collect();
    engine.send_all(&proposals);
    until("every request", || {
        let waiting = engine.run(&["approvals", "list", "--json"]).ok().lines();
        waiting.len() >= INTENTS
    });
    let row = engine.json(&["approvals", "show", &approvals[0]]);
    assert_eq!(
        (&row["people_needed"], &row["given_by"]),
        (&json!(1), &json!([]))
    );
    assert_eq!(row["on_behalf_of"], "agent-0");
    let left = row["seconds_left"].as_i64().unwrap();
    assert!((3_000..=3_600).contains(&left), "{row}");

    let own: Vec<Assertion> = approvals
        .iter()
        .map(|a| signed(&engine, a, &alice))
        .collect();
    // another approval's, somebody else's, and nobody's in particular
    let other = give(&approvals[0], "alice", &own[1]);
    assert_eq!(refused(&engine, &other), "approval-terms-mismatch");
    assert_eq!(
        refused(&engine, &give(&approvals[0], "bob", &own[0])),
        "passkey-unknown"
    );
    let authorize = json!({ "aggregate": "trade", "id": trades[0], "command": "authorize",
        "data": {} });
    let (exit, outcomes) = engine.send(format!("{authorize}\n").as_bytes());
    assert_eq!(
        (exit, &outcomes[0]["error"]["code"]),
        (4, &json!("approval-required"))
    );
    let revoke = [
        "approvers",
        "revoke",
        "mallory",
        "bWFsbG9yeQ",
        "--reason",
        "left",
    ];
    engine.run(&revoke).ok();
    let forged = signed(&engine, &approvals[0], &mallory);
    let forged = give(&approvals[0], "mallory", &forged);
    assert_eq!(refused(&engine, &forged), "passkey-revoked");

    let pairs = approvals.iter().zip(&own);
    let gives: Vec<Value> = pairs
        .map(|(a, assertion)| give(a, "alice", assertion))
        .collect();
    engine.send_all(&gives);
    signal(engine.pid("engine"), "-KILL");
    let killed = Timestamp::now().to_string();
    engine.ensure_up();
    for trade in &trades {
        let id = format!("trade/{trade}");
        until("authorization", || {
            !of_type(&engine, &id, "TradeAuthorized").is_empty()
        });
    }
    engine.send_all(&[bar("hunter-test", 2)]);
    let mut after_the_kill = 0;
    for (trade, approval) in trades.iter().zip(&approvals) {
        let id = format!("trade/{trade}");
        until("a fill", || {
            !of_type(&engine, &id, "TradeFilled").is_empty()
        });
        let authorized = of_type(&engine, &id, "TradeAuthorized");
        assert_eq!(authorized.len(), 1, "{trade}");
        assert_eq!(
            authorized[0]["data"]["authority"],
            format!("approval:{approval}")
        );
        assert_eq!(of_type(&engine, &id, "TradeFilled").len(), 1, "{trade}");
        let at = authorized[0]["recorded_at"].as_str().unwrap();
        after_the_kill += usize::from(at > killed.as_str());
    }
    eprintln!("{after_the_kill} of {INTENTS} were granted before the kill and authorized after it");
    let again = give(&approvals[0], "alice", &own[0]);
    assert_eq!(refused(&engine, &again), "approval-replayed");
    engine.settle();
    let row = engine.json(&["approvals", "show", &approvals[0]]);
    assert_eq!(
        (&row["status"], &row["given_by"]),
        (&json!("granted"), &json!(["alice"]))
    );
    assert_eq!(row["attempts_refused"], 4);
    let people = engine.run(&["approvers", "list", "--json"]).ok().lines();
    assert_eq!(
        people[1],
        json!({ "approver": "mallory", "passkeys": 0, "revoked": 1 })
    );
    proven(&engine, &approvals[0]);
}

/// From the file alone: with no engine and, where the machine allows it, with no network at all.
fn proven(engine: &Engine, approval: &str) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("log.avro");
    let name = file.to_str().unwrap();
    engine.run(&["export", name]).ok();
    let alone = |args: &[&str]| {
        let binary = binary();
        let cut_off = ["-r", "-n", binary.to_str().unwrap()];
        let can = Command::new("unshare").args(["-r", "-n", "true"]).status();
        let mut command = if can.is_ok_and(|status| status.success()) {
            let mut command = Command::new("unshare");
            command.args(cut_off);
            command
        } else {
            Command::new(&binary)
        };
        // another data folder, in which nothing is
        let output = command.args(args).arg("--data").arg(folder.path()).output();
        let output = output.unwrap();
        let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        (output.status.code(), report)
    };
    let (code, report) = alone(&[
        "approvals",
        "verify",
        name,
        "--json",
        "--approval",
        approval,
    ]);
    assert_eq!((code, &report["ok"]), (Some(0), &json!(true)), "{report}");
    let proof = &report["approvals"][0];
    assert_eq!(proof["given"][0]["approver"], "alice");
    assert_eq!(proof["action"]["amount"], "1500");
    assert_eq!(proof["policy"]["version"], 1);
    assert!(proof["used"]["position"].is_number(), "{proof}");

    // one byte of an event; trace contexts, which a file holds as well, are in no proof
    let mut bytes = std::fs::read(&file).unwrap();
    let name_of_trade = b"trade_approved_0";
    let mut at = bytes.windows(name_of_trade.len());
    let at = at.rposition(|window| window == name_of_trade).unwrap();
    bytes[at] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let (code, _) = alone(&["approvals", "verify", name, "--json"]);
    assert_eq!(code, Some(3), "a changed byte at {at}");
}
