//! What a record asks for.

use std::borrow::Cow;

use bytes::Bytes;
use sovereign_schemas::{CommandRecord, Digest, ErrorCode, Problem, Uuid};

use super::reply::headers;
use crate::dead_letters::{Origin, RawRecord};
use crate::record::PREFIX_BYTES;

/// Namespace of the ids of records.
const RECORDS: Uuid = Uuid::from_u128(0x5e0f_e1a5_7c3b_4d0a_9b1e_0b5f_2d6c_a0c4);
/// First byte of Confluent's wire format.
const MAGIC: u8 = 0;
/// Longest key: it is repeated in the reply, which must fit its topic; 64 KiB.
const KEY_BYTES_MAX: usize = 64 << 10;
/// Longest correlation id.
const CORRELATION_BYTES_MAX: usize = 4 << 10;
/// Length of a W3C trace context, version 00.
const TRACEPARENT_BYTES: usize = 55;

/// A record on `commands`.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) origin: Origin,
    pub(super) record: RawRecord,
    /// The same whenever the record is read.
    pub(super) id: Uuid,
    pub(super) content: Content,
    pub(super) traceparent: Option<String>,
    /// Its reply cannot repeat what it is recognised by.
    pub(super) nameless: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// A line of JSON, or what should be one.
    Line(Bytes),
    /// An Avro datum as such a line, if the registry says that the id is that of commands.
    Avro {
        schema_id: u32,
        line: Result<Bytes, Problem>,
    },
    /// Nothing that could be a command.
    Unreadable(Problem),
}

/// Only what says whom a command is for.
#[derive(serde::Deserialize)]
struct Addressee<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
}

impl Request {
    pub(super) fn read(origin: Origin, record: RawRecord) -> Self {
        let id = id(&origin, &record);
        let too_large = too_large(&record);
        let nameless = too_large.is_some();
        let content = match too_large {
            Some(problem) => Content::Unreadable(problem),
            None => content(record.value.as_ref()),
        };
        let traceparent = text(&record, headers::TRACEPARENT)
            .filter(|t| t.len() == TRACEPARENT_BYTES && t.is_ascii());
        Self {
            origin,
            id,
            content,
            traceparent: traceparent.map(str::to_owned),
            nameless,
            record,
        }
    }

    /// What it takes in memory, about.
    pub(super) fn bytes(&self) -> usize {
        let value = self.record.value.as_ref().map_or(0, Bytes::len);
        let line = match &self.content {
            Content::Avro { line: Ok(line), .. } => line.len(),
            _ => 0,
        };
        let headers = self.record.headers.iter();
        let headers: usize = headers
            .map(|(name, value)| name.len() + value.as_ref().map_or(0, Bytes::len))
            .sum();
        value + line + headers + 512
    }

    fn line(&self) -> Option<&[u8]> {
        match &self.content {
            Content::Line(line) | Content::Avro { line: Ok(line), .. } => Some(line),
            _ => None,
        }
    }

    /// Whose order it must keep: that of its key, and that of its aggregate. Numbers of strings
    /// that hold no two by accident would do; two that do only wait for each other.
    pub(super) fn lanes(&self, number: impl Fn(&[u8]) -> u64) -> Vec<u64> {
        let mut lanes = Vec::with_capacity(2);
        lanes.extend(self.record.key.as_deref().map(&number));
        let addressee = self.line().map(serde_json::from_slice::<Addressee<'_>>);
        if let Some(Ok(Addressee { id })) = addressee {
            lanes.push(number(id.as_bytes()));
        }
        lanes.sort_unstable();
        lanes.dedup();
        lanes
    }

    /// What the reply is recognised by: as its sender named it, else the id that CloudEvents has.
    pub(super) fn correlation(&self) -> Option<&[u8]> {
        let found = |name| find(&self.record, name).filter(|_| !self.nameless);
        found(headers::CORRELATION_ID).or_else(|| found(headers::CE_ID))
    }
}

fn find<'a>(record: &'a RawRecord, name: &str) -> Option<&'a [u8]> {
    let found = record.headers.iter().rev().find(|(key, _)| key == name);
    found?.1.as_deref()
}

