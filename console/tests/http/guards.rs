use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::Value;
use sovereign_schemas::ErrorCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::support::{TOKEN, options, refused, start, start_with};

#[tokio::test]
async fn a_taken_port_is_named() {
    let running = start().await;
    let mut second = options();
    second.listen = running.addr;
    let problem = refused(second).await.problem();
    assert_eq!(problem.code, ErrorCode::PortTaken);
    assert_eq!(problem.found, Some(running.addr.to_string()));
    running.stop().await;
}

#[tokio::test]
async fn other_than_loopback_needs_an_explicit_option() {
    let mut open = options();
    open.listen = "0.0.0.0:0".parse().unwrap();
    assert_eq!(refused(open.clone()).await.code(), ErrorCode::InvalidConfig);
    open.allow_non_loopback = true;
    let running = start_with(open).await;
    let at = |path: &str| format!("http://127.0.0.1:{}{path}", running.addr.port());
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    assert_eq!(
        client.get(at("/health")).send().await.unwrap().status(),
        200
    );
    // there even reading the registry needs the token
    let answer = client.get(at("/subjects")).send().await.unwrap();
    assert_eq!(answer.status(), 401);
    assert_eq!(answer.json::<Value>().await.unwrap()["error_code"], 40101);
    let answer = client
        .get(at("/subjects"))
        .bearer_auth(TOKEN)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    running.stop().await;
}

#[tokio::test]
async fn a_bound_of_zero_is_refused() {
    let mut none = options();
    none.commands_in_flight_max = 0;
    let problem = refused(none).await.problem();
    assert_eq!(problem.field.as_deref(), Some("commands_in_flight_max"));
}

#[tokio::test]
async fn everything_under_api_needs_the_token() {
    let running = start().await;
    for (method, path) in [
        ("GET", "/api/status"),
        ("GET", "/api/digest"),
        ("POST", "/api/commands"),
        ("POST", "/api/tasks"),
        ("POST", "/api/views/trades/rebuild"),
        ("POST", "/api/shutdown"),
    ] {
        let plain = running.request(method, path).send().await.unwrap();
        let wrong = running
            .request(method, path)
            .bearer_auth("0".repeat(32))
            .send()
            .await
            .unwrap();
        for answer in [plain, wrong] {
            assert_eq!(answer.status(), 401, "{path}");
            assert_eq!(answer.headers()["www-authenticate"], "Bearer");
            assert_eq!(
                answer.json::<Value>().await.unwrap()["code"],
                "unauthorized"
            );
        }
    }
    assert_eq!(running.fixed.shutdowns.load(Ordering::Relaxed), 0);
    running.stop().await;
}

#[tokio::test]
async fn foreign_names_and_pages_are_refused() {
    let running = start().await;
    let get =
        |host: &str| format!("GET /health HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    assert!(
        running
            .raw(&get("localhost:1"))
            .await
            .starts_with("HTTP/1.1 200")
    );
    assert!(
        running
            .raw(&get("evil.example"))
            .await
            .starts_with("HTTP/1.1 403")
    );
    let none = "GET /health HTTP/1.1\r\nconnection: close\r\n\r\n";
    assert!(running.raw(none).await.starts_with("HTTP/1.1 403"));
    let absolute = "GET http://evil.example/health HTTP/1.1\r\nhost: localhost\r\n\
                    connection: close\r\n\r\n";
    assert!(running.raw(absolute).await.starts_with("HTTP/1.1 403"));
    let foreign = running.post("/api/shutdown").bearer_auth(TOKEN);
    let answer = foreign
        .header("origin", "http://evil.example")
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 403);
    assert_eq!(running.fixed.shutdowns.load(Ordering::Relaxed), 0);
    running.stop().await;
}

#[tokio::test]
async fn every_answer_has_the_security_headers() {
    let running = start().await;
    for path in [
        "/health",
        "/metrics",
        "/api/status",
        "/nothing",
        "/subjects",
    ] {
        let answer = running.get(path).send().await.unwrap();
        let headers = answer.headers();
        let policy = headers["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'"), "{path}");
        assert_eq!(headers["x-content-type-options"], "nosniff", "{path}");
    }
    running.stop().await;
}

