//! What becomes of commands.

use serde_json::{Value, json};

use crate::harness::{bar, register, small, thought};

fn lines(commands: &[Value]) -> Vec<u8> {
    commands
        .iter()
        .map(Value::to_string)
        .collect::<Vec<_>>()
        .join("\n")
        .into_bytes()
}

#[test]
fn status_says_what_scripts_rely_on() {
    let engine = small();
    let status = engine.status();
    assert_eq!(status["healthy"], true);
    for field in ["database", "brokers", "registry", "console", "head_hash"] {
        assert!(status[field].is_string(), "{field}: {status}");
    }
    assert_eq!(status["relay"]["position"], status["head"]);
    for view in ["agents", "trades", "approvals", "departments", "passkeys"] {
        assert_eq!(
            status["projections"][view]["position"], status["head"],
            "{view}"
        );
        assert_eq!(status["projections"][view]["healthy"], true, "{view}");
    }
    let screen = engine.run(&["status"]).ok().stdout;
    let password = status["database"]
        .as_str()
        .unwrap()
        .split(['@', ':'])
        .nth(2)
        .unwrap();
    assert!(
        !screen.contains(password),
        "the password stays off the screen"
    );
}

#[test]
fn outcomes_come_in_input_order_and_a_repeat_returns_the_first() {
    let engine = small();
    let before = engine.head();
    let with_id = |mut command: Value, id: &str| {
        command["command_id"] = id.into();
        command
    };
    let mut late = thought("orderly", "too late");
    late["expected_sequence"] = json!(1);
    let transition = json!({ "aggregate": "agent", "id": "orderly", "command": "transition",
        "data": { "to": "EXECUTING", "reason": "because" } });
    let input = [
        with_id(register("orderly"), "orderly-1"),
        with_id(bar("orderly", 1), "orderly-2"),
        with_id(register("orderly"), "orderly-1"),
        register("orderly"),
        late,
        transition,
        json!({ "aggregate": "agent", "id": "orderly", "command": "fly" }),
        thought("nobody-registered", "lost"),
    ];
    let (code, outcomes) = engine.send(&lines(&input));
    assert_eq!(code, 2, "the worst of the outcomes");
    let status = |at: usize| outcomes[at]["status"].as_str().unwrap();
    let statuses: Vec<_> = (0..outcomes.len()).map(status).collect();
    assert_eq!(
        statuses,
        [
            "accepted",
            "accepted",
            "duplicate",
            "refused",
            "conflict",
            "refused",
            "invalid",
            "refused"
        ],
        "{outcomes:?}"
    );
    assert_eq!(outcomes[0]["positions"], json!([before + 1, before + 1]));
    assert_eq!(
        outcomes[2]["positions"], outcomes[0]["positions"],
        "the first outcome again"
    );
    assert_eq!(outcomes[2]["command_id"], "orderly-1");
    let codes: Vec<_> = outcomes[3..]
        .iter()
        .map(|o| o["error"]["code"].clone())
        .collect();
    assert_eq!(
        codes,
        [
            "already-exists",
            "version-conflict",
            "illegal-transition",
            "unknown-command",
            "not-found"
        ]
    );
    // an illegal transition is refused and recorded
    assert_eq!(outcomes[5]["positions"], json!([before + 3, before + 3]));
    for (index, outcome) in outcomes.iter().enumerate().skip(3) {
        assert_eq!(outcome["error"]["line"], index + 1);
    }
    assert_eq!(engine.head(), before + 3);

    // and everything again: nothing new but a second refused transition
    let again = [input[0].clone(), input[1].clone()];
    let (code, repeated) = engine.send(&lines(&again));
    assert_eq!(code, 0);
    assert!(
        repeated.iter().all(|o| o["status"] == "duplicate"),
        "{repeated:?}"
    );
    assert_eq!(engine.head(), before + 3);
}

#[test]
fn exit_codes_of_send_follow_the_worst_outcome() {
    let engine = small();
    let refused = lines(&[thought("nobody-registered", "lost")]);
    assert_eq!(engine.send(&refused).0, 4);
    let mut late = thought("filler", "too late");
    late["expected_sequence"] = json!(1);
    assert_eq!(engine.send(&lines(&[late])).0, 1);
    assert_eq!(engine.send(b"").0, 0);
    let missing = engine.run(&["send", "/nowhere/at/all", "--json"]);
    missing.fails(2, "invalid-usage");
    assert_eq!(engine.run(&["status", "--no-such-option"]).code, 2);
    engine
        .run(&["log", "--department", "kitchen", "--json"])
        .fails(2, "unknown-department");
}

#[test]
fn health_and_metrics_say_what_the_docs_promise() {
    let engine = small();
    let base = engine.status()["console"].as_str().unwrap().to_owned();
    let (code, body) = get(&base, "/health");
    assert_eq!(code, 200);
    let health: Value = serde_json::from_str(&body).unwrap();
    for part in ["ledger", "relay", "views", "agents", "servers"] {
        assert_eq!(health["parts"][part]["healthy"], true, "{part}: {health}");
    }
    assert_eq!(health["parts"]["relay"]["lag"], 0);
    // lags are looked at once a second
    std::thread::sleep(std::time::Duration::from_millis(1_500));
    let (code, metrics) = get(&base, "/metrics");
    assert_eq!(code, 200);
    // the table of docs/OPERATIONS.md, as far as a counter that never counted shows up
    for metric in [
        "sovereign_healthy 1",
        "sovereign_part_healthy{part=\"relay\"} 1",
        "sovereign_part_lag{part=\"views\"} 0",
        "sovereign_relay_lag_events 0",
        "sovereign_ledger_flush_seconds",
        "sovereign_view_healthy{view=\"trades\"} 1",
    ] {
        assert!(metrics.contains(metric), "{metric}: {metrics}");
    }
    assert_eq!(get(&base, "/api/status").0, 401, "the rest needs the token");
}

/// Status and body of a plain request.
pub(crate) fn get(base: &str, path: &str) -> (u16, String) {
    use std::io::{Read as _, Write as _};
    let address = base.strip_prefix("http://").unwrap();
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let code = answer.split(' ').nth(1).unwrap().parse().unwrap();
    let body = answer.split_once("\r\n\r\n").unwrap().1;
    // chunked or not: what is looked for lies within one chunk
    let body = match (body.find('{'), path) {
        (Some(start), "/health") => &body[start..=body.rfind('}').unwrap()],
        _ => body,
    };
    (code, body.to_owned())
}
