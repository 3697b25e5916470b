//! A dead letter as a record: the original key, value and headers, and headers of ours behind them.

use bytes::Bytes;
use rdkafka::message::{BorrowedMessage, Header, Headers, Message, OwnedHeaders};
use sovereign_schemas::{Digest, RecordedEvent, Timestamp, Uuid};

use crate::record::{self, Decoded, Parts, RecordCause};

/// Namespace of letter ids.
const LETTERS: Uuid = Uuid::from_u128(0x5e0f_e1a5_7c3b_4d0a_9b1e_0b5f_2d6c_a0d1);
/// A longer value is left where it lies and referred to: 15 MiB. The topic takes 16 MiB.
pub(crate) const VALUE_BYTES_MAX: usize = 15 << 20;
/// Bytes of a code.
const CODE_BYTES_MAX: usize = 64;
/// Bytes of a message.
const MESSAGE_BYTES_MAX: usize = 300;

/// Names of the headers that are added to the original ones.
pub mod headers {
    /// The letter's id, UUID text.
    pub const ID: &str = "sovereign_letter_id";
    /// The consumer group that failed.
    pub const GROUP: &str = "sovereign_letter_group";
    /// Topic of the original record, with its namespace; `ledger` for a view.
    pub const TOPIC: &str = "sovereign_letter_topic";
    /// Its partition, decimal.
    pub const PARTITION: &str = "sovereign_letter_partition";
    /// Its offset, decimal; for a view the position.
    pub const OFFSET: &str = "sovereign_letter_offset";
    /// Its timestamp, milliseconds, decimal; left out if it has none.
    pub const TIMESTAMP: &str = "sovereign_letter_timestamp";
    /// Why it failed: an error code.
    pub const CODE: &str = "sovereign_letter_code";
    /// Why it failed, in words; no content of the record.
    pub const MESSAGE: &str = "sovereign_letter_message";
    /// How often it was tried, decimal.
    pub const ATTEMPTS: &str = "sovereign_letter_attempts";
    /// When it failed first, RFC 3339.
    pub const FIRST_FAILED_AT: &str = "sovereign_letter_first_failed_at";
    /// When it failed last, RFC 3339.
    pub const LAST_FAILED_AT: &str = "sovereign_letter_last_failed_at";
    /// How many of the record's headers, from the first on, are the original ones, decimal.
    pub const HEADERS: &str = "sovereign_letter_headers";
    /// Length of the original value, decimal; left out if there was none.
    pub const VALUE_BYTES: &str = "sovereign_letter_value_bytes";
    /// SHA-256 of the original value, hexadecimal; only where the value was too large and is empty
    /// here: it lies at the source offset.
    pub const VALUE_SHA256: &str = "sovereign_letter_value_sha256";
}

/// Key, value and headers of a record, kept as they were.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RawRecord {
    /// The key, if there is one.
    pub key: Option<Bytes>,
    /// The value, if there is one.
    pub value: Option<Bytes>,
    /// Name and value of each header, in order, repeated ones as well.
    pub headers: Vec<(String, Option<Bytes>)>,
    /// Its timestamp, milliseconds since 1970.
    pub timestamp_ms: Option<i64>,
}

fn copied(bytes: Option<&[u8]>) -> Option<Bytes> {
    bytes.map(Bytes::copy_from_slice)
}

impl RawRecord {
    pub(crate) fn of(message: &BorrowedMessage<'_>) -> Self {
        let headers = message.headers().into_iter().flat_map(Headers::iter);
        Self {
            key: copied(message.key()),
            value: copied(message.payload()),
            headers: headers
                .map(|h| (h.key.to_owned(), copied(h.value)))
                .collect(),
            timestamp_ms: message.timestamp().to_millis(),
        }
    }

    /// The record that the relay writes for an event.
    #[must_use]
    pub fn of_event(event: &RecordedEvent, schema_id: u32) -> Self {
        let mut canonical = Vec::new();
        event.header.encode(&mut canonical);
        let mut value = Vec::with_capacity(event.payload.len() + record::PREFIX_BYTES);
        record::put_value(schema_id, &event.payload, &mut value);
        let headers = record::headers(event, &canonical);
        Self {
            key: copied(Some(event.header.aggregate_id.as_bytes())),
            value: Some(value.into()),
            headers: headers
                .iter()
                .map(|h| (h.key.to_owned(), copied(h.value)))
                .collect(),
            timestamp_ms: Some(event.header.recorded_at.0.div_euclid(1000)),
        }
    }

    /// Reads it as an event and checks it against its own canonical header; see
    /// [`record::check_payload`] for the payload.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(&self) -> Result<Decoded, RecordCause> {
        let headers = self.headers.iter();
        record::decode_parts(Parts {
            key: self.key.as_deref(),
            value: self.value.as_deref(),
            headers: headers.map(|(name, value)| (name.as_str(), value.as_deref())),
        })
    }
}

/// Where a record was found.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Origin {
    /// Topic, with its namespace; `ledger` for an event that a view could not take.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// Offset; for a view the position.
    pub offset: i64,
}

