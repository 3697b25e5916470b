//! Agents by HTTP: as whom a token acts, what goes in, and what comes back.

use std::time::Duration;

use futures::StreamExt as _;
use reqwest::Method;
use serde_json::{Value, json};
use sovereign_console::Role;
use tokio::time::timeout;

use crate::support::{Running, TOKEN, start};

/// Every command with its path behind the agent's.
const COMMANDS: &[&str] = &[
    "thoughts",
    "transitions",
    "observations",
    "tasks",
    "tasks/t/finish",
    "intents",
    "intents/t/cancel",
];

struct Agent<'a> {
    running: &'a Running,
    token: String,
    id: &'static str,
}

impl<'a> Agent<'a> {
    async fn of(running: &'a Running, name: &str, id: &'static str) -> Self {
        let token = running.agent(name, &[id]).await;
        Self { running, token, id }
    }

    async fn ask(&self, method: Method, path: &str, body: &[u8], key: &str) -> (u16, Value) {
        let path = format!("/api/v1/agents/{}/{path}", self.id);
        let request = self.running.request(method.as_str(), &path);
        let mut request = request.bearer_auth(&self.token).body(body.to_vec());
        if !key.is_empty() {
            request = request.header("idempotency-key", key);
        }
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        (status, answer.json().await.unwrap())
    }

    async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        self.post_once("", path, body).await
    }

    async fn post_once(&self, key: &str, path: &str, body: &Value) -> (u16, Value) {
        let body = body.to_string();
        self.ask(Method::POST, path, body.as_bytes(), key).await
    }
}

fn lines(running: &Running) -> Vec<Value> {
    running.gate.lines.lock().unwrap().clone()
}

#[tokio::test]
async fn what_an_agent_posts_goes_in_as_a_command_of_itself() {
    let running = start().await;
    let agent = Agent::of(&running, "key-of-scout", "scout").await;
    let intent = json!({ "trade_id": "trade_1", "instrument": "ETH", "side": "BUY",
        "quantity": "1", "price": "900", "decided_on": "2026-02-04", "rationale": "it rises" });
    for (path, body, expected) in [
        (
            "thoughts",
            json!({ "text": "grün ↑ 🚀 \u{0}\"" }),
            json!({ "aggregate": "agent", "id": "scout", "command": "record_thought",
                "data": { "text": "grün ↑ 🚀 \u{0}\"" }, "actor": "scout" }),
        ),
        (
            "transitions",
            json!({ "to": "SCANNING", "reason": "opened" }),
            json!({ "aggregate": "agent", "id": "scout", "command": "transition",
                "data": { "to": "SCANNING", "reason": "opened" }, "actor": "scout" }),
        ),
        (
            "tasks/morning%2Fround/finish",
            json!({}),
            json!({ "aggregate": "agent", "id": "scout", "command": "finish_task",
                "data": { "task": "morning/round" }, "actor": "scout" }),
        ),
        (
            "intents",
            intent,
            json!({ "aggregate": "trade", "id": "trade_1", "command": "propose",
                "data": { "agent_id": "scout", "instrument": "ETH", "side": "BUY",
                    "quantity": "1", "price": "900", "decided_on": "2026-02-04",
                    "rationale": "it rises" }, "actor": "scout" }),
        ),
        (
            "intents/trade_1/cancel",
            json!({ "reason": "too_late" }),
            json!({ "aggregate": "trade", "id": "trade_1", "command": "cancel",
                "data": { "reason": "too_late" }, "actor": "scout" }),
        ),
    ] {
        let (status, outcome) = agent.post(path, &body).await;
        assert_eq!((status, &outcome["status"]), (200, &json!("accepted")));
        assert_eq!(lines(&running).last(), Some(&expected), "{path}");
        let proposed = (path == "intents").then(|| json!("trade_1"));
        assert_eq!(outcome.get("trade_id"), proposed.as_ref(), "{path}");
    }
    // a body cannot say who it is, what it is about, or what it wants
    let (_, _) = agent
        .post(
            "thoughts",
            &json!({ "text": "x", "actor": "other", "id": "other", "command": "register" }),
        )
        .await;
    let last = lines(&running).pop().unwrap();
    assert_eq!(
        (&last["actor"], &last["id"], &last["command"]),
        (&json!("scout"), &json!("scout"), &json!("record_thought"))
    );
    // one that names another agent is not corrected: the door refuses it
    let lie = json!({ "agent_id": "other", "instrument": "ETH" });
    agent.post("intents", &lie).await;
    let last = lines(&running).pop().unwrap();
    assert_eq!(last["data"]["agent_id"], "other");
    assert_eq!(last["actor"], "scout");
    let acted = running.agents.acted.lock().unwrap().clone();
    assert_eq!(acted, ["scout"; 7], "all of it by the agents' own door");
    running.stop().await;
}

