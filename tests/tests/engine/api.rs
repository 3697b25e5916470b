//! The HTTP API of the real engine: tokens and roles, keys, pages, streams over restarts.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::Once;
use std::time::Duration;

use futures::StreamExt as _;
use reqwest::Client;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use crate::harness::{Engine, register, signal, small, sturdy, thought};

const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) fn client() -> Client {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| {
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
    Client::builder().no_proxy().build().unwrap()
}

/// Somebody who calls the API.
#[derive(Clone)]
struct Caller {
    base: String,
    token: String,
    client: Client,
}

impl Caller {
    /// A new token of this role; it acts as `name`.
    fn new(engine: &Engine, name: &str, role: &str) -> Self {
        let made = engine.json(&["tokens", "create", name, "--role", role, "--days", "1"]);
        Self {
            base: engine.status()["console"].as_str().unwrap().to_owned(),
            token: made["token"].as_str().unwrap().to_owned(),
            client: client(),
        }
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        let request = self.client.get(format!("{}{path}", self.base));
        let answer = request.bearer_auth(&self.token).send().await.unwrap();
        let status = answer.status().as_u16();
        (status, answer.json().await.unwrap())
    }

    async fn send(&self, key: Option<&str>, command: &Value) -> (u16, Value) {
        let request = self.client.post(format!("{}/api/v1/commands", self.base));
        let mut request = request.bearer_auth(&self.token).json(command);
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        (status, answer.json().await.unwrap())
    }

    /// All events behind `after`, page by page.
    async fn events(&self, query: &str) -> Vec<Value> {
        let (mut after, mut all) = (0, Vec::new());
        loop {
            let path = format!("/api/v1/events?limit=100&after={after}{query}");
            let (status, page) = self.get(&path).await;
            assert_eq!(status, 200, "{page}");
            all.extend(page["events"].as_array().unwrap().iter().cloned());
            after = page["next"].as_u64().unwrap();
            if page["next"] == page["head"] {
                return all;
            }
        }
    }
}

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Runtime::new().unwrap().block_on(work)
}

#[test]
fn tokens_open_what_their_role_may_and_end_when_they_are_revoked() {
    let engine = small();
    let viewer = Caller::new(&engine, "vera", "viewer");
    let operator = Caller::new(&engine, "olga", "operator");
    let path = engine.data.join("tokens.json");
    let stored = std::fs::read_to_string(&path).unwrap();
    assert!(stored.contains("vera") && !stored.contains(&viewer.token[4..]));
    for file in ["tokens.json", "tokens.key"] {
        let mode = std::fs::metadata(engine.data.join(file)).unwrap();
        assert_eq!(mode.permissions().mode() & 0o777, 0o600, "{file}");
    }
    run(async {
        assert_eq!(viewer.get("/api/v1/status").await.0, 200);
        let (status, problem) = viewer.send(None, &register("no")).await;
        assert_eq!((status, &problem["code"]), (403, &json!("forbidden")));
        assert_eq!(operator.get("/api/digest").await.0, 403);
        let (status, outcome) = operator.send(None, &register("made-by-olga")).await;
        assert_eq!(status, 200, "{outcome}");
        let found = viewer.events("&aggregate=agent/made-by-olga").await;
        assert_eq!(found[0]["actor"], "olga");
    });
    let listed = engine.run(&["tokens", "list", "--json"]).ok().lines();
    let names: Vec<_> = listed.iter().map(|t| t["name"].as_str().unwrap()).collect();
    assert!(
        names.contains(&"vera") && names.contains(&"olga"),
        "{names:?}"
    );
    engine.run(&["tokens", "revoke", "vera"]).ok();
    run(async { assert_eq!(viewer.get("/api/v1/status").await.0, 401) });
    engine
        .run(&["tokens", "revoke", "vera", "--json"])
        .fails(4, "not-found");
    let again = ["tokens", "create", "olga", "--role", "viewer", "--json"];
    engine.run(&again).fails(4, "already-exists");
    let unknown = ["tokens", "create", "x", "--role", "root"];
    assert_eq!(engine.run(&unknown).code, 2);
    let printed = engine.run(&["tokens", "create", "printed", "--role", "viewer"]);
    assert!(
        printed.ok().stdout.starts_with("svt_"),
        "only the token on stdout"
    );
}

