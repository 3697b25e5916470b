//! Any key, value and headers as a Kafka record: what is taken for an event says the same in all
//! its parts, and its canonical header is the very one of the record.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sovereign_kafka::record::{self, Parts};

const NAMES: &[&str] = &[
    record::HEADER,
    record::HASH,
    record::POSITION,
    record::ID,
    record::TYPE,
    record::TRACEPARENT,
    record::SPECVERSION,
    "",
];

/// Takes a length byte and so many bytes.
fn part<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, after) = rest.split_first()?;
    let (part, after) = after.split_at_checked(usize::from(*length))?;
    *rest = after;
    Some(part)
}

// key, number of headers, headers with the number of their name, and the rest is the value
fuzz_target!(|data: &[u8]| {
    let mut rest = data;
    let Some(key) = part(&mut rest) else { return };
    let Some((count, after)) = rest.split_first() else {
        return;
    };
    rest = after;
    let mut headers = Vec::new();
    for _ in 0..count % 16 {
        let Some((name, after)) = rest.split_first() else {
            return;
        };
        rest = after;
        let Some(value) = part(&mut rest) else { return };
        let null = name & 0x80 != 0;
        headers.push((
            NAMES[usize::from(*name) % NAMES.len()],
            (!null).then_some(value),
        ));
    }
    let parts = Parts {
        key: Some(key),
        value: Some(rest),
        headers: headers.iter().copied(),
    };
    let Ok(decoded) = record::decode_parts(parts) else {
        return;
    };
    let event = decoded.event;
    let mut canonical = Vec::new();
    event.header.encode(&mut canonical);
    let of = |name| {
        let mut found = headers.iter().filter(|(n, _)| *n == name).map(|(_, v)| *v);
        (found.next().flatten(), found.next())
    };
    assert_eq!(of(record::HEADER), (Some(&canonical[..]), None));
    assert_eq!(
        of(record::POSITION).0,
        Some(event.position().to_string().as_bytes())
    );
    assert_eq!(
        of(record::ID).0,
        Some(event.header.event_id.to_string().as_bytes())
    );
    assert_eq!(key, event.header.aggregate_id.as_bytes());
    assert_eq!(rest[1..5], decoded.schema_id.to_be_bytes());
    assert_eq!(rest[5..], event.payload);
});
