//! An event as a Kafka record, and back.
//!
//! Key: the aggregate id. Value: `0x00`, the registry's schema id as four big-endian bytes
//! (Confluent's wire format), then the ledger's payload bytes unchanged. Headers: CloudEvents 1.0
//! in Kafka's binary mode with the prefix `ce_`, plus position, hash and the canonical header.

use rdkafka::message::{BorrowedMessage, Header, Headers, Message, OwnedHeaders};
use sovereign_schemas::{Digest, EventHeader, EventType, Position, RecordedEvent};

/// CloudEvents' `specversion`.
pub const SPECVERSION: &str = "ce_specversion";
/// CloudEvents' `id`: the event id.
pub const ID: &str = "ce_id";
/// CloudEvents' `type`: the full record name.
pub const TYPE: &str = "ce_type";
/// CloudEvents' `source`: `/sovereign/<aggregate type>/<aggregate id>`.
pub const SOURCE: &str = "ce_source";
/// CloudEvents' `time`: when the ledger took it, RFC 3339.
pub const TIME: &str = "ce_time";
/// W3C trace context.
pub const TRACEPARENT: &str = "traceparent";
/// Place in the ledger, decimal text.
pub const POSITION: &str = "sovereign_position";
/// Chain hash, 64 hexadecimal digits.
pub const HASH: &str = "sovereign_hash";
/// Avro datum of the canonical header.
pub const HEADER: &str = "sovereign_header";

/// Bytes before the payload: magic byte and schema id.
pub const PREFIX_BYTES: usize = 5;

/// A schema id found in front of a payload, and what it must stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SchemaIdSeen {
    /// The registry's id.
    pub id: u32,
    /// The fingerprint that the canonical header names.
    pub fingerprint: [u8; 8],
}

/// A record that is no event of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("record {topic}/{partition} at offset {offset} is no event: {cause}")]
pub struct RecordError {
    /// Topic, with its namespace.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
    /// What is wrong.
    pub cause: RecordCause,
}

impl RecordError {
    /// The stable name.
    #[must_use]
    pub const fn code(&self) -> sovereign_schemas::ErrorCode {
        sovereign_schemas::ErrorCode::DecodeFailed
    }
}

/// What is wrong with a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordCause {
    /// No value, or one too short for the prefix.
    #[error("value is shorter than the five bytes of Confluent's prefix")]
    Short,
    /// Another magic byte than zero.
    #[error("magic byte is {0}, expected 0")]
    Magic(u8),
    /// A header that must be there exactly once.
    #[error("header {name} is there {count} times, expected once")]
    HeaderCount {
        /// Which.
        name: &'static str,
        /// How often.
        count: usize,
    },
    /// A header that does not parse.
    #[error("header {name} is malformed: {cause}")]
    HeaderMalformed {
        /// Which.
        name: &'static str,
        /// Why; never its content.
        cause: String,
    },
    /// Something that contradicts the canonical header.
    #[error("{name} contradicts the canonical header")]
    Contradiction {
        /// Key or header.
        name: &'static str,
    },
}

/// What a record holds, with the schema id in front of its payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decoded {
    /// The event.
    pub event: RecordedEvent,
    /// The registry's schema id.
    pub schema_id: u32,
}

/// The full record name: `sovereign.<aggregate type>.<event type>`, also for types that this
/// build does not know.
pub(crate) fn full_name(header: &EventHeader) -> String {
    EventType::parse(&header.event_type).map_or_else(
        || format!("sovereign.{}.{}", header.aggregate_type, header.event_type),
        EventType::full_name,
    )
}

/// Appends prefix and payload.
pub(crate) fn put_value(schema_id: u32, payload: &[u8], out: &mut Vec<u8>) {
    out.push(0);
    out.extend_from_slice(&schema_id.to_be_bytes());
    out.extend_from_slice(payload);
}

/// The headers of an event whose canonical header has these bytes.
pub(crate) fn headers(event: &RecordedEvent, canonical: &[u8]) -> OwnedHeaders {
    let header = &event.header;
    let source = format!(
        "/sovereign/{}/{}",
        header.aggregate_type, header.aggregate_id
    );
    let headers = OwnedHeaders::new_with_capacity(9)
        .insert(Header {
            key: SPECVERSION,
            value: Some("1.0"),
        })
        .insert(Header {
            key: ID,
            value: Some(&header.event_id.to_string()),
        })
        .insert(Header {
            key: TYPE,
            value: Some(&full_name(header)),
        })
        .insert(Header {
            key: SOURCE,
            value: Some(&source),
        })
        .insert(Header {
            key: TIME,
            value: Some(&header.recorded_at.to_string()),
        })
        .insert(Header {
            key: POSITION,
            value: Some(&header.position.to_string()),
        })
        .insert(Header {
            key: HASH,
            value: Some(&event.hash.to_string()),
        })
        .insert(Header {
            key: HEADER,
            value: Some(canonical),
        });
    match &event.traceparent {
        Some(trace) => headers.insert(Header {
            key: TRACEPARENT,
            value: Some(trace),
        }),
        None => headers,
    }
}

/// The position of a record without decoding the rest; for searching.
pub(crate) fn position(message: &BorrowedMessage<'_>) -> Result<Position, RecordError> {
    let find = || {
        let text = fields(message)?.text(POSITION, Field::Position)?;
        text.parse()
            .map(Position)
            .map_err(|_| RecordCause::HeaderMalformed {
                name: POSITION,
                cause: "expected a decimal number".to_owned(),
            })
    };
    find().map_err(|cause| at(message, cause))
}

