//! The outcome of a record, as a record.

use rdkafka::message::{Header, OwnedHeaders};
use sovereign_schemas::Outcome;

use super::request::Request;
use crate::dead_letters::RawRecord;

/// Names of headers, of commands and of their replies.
pub mod headers {
    /// What the sender recognises the reply by: any bytes, at most 4 KiB. Of a record without it
    /// the reply has what [`CE_ID`] says.
    pub const CORRELATION_ID: &str = "correlation-id";
    /// The id of an event in the binary mode of CloudEvents.
    pub const CE_ID: &str = "ce_id";
    /// W3C trace context; of a record, for a command that names none.
    pub const TRACEPARENT: &str = "traceparent";
    /// Of a reply: topic of the record, with its namespace.
    pub const TOPIC: &str = "sovereign_command_topic";
    /// Of a reply: partition of the record, decimal.
    pub const PARTITION: &str = "sovereign_command_partition";
    /// Of a reply: offset of the record, decimal.
    pub const OFFSET: &str = "sovereign_command_offset";
}

/// A reply, but for its key, which is the record's.
pub(super) struct Reply {
    pub(super) value: Vec<u8>,
    pub(super) headers: OwnedHeaders,
}

/// The key that goes back: none if the record's is too long.
pub(super) fn key(request: &Request) -> Option<&[u8]> {
    request.record.key.as_deref().filter(|_| !request.nameless)
}

pub(super) fn reply(request: &Request, outcome: &Outcome) -> Reply {
    let origin = &request.origin;
    let (partition, offset) = (origin.partition.to_string(), origin.offset.to_string());
    let trace = request.traceparent.as_deref().map(str::as_bytes);
    let all = [
        (headers::CORRELATION_ID, request.correlation()),
        (headers::TOPIC, Some(origin.topic.as_bytes())),
        (headers::PARTITION, Some(partition.as_bytes())),
        (headers::OFFSET, Some(offset.as_bytes())),
        ("content-type", Some(b"application/json".as_slice())),
        (headers::TRACEPARENT, trace),
    ];
    let there = all.into_iter().filter(|(_, value)| value.is_some());
    let headers = there.fold(OwnedHeaders::new(), |headers, (key, value)| {
        headers.insert(Header { key, value })
    });
    Reply {
        // an outcome holds only strings and numbers, which always have a JSON form
        value: serde_json::to_vec(outcome).unwrap_or_default(),
        headers,
    }
}

/// Of which record of this topic a reply speaks: partition and offset.
pub(super) fn origin(record: &RawRecord, topic: &str) -> Option<(i32, i64)> {
    let find = |name: &str| {
        let found = record.headers.iter().rev().find(|(key, _)| key == name);
        std::str::from_utf8(found?.1.as_deref()?).ok()
    };
    if find(headers::TOPIC)? != topic {
        return None;
    }
    let partition = find(headers::PARTITION)?.parse().ok()?;
    Some((partition, find(headers::OFFSET)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use rdkafka::message::Headers as _;
    use sovereign_schemas::{Position, Status};

    use super::*;
    use crate::dead_letters::Origin;

    #[test]
    fn a_reply_is_the_outcome_line_and_says_whose_it_is() {
        let place = Origin {
            topic: "t.commands".to_owned(),
            partition: 2,
            offset: 77,
        };
        let record = RawRecord {
            key: Some(Bytes::from_static(b"k")),
            value: Some(Bytes::from_static(b"{}")),
            headers: vec![(
                "correlation-id".to_owned(),
                Some(Bytes::from_static(b"\xff")),
            )],
            timestamp_ms: None,
        };
        let request = Request::read(place, record);
        let positions = Some((Position(3), Position(4)));
        let outcome = Outcome::effective(Status::Accepted, positions).of("c-1");
        let Reply { value, headers } = reply(&request, &outcome);
        assert_eq!(
            value,
            br#"{"command_id":"c-1","status":"accepted","positions":[3,4]}"#
        );
        assert_eq!(key(&request), Some(&b"k"[..]));
        let all = headers.iter().map(|h| {
            let value = h.value.map(Bytes::copy_from_slice);
            (h.key.to_owned(), value)
        });
        let written = RawRecord {
            headers: all.collect(),
            ..RawRecord::default()
        };
        assert_eq!(written.headers[0].1.as_deref(), Some(&b"\xff"[..]));
        assert_eq!(origin(&written, "t.commands"), Some((2, 77)));
        assert_eq!(origin(&written, "commands"), None);
        assert_eq!(origin(&RawRecord::default(), "commands"), None);
    }
}
