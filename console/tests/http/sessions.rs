//! Sessions of browsers: a cookie that no script reads, and a proof that the page is ours.

use serde_json::{Value, json};
use sovereign_console::Role;

use crate::support::{Running, TOKEN, options, start, start_with};

struct Browser<'a> {
    running: &'a Running,
    cookie: String,
    csrf: String,
}

impl<'a> Browser<'a> {
    async fn log_in(running: &'a Running, token: &str) -> Self {
        let answer = running.post("/api/v1/session").bearer_auth(token);
        let answer = answer.send().await.unwrap();
        assert_eq!(answer.status(), 201);
        let cookie = answer.headers()["set-cookie"].to_str().unwrap();
        for part in [
            "; HttpOnly",
            "; SameSite=Strict",
            "; Path=/",
            "; Max-Age=28",
        ] {
            assert!(cookie.contains(part), "{cookie}");
        }
        let cookie = cookie.split(';').next().unwrap().to_owned();
        let view: Value = answer.json().await.unwrap();
        Self {
            running,
            cookie,
            csrf: view["csrf_token"].as_str().unwrap().to_owned(),
        }
    }

    async fn send(&self, method: &str, path: &str, csrf: Option<&str>) -> (u16, Value) {
        let mut request = self.running.request(method, path);
        request = request.header("cookie", &self.cookie);
        if let Some(csrf) = csrf {
            request = request.header("x-csrf-token", csrf);
        }
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        (status, answer.json().await.unwrap_or_default())
    }
}

#[tokio::test]
async fn a_session_reads_with_its_cookie_and_writes_with_its_proof() {
    let running = start().await;
    let token = running.token(Role::Operator, "olga").await;
    let browser = Browser::log_in(&running, &token).await;
    assert_eq!(browser.send("GET", "/api/v1/status", None).await.0, 200);
    let path = "/api/views/trades/rebuild";
    for csrf in [None, Some(""), Some("0"), Some(&browser.csrf[1..])] {
        let (status, body) = browser.send("POST", path, csrf).await;
        assert_eq!(
            (status, &body["code"]),
            (403, &json!("csrf-failed")),
            "{csrf:?}"
        );
    }
    let (status, _) = browser.send("POST", path, Some(&browser.csrf)).await;
    assert_eq!(status, 202);
    // the role is that of the token
    let (status, body) = browser
        .send("POST", "/api/shutdown", Some(&browser.csrf))
        .await;
    assert_eq!((status, &body["code"]), (403, &json!("forbidden")));
    let (status, view) = browser.send("GET", "/api/v1/session", None).await;
    assert_eq!((status, &view["actor"]), (200, &json!("olga")));
    assert_eq!(view["csrf_token"], browser.csrf.as_str());
    running.stop().await;
}

#[tokio::test]
async fn the_proof_of_another_session_is_none() {
    let running = start().await;
    let one = Browser::log_in(&running, TOKEN).await;
    let other = Browser::log_in(&running, TOKEN).await;
    assert_ne!(one.cookie, other.cookie);
    let (status, _) = one.send("POST", "/api/tasks", Some(&other.csrf)).await;
    assert_eq!(status, 403);
    running.stop().await;
}

#[tokio::test]
async fn a_session_ends_by_itself_by_hand_and_with_its_token() {
    let running = start().await;
    let token = running.token(Role::Viewer, "vera").await;
    let first = Browser::log_in(&running, &token).await;
    let second = Browser::log_in(&running, &token).await;
    let (status, _) = first.send("DELETE", "/api/v1/session", None).await;
    assert_eq!(status, 403, "also for this the page shows its proof");
    let (status, _) = first
        .send("DELETE", "/api/v1/session", Some(&first.csrf))
        .await;
    assert_eq!(status, 204);
    assert_eq!(first.send("GET", "/api/v1/status", None).await.0, 401);
    assert_eq!(second.send("GET", "/api/v1/status", None).await.0, 200);
    let end = running
        .request("DELETE", "/api/v1/tokens/vera")
        .bearer_auth(TOKEN);
    assert_eq!(end.send().await.unwrap().status(), 200);
    assert_eq!(second.send("GET", "/api/v1/status", None).await.0, 401);
    running.stop().await;

    let mut short = options();
    short.session_idle_s = 0;
    let running = start_with(short).await;
    let browser = Browser::log_in(&running, TOKEN).await;
    assert_eq!(browser.send("GET", "/api/v1/status", None).await.0, 401);
    running.stop().await;
}

#[tokio::test]
async fn cookies_that_are_no_session_open_nothing() {
    let running = start().await;
    let good = Browser::log_in(&running, TOKEN).await;
    for cookie in [
        "sovereign_session=".to_owned(),
        format!("sovereign_session={}", "0".repeat(64)),
        format!("{}; {}", good.cookie, good.cookie),
        good.cookie.replace("sovereign", "Sovereign"),
    ] {
        let request = running.get("/api/v1/status").header("cookie", &cookie);
        assert_eq!(request.send().await.unwrap().status(), 401, "{cookie}");
    }
    // a session opens no further ones, else it would never end
    let (status, _) = good.send("POST", "/api/v1/session", Some(&good.csrf)).await;
    assert_eq!(status, 400);
    running.stop().await;
}

#[tokio::test]
async fn beyond_loopback_the_cookie_wants_tls() {
    let mut open = options();
    open.listen = "0.0.0.0:0".parse().unwrap();
    open.allow_non_loopback = true;
    let running = start_with(open).await;
    let url = format!("http://127.0.0.1:{}/api/v1/session", running.addr.port());
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let answer = client.post(url).bearer_auth(TOKEN).send().await.unwrap();
    let cookie = answer.headers()["set-cookie"].to_str().unwrap();
    assert!(cookie.ends_with("; Secure"), "{cookie}");
    running.stop().await;
}
