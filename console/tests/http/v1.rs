//! Commands, idempotency keys, views and rates.

use std::num::NonZeroU32;
use std::sync::Arc;

use serde_json::{Value, json};
use sovereign_console::Role;
use sovereign_guard::access::Rate;
use sovereign_schemas::Uuid;

use crate::support::{Journal, Running, TOKEN, options, start, start_on, start_with};

async fn send(running: &Running, token: &str, key: Option<&str>, body: &Value) -> (u16, Value) {
    let mut request = running.post("/api/v1/commands").bearer_auth(token);
    if let Some(key) = key {
        request = request.header("idempotency-key", key);
    }
    let answer = request.json(body).send().await.unwrap();
    let status = answer.status().as_u16();
    (status, answer.json().await.unwrap())
}

fn last_line(running: &Running) -> Value {
    running.gate.lines.lock().unwrap().last().unwrap().clone()
}

#[tokio::test]
async fn one_command_is_answered_with_its_outcome() {
    let running = start().await;
    let (status, outcome) = send(&running, TOKEN, None, &json!({ "n": 7 })).await;
    let expected = json!({ "command_id": "7", "status": "accepted", "positions": [7, 7] });
    assert_eq!((status, outcome), (200, expected));
    let (status, outcome) = send(&running, TOKEN, None, &json!({ "duplicate_of": 3 })).await;
    assert_eq!((status, &outcome["status"]), (200, &json!("duplicate")));
    let refused = json!({ "n": 8, "refuse": true });
    let (status, problem) = send(&running, TOKEN, None, &refused).await;
    assert_eq!((status, &problem["code"]), (409, &json!("wrong-state")));
    assert_eq!(problem["type"], "docs/errors/wrong-state.md");
    assert_eq!(problem["outcome"]["status"], "refused");
    assert_eq!(problem["outcome"]["command_id"], "8");
    let (status, problem) = send(&running, TOKEN, None, &json!({ "panic": true })).await;
    assert_eq!((status, &problem["code"]), (500, &json!("internal")));
    for (kind, body, status, code) in [
        ("application/json", &b"{"[..], 400, "malformed-json"),
        ("application/json", b"\xff", 400, "malformed-json"),
        ("application/json", b"", 400, "malformed-json"),
        ("text/plain", b"{}", 415, "invalid-usage"),
        (
            "application/json",
            &[b' '; (2 << 20) + 1],
            413,
            "payload-too-large",
        ),
    ] {
        let request = running.post("/api/v1/commands").bearer_auth(TOKEN);
        let request = request.header("content-type", kind).body(body.to_vec());
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), status, "{code}");
        assert_eq!(answer.json::<Value>().await.unwrap()["code"], code);
    }
    running.stop().await;
}

#[tokio::test]
async fn many_commands_are_answered_line_by_line() {
    let running = start().await;
    let request = running.post("/api/v1/commands").bearer_auth(TOKEN);
    let request = request.header("content-type", "application/x-ndjson");
    let body = "{\"n\":1}\n{\"n\":2,\"refuse\":true}\n\nhello\n{\"n\":5}";
    let answer = request.body(body).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["content-type"], "application/x-ndjson");
    let text = answer.text().await.unwrap();
    let outcomes: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let statuses: Vec<&str> = outcomes
        .iter()
        .map(|o| o["status"].as_str().unwrap())
        .collect();
    assert_eq!(statuses, ["accepted", "refused", "invalid", "accepted"]);
    assert_eq!(outcomes[2]["error"]["line"], 4);
    running.stop().await;
}

