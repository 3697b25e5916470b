//! What a superuser or a thief with the file can change, and where `verify` sees it.

use serde_json::Value;

use crate::harness::{Engine, small};

const TRIGGERS: [&str; 2] = ["events_keep_rows", "events_keep"];

/// Runs statements that the ledger's triggers would refuse.
fn tamper(engine: &Engine, sql: &str) {
    let enable: String = TRIGGERS
        .iter()
        .map(|name| format!("alter table ledger.events enable always trigger {name};"))
        .collect();
    engine.psql(&format!(
        "begin; alter table ledger.events disable trigger user; {sql}; {enable} commit"
    ));
}

/// Verification finds the first difference at this position; what it says of it.
#[track_caller]
pub(crate) fn found_at(engine: &Engine, args: &[&str], position: u64) -> Value {
    let done = engine.run(&[&["verify", "--json"], args].concat());
    assert_eq!(done.code, 3, "{done:?}");
    let report = done.json();
    assert_eq!(report["ok"], false);
    assert_eq!(report["position"], position, "{report}");
    for field in ["what", "expected", "found"] {
        assert!(
            report[field].as_str().is_some_and(|text| !text.is_empty()),
            "{field}: {report}"
        );
    }
    // the same for people
    let done = engine.run(&[&["verify"], args].concat());
    assert_eq!(done.code, 3);
    assert!(
        done.stderr.contains(&format!("position {position}")),
        "{}",
        done.stderr
    );
    report
}

/// Tampers, looks, and puts everything back from a copy.
pub(crate) fn with_tampered(engine: &Engine, sql: &str, look: impl FnOnce()) {
    engine.psql(
        "drop table if exists kept_events, kept_head; \
         create table kept_events as select * from ledger.events; \
         create table kept_head as select * from ledger.head",
    );
    tamper(engine, sql);
    let looked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(look));
    tamper(
        engine,
        "delete from ledger.events; insert into ledger.events select * from kept_events; \
         update ledger.head h set position = k.position, hash = k.hash from kept_head k; \
         drop table kept_events, kept_head",
    );
    if let Err(panic) = looked {
        eprintln!("while tampered with: {sql}");
        std::panic::resume_unwind(panic);
    }
    engine.run(&["verify", "--against", "kafka"]).ok();
}

#[test]
fn every_change_of_a_stored_row_is_found_at_its_position() {
    let engine = small();
    let changes = [
        "payload = set_byte(payload, 0, get_byte(payload, 0) # 1)",
        "payload = payload || '\\x00'",
        "hash = set_byte(hash, 31, get_byte(hash, 31) # 128)",
        "schema_fingerprint = set_byte(schema_fingerprint, 3, get_byte(schema_fingerprint, 3) # 4)",
        "actor = 'somebody'",
        "recorded_at_us = recorded_at_us + 1",
        "department = 7 - department % 2",
        "event_type = 'TaskFinished'",
        "correlation_id = gen_random_uuid()",
        "aggregate_id = aggregate_id || 'x'",
    ];
    for (index, change) in changes.iter().enumerate() {
        let position = 40 + 7 * index as u64;
        let sql = format!("update ledger.events set {change} where position = {position}");
        with_tampered(&engine, &sql, || {
            found_at(&engine, &[], position);
        });
    }
}

#[test]
fn a_row_removed_two_rows_swapped_and_the_tail_cut_are_found() {
    let engine = small();
    let head = engine.head();
    with_tampered(
        &engine,
        "delete from ledger.events where position = 77",
        || {
            let report = found_at(&engine, &[], 77);
            assert_eq!(report["what"], "missing");
            found_at(&engine, &["--source", "kafka", "--against", "ledger"], 77);
        },
    );
    let swap = "update ledger.events set position = -1 where position = 120; \
                update ledger.events set position = 120 where position = 121; \
                update ledger.events set position = 121 where position = -1";
    with_tampered(&engine, swap, || {
        found_at(&engine, &[], 120);
    });
    let bars = engine.psql(
        "select position from ledger.events where event_type = 'MarketObserved' and position > 50 \
         order by position limit 2",
    );
    let (one, two) = bars.split_once('\n').unwrap();
    let payloads = format!(
        "update ledger.events e set payload = o.payload from ledger.events o \
         where (e.position, o.position) in (({one}, {two}), ({two}, {one}))"
    );
    with_tampered(&engine, &payloads, || {
        found_at(&engine, &[], one.parse().unwrap());
    });
    with_tampered(
        &engine,
        "delete from ledger.events where position = 1",
        || {
            found_at(&engine, &[], 1);
        },
    );
    // the tail: the head row still knows of it
    let cut = head - 9;
    let delete = format!("delete from ledger.events where position >= {cut}");
    with_tampered(&engine, &delete, || {
        found_at(&engine, &[], cut);
    });
    // the head row was cut as well: only a copy still knows
    let both = format!(
        "{delete}; update ledger.head set position = {}, hash = \
         (select hash from ledger.events where position = {})",
        cut - 1,
        cut - 1
    );
    with_tampered(&engine, &both, || {
        engine.run(&["verify"]).ok();
        found_at(&engine, &["--against", "kafka"], cut);
        found_at(&engine, &["--source", "kafka", "--against", "ledger"], cut);
    });
}

