//! An event as a Kafka record, and back.
//!
//! Key: the aggregate id. Value: `0x00`, the registry's schema id as four big-endian bytes
//! (Confluent's wire format), then the ledger's payload bytes unchanged. Headers: CloudEvents 1.0
//! in Kafka's binary mode with the prefix `ce_`, plus position, hash and the canonical header.

use rdkafka::message::{BorrowedMessage, Header, Headers, Message, OwnedHeaders};
use sovereign_schemas::avro::DecodeError;
use sovereign_schemas::events::{
    AgentEvent, ApprovalEvent, ApproverEvent, ImportedEvent, JobEvent, PolicyEvent, SchedulesEvent,
    TradeEvent,
};
use sovereign_schemas::{
    AggregateType, Digest, ErrorCode, EventHeader, EventType, PAYLOAD_BYTES_MAX, Position,
    RecordedEvent, catalog,
};

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
    pub const fn code(&self) -> ErrorCode {
        self.cause.code()
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
    /// A payload above [`PAYLOAD_BYTES_MAX`].
    #[error("payload has {0} bytes, at most {PAYLOAD_BYTES_MAX} are allowed")]
    TooLarge(usize),
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
    /// A schema id that the registry does not have, or has for another schema.
    #[error("schema id {id} is not that of the schema in the canonical header: {found}")]
    SchemaId {
        /// The id in front of the payload.
        id: u32,
        /// What the registry has under it.
        found: String,
    },
    /// A type or version that this build does not know; a newer one may.
    #[error("event {event_type} version {version} is unknown to this build")]
    UnknownEvent {
        /// Record name; left out unless it looks like one.
        event_type: String,
        /// Its version.
        version: u16,
    },
    /// A payload that is not exactly one datum of its schema.
    #[error("payload: {0}")]
    Payload(DecodeError),
}

impl RecordCause {
    /// The stable name.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::Short | Self::Magic(_) => ErrorCode::NotAnEvent,
            Self::TooLarge(_) => ErrorCode::PayloadTooLarge,
            Self::HeaderCount { .. } | Self::HeaderMalformed { .. } => ErrorCode::HeaderInvalid,
            Self::Contradiction { .. } => ErrorCode::HeaderContradiction,
            Self::SchemaId { .. } => ErrorCode::SchemaUnknown,
            Self::UnknownEvent { .. } => ErrorCode::EventUnknown,
            Self::Payload(_) => ErrorCode::PayloadInvalid,
        }
    }
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

/// Whether `text` is what [`full_name`] makes, without making it.
fn is_full_name(text: &str, header: &EventHeader) -> bool {
    let (aggregate_type, event_type) = match EventType::parse(&header.event_type) {
        Some(known) => (known.aggregate_type().as_str(), known.as_str()),
        None => (&*header.aggregate_type, &*header.event_type),
    };
    text.strip_prefix("sovereign.")
        .and_then(|rest| rest.strip_prefix(aggregate_type))
        .and_then(|rest| rest.strip_prefix('.'))
        .is_some_and(|rest| rest == event_type)
}

/// Appends prefix and payload.
pub fn put_value(schema_id: u32, payload: &[u8], out: &mut Vec<u8>) {
    out.push(0);
    out.extend_from_slice(&schema_id.to_be_bytes());
    out.extend_from_slice(payload);
}

/// The headers of an event whose canonical header has these bytes.
#[must_use]
pub fn headers(event: &RecordedEvent, canonical: &[u8]) -> OwnedHeaders {
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
        let text = fields(parts(message).headers).text(POSITION, Field::Position)?;
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
    decode_parts(parts(message)).map_err(|cause| at(message, cause))
}

/// Key, value and headers of a record, wherever they come from.
#[derive(Debug, Clone, Copy)]
pub struct Parts<'m, H> {
    /// The key, if there is one.
    pub key: Option<&'m [u8]>,
    /// The value, if there is one.
    pub value: Option<&'m [u8]>,
    /// Name and value of each header, in order.
    pub headers: H,
}

/// The parts of a message of librdkafka.
pub(crate) fn parts<'m>(
    message: &'m BorrowedMessage<'_>,
) -> Parts<'m, impl Iterator<Item = (&'m str, Option<&'m [u8]>)>> {
    let headers = message.headers().into_iter().flat_map(Headers::iter);
    Parts {
        key: message.key(),
        value: message.payload(),
        headers: headers.map(|h| (h.key, h.value)),
    }
}

fn at(message: &BorrowedMessage<'_>, cause: RecordCause) -> RecordError {
    RecordError {
        topic: message.topic().to_owned(),
        partition: message.partition(),
        offset: message.offset(),
        cause,
    }
}

/// As [`decode`], for a record that does not come from a topic just now.
///
/// # Errors
/// What is wrong with it.
pub fn decode_parts<'m>(
    parts: Parts<'m, impl Iterator<Item = (&'m str, Option<&'m [u8]>)>>,
) -> Result<Decoded, RecordCause> {
    let (schema_id, payload) = split_value(parts.value.unwrap_or_default())?;
    let fields = fields(parts.headers);
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
    agrees(decimal(position) == Some(header.position.0), POSITION)?;
    let id = fields.text(ID, Field::Id)?;
    let mut spelled = [0; 36];
    agrees(
        id == header.event_id.hyphenated().encode_lower(&mut spelled),
        ID,
    )?;
    agrees(is_full_name(fields.text(TYPE, Field::Type)?, &header), TYPE)?;
    agrees(parts.key == Some(header.aggregate_id.as_bytes()), "key")?;
    let traceparent = fields.optional_text(TRACEPARENT, Field::Traceparent)?;
    let event = RecordedEvent {
        header,
        payload: bytes::Bytes::copy_from_slice(payload),
        hash,
        traceparent: traceparent.map(str::to_owned),
    };
    Ok(Decoded { event, schema_id })
}

