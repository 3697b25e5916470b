//! Redirects are followed within the tool's own base and paths only, and as the same request.

use serde_json::json;
use tokio::io::AsyncWriteExt as _;

use crate::server::{Server, get, post, result, run, word};

/// Redirects `/v1/from` with this status to this location, and answers all else.
async fn redirecting(status: u16, location: &str) -> Server {
    let location = location.to_owned();
    Server::start(move |seen, mut stream| {
        let head = if seen.line().contains(" /v1/from") {
            format!(
                "HTTP/1.1 {status} Elsewhere\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n"
            )
        } else {
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".to_owned()
        };
        async move {
            let _ = stream.write_all(head.as_bytes()).await;
        }
    })
    .await
}

const FOLLOW: &str = "redirects_max = 3\nidempotency_header = \"key\"";

#[tokio::test]
async fn a_redirect_within_the_paths_is_followed_with_the_same_key_and_body() {
    let server = redirecting(307, "/v1/to?a=b").await;
    let outcome = run(&server.live(FOLLOW), post("/v1/from")).await;
    assert_eq!(result(&outcome)["redirects"], json!(1));
    let seen = server.seen();
    assert_eq!(seen[1].line(), "post /v1/to?a=b http/1.1");
    assert_eq!(seen[0].header("key"), seen[1].header("key"));
    assert_eq!((seen.len(), &seen[0].body), (2, &seen[1].body));
    for status in [301, 302, 303, 307, 308] {
        let server = redirecting(status, "to").await;
        assert_eq!(
            word(&run(&server.live(FOLLOW), get("/v1/from")).await),
            "done",
            "{status}"
        );
    }
}

#[tokio::test]
async fn a_redirect_out_of_base_or_paths_is_refused_and_nobody_else_is_asked() {
    let other = Server::saying("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let port = other.address.port();
    for location in [
        format!("http://127.0.0.1:{port}/v1/to"),
        format!("//127.0.0.1:{port}/v1/to"),
        format!("/\\127.0.0.1:{port}/v1/to"),
        format!("http://localhost:{port}/v1/to"),
        "http://10.0.0.1/v1/to".to_owned(),
        "http://169.254.169.254/latest/meta-data".to_owned(),
        "https://127.0.0.1/v1/to".to_owned(),
        "/admin".to_owned(),
        "/v1/../admin".to_owned(),
        "/v1/%2e%2e/admin".to_owned(),
        "../../admin".to_owned(),
        "/v1/a%2f..%2fb".to_owned(),
        "file:///etc/passwd".to_owned(),
        "gopher://127.0.0.1:6379/_FLUSHALL".to_owned(),
    ] {
        let server = redirecting(307, &location).await;
        let live = server.live(FOLLOW);
        let words = (
            word(&run(&live, post("/v1/from")).await),
            word(&run(&live, get("/v1/from")).await),
        );
        let refused = "failed redirect-refused".to_owned();
        assert_eq!(words, (refused.clone(), refused), "{location}");
        assert_eq!(server.seen().len(), 2, "{location}");
    }
    assert!(other.seen().is_empty());
}

#[tokio::test]
async fn a_redirect_after_which_a_post_would_become_a_get_leaves_it_in_doubt() {
    for status in [301, 302, 303] {
        let server = redirecting(status, "/v1/to").await;
        let outcome = run(&server.live(FOLLOW), post("/v1/from")).await;
        assert_eq!(word(&outcome), "in doubt redirect-refused", "{status}");
        assert_eq!(server.seen().len(), 1);
    }
}

#[tokio::test]
async fn only_so_many_redirects_are_followed() {
    let server = redirecting(307, "/v1/from").await;
    assert_eq!(
        word(&run(&server.live(FOLLOW), post("/v1/from")).await),
        "failed redirect-refused"
    );
    assert_eq!(server.seen().len(), 4);
    let server = redirecting(307, "/v1/to").await;
    assert_eq!(
        word(&run(&server.live(""), get("/v1/from")).await),
        "failed redirect-refused"
    );
    assert_eq!(server.seen().len(), 1);
}