fn text<'a>(record: &'a RawRecord, name: &str) -> Option<&'a str> {
    std::str::from_utf8(find(record, name)?).ok()
}

/// UUID version 5 over what no other record has. Time and content are in it because a topic that
/// was deleted and created again counts from 0 again.
fn id(origin: &Origin, record: &RawRecord) -> Uuid {
    let digest = Digest::of(&[record.value.as_deref().unwrap_or_default()]);
    let place = format!("{}/{}", origin.partition, origin.offset);
    let time = record.timestamp_ms.map_or(String::new(), |t| t.to_string());
    let key = record.key.as_deref().unwrap_or_default();
    let mut named = Vec::new();
    for part in [
        origin.topic.as_bytes(),
        place.as_bytes(),
        time.as_bytes(),
        key,
        &digest.0,
    ] {
        named.extend_from_slice(&(part.len() as u64).to_be_bytes());
        named.extend_from_slice(part);
    }
    Uuid::new_v5(&RECORDS, &named)
}

/// What the reply would repeat and has no room for.
fn too_large(record: &RawRecord) -> Option<Problem> {
    let key = record.key.as_ref().map_or(0, Bytes::len);
    let of = |name| find(record, name).map_or(0, <[u8]>::len);
    let correlation = of(headers::CORRELATION_ID).max(of(headers::CE_ID));
    for (field, bytes, max) in [
        ("key", key, KEY_BYTES_MAX),
        (headers::CORRELATION_ID, correlation, CORRELATION_BYTES_MAX),
    ] {
        if bytes > max {
            let problem = Problem::new(ErrorCode::PayloadTooLarge, "is too long")
                .field(field)
                .found(format!("{bytes} bytes"))
                .expected(format!("at most {max} bytes"));
            return Some(problem.remedy("use a shorter one"));
        }
    }
    None
}

fn content(value: Option<&Bytes>) -> Content {
    let Some(value) = value.filter(|v| !v.is_empty()) else {
        let problem = Problem::new(ErrorCode::MalformedJson, "the record has no value")
            .expected("a JSON object, or Avro in Confluent's wire format")
            .remedy("send a command as the record's value");
        return Content::Unreadable(problem);
    };
    if value[0] != MAGIC {
        return Content::Line(value.clone());
    }
    let Some((prefix, datum)) = value.split_at_checked(PREFIX_BYTES) else {
        let problem = invalid_datum("ends inside the schema id");
        return Content::Unreadable(problem);
    };
    let schema_id = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]);
    let line = CommandRecord::decode(datum)
        .map_err(|error| invalid_datum(&error.to_string()))
        .and_then(|command| command.to_line())
        .map(Bytes::from);
    Content::Avro { schema_id, line }
}

fn invalid_datum(cause: &str) -> Problem {
    Problem::new(ErrorCode::PayloadInvalid, cause)
        .expected("one datum of sovereign.CommandRecord")
        .remedy("write the record with the schema whose id it bears")
}

