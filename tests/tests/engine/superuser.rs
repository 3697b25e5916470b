//! What a superuser can do who knows the ledger well: rewind the head, drop an index, rewrite the
//! tail with all its hashes. What `verify` finds by itself, what it finds with a noted head or a
//! copy, and what nobody can find from inside.

use sovereign_event_store::LedgerReader;
use sovereign_schemas::chain;
use sovereign_schemas::{Digest, Position, RecordedEvent};

use crate::contract::all;
use crate::harness::{Engine, small_of_its_own};
use crate::tampering::{found_at, with_tampered};

/// The ledger's events, and its head as somebody would note it.
fn read(engine: &Engine) -> (Vec<RecordedEvent>, String) {
    let status = engine.status();
    let database = status["database"].as_str().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let events = runtime.block_on(async {
        let reader = LedgerReader::connect(database, 1).unwrap();
        all(&mut reader.log()).await
    });
    let last = events.last().unwrap();
    let noted = format!("{}:{}", last.position(), last.hash);
    (events, noted)
}

/// SQL that gives these rows new hashes: a chain that holds, on another history.
fn rehashed(events: &mut [RecordedEvent], from: usize) -> String {
    let mut sql = String::new();
    for at in from..events.len() {
        let previous = if at == 0 {
            Digest::ZERO
        } else {
            events[at - 1].hash
        };
        let event = &mut events[at];
        event.hash = chain::expected_hash(&previous, &event.header, &event.payload);
        sql.push_str(&format!(
            "update ledger.events set hash = '\\x{}' where position = {};",
            event.hash,
            event.position()
        ));
    }
    let last = events.last().unwrap();
    sql.push_str(&format!(
        "update ledger.head set position = {}, hash = '\\x{}'",
        last.position(),
        last.hash
    ));
    sql
}

#[test]
fn everything_deleted_and_a_head_set_back_are_found() {
    let engine = small_of_its_own();
    with_tampered(&engine, "truncate ledger.events", || {
        found_at(&engine, &[], 1);
    });
    let head = engine.head();
    let back = head - 12;
    let rewind = format!(
        "update ledger.head set position = {back}, hash = \
         (select hash from ledger.events where position = {back})"
    );
    with_tampered(&engine, &rewind, || {
        let report = found_at(&engine, &[], back + 1);
        assert_eq!(report["what"], "head");
    });
    // a head row that names another hash
    let other = "update ledger.head set hash = set_byte(hash, 0, get_byte(hash, 0) # 1)";
    with_tampered(&engine, other, || {
        let report = found_at(&engine, &[], head);
        assert_eq!(report["what"], "head");
    });
}

#[test]
fn sequences_swapped_between_aggregates_and_a_command_id_used_twice_are_found() {
    let engine = small_of_its_own();
    let (events, _) = read(&engine);
    let of = |id: &str, sequence: u64| {
        let own = |e: &&RecordedEvent| e.header.aggregate_id == id && e.header.sequence == sequence;
        events.iter().find(own).unwrap().position().0
    };
    // two agents change places, each with a sequence that fits
    let (one, two) = (of("filler-7", 1), of("filler-31", 1));
    let swap = format!(
        "update ledger.events set aggregate_id = 'kept' where position = {one}; \
         update ledger.events set aggregate_id = 'filler-7' where position = {two}; \
         update ledger.events set aggregate_id = 'filler-31' where position = {one}"
    );
    with_tampered(&engine, &swap, || {
        found_at(&engine, &[], one.min(two));
    });
    // the unique index would refuse it, so it has to go as well
    let (one, two) = (of("filler", 30), of("filler", 31));
    let twice = format!(
        "drop index ledger.events_command; update ledger.events set command_id = \
         (select command_id from ledger.events where position = {one}) where position = {two}"
    );
    let index = engine.psql(
        "select indexdef from pg_indexes where schemaname = 'ledger' and indexname = 'events_command'",
    );
    with_tampered_and(&engine, &twice, &index, || {
        found_at(&engine, &[], two);
    });
    // recorded time, also by one microsecond in either direction
    for change in ["+ 1", "- 1"] {
        let sql = format!(
            "update ledger.events set recorded_at_us = recorded_at_us {change} where position = {two}"
        );
        with_tampered(&engine, &sql, || {
            found_at(&engine, &[], two);
        });
    }
}

/// As [`with_tampered`], and `repair` afterwards.
fn with_tampered_and(engine: &Engine, sql: &str, repair: &str, look: impl FnOnce()) {
    with_tampered(engine, sql, look);
    engine.psql(repair);
    engine.run(&["verify", "--indexes"]).ok();
}

#[test]
fn a_trace_context_is_outside_of_the_chain_as_documented() {
    let engine = small_of_its_own();
    let change = "update ledger.events set traceparent = \
                  '00-00000000000000000000000000000001-0000000000000001-01' where position = 60";
    with_tampered(&engine, change, || {
        engine.run(&["verify", "--indexes"]).ok();
        engine.run(&["verify", "--against", "kafka"]).ok();
    });
    let formats = std::fs::read_to_string(sovereign_tests::root().join("docs/FORMATS.md")).unwrap();
    assert!(formats.contains("The trace context is outside of the chain"));
}

