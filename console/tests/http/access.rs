//! Every role at every route, and tokens that are of no use.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use reqwest::Method;
use serde_json::{Value, json};
use sovereign_console::Role;

use crate::support::{Journal, Running, TOKEN, options, start, start_on};

/// The rights of each role, once more, by hand: docs/API.md.
const RIGHTS: &[(Role, &[&str])] = &[
    (Role::Viewer, &["read"]),
    (Role::Operator, &["read", "command", "operate"]),
    (Role::Approver, &["read", "decide"]),
    (Role::Auditor, &["read", "audit"]),
    (
        Role::Admin,
        &[
            "read",
            "audit",
            "command",
            "decide",
            "operate",
            "administer",
        ],
    ),
    // nobody else acts as an agent, and an agent does nothing else
    (Role::Agent, &["act"]),
    // by an invitation only
    (Role::Invited, &["enrol"]),
];

/// Method, path with its parameters filled in, and the right that the document names.
pub(crate) async fn routes(running: &Running) -> Vec<(Method, String, Option<String>)> {
    let document = running.get("/api/openapi.json").send().await.unwrap();
    let document: Value = document.json().await.unwrap();
    let mut all = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let method: Method = method.to_uppercase().parse().unwrap();
            let path = ["{id}", "{name}", "{trade}", "{task}"]
                .iter()
                .fold(path.clone(), |path, name| path.replace(name, "nothing"));
            let right = operation["x-sovereign-right"].as_str().map(str::to_owned);
            all.push((method, path, right));
        }
    }
    all
}

async fn answer(running: &Running, method: &Method, path: &str, token: &str) -> (u16, Value) {
    let request = running.request(method.as_str(), path).bearer_auth(token);
    let answer = request.send().await.unwrap();
    let status = answer.status().as_u16();
    // a stream has no end; its head is enough
    let is_json = answer.headers().get("content-type");
    let is_json = is_json.is_some_and(|kind| kind.to_str().unwrap().ends_with("json"));
    let one = is_json && status != 204 && !(status == 200 && path == "/api/commands");
    if !one {
        return (status, Value::Null);
    }
    (status, answer.json().await.unwrap())
}

#[tokio::test]
async fn every_role_gets_as_far_as_its_rights_at_every_route() {
    let running = start().await;
    let routes = routes(&running).await;
    let guarded = routes.iter().filter(|(.., right)| right.is_some()).count();
    assert!(guarded >= 20, "{guarded}");
    let mut tried = BTreeMap::new();
    for (role, rights) in RIGHTS {
        let token = match role {
            Role::Invited => running.invite("nina").await,
            Role::Agent => running.agent("agents", &["nothing"]).await,
            role => running.token(*role, role.as_str()).await,
        };
        for (method, path, right) in &routes {
            let (status, body) = answer(&running, method, path, &token).await;
            let may = right.as_deref().is_none_or(|right| rights.contains(&right));
            assert_eq!(
                status != 403,
                may,
                "{role} {method} {path}: {status} {body}"
            );
            assert_ne!(status, 401, "{role} {method} {path}");
            if !may {
                assert_eq!(body["code"], "forbidden", "{role} {method} {path}");
                assert_eq!(body["found"], role.as_str());
            }
            *tried.entry(may).or_insert(0) += 1;
        }
    }
    let stopped = running.fixed.shutdowns.load(Ordering::Relaxed);
    assert_eq!(stopped, 1, "by the admin only");
    assert!(tried[&true] > 60 && tried[&false] > 30, "{tried:?}");
    running.stop().await;
}