/// Why and how often it failed.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Failing {
    /// An error code: ours, or the consumer's own.
    pub code: String,
    /// In words; no content of the record.
    pub message: String,
    /// How often it was tried.
    pub attempts: u32,
    /// When it failed first.
    pub first_failed_at: Timestamp,
    /// When it failed last.
    pub last_failed_at: Timestamp,
}

impl Failing {
    /// Failed `attempts` times, the last time now. Code and message are cut to what a header may
    /// hold, and lose control characters.
    #[must_use]
    pub fn new(
        code: &str,
        message: &str,
        attempts: u32,
        first: Timestamp,
        last: Timestamp,
    ) -> Self {
        Self {
            code: plain(code, CODE_BYTES_MAX),
            message: plain(message, MESSAGE_BYTES_MAX),
            attempts,
            first_failed_at: first,
            last_failed_at: last,
        }
    }

    pub(crate) fn of(
        cause: &RecordCause,
        attempts: u32,
        first: Timestamp,
        last: Timestamp,
    ) -> Self {
        Self::new(
            cause.code().as_str(),
            &cause.to_string(),
            attempts,
            first,
            last,
        )
    }
}

fn plain(text: &str, bytes_max: usize) -> String {
    let mut out = String::new();
    for c in text.chars().filter(|c| !c.is_control()) {
        if out.len() + c.len_utf8() > bytes_max {
            break;
        }
        out.push(c);
    }
    out
}

/// A record that a consumer group could not decode or process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// The same for the same record and group, however often it is written: a second copy, written
    /// because of a crash, is recognised by it.
    pub id: Uuid,
    /// The consumer group that failed; a letter is its own and nobody else's.
    pub group: String,
    /// Where the record lies.
    pub origin: Origin,
    /// Why.
    pub failing: Failing,
    /// Length of the original value; `None` if there was none.
    pub value_bytes: Option<u64>,
    /// SHA-256 of the original value where it is not in `record`: too large, it is to be read from
    /// `origin`.
    pub left_at_source: Option<Digest>,
    /// The original bytes.
    pub record: RawRecord,
}

impl Letter {
    /// Writes a letter about a record.
    #[must_use]
    pub fn new(group: &str, origin: Origin, failing: Failing, record: RawRecord) -> Self {
        let digest = Digest::of(&[record.value.as_deref().unwrap_or_default()]);
        let mut named = Vec::new();
        let place = format!("{}/{}", origin.partition, origin.offset);
        let key = record.key.as_deref().unwrap_or_default();
        for part in [
            group.as_bytes(),
            origin.topic.as_bytes(),
            place.as_bytes(),
            key,
            &digest.0,
        ] {
            named.extend_from_slice(&(part.len() as u64).to_be_bytes());
            named.extend_from_slice(part);
        }
        let mut letter = Self {
            id: Uuid::new_v5(&LETTERS, &named),
            group: group.to_owned(),
            origin,
            failing,
            value_bytes: record.value.as_ref().map(|v| v.len() as u64),
            left_at_source: None,
            record,
        };
        if letter.value_bytes > Some(VALUE_BYTES_MAX as u64) {
            letter.leave_at_source();
        }
        letter
    }

    /// Keeps only a reference to the value; the topic does not take more.
    pub(crate) fn leave_at_source(&mut self) {
        if let Some(value) = self.record.value.replace(Bytes::new())
            && self.left_at_source.is_none()
        {
            self.left_at_source = Some(Digest::of(&[&value]));
        }
    }

    /// The headers of the letter's record: the original ones, then ours.
    pub(crate) fn headers(&self) -> OwnedHeaders {
        let original = &self.record.headers;
        let mut all = OwnedHeaders::new_with_capacity(original.len() + 14);
        for (key, value) in original {
            let value = value.as_deref();
            all = all.insert(Header { key, value });
        }
        let failing = &self.failing;
        let ours = [
            (headers::ID, Some(self.id.to_string())),
            (headers::GROUP, Some(self.group.clone())),
            (headers::TOPIC, Some(self.origin.topic.clone())),
            (headers::PARTITION, Some(self.origin.partition.to_string())),
            (headers::OFFSET, Some(self.origin.offset.to_string())),
            (
                headers::TIMESTAMP,
                self.record.timestamp_ms.map(|t| t.to_string()),
            ),
            (headers::CODE, Some(failing.code.clone())),
            (headers::MESSAGE, Some(failing.message.clone())),
            (headers::ATTEMPTS, Some(failing.attempts.to_string())),
            (
                headers::FIRST_FAILED_AT,
                Some(failing.first_failed_at.to_string()),
            ),
            (
                headers::LAST_FAILED_AT,
                Some(failing.last_failed_at.to_string()),
            ),
            (
                headers::VALUE_BYTES,
                self.value_bytes.map(|n| n.to_string()),
            ),
            (
                headers::VALUE_SHA256,
                self.left_at_source.map(|d| d.to_string()),
            ),
            (headers::HEADERS, Some(original.len().to_string())),
        ];
        for (key, value) in &ours {
            if let Some(value) = value {
                let value = Some(value.as_bytes());
                all = all.insert(Header { key, value });
            }
        }
        all
    }