#[tokio::test]
async fn a_token_acts_as_the_agents_that_it_names_and_as_no_other() {
    let running = start().await;
    let two = running.agent("two", &["left", "right"]).await;
    let as_whom = async |method: &str, agent: &str, path: &str| {
        let path = format!("/api/v1/agents/{agent}/{path}");
        let request = running.request(method, &path).bearer_auth(&two);
        let answer = request.body("{}").send().await.unwrap();
        let status = answer.status().as_u16();
        let problem = match status {
            200 => Value::Null,
            _ => answer.json::<Value>().await.unwrap(),
        };
        (status, problem)
    };
    let reads = ["decisions", "decisions/stream"].map(|path| ("GET", path));
    let posts = COMMANDS.iter().map(|path| ("POST", *path));
    for (method, path) in posts.chain(reads) {
        for own in ["left", "right"] {
            assert_eq!(as_whom(method, own, path).await.0, 200, "{own} {path}");
        }
        let before = lines(&running).len();
        for other in ["middle", "LEFT", "left%20", "left%2Fright", "leftx"] {
            let (status, problem) = as_whom(method, other, path).await;
            assert_eq!(
                (status, &problem["code"], &problem["expected"]),
                (403, &json!("forbidden"), &json!("left, right")),
                "{other} {path}"
            );
        }
        assert_eq!(lines(&running).len(), before, "nothing went in");
    }
    // nor does anybody act as an agent whose token is not one of an agent
    let admin = running.token(Role::Admin, "left").await;
    for token in [TOKEN, admin.as_str()] {
        let request = running.post("/api/v1/agents/left/thoughts");
        let answer = request.bearer_auth(token).body("{}").send().await.unwrap();
        assert_eq!(answer.status(), 403);
    }
    running.stop().await;
}

#[tokio::test]
async fn what_is_no_body_of_an_agent_goes_no_further() {
    let running = start().await;
    let agent = Agent::of(&running, "key", "scout").await;
    let large = [&b"{\"text\":\""[..], &vec![b'x'; 2 << 20], b"\"}"].concat();
    for path in [
        "thoughts",
        "transitions",
        "observations",
        "tasks",
        "intents",
    ] {
        for (body, status, code) in [
            (&b"{\"text\":"[..], 400, "malformed-json"),
            (b"\xff\xfe", 400, "malformed-json"),
            (b"[]", 400, "wrong-type"),
            (b"\"text\"", 400, "wrong-type"),
            (&large, 413, "payload-too-large"),
        ] {
            let (found, problem) = agent.ask(Method::POST, path, body, "").await;
            assert_eq!((found, &problem["code"]), (status, &json!(code)), "{path}");
            assert_eq!(problem["field"], "body", "{path}");
        }
    }
    let (status, problem) = agent.post("intents", &json!({ "trade_id": 7 })).await;
    assert_eq!((status, &problem["field"]), (400, &json!("trade_id")));
    let request = running.post("/api/v1/agents/scout/thoughts");
    let request = request.bearer_auth(&agent.token).body("text=x");
    let form = request.header("content-type", "application/x-www-form-urlencoded");
    assert_eq!(form.send().await.unwrap().status(), 415);
    let (status, _) = agent
        .post_once(&"k".repeat(201), "thoughts", &json!({}))
        .await;
    assert_eq!(status, 400);
    assert_eq!(lines(&running), [] as [Value; 0]);
    running.stop().await;
}

#[tokio::test]
async fn a_key_stands_for_one_command_of_an_agent_whichever_token_brings_it() {
    let running = start().await;
    let old = Agent::of(&running, "old", "scout").await;
    let new = Agent::of(&running, "new", "scout").await;
    let other = Agent::of(&running, "third", "other").await;
    let intent = json!({ "instrument": "ETH" });
    let (_, first) = old.post_once("k", "intents", &intent).await;
    let (_, again) = new.post_once("k", "intents", &intent).await;
    assert_eq!(first["trade_id"], again["trade_id"]);
    let (_, another) = old.post_once("l", "intents", &intent).await;
    let (_, not_mine) = other.post_once("k", "intents", &intent).await;
    let (_, without) = old.post("intents", &intent).await;
    let (_, without_again) = old.post("intents", &intent).await;
    let ids: std::collections::BTreeSet<String> =
        [&first, &another, &not_mine, &without, &without_again]
            .map(|answer| answer["trade_id"].to_string())
            .into();
    assert_eq!(ids.len(), 5, "{ids:?}");
    let sent = lines(&running);
    assert_eq!(sent[0]["command_id"], sent[1]["command_id"]);
    assert_ne!(sent[0]["command_id"], sent[2]["command_id"]);
    assert_ne!(sent[0]["command_id"], sent[3]["command_id"]);
    assert_eq!(sent[4].get("command_id"), None);
    // for another command, or in the other order of things, it is used up
    for (path, body) in [
        ("intents", json!({ "instrument": "BTC" })),
        ("thoughts", json!({ "text": "x" })),
    ] {
        let (status, problem) = old.post_once("k", path, &body).await;
        assert_eq!(
            (status, &problem["code"]),
            (422, &json!("idempotency-key-reused"))
        );
    }
    // a person of that name means something else by the same key
    let person = running.token(Role::Operator, "scout").await;
    let request = running.post("/api/v1/commands").bearer_auth(person);
    let request = request
        .header("idempotency-key", "k")
        .json(&json!({ "n": 1 }));
    assert_eq!(request.send().await.unwrap().status(), 200);
    running.stop().await;
}