#[test]
fn the_database_itself_refuses_changes_for_the_engine_and_for_a_superuser() {
    let engine = small();
    let head = engine.head();
    let statements = [
        "update ledger.events set actor = 'somebody' where position = 1",
        "update ledger.events set actor = 'somebody' where false",
        "delete from ledger.events where position = 1",
        "truncate ledger.events",
        "truncate ledger.events cascade",
        "delete from ledger.head",
        "truncate ledger.head",
        "update ledger.refusals set recorded_at_us = 0",
        "delete from ledger.refusals",
        "truncate ledger.refusals",
    ];
    for statement in statements {
        for role in ["sovereign", "postgres"] {
            // also for replication, which skips ordinary triggers
            for mode in ["origin", "replica"] {
                let done = engine.try_psql(&format!(
                    "set session_replication_role = {mode}; set role {role}; {statement}"
                ));
                assert_ne!(done.code, 0, "{role}, {mode}: {statement}");
                let said = done.stderr;
                assert!(
                    said.contains("append-only") || said.contains("permission denied"),
                    "{statement}: {said}"
                );
            }
        }
    }
    assert_eq!(engine.head(), head);
    engine.run(&["verify", "--against", "kafka"]).ok();
}

/// The places of the blocks of an Avro container file: header first.
fn blocks(bytes: &[u8]) -> Vec<std::ops::Range<usize>> {
    let sync = &bytes[bytes.len() - 16..];
    let ends = (16..=bytes.len()).filter(|end| &bytes[end - 16..*end] == sync);
    let mut start = 0;
    ends.map(|end| std::mem::replace(&mut start, end)..end)
        .collect()
}

#[test]
fn every_change_of_a_recorded_file_is_found() {
    let engine = small();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let good = path("good");
    engine.run(&["export", &good]).ok();
    engine.run(&["verify", "--source", &good]).ok();
    let bytes = std::fs::read(&good).unwrap();
    let body = blocks(&bytes)[1].clone();
    let bad = path("bad");
    let verify = |bytes: &[u8]| {
        std::fs::write(&bad, bytes).unwrap();
        engine.run(&["verify", "--json", "--source", &bad])
    };

    // one bit, all over the file: header, counts, events, markers
    for step in 0..60 {
        let at = bytes.len() * step / 60;
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (step % 8);
        let done = verify(&flipped);
        assert_eq!(done.code, 3, "bit of byte {at}: {done:?}");
    }
    // in the stored hash of a known event: its position is named
    let event = engine
        .run(&["log", "--json", "--from", "100", "--to", "100"])
        .ok()
        .lines();
    let hash = event[0]["hash"].as_str().unwrap();
    let hash: Vec<u8> = (0..32)
        .map(|i| u8::from_str_radix(&hash[2 * i..2 * i + 2], 16).unwrap())
        .collect();
    let at = bytes.windows(32).position(|window| window == hash).unwrap();
    let mut flipped = bytes.clone();
    flipped[at + 5] ^= 16;
    let done = verify(&flipped);
    assert_eq!(
        (done.code, &done.json()["position"]),
        (3, &100.into()),
        "{done:?}"
    );
    // and in its payload, which stands right before its hash
    let mut flipped = bytes.clone();
    flipped[at - 3] ^= 16;
    let done = verify(&flipped);
    assert_eq!(done.code, 3);
    assert_eq!(done.json()["position"], 100, "{done:?}");

    for end in [
        0,
        1,
        100,
        body.start,
        body.start + body.len() / 2,
        bytes.len() - 16,
        bytes.len() - 1,
    ] {
        let done = verify(&bytes[..end]);
        assert_eq!(done.code, 3, "cut at {end}: {done:?}");
    }
    let longer = [&bytes[..], &bytes[body.clone()]].concat();
    assert_eq!(verify(&longer).code, 3, "a block twice");
    let garbage = [&bytes[..], b"more"].concat();
    assert_eq!(verify(&garbage).code, 3, "bytes after the end");

    // the first and the second event swapped
    let places: Vec<usize> = (1..=3)
        .map(|position: u64| {
            let range = position.to_string();
            let event = engine
                .run(&["log", "--json", "--from", &range, "--to", &range])
                .ok();
            let text = event.lines()[0]["hash"].as_str().unwrap().to_owned();
            let hash: Vec<u8> = (0..32)
                .map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap())
                .collect();
            bytes.windows(32).position(|window| window == hash).unwrap() + 32
        })
        .collect();
    let (one, two, three) = (places[0], places[1], places[2]);
    // after each hash stands the trace context, here none: one byte
    let (second, third) = (&bytes[one + 1..two + 1], &bytes[two + 1..three + 1]);
    let swapped = [&bytes[..=one], third, second, &bytes[three + 1..]].concat();
    let done = verify(&swapped);
    assert_eq!(
        (done.code, &done.json()["position"]),
        (3, &2.into()),
        "{done:?}"
    );
    // replay refuses what verify refuses
    let replayed = engine.run(&["replay", "--source", &bad, "--offline"]);
    assert_eq!(replayed.code, 3, "{replayed:?}");
}
