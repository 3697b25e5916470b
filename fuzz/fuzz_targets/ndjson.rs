//! Lines of JSON on the way in: parsed, admitted, scrubbed, decided and encoded, all but the
//! database. No line panics, no text gets past the scrubber, and scrubbing twice changes nothing.
#![no_main]

use std::collections::HashMap;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use sovereign_aggregates::{AnyEvent, AnyState, CommandRequest, Decision};
use sovereign_event_store::{Gate, KeyStore};
use sovereign_guard::scrub::Scrubber;
use sovereign_guard::seal::MasterKey;
use sovereign_schemas::{AggregateType, Departments, Text, Timestamp, catalog};
use tokio::runtime::{Builder, Runtime};

const LINES_MAX: usize = 16;

struct Scene {
    runtime: Runtime,
    gate: Gate,
    scrubber: Scrubber,
}

static SCENE: LazyLock<Scene> = LazyLock::new(|| {
    let runtime = Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    let _inside = runtime.enter();
    // departments that do not seal need no key, so this database is never asked
    let keys = KeyStore::connect(
        "postgres://nobody@127.0.0.1:1/none",
        MasterKey::from_bytes([1; 32]),
    )
    .expect("a URL");
    let mut departments: Vec<_> = Departments::default().iter().cloned().collect();
    for department in &mut departments {
        department.seal = false;
    }
    let departments = Departments::new(departments).expect("the built-in ones");
    drop(_inside);
    Scene {
        gate: Gate::new(departments, keys),
        runtime,
        scrubber: Scrubber::standard(),
    }
});

fuzz_target!(|data: &[u8]| {
    if let Ok(text) = std::str::from_utf8(data) {
        scrub(text);
    }
    let mut states = HashMap::new();
    for (at, line) in data.split(|b| *b == b'\n').take(LINES_MAX).enumerate() {
        let (_, parsed) = SCENE.gate.parse(line);
        let Ok(raw) = parsed else { continue };
        let kind = raw.command.aggregate_type();
        if let Ok(request) = SCENE.runtime.block_on(SCENE.gate.admit(raw)) {
            decide(&mut states, kind, request, at);
        }
    }
});

fn scrub(text: &str) {
    let scrubbed = SCENE.scrubber.scrub(text);
    let mut copied = 0;
    let mut rebuilt = String::new();
    for found in scrubbed.findings() {
        assert!(copied <= found.start && found.start < found.end);
        rebuilt.push_str(&text[copied..found.start]);
        rebuilt.push_str(&found.label.placeholder());
        copied = found.end;
    }
    rebuilt.push_str(&text[copied..]);
    assert_eq!(rebuilt, scrubbed.text());
    let again = SCENE.scrubber.scrub(scrubbed.text());
    assert_eq!(again.text(), scrubbed.text());
    assert!(again.findings().is_empty());
}

fn decide(
    states: &mut HashMap<(AggregateType, String), AnyState>,
    kind: AggregateType,
    request: CommandRequest,
    at: usize,
) {
    let decision = Decision::new(
        request.aggregate_id.clone(),
        Timestamp(1_767_225_600_000_000 + 3_600_000_000 * at as i64),
        request.context.actor.clone(),
    );
    let key = (kind, request.aggregate_id.as_str().to_owned());
    let state = states.entry(key).or_insert_with(|| AnyState::new(kind));
    let before = state.clone();
    match state.handle(request.command, &decision) {
        Ok(events) => events.iter().for_each(check_event),
        Err(_) => assert_eq!(*state, before, "a refusal changes nothing"),
    }
}

fn check_event(event: &AnyEvent) {
    let mut payload = Vec::new();
    event.encode(&mut payload);
    let schema = catalog::latest(event.event_type());
    assert_eq!(schema.version, event.event_type().latest_version());
    let _ = event.json(&|text: &Text| {
        let plain = text.as_plain().expect("no department seals here");
        let scrubbed = SCENE.scrubber.scrub(plain);
        assert_eq!(scrubbed.text(), plain, "a text got past the scrubber");
        serde_json::Value::Null
    });
}
