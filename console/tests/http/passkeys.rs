//! Invitations, new passkeys, and what a passkey has to sign.

use std::sync::Arc;

use serde_json::{Value, json};
use sovereign_console::Role;
use sovereign_passkeys::Terms;

use crate::support::{
    Journal, MemoryTokens, Running, TERMS, TOKEN, options, registration, start, start_on,
};

/// Sends JSON and returns status and answer.
async fn send(running: &Running, path: &str, token: &str, body: &Value) -> (u16, Value) {
    let request = running.post(path).bearer_auth(token).json(body);
    let answer = request.send().await.unwrap();
    let status = answer.status().as_u16();
    (status, answer.json().await.unwrap())
}

async fn get(running: &Running, path: &str, token: &str) -> (u16, Value) {
    let answer = running.get(path).bearer_auth(token).send().await.unwrap();
    let status = answer.status().as_u16();
    (status, answer.json().await.unwrap())
}

fn origin(running: &Running) -> String {
    format!("http://localhost:{}", running.addr.port())
}

async fn begin(running: &Running, ticket: &str) -> String {
    let path = "/api/v1/enrolment/options";
    let (status, options) = send(running, path, ticket, &json!({})).await;
    assert_eq!(status, 200, "{options}");
    let challenge = options["publicKey"]["challenge"].as_str();
    challenge.unwrap().to_owned()
}

async fn finish(running: &Running, ticket: &str, registration: &Value) -> (u16, Value) {
    let body = json!({ "registration": registration, "label": "laptop" });
    send(running, "/api/v1/enrolment", ticket, &body).await
}

#[tokio::test]
async fn an_invitation_is_good_for_one_passkey_of_the_person_whom_it_names() {
    let running = start().await;
    let ticket = running.invite("nina").await;
    assert!(ticket.starts_with("svi_"), "{ticket}");
    let path = "/api/v1/enrolment/options";
    let (_, options) = send(&running, path, &ticket, &json!({})).await;
    let key = &options["publicKey"];
    assert_eq!(key["rp"]["id"], "localhost");
    assert_eq!(key["user"]["name"], "nina");
    assert_eq!(
        key["authenticatorSelection"]["userVerification"],
        "required"
    );
    let algorithms: Vec<&Value> = key["pubKeyCredParams"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| &p["alg"])
        .collect();
    assert_eq!(algorithms, [-7, -8, -257]);
    let challenge = key["challenge"].as_str().unwrap();
    let made = registration(challenge, &origin(&running), true);
    let (status, outcome) = finish(&running, &ticket, &made).await;
    assert_eq!((status, &outcome["status"]), (200, &json!("accepted")));
    let line = running.gate.lines.lock().unwrap().last().unwrap().clone();
    assert_eq!(line["aggregate"], "approver");
    assert_eq!(
        (&line["id"], &line["actor"]),
        (&json!("nina"), &json!("nina"))
    );
    let data = &line["data"];
    assert_eq!(
        (&data["rp_id"], &data["label"]),
        (&json!("localhost"), &json!("laptop"))
    );
    assert_eq!(
        (&data["origin"], &data["challenge"]),
        (&json!(origin(&running)), &json!(challenge))
    );
    assert_eq!(
        (&data["registration"], &data["sign_count"]),
        (&made, &json!(0))
    );
    for again in [path, "/api/v1/enrolment"] {
        let (status, problem) = send(&running, again, &ticket, &json!({})).await;
        assert_eq!(
            (status, &problem["code"]),
            (401, &json!("unauthorized")),
            "{again}"
        );
        let message = problem["message"].as_str().unwrap();
        assert!(message.contains("used or withdrawn"), "{message}");
    }
    let (_, list) = get(&running, "/api/v1/tokens", TOKEN).await;
    let listed = &list["tokens"][0];
    assert_eq!(
        (&listed["name"], &listed["role"]),
        (&json!("invite:nina"), &json!("invited"))
    );
    running.stop().await;
}

