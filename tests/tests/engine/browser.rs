//! The approval page in a real browser: Chromium, with virtual authenticators.
//!
//! `SOVEREIGN_TEST_PICTURES=FOLDER` keeps pictures of the pages.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use sovereign_tests::packages::{bash, node_packages};
use sovereign_tests::root;

use crate::harness::Engine;

/// Two people for one instrument, a limit for one approver, and the shortest life of a request.
const POLICY: &str = r#"version = 2
approval_ttl_s = 60

[[rules]]
name = "pairs"
asset = "PAIR"
approvals = [{ above = "1000", people = 2 }]

[[rules]]
name = "everything-else"
approvals = [{ above = "1000", people = 1 }]

[approvers.anna]

[approvers.bert]
amount_max = "1500"

[approvers.olga]
"#;
/// What a script that hangs is given.
const SCRIPT_LIMIT_S: u32 = 240;

fn chromium() -> &'static str {
    let known = ["chromium", "chromium-browser", "google-chrome"];
    let works = |name: &&&str| {
        let found = Command::new(name).arg("--version").output();
        found.is_ok_and(|output| output.status.success())
    };
    known.iter().find(works).unwrap_or_else(|| {
        panic!("Chromium is missing; install it with: sudo apt-get install -y chromium")
    })
}

fn located(program: &str) -> PathBuf {
    let found = bash(Path::new("/"), &format!("command -v {program}"), 10, &[]);
    PathBuf::from(found.stdout.trim())
}

/// What the script needs to know.
fn plan(engine: &Engine, pictures: &Path) -> PathBuf {
    let status = engine.status();
    let page = status["approvals"]["page"].as_str().unwrap();
    assert_eq!(status["approvals"]["waiting"], 0);
    let mut people = json!({});
    for (name, role) in [
        ("anna", "admin"),
        ("bert", "approver"),
        ("olga", "approver"),
    ] {
        let made = engine.json(&["tokens", "create", name, "--role", role, "--days", "1"]);
        let invited = engine.json(&["approvers", "invite", name]);
        people[name] = json!({ "token": made["token"], "link": invited["link"] });
    }
    let owner = std::fs::read_to_string(engine.data.join("api.token")).unwrap();
    let plan = json!({ "origin": page.strip_suffix("/approvals").unwrap(), "owner": owner.trim(),
        "people": people, "pictures": pictures, "chromium": located(chromium()) });
    let path = engine.data.join("plan.json");
    std::fs::write(&path, plan.to_string()).unwrap();
    path
}

#[test]
fn people_enrol_approve_and_deny_in_a_browser_and_ten_kinds_of_yes_are_refused() {
    let modules = node_packages("browser").join("node_modules");
    let engine = Engine::with_worker("browser");
    engine.up();
    let policy = engine.data.join("policy.toml");
    std::fs::write(&policy, POLICY).unwrap();
    engine
        .run(&["policy", "adopt", policy.to_str().unwrap()])
        .ok();
    let pictures = std::env::var_os("SOVEREIGN_TEST_PICTURES");
    let pictures = pictures.map_or_else(|| engine.data.join("pictures"), PathBuf::from);
    std::fs::create_dir_all(&pictures).unwrap();
    let plan = plan(&engine, &pictures);
    let script = root().join("tests/clients/browser/approvals.js");
    let done = bash(
        &engine.data,
        "node \"$SCRIPT\" \"$PLAN\"",
        SCRIPT_LIMIT_S,
        &[
            ("NODE_PATH", &modules),
            ("SCRIPT", &script),
            ("PLAN", &plan),
        ],
    );
    assert_eq!(done.code, Some(0), "{} {}", done.stdout, done.stderr);
    let said: Value = serde_json::from_str(done.stdout.lines().last().unwrap()).unwrap();
    let refused = &said["refused"];
    for (what, code) in [
        ("changed by a cent", "approval-terms-mismatch"),
        ("replayed", "approval-replayed"),
        ("late", "approval-expired"),
        ("for another action", "approval-terms-mismatch"),
        ("revoked key", "passkey-revoked"),
        ("the requester himself", "self-approval"),
        ("beyond the limit", "approver-limit"),
        ("twice by the same person", "already-approved"),
        ("wrong origin", "wrong-origin"),
        ("unverified user", "user-not-verified"),
    ] {
        assert_eq!(refused[what], code, "{what}: {refused}");
    }
    engine.settle();
    let events_of = |trade: &str| -> Vec<Value> {
        let aggregate = format!("trade/{trade}");
        let log = engine.run(&["log", "--json", "--aggregate", &aggregate]);
        log.ok().lines()
    };
    for (trade, last) in [
        ("yes-1", "TradeFilled"),
        ("no-1", "TradeCancelled"),
        ("pair-1", "TradeAuthorized"),
    ] {
        let events = events_of(trade);
        assert_eq!(events.last().unwrap()["event_type"], last, "{trade}");
    }
    // a yes that was refused let nothing pass
    for (trade, times) in [
        ("yes-1", 1),
        ("pair-1", 1),
        ("one-1", 0),
        ("cent-1", 0),
        ("limit-1", 0),
        ("self-1", 0),
        ("late-1", 0),
    ] {
        let events = events_of(trade);
        let authorized = events
            .iter()
            .filter(|e| e["event_type"] == "TradeAuthorized");
        assert_eq!(authorized.count(), times, "{trade}");
    }
    engine.run(&["verify", "--quiet"]).ok();
}
