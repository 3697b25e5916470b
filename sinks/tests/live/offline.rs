//! Mock and recorded sinks reach nothing: the same test runs again where there is no network.

use std::process::Command;

use serde_json::json;
use sovereign_effects::{EffectId, Outcome, Recording, Request, Script, Tools};
use sovereign_sinks::{Sink as _, SinkMode, Sinks};
use tokio_util::sync::CancellationToken;

use crate::server::{get, post, request, word};

const OFFLINE: &str = "SOVEREIGN_TEST_OFFLINE";

/// Opened files that are sockets.
fn sockets() -> usize {
    let files = std::fs::read_dir("/proc/self/fd").unwrap();
    let links = files.filter_map(|file| std::fs::read_link(file.ok()?.path()).ok());
    links
        .filter(|link| link.to_string_lossy().starts_with("socket:"))
        .count()
}

#[test]
fn recorded_and_mock_sinks_answer_without_a_network() {
    if std::env::var_os(OFFLINE).is_some() {
        let connected = std::net::TcpStream::connect("127.0.0.1:9");
        let kind = connected.map_err(|error| error.raw_os_error());
        // ENETUNREACH, or EADDRNOTAVAIL: not even loopback is up
        assert!(
            matches!(kind, Err(Some(101 | 99))),
            "there is a network: {kind:?}"
        );
        let before = sockets();
        // a runtime without the part that does I/O
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(answer_all());
        assert_eq!(sockets(), before);
        return;
    }
    let itself = std::env::current_exe().unwrap();
    let run = |with: &str| {
        let mut command = Command::new(with);
        if with == "unshare" {
            command.arg("-rn").arg(&itself);
        }
        command
            .args([
                "--exact",
                "offline::recorded_and_mock_sinks_answer_without_a_network",
            ])
            .env(OFFLINE, "1")
            .output()
    };
    let possible = Command::new("unshare").args(["-rn", "true"]).output();
    if !possible.is_ok_and(|output| output.status.success()) {
        // no such namespaces here: without the check for the missing network
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        return runtime.block_on(answer_all());
    }
    let output = run("unshare").unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}"
    );
}

async fn answer_all() {
    let never = CancellationToken::new();
    let tools = Tools::parse(
        "[tools.t]\nbase = \"http://127.0.0.1:9\"\nmethods = [\"GET\", \"POST\"]\npaths = [\"/\"]\nreach = [\"loopback\"]\n",
    )
    .unwrap();
    let wanted = request(post("/v1"));
    let recorded = Outcome::done(json!({"status": 201}));
    let mut recording = Recording::default();
    recording.insert(wanted.id, wanted.effect.digest(), recorded.clone());
    let sinks = Sinks::recorded(recording);
    assert_eq!(sinks.mode(), SinkMode::Recorded);
    assert_eq!(sinks.run(&wanted, &never).await, recorded);
    let mut other = request(get("/v1"));
    assert_eq!(
        word(&sinks.run(&other, &never).await),
        "failed recording-differs"
    );
    other.id = EffectId::of("job", 8);
    for effect in [
        get("/v1"),
        json!({"kind": "model", "tool": "t", "model": "m", "tokens_max": 1, "messages": [{"role": "user", "content": "?"}]}),
        json!({"kind": "timer", "until": "2999-01-01"}),
        json!({"kind": "random", "bytes": 8}),
        json!({"kind": "order", "exchange": "mock", "instrument": "A", "side": "SELL", "quantity": "1", "price": "1", "at": "2000-01-01"}),
        json!({"kind": "process", "program": "p"}),
    ] {
        let Request { effect, .. } = request(effect);
        let unknown = Request::new(other.id, effect);
        let answered = sinks.run(&unknown, &never).await;
        assert_eq!(
            word(&answered),
            "failed not-recorded",
            "{:?}",
            unknown.effect.kind()
        );
    }
    let script = "[[answers]]\nkind = \"http\"\noutcome = \"done\"\nresult = { status = 200 }\n";
    let sinks = Sinks::mock(Script::parse(script).unwrap(), tools);
    assert_eq!(sinks.mode(), SinkMode::Mock);
    assert_eq!(word(&sinks.run(&wanted, &never).await), "done");
    let timer = request(json!({"kind": "timer", "until": "2999-01-01"}));
    assert_eq!(word(&sinks.run(&timer, &never).await), "done");
}