#[tokio::test]
async fn a_new_invitation_takes_the_place_of_the_one_before_and_each_ends_after_a_day() {
    let tokens = Arc::<MemoryTokens>::default();
    let running = start_on(options(), &Journal::default(), &tokens).await;
    let first = running.invite("nina").await;
    let second = running.invite("nina").await;
    let path = "/api/v1/enrolment/options";
    assert_eq!(send(&running, path, &first, &json!({})).await.0, 401);
    assert_eq!(send(&running, path, &second, &json!({})).await.0, 200);
    running.stop().await;
    for record in tokens.0.lock().unwrap().iter_mut() {
        let day_us = record.expires_at.0 - record.created_at.0;
        assert_eq!(day_us, 24 * 3_600 * 1_000_000);
        record.expires_at = record.created_at;
    }
    let running = start_on(options(), &Journal::default(), &tokens).await;
    let (status, problem) = send(&running, path, &second, &json!({})).await;
    assert_eq!(
        (status, &problem["message"]),
        (401, &json!("the invitation has expired"))
    );
    let (status, _) = finish(&running, &second, &json!({})).await;
    assert_eq!(status, 401);
    for (name, status) in [
        ("two%20words", 400),
        ("sovereign:import", 400),
        (&"x".repeat(60), 400),
    ] {
        let path = format!("/api/v1/approvers/{name}/invitation");
        assert_eq!(
            send(&running, &path, TOKEN, &json!({})).await.0,
            status,
            "{name}"
        );
    }
    running.stop().await;
}

#[tokio::test]
async fn a_challenge_is_good_for_one_answer() {
    let running = start().await;
    let page = origin(&running);
    let ticket = running.invite("nina").await;
    let invented = registration("AAAA", &page, true);
    let (status, problem) = finish(&running, &ticket, &invented).await;
    assert_eq!(
        (status, &problem["code"]),
        (409, &json!("challenge-unknown")),
        "none was asked for"
    );
    let old = begin(&running, &ticket).await;
    let new = begin(&running, &ticket).await;
    assert_ne!(old, new);
    let (status, problem) = finish(&running, &ticket, &registration(&old, &page, true)).await;
    assert_eq!(
        (status, &problem["code"]),
        (422, &json!("invalid-registration"))
    );
    let (status, problem) = finish(&running, &ticket, &registration(&new, &page, true)).await;
    let gone = (409, &json!("challenge-unknown"));
    assert_eq!(
        (status, &problem["code"]),
        gone,
        "a wrong answer used it up"
    );
    // a challenge of somebody else is none
    let other = running.invite("otto").await;
    let his = begin(&running, &other).await;
    begin(&running, &ticket).await;
    let (status, _) = finish(&running, &ticket, &registration(&his, &page, true)).await;
    assert_eq!(status, 422);
    assert!(running.gate.lines.lock().unwrap().is_empty());
    let again = begin(&running, &ticket).await;
    let (status, _) = finish(&running, &ticket, &registration(&again, &page, true)).await;
    assert_eq!(status, 200, "the invitation was not used up by failures");
    running.stop().await;
}