#[tokio::test]
async fn decisions_are_the_agents_own_in_pages_and_as_they_come() {
    let running = start().await;
    // every third event is this agent's
    let agent = Agent::of(&running, "key", "agent-1").await;
    running.journal.append(10, 1);
    let positions = |page: &Value| -> Vec<u64> {
        let events = page["events"].as_array().unwrap();
        let position = |event: &Value| event["position"].as_u64().unwrap();
        events.iter().map(position).collect()
    };
    let read = async |query: &str| {
        let path = format!("decisions{query}");
        agent.ask(Method::GET, &path, b"", "").await
    };
    let (_, page) = read("?limit=2").await;
    assert_eq!((positions(&page), &page["next"]), (vec![1, 4], &json!(4)));
    let (_, page) = read("?after=4").await;
    assert_eq!((positions(&page), &page["next"]), (vec![7, 10], &json!(10)));
    assert_eq!(page["events"][0]["data"]["text"], "sealed");
    for wrong in [
        "?after=11",
        "?limit=0",
        "?limit=1001",
        "?department=trader",
        "?aggregate=agent/agent-2",
        "?sealed=false",
    ] {
        assert_eq!(read(wrong).await.0, 400, "{wrong}");
    }
    let path = "/api/v1/agents/agent-1/decisions/stream?after=4";
    let request = running.get(path).bearer_auth(&agent.token);
    let request = request.header("last-event-id", "7");
    let mut stream = request.send().await.unwrap().bytes_stream();
    running.journal.append(3, 1);
    let (mut text, mut found) = (String::new(), Vec::new());
    while found.len() < 2 {
        let chunk = timeout(Duration::from_secs(20), stream.next()).await;
        text.push_str(std::str::from_utf8(&chunk.unwrap().unwrap().unwrap()).unwrap());
        let events = text.lines().filter_map(|line| line.strip_prefix("data: "));
        found = events
            .map(|data| serde_json::from_str::<Value>(data).unwrap())
            .map(|event| event["position"].as_u64().unwrap())
            .collect();
    }
    assert_eq!(found, [10, 13]);
    running.stop().await;
}

#[tokio::test]
async fn tokens_of_agents_name_agents_and_others_name_none() {
    let running = start().await;
    let make = async |body: Value| {
        let request = running.post("/api/v1/tokens").bearer_auth(TOKEN);
        let answer = request.json(&body).send().await.unwrap();
        let status = answer.status().as_u16();
        (status, answer.json::<Value>().await.unwrap())
    };
    let many: Vec<String> = (0..65).map(|n| format!("agent-{n}")).collect();
    for (body, field) in [
        (json!({ "name": "x", "role": "agent" }), "agents"),
        (
            json!({ "name": "x", "role": "agent", "agents": [] }),
            "agents",
        ),
        (
            json!({ "name": "x", "role": "agent", "agents": many }),
            "agents",
        ),
        (
            json!({ "name": "x", "role": "agent", "agents": ["two words"] }),
            "agents",
        ),
        (
            json!({ "name": "x", "role": "agent", "agents": ["a"], "actor": "b" }),
            "actor",
        ),
        (
            json!({ "name": "x", "role": "agent", "agents": ["sovereign:import"] }),
            "agents",
        ),
        (
            json!({ "name": "x", "role": "operator", "agents": ["a"] }),
            "agents",
        ),
    ] {
        let (status, problem) = make(body.clone()).await;
        assert_eq!((status, &problem["field"]), (400, &json!(field)), "{body}");
    }
    let wanted = json!({ "name": "x", "role": "agent", "agents": ["b", "a", "b"] });
    let (status, made) = make(wanted).await;
    assert_eq!((status, &made["agents"]), (201, &json!(["a", "b"])));
    let list = running.get("/api/v1/tokens").bearer_auth(TOKEN);
    let list: Value = list.send().await.unwrap().json().await.unwrap();
    assert_eq!(list["tokens"][0]["agents"], json!(["a", "b"]));
    let (_, person) = make(json!({ "name": "y", "role": "viewer" })).await;
    assert_eq!(person.get("agents"), None);
    // it opens no session, and ends at once
    let token = made["token"].as_str().unwrap();
    let session = running.post("/api/v1/session").bearer_auth(token);
    assert_eq!(session.send().await.unwrap().status(), 403);
    let end = running
        .request("DELETE", "/api/v1/tokens/x")
        .bearer_auth(TOKEN);
    assert_eq!(end.send().await.unwrap().status(), 200);
    let request = running.post("/api/v1/agents/a/thoughts").bearer_auth(token);
    assert_eq!(request.body("{}").send().await.unwrap().status(), 401);
    running.stop().await;
}