#[tokio::test]
async fn a_token_speaks_for_its_actor_only() {
    let running = start().await;
    let olga = running.token(Role::Operator, "olga").await;
    for body in [
        json!({ "n": 1 }),
        json!({ "n": 1, "actor": null }),
        json!({ "n": 1, "actor": "olga" }),
    ] {
        assert_eq!(send(&running, &olga, None, &body).await.0, 200);
        assert_eq!(last_line(&running)["actor"], "olga");
    }
    let (status, problem) = send(&running, &olga, None, &json!({ "actor": "boss" })).await;
    assert_eq!((status, &problem["code"]), (403, &json!("forbidden")));
    assert_eq!(problem["field"], "actor");
    let twice = "{\"actor\":\"olga\",\"actor\":\"boss\"}";
    let request = running.post("/api/v1/commands").bearer_auth(&olga);
    let answer = request.body(twice).send().await.unwrap();
    assert_eq!(
        answer.status(),
        403,
        "the last of two counts, as for the gate"
    );
    for (what, command) in [("approval", "deny"), ("policy", "adopt")] {
        let other = json!({ "aggregate": what, "command": command });
        let (status, problem) = send(&running, &olga, None, &other).await;
        assert_eq!((status, &problem["code"]), (403, &json!("forbidden")));
    }
    let approver = running.token(Role::Approver, "anna").await;
    let adopts = json!({ "aggregate": "policy", "command": "adopt" });
    assert_eq!(send(&running, &approver, None, &adopts).await.0, 403);
    // the owner of the data folder speaks for anybody
    assert_eq!(
        send(&running, TOKEN, None, &json!({ "actor": "boss" }))
            .await
            .0,
        200
    );
    assert_eq!(last_line(&running), json!({ "actor": "boss" }));
    running.stop().await;
}

#[tokio::test]
async fn a_key_stands_for_one_command_of_one_actor() {
    let running = start().await;
    let olga = running.token(Role::Operator, "olga").await;
    let oleg = running.token(Role::Operator, "oleg").await;
    let body = json!({ "n": 1, "data": { "a": 1, "b": 2 } });
    assert_eq!(send(&running, &olga, Some("k"), &body).await.0, 200);
    let first = last_line(&running);
    assert!(first["command_id"].is_string() && first["correlation_id"].is_string());
    let request = running.post("/api/v1/commands").bearer_auth(&olga);
    let reordered = "{\"data\": {\"b\":2,\"a\":1},\n\"n\":1}";
    let request = request.header("idempotency-key", "k").body(reordered);
    assert_eq!(request.send().await.unwrap().status(), 200);
    assert_eq!(last_line(&running), first, "the same command");
    let (status, problem) = send(&running, &olga, Some("k"), &json!({ "n": 2 })).await;
    let expected = (422, &json!("idempotency-key-reused"));
    assert_eq!((status, &problem["code"]), expected);
    for (token, key) in [(&oleg, "k"), (&olga, "l")] {
        assert_eq!(
            send(&running, token, Some(key), &json!({ "n": 2 })).await.0,
            200
        );
        assert_ne!(last_line(&running)["command_id"], first["command_id"]);
    }
    let own = json!({ "n": 1, "command_id": "mine" });
    assert_eq!(send(&running, &olga, Some("m"), &own).await.0, 400);
    for key in ["", " ", &"x".repeat(201), "\u{e9}"] {
        let request = running.post("/api/v1/commands").bearer_auth(&olga);
        let request = request.header("idempotency-key", key.as_bytes()).body("{}");
        assert_eq!(request.send().await.unwrap().status(), 400, "{key:?}");
    }
    running.stop().await;
}

#[tokio::test]
async fn the_ledger_knows_a_key_after_a_restart() {
    let journal = Journal::default();
    let tokens = Arc::default();
    let running = start_on(options(), &journal, &tokens).await;
    let olga = running.token(Role::Operator, "olga").await;
    let correlation = async |running: &Running, body: &Value| {
        send(running, &olga, Some("k"), body).await;
        let id = last_line(running)["correlation_id"].clone();
        id.as_str().unwrap().parse::<Uuid>().unwrap()
    };
    let body = json!({ "duplicate_of": 1 });
    journal.add(correlation(&running, &body).await, 1);
    running.stop().await;
    let running = start_on(options(), &journal, &tokens).await;
    // the gate says that the id took effect; the event at position 1 says which command it was
    let other = json!({ "duplicate_of": 1, "other": true });
    let (status, problem) = send(&running, &olga, Some("k"), &other).await;
    let expected = (422, &json!("idempotency-key-reused"));
    assert_eq!((status, &problem["code"]), expected);
    let (status, outcome) = send(&running, &olga, Some("k"), &body).await;
    assert_eq!((status, &outcome["status"]), (200, &json!("duplicate")));
    running.stop().await;
}

