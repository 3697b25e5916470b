//! The pages for people: where they are, and what they may load.

use crate::support::{options, refused, start, start_with};

fn browser() -> reqwest::Client {
    let never = reqwest::redirect::Policy::none();
    let client = reqwest::Client::builder().no_proxy().redirect(never);
    client.build().unwrap()
}

#[tokio::test]
async fn pages_are_open_and_may_load_only_files_of_ours() {
    let running = start().await;
    let host = format!("localhost:{}", running.addr.port());
    for (path, kind) in [
        ("/approvals", "text/html"),
        ("/approvals/enrol", "text/html"),
        ("/pages/app.js", "text/javascript"),
        ("/pages/style.css", "text/css"),
        ("/pages/icon.svg", "image/svg+xml"),
        ("/errors/forbidden", "text/html"),
        ("/errors/forbidden.md", "text/html"),
    ] {
        let answer = running
            .get(path)
            .header("host", &host)
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        let headers = answer.headers();
        let of = |name: &str| headers[name].to_str().unwrap();
        assert!(of("content-type").starts_with(kind), "{path}");
        let policy = of("content-security-policy");
        for part in [
            "default-src 'none'",
            "script-src 'self'",
            "frame-ancestors 'none'",
        ] {
            assert!(policy.contains(part), "{path}: {policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(of("x-content-type-options"), "nosniff");
    }
    for path in [
        "/pages/none.js",
        "/pages/..%2fapp.js",
        "/errors/nothing",
        "/errors/..%2fAPI",
    ] {
        let answer = running.get(path).send().await.unwrap();
        assert_eq!(answer.status(), 404, "{path}");
        assert_eq!(answer.headers()["content-type"], "application/problem+json");
    }
    // what is no page loads nothing
    let answer = running.get("/health").send().await.unwrap();
    let policy = answer.headers()["content-security-policy"]
        .to_str()
        .unwrap();
    assert!(!policy.contains("'self'"), "{policy}");
    running.stop().await;
}

#[tokio::test]
async fn a_browser_is_sent_to_the_name_that_passkeys_belong_to() {
    let running = start().await;
    let port = running.addr.port();
    let browser = browser();
    let answer = browser
        .get(running.url("/approvals/enrol"))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 307);
    let expected = format!("http://localhost:{port}/approvals/enrol");
    assert_eq!(answer.headers()["location"], expected.as_str());
    running.stop().await;

    let mut public = options();
    public.public_url = Some("https://Approvals.example.com/".to_owned());
    let running = start_with(public).await;
    // a proxy calls us by any name of ours
    for host in ["approvals.example.com", "127.0.0.1", "localhost"] {
        let request = browser.get(running.url("/approvals")).header("host", host);
        assert_eq!(request.send().await.unwrap().status(), 200, "{host}");
    }
    let session = running
        .post("/api/v1/session")
        .bearer_auth(crate::support::TOKEN);
    let session = session.header("origin", "https://approvals.example.com");
    let answer = session.send().await.unwrap();
    assert_eq!(answer.status(), 201);
    let cookie = answer.headers()["set-cookie"].to_str().unwrap();
    assert!(cookie.ends_with("; Secure"), "{cookie}");
    let view: serde_json::Value = answer.json().await.unwrap();
    assert_eq!(view["page"], "https://approvals.example.com");
    running.stop().await;
}

#[tokio::test]
async fn a_public_url_that_no_passkey_can_belong_to_is_refused() {
    for url in [
        "http://approvals.example.com",
        "https://10.0.0.1",
        "approvals",
        "https://a.example/x",
    ] {
        let mut public = options();
        public.public_url = Some(url.to_owned());
        let problem = refused(public).await.problem();
        assert_eq!(problem.field.as_deref(), Some("public_url"), "{url}");
        assert_eq!(problem.found.as_deref(), Some(url));
    }
}