/// Reads a record and checks it against its own canonical header: magic byte, headers once each,
/// position, event id, type and key. Bytes and hash are checked by whoever follows the chain.
///
/// # Errors
/// [`RecordError`] naming topic, partition, offset and cause.
pub fn decode(message: &BorrowedMessage<'_>) -> Result<Decoded, RecordError> {
    decode_parts(message).map_err(|cause| at(message, cause))
}

fn at(message: &BorrowedMessage<'_>, cause: RecordCause) -> RecordError {
    RecordError {
        topic: message.topic().to_owned(),
        partition: message.partition(),
        offset: message.offset(),
        cause,
    }
}

fn decode_parts(message: &BorrowedMessage<'_>) -> Result<Decoded, RecordCause> {
    let value = message.payload().unwrap_or_default();
    let (schema_id, payload) = split_value(value)?;
    let fields = fields(message)?;
    let canonical = fields.bytes(HEADER, Field::Header)?;
    let header = EventHeader::decode(canonical).map_err(|e| RecordCause::HeaderMalformed {
        name: HEADER,
        cause: e.to_string(),
    })?;
    let hash = fields.text(HASH, Field::Hash)?.parse::<Digest>();
    let hash = hash.map_err(|e| RecordCause::HeaderMalformed {
        name: HASH,
        cause: e.to_string(),
    })?;
    let agrees = |holds: bool, name| {
        if holds {
            Ok(())
        } else {
            Err(RecordCause::Contradiction { name })
        }
    };
    let position = fields.text(POSITION, Field::Position)?;
    agrees(position.parse() == Ok(header.position.0), POSITION)?;
    let id = fields.text(ID, Field::Id)?;
    agrees(id.parse() == Ok(header.event_id), ID)?;
    agrees(fields.text(TYPE, Field::Type)? == full_name(&header), TYPE)?;
    agrees(message.key() == Some(header.aggregate_id.as_bytes()), "key")?;
    let traceparent = fields.optional_text(TRACEPARENT, Field::Traceparent)?;
    let event = RecordedEvent {
        header,
        payload: bytes::Bytes::copy_from_slice(payload),
        hash,
        traceparent: traceparent.map(str::to_owned),
    };
    Ok(Decoded { event, schema_id })
}

fn split_value(value: &[u8]) -> Result<(u32, &[u8]), RecordCause> {
    match value {
        [0, a, b, c, d, payload @ ..] => Ok((u32::from_be_bytes([*a, *b, *c, *d]), payload)),
        [magic, _, _, _, _, ..] => Err(RecordCause::Magic(*magic)),
        _ => Err(RecordCause::Short),
    }
}

#[derive(Clone, Copy)]
enum Field {
    Position,
    Hash,
    Header,
    Id,
    Type,
    Traceparent,
}

/// Our headers, found in one pass.
struct Fields<'m> {
    found: [(Option<&'m [u8]>, usize); 6],
}

fn fields<'m>(message: &'m BorrowedMessage<'_>) -> Result<Fields<'m>, RecordCause> {
    let headers = message.headers().ok_or(RecordCause::HeaderCount {
        name: HEADER,
        count: 0,
    })?;
    let mut found = [(None, 0_usize); 6];
    for header in headers.iter() {
        let field = match header.key {
            POSITION => Field::Position,
            HASH => Field::Hash,
            HEADER => Field::Header,
            ID => Field::Id,
            TYPE => Field::Type,
            TRACEPARENT => Field::Traceparent,
            _ => continue,
        };
        let slot = &mut found[field as usize];
        *slot = (header.value, slot.1 + 1);
    }
    Ok(Fields { found })
}

impl<'m> Fields<'m> {
    fn bytes(&self, name: &'static str, field: Field) -> Result<&'m [u8], RecordCause> {
        match self.found[field as usize] {
            (Some(value), 1) => Ok(value),
            (_, count) => Err(RecordCause::HeaderCount { name, count }),
        }
    }

    fn text(&self, name: &'static str, field: Field) -> Result<&'m str, RecordCause> {
        std::str::from_utf8(self.bytes(name, field)?).map_err(|e| RecordCause::HeaderMalformed {
            name,
            cause: e.to_string(),
        })
    }

    fn optional_text(
        &self,
        name: &'static str,
        field: Field,
    ) -> Result<Option<&'m str>, RecordCause> {
        match self.found[field as usize] {
            (_, 0) => Ok(None),
            _ => self.text(name, field).map(Some),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn value_is_prefix_and_the_very_payload() {
        let mut value = Vec::new();
        put_value(0x0102_0304, b"payload", &mut value);
        assert_eq!(value, b"\x00\x01\x02\x03\x04payload");
        assert_eq!(split_value(&value), Ok((0x0102_0304, &b"payload"[..])));
    }

    #[test]
    fn foreign_values_are_named() {
        assert_eq!(split_value(b""), Err(RecordCause::Short));
        assert_eq!(split_value(b"\x00\x00\x00\x01"), Err(RecordCause::Short));
        assert_eq!(split_value(b"{\"a\":1}"), Err(RecordCause::Magic(b'{')));
    }
}