#[tokio::test]
async fn views_are_paged_and_one_approval_is_found() {
    let running = start().await;
    let get = async |path: &str| {
        let answer = running.get(path).bearer_auth(TOKEN).send().await.unwrap();
        let status = answer.status().as_u16();
        (status, answer.json::<Value>().await.unwrap())
    };
    let (_, agents) = get("/api/v1/agents?limit=2").await;
    let expected = json!({ "position": 42, "rows": [{ "id": "a" }, { "id": "b" }], "next": "b" });
    assert_eq!(agents, expected);
    let (_, rest) = get("/api/v1/agents?after=b").await;
    assert_eq!(rest["next"], Value::Null);
    assert_eq!(rest["rows"], json!([{ "id": "c" }]));
    let (_, waiting) = get("/api/v1/approvals").await;
    assert_eq!(waiting["rows"], json!([{ "id": "waits" }]));
    let (_, all) = get("/api/v1/approvals?all=true").await;
    assert_eq!(all["rows"].as_array().unwrap().len(), 2);
    assert_eq!(get("/api/v1/approvals/waits").await.0, 200);
    assert_eq!(get("/api/v1/approvals/nothing").await.0, 404);
    assert_eq!(get("/api/v1/agents?limit=0").await.0, 400);
    assert_eq!(get("/api/v1/agents?after=%00").await.0, 400);
    running.stop().await;
}

#[tokio::test]
async fn a_denial_is_a_command_of_the_approver() {
    let running = start().await;
    let anna = running.token(Role::Approver, "anna").await;
    let deny = |body: Value| {
        let request = running.post("/api/v1/approvals/waits/deny");
        request.bearer_auth(&anna).json(&body).send()
    };
    let answer = deny(json!({ "reason": "too large" })).await.unwrap();
    assert_eq!(answer.status(), 200);
    let expected = json!({ "aggregate": "approval", "id": "waits", "command": "deny",
        "data": { "reason": "too large" }, "actor": "anna" });
    assert_eq!(last_line(&running), expected);
    for body in [json!({}), json!({ "reason": "x", "more": 1 }), json!([])] {
        assert_eq!(deny(body).await.unwrap().status(), 400);
    }
    running.stop().await;
}

#[tokio::test]
async fn an_actor_that_asks_for_too_much_is_told_when_to_come_again() {
    let mut options = options();
    options.actor_rate = Rate {
        per_second: NonZeroU32::MIN,
        burst: NonZeroU32::new(5).unwrap(),
    };
    let running = start_with(options).await;
    let olga = running.token(Role::Operator, "olga").await;
    let oleg = running.token(Role::Operator, "oleg").await;
    // the request and each further line count
    let request = running.post("/api/v1/commands").bearer_auth(&olga);
    let request = request.header("content-type", "application/x-ndjson");
    let answer = request.body("{}\n".repeat(8)).send().await.unwrap();
    let text = answer.text().await.unwrap();
    assert_eq!(text.matches("\"accepted\"").count(), 5, "{text}");
    assert_eq!(text.matches("\"rate-limited\"").count(), 3, "{text}");
    let answer = running.get("/api/v1/status").bearer_auth(&olga);
    let answer = answer.send().await.unwrap();
    assert_eq!(answer.status(), 429);
    assert_eq!(answer.headers()["retry-after"], "1");
    assert_eq!(answer.headers()["content-type"], "application/problem+json");
    assert_eq!(
        answer.json::<Value>().await.unwrap()["code"],
        "rate-limited"
    );
    for token in [oleg.as_str(), TOKEN] {
        let other = running.get("/api/v1/status").bearer_auth(token);
        assert_eq!(other.send().await.unwrap().status(), 200);
    }
    running.stop().await;
}