    /// Reads a letter; `None` for a record that is none.
    pub(crate) fn read(message: RawRecord) -> Option<Self> {
        // the original may have headers of these names: ours are the last
        let find = |name: &str| {
            let found = message.headers.iter().rev().find(|(key, _)| key == name);
            std::str::from_utf8(found?.1.as_deref()?).ok()
        };
        let originals: usize = find(headers::HEADERS)?.parse().ok()?;
        if originals > message.headers.len() {
            return None;
        }
        let own = |name: &str| {
            let ours = message.headers[originals..].iter();
            let found = ours.rev().find(|(key, _)| key == name);
            std::str::from_utf8(found?.1.as_deref()?).ok()
        };
        let number = |name: &str| own(name)?.parse::<i64>().ok();
        let moment = |name: &str| own(name)?.parse::<Timestamp>().ok();
        let failing = Failing {
            code: own(headers::CODE)?.to_owned(),
            message: own(headers::MESSAGE)?.to_owned(),
            attempts: own(headers::ATTEMPTS)?.parse().ok()?,
            first_failed_at: moment(headers::FIRST_FAILED_AT)?,
            last_failed_at: moment(headers::LAST_FAILED_AT)?,
        };
        let origin = Origin {
            topic: own(headers::TOPIC)?.to_owned(),
            partition: own(headers::PARTITION)?.parse().ok()?,
            offset: number(headers::OFFSET)?,
        };
        let (id, group) = (
            own(headers::ID)?.parse().ok()?,
            own(headers::GROUP)?.to_owned(),
        );
        let value_bytes = own(headers::VALUE_BYTES).and_then(|n| n.parse().ok());
        let left_at_source = own(headers::VALUE_SHA256).and_then(|d| d.parse().ok());
        let timestamp_ms = number(headers::TIMESTAMP);
        let mut record = message;
        record.headers.truncate(originals);
        record.timestamp_ms = timestamp_ms;
        Some(Self {
            id,
            group,
            origin,
            failing,
            value_bytes,
            left_at_source,
            record,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(value: Option<&[u8]>) -> Letter {
        let origin = Origin {
            topic: "dept.trader".to_owned(),
            partition: 2,
            offset: 77,
        };
        let failing = Failing::new("not-an-event", "magic\nbyte", 3, Timestamp(1), Timestamp(2));
        let record = RawRecord {
            key: None,
            value: copied(value),
            headers: vec![
                ("a".to_owned(), None),
                ("a".to_owned(), copied(Some(b"\xff"))),
                // somebody who knows our names
                (headers::ID.to_owned(), copied(Some(b"no id"))),
                (headers::HEADERS.to_owned(), copied(Some(b"999"))),
            ],
            timestamp_ms: Some(5),
        };
        Letter::new("risk", origin, failing, record)
    }

    fn written(letter: &Letter) -> RawRecord {
        RawRecord {
            headers: letter
                .headers()
                .iter()
                .map(|h| (h.key.to_owned(), copied(h.value)))
                .collect(),
            timestamp_ms: Some(99),
            ..letter.record.clone()
        }
    }

    #[test]
    fn a_letter_keeps_the_original_bytes_and_headers() {
        for value in [None, Some(&b""[..]), Some(b"\0\x01")] {
            let letter = letter(value);
            assert_eq!(letter.failing.message, "magicbyte");
            assert_eq!(Letter::read(written(&letter)), Some(letter));
        }
    }

    #[test]
    fn the_same_record_and_group_make_the_same_id() {
        let one = letter(Some(b"x"));
        assert_eq!(one.id, letter(Some(b"x")).id);
        assert_ne!(one.id, letter(Some(b"y")).id);
        let other = Letter::new(
            "other",
            one.origin.clone(),
            one.failing.clone(),
            one.record.clone(),
        );
        assert_ne!(one.id, other.id);
    }

    #[test]
    fn a_value_beyond_the_limit_is_referred_to() {
        let large = vec![7; VALUE_BYTES_MAX + 1];
        let mut letter = letter(Some(&large));
        assert_eq!(letter.left_at_source, Some(Digest::of(&[&large])));
        assert_eq!(letter.value_bytes, Some(large.len() as u64));
        assert_eq!(letter.record.value.as_deref(), Some(&b""[..]));
        let before = letter.clone();
        letter.leave_at_source();
        assert_eq!(letter, before, "the digest stays that of the original");
        assert_eq!(Letter::read(written(&letter)), Some(letter));
    }

    #[test]
    fn foreign_records_on_the_topic_are_no_letters() {
        assert_eq!(Letter::read(RawRecord::default()), None);
        let mut cut = written(&letter(None));
        cut.headers.remove(5);
        assert_eq!(Letter::read(cut), None);
    }
}