#[test]
fn a_past_rewritten_with_all_hashes_after_it_is_found_only_by_who_noted_a_head_or_has_a_copy() {
    let engine = small_of_its_own();
    let (mut events, noted) = read(&engine);
    let head = events.len() as u64;
    engine.run(&["verify", "--head", &noted]).ok();

    // one byte of one payload, and every hash from there on
    let at = events
        .iter()
        .position(|e| e.header.event_type == "MarketObserved" && e.position().0 > 100)
        .unwrap();
    let position = events[at].position().0;
    let before = format!("{}:{}", position - 1, events[at - 1].hash);
    let mut payload = events[at].payload.to_vec();
    let last = payload.len() - 1;
    payload[last] ^= 1;
    let hex: String = payload.iter().map(|b| format!("{b:02x}")).collect();
    events[at].payload = payload.into();
    let sql = format!(
        "update ledger.events set payload = '\\x{hex}' where position = {position}; {}",
        rehashed(&mut events, at)
    );
    with_tampered(&engine, &sql, || {
        // from inside nothing is wrong
        engine.run(&["verify", "--indexes"]).ok();
        // a head that was noted before the change still fits, one after it does not
        engine.run(&["verify", "--head", &before]).ok();
        let report = found_at(&engine, &["--head", &noted], head);
        assert_eq!(report["what"], "head");
        found_at(&engine, &["--head", &before, "--head", &noted], head);
        found_at(
            &engine,
            &["--source", "kafka", "--against", "ledger"],
            position,
        );
        found_at(&engine, &["--against", "kafka"], position);
    });
}

#[test]
fn an_event_put_into_the_past_is_found_by_a_noted_head_and_by_the_topics() {
    let engine = small_of_its_own();
    let (events, noted) = read(&engine);
    let head = events.len();
    // a copy of an agent's last event, put in right behind it; all later ones move up
    let at = events
        .iter()
        .rposition(|e| e.header.aggregate_id == "filler-90")
        .unwrap();
    let mut forged = events.clone();
    let mut new = events[at].clone();
    new.header.sequence += 1;
    new.header.event_id = sovereign_schemas::Uuid::now_v7();
    new.header.command_id = sovereign_schemas::Uuid::now_v7();
    forged.insert(at + 1, new);
    for (index, event) in forged.iter_mut().enumerate().skip(at + 1) {
        event.header.position = Position(index as u64 + 1);
    }
    let place = forged[at + 1].clone();
    let insert = format!(
        "update ledger.events set position = -position where position > {after}; \
         update ledger.events set position = 1 - position where position < 0; \
         insert into ledger.events select {to}, {sequence}, recorded_at_us, event_version, department, \
         1, '{event_id}', '{command_id}', correlation_id, causation_id, aggregate_type, aggregate_id, \
         event_type, actor, schema_fingerprint, traceparent, hash, payload from ledger.events \
         where position = {after};",
        after = at + 1,
        to = at + 2,
        sequence = place.header.sequence,
        event_id = place.header.event_id,
        command_id = place.header.command_id,
    );
    let sql = format!("{insert} {}", rehashed(&mut forged, at + 1));
    with_tampered(&engine, &sql, || {
        let whole = engine.json(&["verify"]);
        assert_eq!(whole["last"], head as u64 + 1);
        let report = found_at(&engine, &["--head", &noted], head as u64);
        assert_eq!(report["what"], "head");
        let place = at as u64 + 2;
        found_at(
            &engine,
            &["--source", "kafka", "--against", "ledger"],
            place,
        );
    });
    // a head that nobody has reached, and one that is none
    let beyond = format!("{}:{}", head + 5, "00".repeat(32));
    found_at(&engine, &["--head", &beyond], head as u64 + 1);
    for bad in ["7", "0:00", "x:y", "7:zz"] {
        assert_eq!(engine.run(&["verify", "--head", bad]).code, 2, "{bad}");
    }
}

/// Takes an index out of use while `work` writes, so that it misses what was written.
fn without_index(engine: &Engine, index: &str, work: impl FnOnce()) {
    let ready = |value: &str| {
        engine.psql(&format!(
            "update pg_index set indisready = {value}, indisvalid = {value} \
             where indexrelid = 'ledger.{index}'::regclass"
        ));
    };
    ready("false");
    work();
    ready("true");
}

#[test]
fn an_index_that_lost_entries_is_found_where_rows_and_index_part() {
    let engine = small_of_its_own();
    engine.run(&["verify", "--indexes"]).ok();
    for (name, index) in [
        ("sequence", "events_sequence"),
        ("command", "events_command"),
        ("position", "events_position"),
    ] {
        let first = engine.head() + 1;
        without_index(&engine, index, || {
            let commands: Vec<_> = (0..3)
                .map(|n| crate::harness::register(&format!("unindexed-{name}-{n}")))
                .collect();
            engine.send_all(&commands);
        });
        let report = found_at(&engine, &["--indexes"], first);
        if index != "events_position" {
            // the chain is whole, and reading by position shows nothing
            engine.run(&["verify"]).ok();
            assert_eq!(report["what"], "index");
            assert!(
                report["found"].as_str().unwrap().contains(index),
                "{report}"
            );
        }
        engine.psql(&format!("reindex index ledger.{index}"));
        engine.run(&["verify", "--indexes"]).ok();
    }
    let done = engine.run(&["verify", "--source", "kafka", "--indexes", "--json"]);
    done.fails(2, "invalid-usage");
}