#[tokio::test]
async fn nobody_gets_anywhere_without_a_token_that_holds() {
    let journal = Journal::default();
    let tokens = Arc::default();
    let running = start_on(options(), &journal, &tokens).await;
    let revoked = running.token(Role::Admin, "revoked").await;
    let end = running
        .request("DELETE", "/api/v1/tokens/revoked")
        .bearer_auth(TOKEN);
    assert_eq!(end.send().await.unwrap().status(), 200);
    let expired = running.token(Role::Admin, "expired").await;
    running.stop().await;
    for record in tokens.0.lock().unwrap().iter_mut() {
        if record.name.as_str() == "expired" {
            record.expires_at = record.created_at;
        }
    }
    let running = start_on(options(), &journal, &tokens).await;
    let valid = running.token(Role::Admin, "valid").await;
    let forged = format!("svt_{}", "0".repeat(64));
    let cut = &valid[..valid.len() - 1];
    let cases = [
        ("", "missing or wrong"),
        (forged.as_str(), "missing or wrong"),
        (cut, "missing or wrong"),
        (revoked.as_str(), "revoked"),
        (expired.as_str(), "expired"),
    ];
    for (method, path, right) in routes(&running).await {
        for (token, why) in cases {
            let (status, body) = answer(&running, &method, &path, token).await;
            if right.is_none() {
                assert_eq!(status, 200, "{method} {path}");
                continue;
            }
            assert_eq!(status, 401, "{method} {path} {why}");
            assert_eq!(body["code"], "unauthorized", "{method} {path}");
            let message = body["message"].as_str().unwrap();
            assert!(message.contains(why), "{message}");
        }
    }
    assert_eq!(running.fixed.shutdowns.load(Ordering::Relaxed), 0);
    let twice = format!(
        "GET /api/v1/status HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {valid}\r\n\
         authorization: Bearer {valid}\r\nconnection: close\r\n\r\n"
    );
    assert!(running.raw(&twice).await.starts_with("HTTP/1.1 401"));
    let basic = running.get("/api/v1/status").basic_auth("x", Some(&valid));
    assert_eq!(basic.send().await.unwrap().status(), 401);
    running.stop().await;
}

#[tokio::test]
async fn tokens_are_made_listed_and_revoked_and_shown_once() {
    let tokens = Arc::<crate::support::MemoryTokens>::default();
    let running = start_on(options(), &Journal::default(), &tokens).await;
    let secret = running.token(Role::Viewer, "ci").await;
    let stored = serde_json::to_string(&*tokens.0.lock().unwrap()).unwrap();
    assert!(!stored.contains(&secret[4..]));
    let list = running.get("/api/v1/tokens").bearer_auth(TOKEN);
    let list = list.send().await.unwrap().text().await.unwrap();
    assert!(
        !list.contains(&secret[4..]) && !list.contains("hash"),
        "{list}"
    );
    let list: Value = serde_json::from_str(&list).unwrap();
    assert_eq!(list["tokens"][0]["name"], "ci");
    assert_eq!(list["tokens"][0]["state"], "valid");
    let make = async |body: Value| {
        let request = running.post("/api/v1/tokens").bearer_auth(TOKEN);
        let answer = request.json(&body).send().await.unwrap();
        let status = answer.status().as_u16();
        (status, answer.json::<Value>().await.unwrap())
    };
    for (body, status, code) in [
        (
            json!({ "name": "ci", "role": "viewer" }),
            409,
            "already-exists",
        ),
        (
            json!({ "name": "two words", "role": "viewer" }),
            400,
            "invalid-id",
        ),
        (json!({ "name": "x", "role": "root" }), 400, "wrong-type"),
        (json!({ "name": "x" }), 400, "wrong-type"),
        (
            json!({ "name": "x", "role": "viewer", "more": 1 }),
            400,
            "wrong-type",
        ),
        (
            json!({ "name": "x", "role": "viewer", "actor": "sovereign:import" }),
            400,
            "invalid-id",
        ),
        (
            json!({ "name": "x", "role": "viewer", "expires_in_s": 0 }),
            400,
            "invalid-usage",
        ),
    ] {
        let (found, problem) = make(body.clone()).await;
        assert_eq!((found, &problem["code"]), (status, &json!(code)), "{body}");
    }
    let end = async |name: &str| {
        let path = format!("/api/v1/tokens/{name}");
        let request = running.request("DELETE", &path).bearer_auth(TOKEN);
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!(end("ci").await, 200);
    assert_eq!(end("ci").await, 404);
    let look = running.get("/api/v1/status").bearer_auth(&secret);
    assert_eq!(look.send().await.unwrap().status(), 401);
    running.stop().await;
}
