//! What is sent, what is refused before it is sent, and how many are sent at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use sovereign_schemas::ErrorCode;
use sovereign_sinks::{Live, Secrets, Sink as _};
use tokio::io::AsyncWriteExt as _;
use tokio_util::sync::CancellationToken;

use crate::server::{Server, code, get, live, options, post, request, result, run, word};

const CREATED: &str = "HTTP/1.1 201 Created\r\ncontent-type: application/json\r\nlocation: /v1/orders/1\r\ncontent-length: 8\r\n\r\n{\"id\":1}";

#[tokio::test]
async fn the_effect_id_travels_as_idempotency_key_and_the_answer_is_kept() {
    let server = Server::saying(CREATED).await;
    let live =
        server.live("idempotency_header = \"Idempotency-Key\"\nheaders = { x-team = \"desk 5\" }");
    let effect = json!({"kind": "http", "tool": "t", "method": "POST", "path": "/v1/orders",
        "query": {"a b": "c&d=é"}, "body": {"n": 1}});
    let outcome = run(&live, effect.clone()).await;
    assert_eq!(
        result(&outcome),
        &json!({"status": 201, "content_type": "application/json", "location": "/v1/orders/1",
            "encoding": "json", "body": {"id": 1}})
    );
    let seen = &server.seen()[0];
    assert_eq!(seen.line(), "post /v1/orders?a+b=c%26d%3d%c3%a9 http/1.1");
    assert_eq!(
        seen.header("idempotency-key"),
        Some(request(effect).id.to_string().as_str())
    );
    assert_eq!(
        seen.header("host"),
        Some(server.address.to_string().as_str())
    );
    assert_eq!(seen.header("x-team"), Some("desk 5"));
    assert_eq!(seen.header("content-type"), Some("application/json"));
    assert_eq!(seen.body, br#"{"n":1}"#);
    assert_eq!(seen.header("authorization"), None);
}

#[tokio::test]
async fn what_the_tool_does_not_allow_is_refused_before_anything_is_sent() {
    let server = Server::saying(CREATED).await;
    let live = server.live("request_bytes_max = 20");
    let call = |method: &str, path: &str| json!({"kind": "http", "tool": "t", "method": method, "path": path});
    let large = json!({"kind": "http", "tool": "t", "method": "POST", "path": "/v1", "body": "x".repeat(100)});
    let long = json!({"kind": "http", "tool": "t", "method": "GET", "path": "/v1", "query": {"q": "x".repeat(9_000)}});
    let other = json!({"kind": "http", "tool": "u", "method": "GET", "path": "/v1"});
    for (effect, field) in [
        (call("DELETE", "/v1"), "method"),
        (call("GET", "/v2"), "path"),
        (call("GET", "/v10"), "path"),
        (call("GET", "/"), "path"),
        (large, "body"),
        (long, "query"),
        (other, "tool"),
    ] {
        let outcome = run(&live, effect.clone()).await;
        assert_eq!(word(&outcome), "failed effect-refused", "{effect}");
        assert_eq!(
            outcome.problem().unwrap().field.as_deref(),
            Some(field),
            "{effect}"
        );
    }
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn a_policy_that_is_adopted_later_holds_at_once() {
    let server = Server::saying(CREATED).await;
    let live = live("");
    assert_eq!(
        code(&run(&live, get("/v1")).await),
        ErrorCode::EffectRefused
    );
    live.adopt(options(&server.tool("")).tools);
    assert_eq!(word(&run(&live, get("/v1")).await), "done");
}

#[tokio::test]
async fn a_secret_is_sent_and_never_comes_back() {
    const SECRET: &str = "tok-0123456789abcdef";
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(|seen, mut stream| async move {
        let body = format!(
            "you sent {}",
            seen.header("authorization").unwrap_or("nothing")
        );
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let _ = stream.write_all((head + &body).as_bytes()).await;
    })
    .await;
    let mut with = options(&server.tool("secret = \"orders-key\""));
    with.secrets = Secrets::in_folder(folder.path().to_owned());
    let live = Live::new(with).unwrap();
    let outcome = run(&live, get("/v1")).await;
    assert_eq!(word(&outcome), "failed secret-missing");
    assert!(server.seen().is_empty());

    std::fs::write(folder.path().join("orders-key"), format!("{SECRET}\n")).unwrap();
    let outcome = run(&live, get("/v1")).await;
    assert_eq!(
        server.seen()[0].header("authorization"),
        Some(format!("bearer {SECRET}").as_str())
    );
    assert_eq!(
        result(&outcome)["body"],
        "you sent bearer [SECRET_REDACTED]"
    );
    assert!(!format!("{live:?}").contains(SECRET));
}

#[tokio::test]
async fn only_so_many_calls_run_at_once() {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (running, peak) = (Arc::clone(&now), Arc::clone(&most));
    let server = Server::start(move |_, mut stream| {
        let (running, peak) = (Arc::clone(&running), Arc::clone(&peak));
        async move {
            peak.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(60)).await;
            running.fetch_sub(1, Ordering::SeqCst);
            let _ = stream.write_all(CREATED.as_bytes()).await;
        }
    })
    .await;
    let live = server.live("concurrent_max = 2");
    let calls: Vec<_> = (0..6).map(|_| run(&live, post("/v1"))).collect();
    for outcome in join_all(calls).await {
        assert_eq!(word(&outcome), "done");
    }
    assert_eq!(most.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_turn_that_does_not_come_in_time_certainly_did_nothing() {
    let server = Server::start(|_, stream| async move {
        tokio::time::sleep(Duration::from_secs(10)).await;
        drop(stream);
    })
    .await;
    let live = server.live("concurrent_max = 1\ntime_ms_max = 300");
    let (first, second) = tokio::join!(run(&live, post("/v1")), run(&live, post("/v1")));
    let mut words = [word(&first), word(&second)];
    words.sort();
    assert_eq!(words, ["again busy", "in doubt timed-out"]);
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn what_is_called_off_says_whether_it_may_have_happened() {
    let server = Server::start(|_, stream| async move {
        tokio::time::sleep(Duration::from_secs(10)).await;
        drop(stream);
    })
    .await;
    let live = server.live("");
    let called_off = async |effect: serde_json::Value| {
        let cancel = CancellationToken::new();
        let seen = server.seen().len();
        let wanted = request(effect);
        let call = live.run(&wanted, &cancel);
        let abort = async {
            while server.seen().len() == seen {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            cancel.cancel();
        };
        word(&tokio::join!(call, abort).0)
    };
    let started = Instant::now();
    assert_eq!(called_off(post("/v1")).await, "in doubt called-off");
    assert_eq!(called_off(get("/v1")).await, "cancelled");
    assert!(started.elapsed() < Duration::from_secs(2));
    let cancelled = CancellationToken::new();
    cancelled.cancel();
    let seen = server.seen().len();
    assert_eq!(
        word(&live.run(&request(post("/v1")), &cancelled).await),
        "cancelled"
    );
    assert_eq!(server.seen().len(), seen);
}

#[tokio::test]
async fn a_time_limit_of_the_request_counts_where_it_is_shorter() {
    let server = Server::start(|_, stream| async move {
        tokio::time::sleep(Duration::from_secs(10)).await;
        drop(stream);
    })
    .await;
    let live = server.live("");
    let mut wanted = request(post("/v1"));
    wanted.time_ms_max = Some(100);
    let started = Instant::now();
    let outcome = live.run(&wanted, &CancellationToken::new()).await;
    assert_eq!(word(&outcome), "in doubt timed-out");
    assert!(started.elapsed() < Duration::from_millis(1_500));
}

async fn join_all<F: Future>(calls: Vec<F>) -> Vec<F::Output> {
    let mut calls: Vec<_> = calls.into_iter().map(Box::pin).collect();
    let mut out = Vec::new();
    std::future::poll_fn(|context| {
        calls.retain_mut(|call| match call.as_mut().poll(context) {
            std::task::Poll::Ready(outcome) => {
                out.push(outcome);
                false
            }
            std::task::Poll::Pending => true,
        });
        if calls.is_empty() {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    out
}