/// Whether the sender's bytes should be kept: nobody could make a command of them.
pub(super) fn is_unreadable(problem: &Problem) -> bool {
    use ErrorCode::{LineTooLong, MalformedJson, PayloadInvalid, SchemaUnknown};
    let garbage = [MalformedJson, LineTooLong, PayloadInvalid, SchemaUnknown];
    garbage.contains(&problem.code)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(offset: i64) -> Origin {
        Origin {
            topic: "commands".to_owned(),
            partition: 1,
            offset,
        }
    }

    fn record(value: &[u8]) -> RawRecord {
        RawRecord {
            value: Some(Bytes::copy_from_slice(value)),
            timestamp_ms: Some(5),
            ..RawRecord::default()
        }
    }

    fn read(value: &[u8]) -> Request {
        Request::read(origin(7), record(value))
    }

    #[test]
    fn a_record_keeps_its_id_and_shares_it_with_none() {
        let one = read(b"{}").id;
        assert_eq!(one, read(b"{}").id);
        let mut others = vec![read(b"{ }").id, Request::read(origin(8), record(b"{}")).id];
        let mut later = record(b"{}");
        later.timestamp_ms = Some(6);
        others.push(Request::read(origin(7), later).id);
        let mut keyed = record(b"{}");
        keyed.key = Some(Bytes::from_static(b"k"));
        others.push(Request::read(origin(7), keyed).id);
        others.sort_unstable();
        others.dedup();
        assert!(others.len() == 4 && !others.contains(&one));
    }

    #[test]
    fn the_first_byte_tells_avro_from_json() {
        let line = |value: &[u8]| Content::Line(Bytes::copy_from_slice(value));
        for json in [
            &b"{\"id\": \"a\"}"[..],
            b" \n{}",
            b"[1]",
            b"\x01",
            b"garbage",
        ] {
            assert_eq!(read(json).content, line(json));
        }
        let mut avro = vec![0, 0, 0, 0, 9];
        let command = CommandRecord {
            id: "a".to_owned(),
            data: "{}".to_owned(),
            ..CommandRecord::default()
        };
        command.encode(&mut avro);
        let Content::Avro { schema_id, line } = read(&avro).content else {
            panic!("no avro")
        };
        assert_eq!((schema_id, line.is_ok()), (9, true));
        avro.pop();
        let Content::Avro { line, .. } = read(&avro).content else {
            panic!("no avro")
        };
        assert_eq!(line.unwrap_err().code, ErrorCode::PayloadInvalid);
        for (value, code) in [
            (&b""[..], ErrorCode::MalformedJson),
            (b"\0\0\0", ErrorCode::PayloadInvalid),
        ] {
            let Content::Unreadable(problem) = read(value).content else {
                panic!("{value:?} is readable")
            };
            assert!(problem.code == code && is_unreadable(&problem));
        }
    }

    #[test]
    fn order_is_kept_by_key_and_by_aggregate() {
        let number = |bytes: &[u8]| bytes.iter().map(|b| u64::from(*b)).sum();
        assert_eq!(
            read(b"{\"id\": \"a\", \"data\": {\"id\": 1}}").lanes(number),
            [97]
        );
        let mut keyed = record(b"{\"id\":\"a\"}");
        keyed.key = Some(Bytes::from_static(b"b"));
        assert_eq!(Request::read(origin(1), keyed).lanes(number), [97, 98]);
        assert!(read(b"garbage").lanes(number).is_empty());
    }

    #[test]
    fn a_reply_is_recognised_by_what_its_sender_named() {
        let with = |headers: &[(&str, &str)]| {
            let mut record = record(b"{}");
            let copied = |v: &str| Some(Bytes::copy_from_slice(v.as_bytes()));
            record.headers = headers
                .iter()
                .map(|(k, v)| ((*k).to_owned(), copied(v)))
                .collect();
            Request::read(origin(1), record)
        };
        let both = with(&[("correlation-id", "mine"), ("ce_id", "event")]);
        assert_eq!(both.correlation(), Some(&b"mine"[..]));
        assert_eq!(
            with(&[("ce_id", "event")]).correlation(),
            Some(&b"event"[..])
        );
        assert_eq!(with(&[]).correlation(), None);
        let long = "x".repeat(CORRELATION_BYTES_MAX + 1);
        let content = with(&[("correlation-id", &long)]).content;
        assert!(matches!(content, Content::Unreadable(p) if p.code == ErrorCode::PayloadTooLarge));
        let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert_eq!(
            with(&[("traceparent", trace)]).traceparent.as_deref(),
            Some(trace)
        );
        assert_eq!(with(&[("traceparent", "x")]).traceparent, None);
    }
}