#[tokio::test]
async fn a_panic_is_a_problem_and_the_server_goes_on() {
    let running = start().await;
    running.fixed.panics.store(true, Ordering::Relaxed);
    let answer = running
        .get("/api/status")
        .bearer_auth(TOKEN)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 500);
    assert_eq!(answer.headers()["x-content-type-options"], "nosniff");
    assert_eq!(answer.json::<Value>().await.unwrap()["code"], "internal");
    running.fixed.panics.store(false, Ordering::Relaxed);
    let answer = running
        .get("/api/status")
        .bearer_auth(TOKEN)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    running.stop().await;
}

#[tokio::test]
async fn slow_answers_and_slow_bodies_are_ended() {
    let mut options = options();
    options.request_timeout_ms = 100;
    let running = start_with(options).await;
    running.fixed.hangs.store(true, Ordering::Relaxed);
    let answer = running
        .get("/api/status")
        .bearer_auth(TOKEN)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 504);
    assert_eq!(answer.json::<Value>().await.unwrap()["code"], "timed-out");
    let slow = format!(
        "POST /api/tasks HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {TOKEN}\r\n\
         content-length: 100\r\n\r\n{{"
    );
    let answer = timeout(Duration::from_secs(5), running.raw(&slow))
        .await
        .unwrap();
    assert!(answer.starts_with("HTTP/1.1 504"), "{answer}");
    running.stop().await;
}

#[tokio::test]
async fn slow_and_large_heads_are_ended() {
    let mut options = options();
    options.header_timeout_ms = 200;
    let running = start_with(options).await;
    for start in ["", "GET /health HTTP/1.1\r\nhost: lo"] {
        let answer = timeout(Duration::from_secs(5), running.raw(start))
            .await
            .unwrap();
        assert!(!answer.contains("200 OK"));
    }
    let large = format!(
        "GET /health HTTP/1.1\r\nhost: localhost\r\nx: {}\r\n",
        "a".repeat(70_000)
    );
    let answer = timeout(Duration::from_secs(5), running.raw(&large))
        .await
        .unwrap();
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 431"),
        "{answer}"
    );
    assert_eq!(running.get("/health").send().await.unwrap().status(), 200);
    running.stop().await;
}

#[tokio::test]
async fn bodies_above_the_limit_are_refused() {
    let running = start().await;
    let large = "a".repeat((2 << 20) + 1);
    let answer = running
        .post("/api/tasks")
        .bearer_auth(TOKEN)
        .body(large.clone());
    let answer = answer.send().await.unwrap();
    assert_eq!(answer.status(), 413);
    assert_eq!(
        answer.json::<Value>().await.unwrap()["code"],
        "payload-too-large"
    );
    let answer = running
        .post("/subjects/a/versions")
        .body(large)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 413);
    assert_eq!(answer.json::<Value>().await.unwrap()["error_code"], 413);
    running.stop().await;
}

#[tokio::test]
async fn one_connection_more_than_allowed_waits_for_its_turn() {
    let mut options = options();
    options.connections_max = 1;
    let running = start_with(options).await;
    let request = "GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let mut first = TcpStream::connect(running.addr).await.unwrap();
    first.write_all(request.as_bytes()).await.unwrap();
    let mut start = [0; 12];
    first.read_exact(&mut start).await.unwrap();
    let mut second = TcpStream::connect(running.addr).await.unwrap();
    second.write_all(request.as_bytes()).await.unwrap();
    let waited = timeout(Duration::from_millis(200), second.read_exact(&mut start)).await;
    assert!(waited.is_err());
    drop(first);
    timeout(Duration::from_secs(5), second.read_exact(&mut start))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&start, b"HTTP/1.1 200");
    drop(second);
    running.stop().await;
}

#[tokio::test]
async fn idle_connections_do_not_delay_the_stop() {
    let running = start().await;
    let idle = TcpStream::connect(running.addr).await.unwrap();
    assert_eq!(running.get("/health").send().await.unwrap().status(), 200);
    let began = Instant::now();
    running.stop().await;
    // a connection at work would be waited for 5 s
    assert!(
        began.elapsed() < Duration::from_secs(4),
        "{:?}",
        began.elapsed()
    );
    drop(idle);
}
