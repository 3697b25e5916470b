use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use crate::support::{TOKEN, start};

#[tokio::test]
async fn health_is_200_or_503_and_names_the_part() {
    let running = start().await;
    let answer = running.get("/health").send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let body: Value = answer.json().await.unwrap();
    assert_eq!(body["healthy"], true);
    assert_eq!(body["head"], 42);
    assert_eq!(
        body["parts"]["ledger"],
        json!({ "healthy": true, "detail": {"connections": 4} })
    );

    running.fixed.relay_down.store(true, Ordering::Relaxed);
    let answer = running.get("/health").send().await.unwrap();
    assert_eq!(answer.status(), 503);
    let body: Value = answer.json().await.unwrap();
    assert_eq!(body["healthy"], false);
    assert_eq!(body["parts"]["relay"]["lag"], 7);
    assert_eq!(
        body["parts"]["relay"]["problem"]["code"],
        "broker-unreachable"
    );
    running.stop().await;
}

#[tokio::test]
async fn metrics_mirror_health() {
    let running = start().await;
    let answer = running.get("/metrics").send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert!(
        answer.headers()["content-type"]
            .to_str()
            .unwrap()
            .starts_with("text/plain")
    );
    let text = answer.text().await.unwrap();
    assert!(text.contains("sovereign_head 42"), "{text}");
    assert!(
        text.contains("sovereign_part_lag{part=\"relay\"} 7"),
        "{text}"
    );
    running.stop().await;
}

#[tokio::test]
async fn answers_with_the_token_are_those_of_the_services() {
    let running = start().await;
    let send = async |method: &str, path: &str, body: &'static str| {
        let answer = running
            .request(method, path)
            .bearer_auth(TOKEN)
            .body(body)
            .send();
        let answer = answer.await.unwrap();
        assert_eq!(answer.headers()["cache-control"], "no-store");
        (
            answer.status().as_u16(),
            answer.json::<Value>().await.unwrap(),
        )
    };
    let (status, body) = send("GET", "/api/status", "").await;
    assert_eq!((status, &body["head"]), (200, &json!(42)));
    let (status, body) = send("POST", "/api/tasks", r#"{"file":"stocks.csv"}"#).await;
    assert_eq!((status, &body["file"]), (202, &json!("stocks.csv")));
    let (status, body) = send("POST", "/api/tasks", "").await;
    assert_eq!(
        (status, &body["code"], &body["field"]),
        (400, &"missing-field".into(), &"file".into())
    );
    let (status, body) = send("POST", "/api/tasks", "[]").await;
    assert_eq!((status, &body["code"]), (400, &json!("wrong-type")));
    let (status, body) = send("POST", "/api/tasks", "{").await;
    assert_eq!((status, &body["code"]), (400, &json!("malformed-json")));
    let (status, body) = send("POST", "/api/views/trades/rebuild", "").await;
    assert_eq!((status, &body["view"]), (202, &json!("trades")));
    let (status, body) = send("POST", "/api/views/x%2Fy/rebuild", "").await;
    assert_eq!(
        (status, &body["code"], &body["found"]),
        (404, &"not-found".into(), &"x/y".into())
    );
    let (status, _) = send("POST", "/api/shutdown", "").await;
    assert_eq!(
        (status, running.fixed.shutdowns.load(Ordering::Relaxed)),
        (202, 1)
    );
    running.stop().await;
}

#[tokio::test]
async fn problems_have_code_help_and_retry() {
    let running = start().await;
    let answer = running
        .get("/api/digest")
        .bearer_auth(TOKEN)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 503);
    assert_eq!(answer.headers()["content-type"], "application/problem+json");
    assert_eq!(answer.headers()["retry-after"], "2");
    let body: Value = answer.json().await.unwrap();
    let expected = json!({
        "type": "docs/errors/busy.md",
        "title": "busy",
        "status": 503,
        "detail": "busy: the state is being loaded",
        "code": "busy",
        "message": "the state is being loaded",
        "retry_after_ms": 1500,
        "remedy": "try again after the time that is named",
        "help": "docs/errors/busy.md",
    });
    assert_eq!(body, expected);
    running.stop().await;
}

#[tokio::test]
async fn unknown_routes_and_methods_are_problems() {
    let running = start().await;
    for (method, path, status, code) in [
        ("GET", "/nothing", 404, "not-found"),
        ("GET", "/api/nothing", 404, "not-found"),
        ("GET", "/api/commands", 405, "invalid-usage"),
        ("DELETE", "/health", 405, "invalid-usage"),
    ] {
        let answer = running
            .request(method, path)
            .bearer_auth(TOKEN)
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), status, "{method} {path}");
        assert_eq!(answer.headers()["content-type"], "application/problem+json");
        assert_eq!(
            answer.json::<Value>().await.unwrap()["code"],
            code,
            "{method} {path}"
        );
    }
    let path = "/api/views/%FF/rebuild";
    let answer = running.post(path).bearer_auth(TOKEN).send().await.unwrap();
    assert_eq!(answer.status(), 400);
    assert_eq!(answer.headers()["content-type"], "application/problem+json");
    running.stop().await;
}