/// Decodes the payload, in any version that this build knows: [`decode`] does not look into it,
/// since copies can be compared and chains checked without.
///
/// # Errors
/// [`RecordCause::UnknownEvent`], [`RecordCause::Contradiction`] if the header names a schema or an
/// aggregate type that is not the event's, [`RecordCause::Payload`] if the bytes are not exactly
/// one datum.
pub fn check_payload(event: &RecordedEvent) -> Result<(), RecordCause> {
    let header = &event.header;
    let unknown = || RecordCause::UnknownEvent {
        event_type: name_or_nothing(&header.event_type),
        version: header.event_version,
    };
    let kind = EventType::parse(&header.event_type).ok_or_else(unknown)?;
    let schema = catalog::find(&header.event_type, header.event_version).ok_or_else(unknown)?;
    if schema.fingerprint != header.schema_fingerprint {
        return Err(RecordCause::Contradiction {
            name: "schema fingerprint",
        });
    }
    if kind.aggregate_type().as_str() != header.aggregate_type {
        return Err(RecordCause::Contradiction {
            name: "aggregate type",
        });
    }
    match kind.aggregate_type() {
        AggregateType::Agent => event.decode::<AgentEvent>().map(drop),
        AggregateType::Trade => event.decode::<TradeEvent>().map(drop),
        AggregateType::Approval => event.decode::<ApprovalEvent>().map(drop),
        AggregateType::Imported => event.decode::<ImportedEvent>().map(drop),
        AggregateType::Policy => event.decode::<PolicyEvent>().map(drop),
        AggregateType::Approver => event.decode::<ApproverEvent>().map(drop),
        AggregateType::Job => event.decode::<JobEvent>().map(drop),
        AggregateType::Schedules => event.decode::<SchedulesEvent>().map(drop),
    }
    .map_err(RecordCause::Payload)
}

/// A header can hold anything; what does not look like a record name is not repeated.
fn name_or_nothing(text: &str) -> String {
    let looks = text.len() <= 80 && text.bytes().all(|b| b.is_ascii_alphanumeric());
    if looks { text } else { "" }.to_owned()
}

/// Digits only, without a sign and leading zeros: what is compared as text elsewhere has one
/// spelling.
fn decimal(text: &str) -> Option<u64> {
    let plain = text.bytes().all(|b| b.is_ascii_digit());
    let shortest = !text.starts_with('0') || text.len() == 1;
    (plain && shortest).then(|| text.parse().ok()).flatten()
}

fn split_value(value: &[u8]) -> Result<(u32, &[u8]), RecordCause> {
    match value {
        [0, _, _, _, _, payload @ ..] if payload.len() > PAYLOAD_BYTES_MAX => {
            Err(RecordCause::TooLarge(payload.len()))
        }
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

fn fields<'m>(headers: impl Iterator<Item = (&'m str, Option<&'m [u8]>)>) -> Fields<'m> {
    let mut found = [(None, 0_usize); 6];
    for (key, value) in headers {
        let field = match key {
            POSITION => Field::Position,
            HASH => Field::Hash,
            HEADER => Field::Header,
            ID => Field::Id,
            TYPE => Field::Type,
            TRACEPARENT => Field::Traceparent,
            _ => continue,
        };
        let slot = &mut found[field as usize];
        *slot = (value, slot.1 + 1);
    }
    Fields { found }
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
    fn a_position_has_one_spelling() {
        assert_eq!(decimal("1"), Some(1));
        assert_eq!(decimal("18446744073709551615"), Some(u64::MAX));
        for other in ["", "+1", "01", "1 ", "-1", "18446744073709551616", "१"] {
            assert_eq!(decimal(other), None, "{other:?}");
        }
    }

    #[test]
    fn a_full_name_is_known_from_its_parts() {
        let mut header = EventHeader::decode(&sample()).unwrap();
        for (event_type, aggregate_type) in [("ThoughtRecorded", "agent"), ("New", "a.b")] {
            header.event_type = event_type.into();
            header.aggregate_type = aggregate_type.into();
            let name = full_name(&header);
            assert!(is_full_name(&name, &header));
            assert!(!is_full_name(&name[1..], &header));
            assert!(!is_full_name(&name[..name.len() - 1], &header));
            assert!(!is_full_name(&format!("{name}s"), &header));
            assert!(!is_full_name(&name.replacen('.', "", 1), &header));
        }
    }

    /// A header with short names.
    fn sample() -> Vec<u8> {
        let mut bytes = vec![2];
        bytes.extend_from_slice(&[0; 16]);
        bytes.extend_from_slice(b"\x02a\x02b\x02\x02c\x02\x02\x02d");
        bytes.extend_from_slice(&[0; 32]);
        bytes.extend_from_slice(&[0; 10]);
        bytes
    }

    #[test]
    fn foreign_values_are_named() {
        assert_eq!(split_value(b""), Err(RecordCause::Short));
        assert_eq!(split_value(b"\x00\x00\x00\x01"), Err(RecordCause::Short));
        assert_eq!(split_value(b"{\"a\":1}"), Err(RecordCause::Magic(b'{')));
    }
}