#[test]
fn pages_of_events_are_what_the_log_prints() {
    let engine = small();
    let auditor = Caller::new(&engine, "anton", "auditor");
    let viewer = Caller::new(&engine, "viktor", "viewer");
    for (caller, sealed) in [(&auditor, &[][..]), (&viewer, &["--sealed"][..])] {
        for (query, filter) in [
            ("", &[][..]),
            ("&department=hunter", &["--department", "hunter"][..]),
            (
                "&aggregate=agent/filler",
                &["--aggregate", "agent/filler"][..],
            ),
        ] {
            let args = [&["log", "--json"], sealed, filter].concat();
            let logged = engine.run(&args).ok().lines();
            let paged = run(caller.events(query));
            assert_eq!(paged.len(), logged.len(), "{query}");
            assert!(paged == logged, "{query}");
        }
    }
    run(async {
        let (status, agents) = viewer.get("/api/v1/agents?limit=1000").await;
        assert_eq!(status, 200);
        let rows = agents["rows"].as_array().unwrap();
        let printed = engine.run(&["agents", "--json"]).ok().lines();
        assert_eq!(rows, &printed);
    });
}

#[test]
fn a_waiting_approval_is_listed_shown_and_denied_once() {
    let engine = small();
    let approver = Caller::new(&engine, "anna", "approver");
    let request = json!({ "aggregate": "approval", "id": "approval_by_hand", "command": "request",
        "data": { "action": "trade", "target_id": "trade_by_hand",
            "action_digest": "ab".repeat(32), "amount": "1500.00", "currency": "USD" } });
    engine.send_all(&[request]);
    engine.settle();
    run(async {
        let (_, waiting) = approver.get("/api/v1/approvals").await;
        let rows = waiting["rows"].as_array().unwrap();
        assert!(
            rows.iter().any(|r| r["approval_id"] == "approval_by_hand"),
            "{waiting}"
        );
        let (status, shown) = approver.get("/api/v1/approvals/approval_by_hand").await;
        assert_eq!((status, &shown["amount"]), (200, &json!("1500")));
        assert_eq!(approver.get("/api/v1/approvals/nothing").await.0, 404);
        let deny = async || {
            let url = format!("{}/api/v1/approvals/approval_by_hand/deny", approver.base);
            let request = approver.client.post(url).bearer_auth(&approver.token);
            let request = request.header("idempotency-key", "deny-it");
            let answer = request.json(&json!({ "reason": "too large" }));
            let answer = answer.send().await.unwrap();
            let status = answer.status().as_u16();
            (status, answer.json::<Value>().await.unwrap())
        };
        let (status, outcome) = deny().await;
        assert_eq!((status, &outcome["status"]), (200, &json!("accepted")));
        let (status, again) = deny().await;
        assert_eq!((status, &again["status"]), (200, &json!("duplicate")));
        assert_eq!(again["positions"], outcome["positions"]);
        let events = approver
            .events("&aggregate=approval/approval_by_hand")
            .await;
        assert_eq!(events.last().unwrap()["actor"], "anna");
    });
}

#[test]
fn a_key_stands_for_its_command_over_a_restart() {
    let engine = sturdy();
    let operator = Caller::new(&engine, "otto", "operator");
    let command = register("keyed");
    let first = run(operator.send(Some("order-17"), &command));
    assert_eq!((first.0, &first.1["status"]), (200, &json!("accepted")));
    let head = engine.head();
    engine.run(&["down"]).ok();
    engine.up();
    // tokens last over it
    run(async {
        let mut other = command.clone();
        other["data"]["role"] = json!("another");
        let (status, problem) = operator.send(Some("order-17"), &other).await;
        let expected = (422, &json!("idempotency-key-reused"));
        assert_eq!((status, &problem["code"]), expected, "{problem}");
        let (status, again) = operator.send(Some("order-17"), &command).await;
        assert_eq!((status, &again["status"]), (200, &json!("duplicate")));
        assert_eq!(again["positions"], first.1["positions"]);
    });
    assert_eq!(engine.head(), head);
}