#[tokio::test]
async fn registrations_that_prove_nothing_are_refused_and_leave_the_invitation() {
    let running = start().await;
    let page = origin(&running);
    let ticket = running.invite("nina").await;
    let garbage = |name: &'static str, text: &'static str| {
        move |challenge: &str| {
            let mut made = registration(challenge, "http://localhost", true);
            made[name] = text.into();
            made
        }
    };
    type Make<'a> = Box<dyn Fn(&str) -> Value + 'a>;
    let cases: Vec<(&str, u16, &str, Make<'_>)> = vec![
        (
            "origin",
            422,
            "origin",
            Box::new(|c| registration(c, "http://localhost:1", true)),
        ),
        (
            "origin",
            422,
            "origin",
            Box::new(|c| registration(c, "https://evil.example", true)),
        ),
        (
            "user",
            422,
            "verify",
            Box::new(|c| registration(c, &page, false)),
        ),
        (
            "no CBOR",
            422,
            "",
            Box::new(|c| {
                let mut made = registration(c, &page, true);
                made["attestation"] = "____".into();
                made
            }),
        ),
        (
            "no client data",
            422,
            "",
            Box::new(garbage("client_data", "e30")),
        ),
        (
            "no base64",
            400,
            "",
            Box::new(garbage("client_data", "===")),
        ),
        (
            "no field",
            400,
            "",
            Box::new(|_| json!({ "client_data": "e30" })),
        ),
        ("no object", 400, "", Box::new(|_| json!(7))),
    ];
    for (what, expected, word, make) in cases {
        let challenge = begin(&running, &ticket).await;
        let (status, problem) = finish(&running, &ticket, &make(&challenge)).await;
        assert_eq!(status, expected, "{what}: {problem}");
        let code = if status == 422 {
            "invalid-registration"
        } else {
            "wrong-type"
        };
        assert_eq!(problem["code"], code, "{what}");
        assert!(
            problem["message"].as_str().unwrap().contains(word),
            "{what}: {problem}"
        );
    }
    let challenge = begin(&running, &ticket).await;
    let mut large = registration(&challenge, &page, true);
    large["attestation"] = "A".repeat(100_000).into();
    let (status, _) = finish(&running, &ticket, &large).await;
    assert_eq!(status, 422, "longer than any attestation");
    large["attestation"] = "A".repeat(3 << 20).into();
    let (status, problem) = finish(&running, &ticket, &large).await;
    assert_eq!(
        (status, &problem["code"]),
        (413, &json!("payload-too-large"))
    );
    // the page itself stands elsewhere
    let request = running.post("/api/v1/enrolment").bearer_auth(&ticket);
    let request = request
        .header("origin", "https://evil.example")
        .json(&json!({}));
    assert_eq!(request.send().await.unwrap().status(), 403);
    assert!(running.gate.lines.lock().unwrap().is_empty());
    let challenge = begin(&running, &ticket).await;
    let good = registration(&challenge, &page, true);
    assert_eq!(finish(&running, &ticket, &good).await.0, 200);
    running.stop().await;
}

#[tokio::test]
async fn an_approver_is_asked_to_sign_the_terms_with_passkeys_that_hold() {
    let running = start().await;
    let anna = running.token(Role::Approver, "anna").await;
    let nina = running.token(Role::Approver, "nina").await;
    let path = "/api/v1/approvals/waits/options";
    let (status, options) = get(&running, path, &anna).await;
    assert_eq!(status, 200, "{options}");
    let challenge = Terms {
        approval_id: "waits",
        action_digest: TERMS.action_digest.0,
        policy_version: TERMS.policy_version,
        expires_at_us: TERMS.expires_at.0,
    }
    .challenge();
    let key = &options["publicKey"];
    assert_eq!(key["challenge"], challenge.to_string());
    assert_eq!(
        (&key["rpId"], &key["userVerification"]),
        (&json!("localhost"), &json!("required"))
    );
    assert_eq!(
        key["allowCredentials"],
        json!([{ "type": "public-key", "id": "bmV3" }])
    );
    let (status, problem) = get(&running, path, &nina).await;
    assert_eq!(
        (status, &problem["field"]),
        (404, &json!("approver")),
        "no passkey"
    );
    assert_eq!(
        get(&running, path, TOKEN).await.0,
        400,
        "the owner is nobody in particular"
    );
    for id in ["nothing", "two%20words", "%00"] {
        let path = format!("/api/v1/approvals/{id}/options");
        assert_eq!(get(&running, &path, &anna).await.0, 404, "{id}");
    }
    let auditor = running.token(Role::Auditor, "anton").await;
    let viewer = running.token(Role::Viewer, "vera").await;
    for (token, query, text) in [
        (&viewer, "", "sealed"),
        // who is asked to approve has to know what
        (&anna, "", "revealed"),
        (&auditor, "", "revealed"),
        (&auditor, "?sealed=true", "sealed"),
    ] {
        let path = format!("/api/v1/approvals/waits/details{query}");
        let (_, details) = get(&running, &path, token).await;
        assert_eq!(details["action"]["text"], text);
    }
    running.stop().await;
}

