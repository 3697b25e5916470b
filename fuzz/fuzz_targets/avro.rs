//! Bytes as an event's payload, as a canonical header, as an entry of a recorded file: what decodes
//! must be written back byte for byte, and every state must take it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sovereign_aggregates::{AnyEvent, AnyState};
use sovereign_schemas::avro::{self, Reader};
use sovereign_schemas::events::{MarketObserved, MarketObservedV1};
use sovereign_schemas::{
    DepartmentId, Digest, EventHeader, EventType, Position, RecordedEvent, Timestamp, Uuid, catalog,
};

// the first byte chooses, so that the seeds of one decoder do not mix with those of another
fuzz_target!(|data: &[u8]| match data.split_first() {
    Some((255, bytes)) => header(bytes),
    Some((254, bytes)) => first_version(bytes),
    Some((which, bytes)) => event(usize::from(*which), bytes),
    None => {}
});

fn header(bytes: &[u8]) {
    let mut input = Reader::new(bytes);
    let Ok(header) = EventHeader::take(&mut input) else {
        return;
    };
    let mut again = Vec::new();
    header.encode(&mut again);
    assert_eq!(again, bytes[..input.at()]);
    assert_eq!(EventHeader::decode(&again), Ok(header));
}

/// A version that is read and no longer written.
fn first_version(bytes: &[u8]) {
    if let Ok(old) = avro::decode::<MarketObservedV1>(bytes) {
        assert_eq!(avro::encode(&old), bytes);
        let new = avro::encode(&MarketObserved::from(old));
        assert!(avro::decode::<MarketObserved>(&new).is_ok());
    }
}

fn event(which: usize, bytes: &[u8]) {
    let schemas = catalog::all();
    let schema = &schemas[which % schemas.len()];
    let recorded = |version, payload: &[u8]| RecordedEvent {
        header: EventHeader {
            position: Position(1),
            event_id: Uuid::nil(),
            aggregate_type: "agent".into(),
            aggregate_id: "a".to_owned(),
            sequence: 1,
            event_type: schema.name.into(),
            event_version: version,
            department: DepartmentId::TRADER,
            actor: "a".to_owned(),
            command_id: Uuid::nil(),
            correlation_id: Uuid::nil(),
            causation_id: None,
            recorded_at: Timestamp(0),
            schema_fingerprint: schema.fingerprint,
        },
        payload: bytes::Bytes::copy_from_slice(payload),
        hash: Digest::ZERO,
        traceparent: None,
    };
    let found = recorded(schema.version, bytes);
    let Ok(decoded) = AnyEvent::decode(&found) else {
        return;
    };
    let mut again = Vec::new();
    decoded.encode(&mut again);
    let latest = decoded.event_type().latest_version();
    if schema.version == latest {
        assert_eq!(again, bytes);
    }
    let upcast = AnyEvent::decode(&recorded(latest, &again));
    assert_eq!(upcast.as_ref(), Ok(&decoded));
    let shown = decoded.json(&|text| text.bytes().len().into());
    assert!(shown.is_object());
    let kind = EventType::parse(schema.name).map(EventType::aggregate_type);
    let mut state = AnyState::new(kind.expect("a known event"));
    for _ in 0..2 {
        // events are never refused, not even absurd ones
        assert_eq!(state.apply_recorded(&found), Ok(()));
        assert!(!state.canonical().is_empty());
    }
}