/// Reads server-sent events until `until`, connecting again as a browser does.
async fn follow(caller: Caller, after: u64, until: u64, seen: mpsc::UnboundedSender<u64>) {
    let mut last = after;
    while last < until {
        let request = caller
            .client
            .get(format!("{}/api/v1/events/stream", caller.base));
        let request = request.header("last-event-id", last.to_string());
        let Ok(mut answer) = request.bearer_auth(&caller.token).send().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        if answer.status() != 200 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        }
        let mut text = String::new();
        while let Ok(Some(chunk)) = answer.chunk().await {
            text.push_str(&String::from_utf8_lossy(&chunk));
            while let Some((frame, rest)) = text.split_once("\n\n") {
                let field = |name| frame.lines().find_map(|l| l.strip_prefix(name));
                if let (Some(id), Some(_)) = (field("id: "), field("data: ")) {
                    last = id.parse().unwrap();
                    seen.send(last).unwrap();
                }
                text = rest.to_owned();
            }
            if last >= until {
                return;
            }
        }
    }
}

/// The same over WebSockets.
async fn follow_socket(caller: Caller, after: u64, until: u64, seen: mpsc::UnboundedSender<u64>) {
    let mut last = after;
    while last < until {
        let base = caller.base.replace("http:", "ws:");
        let url = format!("{base}/api/v1/events/ws?after={last}");
        let mut request = url.into_client_request().unwrap();
        let token = format!("Bearer {}", caller.token).parse().unwrap();
        request.headers_mut().insert("authorization", token);
        let Ok((mut socket, _)) = tokio_tungstenite::connect_async(request).await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        while let Some(Ok(message)) = socket.next().await {
            let Ok(text) = message.to_text() else {
                continue;
            };
            let value: Value = serde_json::from_str(text).unwrap_or_default();
            if let Some(position) = value["event"]["position"].as_u64() {
                last = position;
                seen.send(last).unwrap();
            }
            if last >= until {
                return;
            }
        }
    }
}

#[test]
fn streams_lose_and_double_nothing_over_stops_and_kills() {
    let engine = sturdy();
    let viewer = Caller::new(&engine, "streamer", "viewer");
    let after = engine.head();
    let until = after + 4 * 200;
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (sse, mut sse_seen) = mpsc::unbounded_channel();
    let (ws, mut ws_seen) = mpsc::unbounded_channel();
    let first = runtime.spawn(follow(viewer.clone(), after, until, sse));
    let second = runtime.spawn(follow_socket(viewer, after, until, ws));
    let some: Vec<Value> = (0..200)
        .map(|number| thought("first", &format!("thought {number}")))
        .collect();
    for round in 0..4 {
        engine.send_all(&some);
        match round {
            0 | 2 => {
                engine.run(&["down"]).ok();
                engine.up();
            }
            1 => {
                signal(engine.pid("engine"), "-KILL");
                engine.ensure_up();
            }
            _ => {}
        }
    }
    runtime.block_on(async {
        tokio::time::timeout(PATIENCE, first)
            .await
            .unwrap()
            .unwrap();
        tokio::time::timeout(PATIENCE, second)
            .await
            .unwrap()
            .unwrap();
        for seen in [&mut sse_seen, &mut ws_seen] {
            let mut positions = Vec::new();
            while let Some(position) = seen.recv().await {
                positions.push(position);
            }
            assert_eq!(positions, (after + 1..=until).collect::<Vec<u64>>());
        }
    });
}
