//! A ledger from the future: an event that this build does not know, and tables that are newer.

use std::time::Duration;

use sovereign_schemas::chain;
use sovereign_schemas::{DepartmentId, Digest, EventHeader, Position, Timestamp, Uuid};

use crate::harness::{Engine, register, thought};

/// Appends an event as a newer build would have: chained, and of a type nobody here knows.
fn append_unknown(engine: &Engine) -> u64 {
    let last = engine.psql("select position || ' ' || encode(hash, 'hex') from ledger.head");
    let (position, hash) = last.split_once(' ').unwrap();
    let (position, previous): (u64, Digest) = (position.parse().unwrap(), hash.parse().unwrap());
    let header = EventHeader {
        position: Position(position + 1),
        event_id: Uuid::from_u128(77),
        aggregate_type: "dream".into(),
        aggregate_id: "d-1".to_owned(),
        sequence: 1,
        event_type: "DreamSeen".into(),
        event_version: 3,
        department: DepartmentId::TRADER,
        actor: "dreamer".to_owned(),
        command_id: Uuid::from_u128(78),
        correlation_id: Uuid::from_u128(78),
        causation_id: None,
        recorded_at: Timestamp::now(),
        schema_fingerprint: [9; 8],
    };
    let payload = b"from the future";
    let hash = chain::expected_hash(&previous, &header, payload);
    let at = position + 1;
    engine.psql(&format!(
        "begin; insert into ledger.events (position, sequence, recorded_at_us, event_version, \
         department, command_events, event_id, command_id, correlation_id, aggregate_type, \
         aggregate_id, event_type, actor, schema_fingerprint, hash, payload) values \
         ({at}, 1, {}, 3, {}, 1, '{}', '{}', '{}', 'dream', 'd-1', 'DreamSeen', 'dreamer', \
         decode('0909090909090909', 'hex'), decode('{hash}', 'hex'), 'from the future'); \
         update ledger.head set position = {at}, hash = decode('{hash}', 'hex'); commit",
        header.recorded_at.0,
        header.department,
        header.event_id,
        header.command_id,
        header.correlation_id,
    ));
    at
}

#[test]
fn an_event_of_a_newer_build_stops_what_must_know_it_and_harms_nothing() {
    let engine = Engine::new("future");
    engine.up();
    engine.send_all(&[register("first"), thought("first", "I am here")]);
    engine.settle();
    let at = append_unknown(&engine);
    // appends go on: what decides does not need the other aggregate's events
    engine.send_all(&[thought("first", "still here")]);
    // a view passes what it does not look at; the agents must know every event
    engine.wait_for("red", Duration::from_secs(30), |status| {
        status["healthy"] == false
            && status["problems"]["agents"]["message"]
                .as_str()
                .is_some_and(|m| m.contains(&format!("position {at}")))
    });
    // the relay leaves it out of the topics, and everything behind it
    engine.wait_for("relay stopped", Duration::from_secs(30), |status| {
        status["problems"]["relay"]["message"]
            .as_str()
            .is_some_and(|m| m.contains(&format!("position {at}")))
    });
    assert_eq!(engine.status()["relay"]["position"], at - 1);

    // replay cannot fold it and says where; verify can check it all the same
    let replayed = engine.run(&["replay", "--json"]);
    assert_eq!(replayed.code, 3, "{replayed:?}");
    assert!(
        replayed.stderr.contains(&format!("position {at}")),
        "{replayed:?}"
    );
    engine.json(&["replay", "--to", &(at - 1).to_string()]);
    let verified = engine.json(&["verify"]);
    assert_eq!(verified["unknown_events"], 1, "{verified}");

    // tables of a newer build: the engine does not start, and changes nothing
    engine.psql("insert into views.migrations (version) values (1000)");
    engine.run(&["down"]).ok();
    engine.run(&["up", "--json"]).fails(1, "schema-too-new");
}