#[tokio::test]
async fn a_yes_is_in_the_name_of_the_token_and_shows_the_proof_of_the_page() {
    let running = start().await;
    let anna = running.token(Role::Approver, "anna").await;
    let path = "/api/v1/approvals/waits/give";
    let assertion = json!({ "credential_id": "bmV3", "authenticator_data": "AA", "client_data": "AA",
        "signature": "AA" });
    let body = json!({ "assertion": assertion });
    let (status, _) = send(&running, path, &anna, &body).await;
    assert_eq!(status, 200);
    let line = running.gate.lines.lock().unwrap().last().unwrap().clone();
    let expected = json!({ "aggregate": "approval", "id": "waits", "command": "give",
        "data": { "assertion": assertion }, "actor": "anna" });
    assert_eq!(line, expected);
    assert_eq!(send(&running, path, TOKEN, &body).await.0, 400);
    let mut more = body.clone();
    more["assertion"]["more"] = 1.into();
    assert_eq!(send(&running, path, &anna, &more).await.0, 400);
    // a browser
    let answer = running
        .post("/api/v1/session")
        .bearer_auth(&anna)
        .send()
        .await
        .unwrap();
    let cookie = answer.headers()["set-cookie"].to_str().unwrap().to_owned();
    let view: Value = answer.json().await.unwrap();
    assert_eq!(view["page"], origin(&running));
    let csrf = view["csrf_token"].as_str().unwrap();
    let sent = running.gate.lines.lock().unwrap().len();
    for (path, body) in [
        (path, &body),
        ("/api/v1/approvals/waits/deny", &json!({ "reason": "no" })),
    ] {
        for (proof, page, status) in [
            ("", origin(&running), 403),
            (csrf, "https://evil.example".to_owned(), 403),
            (csrf, origin(&running), 200),
        ] {
            let request = running.post(path).header("cookie", &cookie).json(body);
            // the page's own name, as a browser there sends it
            let host = page
                .split_once("://")
                .unwrap()
                .1
                .replace("evil.example", "localhost");
            let request = request.header("x-csrf-token", proof).header("origin", page);
            let answer = request.header("host", host).send().await.unwrap();
            assert_eq!(answer.status(), status, "{path} {proof}");
        }
    }
    assert_eq!(running.gate.lines.lock().unwrap().len(), sent + 2);
    running.stop().await;
}

#[tokio::test]
async fn passkeys_are_made_by_invitation_only_and_revoked_by_their_owner_or_an_admin() {
    let running = start().await;
    let command = |command: &str, id: &str| json!({ "aggregate": "approver", "id": id, "command": command, "data": {} });
    let path = "/api/v1/commands";
    for role in [Role::Operator, Role::Admin] {
        let token = running.token(role, role.as_str()).await;
        for id in ["anna", role.as_str()] {
            let (status, problem) = send(&running, path, &token, &command("enrol", id)).await;
            assert_eq!(
                (status, &problem["code"]),
                (403, &json!("forbidden")),
                "{role} {id}"
            );
        }
    }
    let operator = running.token(Role::Operator, "olga").await;
    let (status, _) = send(&running, path, &operator, &command("revoke", "olga")).await;
    assert_eq!(status, 403);
    let anna = running.token(Role::Approver, "anna").await;
    let admin = running.token(Role::Admin, "ada").await;
    let body = json!({ "reason": "lost" });
    for (token, name, status) in [
        (&anna, "anna", 200),
        (&anna, "nina", 403),
        (&admin, "anna", 200),
        (&operator, "olga", 403),
    ] {
        let path = format!("/api/v1/approvers/{name}/passkeys/bmV3/revoke");
        let (found, answer) = send(&running, &path, token, &body).await;
        assert_eq!(found, status, "{name}: {answer}");
    }
    let line = running.gate.lines.lock().unwrap().last().unwrap().clone();
    assert_eq!(
        (&line["id"], &line["actor"]),
        (&json!("anna"), &json!("ada"))
    );
    assert_eq!(
        line["data"],
        json!({ "credential_id": "bmV3", "reason": "lost" })
    );
    let (_, list) = get(&running, "/api/v1/approvers/anna/passkeys", &anna).await;
    assert_eq!(list["passkeys"].as_array().unwrap().len(), 3);
    running.stop().await;
}
