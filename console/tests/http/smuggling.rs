//! Requests that two readers could understand in two ways, and paths that lead elsewhere.

use std::time::Duration;

use tokio::time::timeout;

use crate::support::{Running, TOKEN, start};

/// The status of each answer that comes back on one connection.
async fn statuses(running: &Running, request: &str) -> Vec<u16> {
    let answer = timeout(Duration::from_secs(10), running.raw(request));
    let answer = answer.await.unwrap_or_default();
    answer
        .match_indices("HTTP/1.1 ")
        .map(|(at, start)| answer[at + start.len()..][..3].parse().unwrap())
        .collect()
}

#[tokio::test]
async fn heads_that_can_be_read_in_two_ways_are_refused() {
    let running = start().await;
    let token = format!("authorization: Bearer {TOKEN}\r\n");
    let get = "GET /api/v1/status HTTP/1.1\r\n";
    let post = "POST /api/v1/commands HTTP/1.1\r\n";
    for (what, request) in [
        (
            "two hosts",
            format!("{get}host: localhost\r\nhost: localhost\r\n{token}connection: close\r\n\r\n"),
        ),
        ("no host", format!("{get}{token}connection: close\r\n\r\n")),
        (
            "obs-fold",
            format!("{get}host: localhost\r\nx: a\r\n b\r\n{token}connection: close\r\n\r\n"),
        ),
        (
            "blank before colon",
            format!("{get}host : localhost\r\n{token}connection: close\r\n\r\n"),
        ),
        (
            "bare carriage return",
            format!("{get}host: localhost\r\nx: a\rb\r\n{token}connection: close\r\n\r\n"),
        ),
        (
            "NUL",
            format!("{get}host: localhost\r\nx: a\0b\r\n{token}connection: close\r\n\r\n"),
        ),
        (
            "two lengths",
            format!(
                "{post}host: localhost\r\n{token}content-length: 2\r\ncontent-length: 3\r\n\r\n{{}}"
            ),
        ),
        (
            "signed length",
            format!("{post}host: localhost\r\n{token}content-length: +2\r\n\r\n{{}}"),
        ),
        (
            "unknown encoding",
            format!("{post}host: localhost\r\n{token}transfer-encoding: cow\r\n\r\n"),
        ),
        (
            "chunked twice",
            format!(
                "{post}host: localhost\r\n{token}transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n"
            ),
        ),
        (
            "bad chunk",
            format!(
                "{post}host: localhost\r\n{token}transfer-encoding: chunked\r\n\r\nzz\r\n{{}}\r\n0\r\n\r\n"
            ),
        ),
        (
            "foreign absolute form",
            format!(
                "GET http://evil.example/api/v1/status HTTP/1.1\r\nhost: localhost\r\n{token}connection: close\r\n\r\n"
            ),
        ),
        (
            "foreign authority",
            format!(
                "GET http://localhost/api/v1/status HTTP/1.1\r\nhost: evil.example\r\n{token}connection: close\r\n\r\n"
            ),
        ),
        (
            "version",
            format!("GET /api/v1/status HTTP/7.3\r\nhost: localhost\r\n{token}\r\n"),
        ),
        (
            "blank in path",
            format!("GET /api/v1/sta tus HTTP/1.1\r\nhost: localhost\r\n{token}\r\n"),
        ),
        (
            "connect",
            format!(
                "CONNECT evil.example:80 HTTP/1.1\r\nhost: localhost\r\n{token}connection: close\r\n\r\n"
            ),
        ),
    ] {
        let found = statuses(&running, &request).await;
        let refused = found.iter().all(|status| (400..500).contains(status));
        assert!(refused && found.len() == 1, "{what}: {found:?}");
    }
    assert!(running.gate.seen().is_empty());
    running.stop().await;
}

#[tokio::test]
async fn what_is_hidden_behind_two_lengths_is_no_request() {
    let running = start().await;
    // RFC 9112, 6.3: chunked counts, and the connection ends, so nothing can follow on it
    for order in [
        "content-length: 60\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 60\r\n",
    ] {
        let request = format!(
            "POST /api/v1/commands HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {TOKEN}\r\n\
             {order}\r\n0\r\n\r\nPOST /api/shutdown HTTP/1.1\r\nhost: localhost\r\n\
             authorization: Bearer {TOKEN}\r\n\r\n"
        );
        let found = statuses(&running, &request).await;
        assert_eq!(found, [400], "the empty command, and nothing more");
    }
    let stopped = running
        .fixed
        .shutdowns
        .load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(stopped, 0);
    running.stop().await;
}

#[tokio::test]
async fn paths_lead_to_routes_and_nowhere_else() {
    let running = start().await;
    for path in [
        "/api/v1/../../etc/passwd",
        "/api/v1/%2e%2e/%2e%2e/etc/passwd",
        "/..%2f..%2fetc%2fpasswd",
        "/api/v1//status",
        "/api/v1/status/",
        "/API/v1/status",
        "/api/v1/approvals/..%2f..%2ftokens",
        "/api/v1/approvals/%00",
        "/api/v1/approvals/%ff",
        "/api/v1/approvals/a;b",
        "/api/v1/status%20",
        "//evil.example/api/v1/status",
    ] {
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {TOKEN}\r\n\
             connection: close\r\n\r\n"
        );
        let found = statuses(&running, &request).await;
        let refused = found.iter().all(|status| (400..500).contains(status));
        assert!(refused && found.len() == 1, "{path}: {found:?}");
    }
    running.stop().await;
}
