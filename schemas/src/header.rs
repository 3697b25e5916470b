use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use bytes::Bytes;

use crate::avro::{self, DecodeError, EventGroup, Reader, Wire};
use crate::{DepartmentId, Digest, ErrorCode, EventType, Position, Problem, Timestamp, Uuid};

/// Namespace of UUIDs that are hashed from text.
pub const TYPES_NAMESPACE: Uuid = Uuid::from_u128(0x5e0f_e1a5_7c3b_4d0a_9b1e_0b5f_2d6c_a001);

/// The actor of events that were brought in from another store. Built-in agents do not act on them:
/// they happened elsewhere, long ago. No caller can take this name.
pub const IMPORT_ACTOR: &str = "sovereign:import";

/// What kind of thing an event happened to.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum AggregateType {
    /// An agent and its state machine.
    Agent,
    /// A trade from intent to result.
    Trade,
    /// A request to a human.
    Approval,
    /// The history of an aggregate of somebody else's, brought in from another store.
    Imported,
    /// The policy that says when humans are asked.
    Policy,
    /// A person who approves, with the passkeys that sign for him.
    Approver,
    /// Work that a worker does.
    Job,
    /// When jobs are to be done again and again.
    Schedules,
}

impl AggregateType {
    /// All that this build knows.
    pub const ALL: &'static [Self] = &[
        Self::Agent,
        Self::Trade,
        Self::Approval,
        Self::Imported,
        Self::Policy,
        Self::Approver,
        Self::Job,
        Self::Schedules,
    ];

    /// As it stands in headers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Trade => "trade",
            Self::Approval => "approval",
            Self::Imported => "imported",
            Self::Policy => "policy",
            Self::Approver => "approver",
            Self::Job => "job",
            Self::Schedules => "schedules",
        }
    }
}

impl fmt::Display for AggregateType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for AggregateType {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        Self::ALL
            .iter()
            .copied()
            .find(|t| t.as_str() == text)
            .ok_or_else(|| {
                Problem::new(ErrorCode::UnknownAggregate, "no such aggregate type")
                    .field("aggregate")
                    .found(text)
                    .expected("agent, trade, approval, imported, policy or approver")
                    .expected("agent, trade, approval, imported, policy or job")
            })
    }
}

impl EventType {
    /// Parses a record name; `None` for one that this build does not know.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|t| t.as_str() == name)
    }

    /// The full record name, which is also the registry's subject and CloudEvents' `ce_type`.
    ///
    /// # Examples
    /// ```
    /// use sovereign_schemas::EventType;
    /// assert_eq!(EventType::ThoughtRecorded.full_name(), "sovereign.agent.ThoughtRecorded");
    /// ```
    #[must_use]
    pub fn full_name(self) -> String {
        format!("sovereign.{}.{}", self.aggregate_type(), self.as_str())
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The canonical header: everything about an event but its payload, trace context and hash. Its
/// Avro datum (`avro/EventHeader.avsc`) is what the chain hashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventHeader {
    /// Place in the ledger.
    pub position: Position,
    /// UUIDv7.
    pub event_id: Uuid,
    /// Kind of aggregate. Text, so that a ledger from a newer build can still be verified.
    pub aggregate_type: Cow<'static, str>,
    /// Which aggregate.
    pub aggregate_id: String,
    /// Place among the aggregate's events; dense, starts at 1.
    pub sequence: u64,
    /// Record name of the payload.
    pub event_type: Cow<'static, str>,
    /// Version of that record.
    pub event_version: u16,
    /// Department whose topic carries the event.
    pub department: DepartmentId,
    /// Who caused it.
    pub actor: String,
    /// The command that it came from.
    pub command_id: Uuid,
    /// Ties together everything that one outside stimulus set off.
    pub correlation_id: Uuid,
    /// The event that caused the command, if one did.
    pub causation_id: Option<Uuid>,
    /// When the ledger took it. Explains, never orders.
    pub recorded_at: Timestamp,
    /// CRC-64-AVRO of the payload's schema.
    pub schema_fingerprint: [u8; 8],
}

fn intern(text: &str) -> Cow<'static, str> {
    if let Some(known) = EventType::parse(text) {
        return Cow::Borrowed(known.as_str());
    }
    AggregateType::ALL
        .iter()
        .find(|t| t.as_str() == text)
        .map_or_else(
            || Cow::Owned(text.to_owned()),
            |t| Cow::Borrowed(t.as_str()),
        )
}

fn unsigned(input: &mut Reader<'_>) -> Result<u64, DecodeError> {
    let at = input.at();
    u64::try_from(input.long()?).map_err(|_| DecodeError::Integer { at })
}

impl EventHeader {
    /// Record name of the payload, borrowed from the build's own names where it is one of them.
    #[must_use]
    pub fn type_name(text: &str) -> Cow<'static, str> {
        intern(text)
    }

    /// Appends the Avro datum.
    pub fn encode(&self, out: &mut Vec<u8>) {
        avro::put_long(out, self.position.0.cast_signed());
        self.event_id.put(out);
        avro::put_bytes(out, self.aggregate_type.as_bytes());
        avro::put_bytes(out, self.aggregate_id.as_bytes());
        avro::put_long(out, self.sequence.cast_signed());
        avro::put_bytes(out, self.event_type.as_bytes());
        avro::put_long(out, i64::from(self.event_version));
        avro::put_long(out, i64::from(self.department.0));
        avro::put_bytes(out, self.actor.as_bytes());
        self.command_id.put(out);
        self.correlation_id.put(out);
        self.causation_id.put(out);
        self.recorded_at.put(out);
        out.extend_from_slice(&self.schema_fingerprint);
    }

    /// Reads one header from the front of `input`.
    ///
    /// # Errors
    /// If the bytes are no header.
    pub fn take(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let small = |input: &mut Reader<'_>| {
            let at = input.at();
            u16::try_from(input.long()?).map_err(|_| DecodeError::Integer { at })
        };
        Ok(Self {
            position: Position(unsigned(input)?),
            event_id: <Uuid as Wire>::take(input)?,
            aggregate_type: intern(input.str()?),
            aggregate_id: input.str()?.to_owned(),
            sequence: unsigned(input)?,
            event_type: intern(input.str()?),
            event_version: small(input)?,
            department: DepartmentId(small(input)?),
            actor: input.str()?.to_owned(),
            command_id: <Uuid as Wire>::take(input)?,
            correlation_id: <Uuid as Wire>::take(input)?,
            causation_id: <Option<Uuid> as Wire>::take(input)?,
            recorded_at: <Timestamp as Wire>::take(input)?,
            schema_fingerprint: input.fixed()?,
        })
    }

    /// Reads exactly one header.
    ///
    /// # Errors
    /// If the bytes are not exactly one header.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Reader::new(bytes);
        let header = Self::take(&mut input)?;
        input.finish()?;
        Ok(header)
    }
}

/// One event as it stands in the ledger, on a topic or in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedEvent {
    /// The canonical header.
    pub header: EventHeader,
    /// The raw Avro datum, at most [`crate::PAYLOAD_BYTES_MAX`] bytes.
    pub payload: Bytes,
    /// `SHA-256(previous hash ‖ canonical header ‖ payload)`.
    pub hash: Digest,
    /// W3C trace context, outside the chain.
    pub traceparent: Option<String>,
}

impl RecordedEvent {
    /// Place in the ledger.
    #[must_use]
    pub const fn position(&self) -> Position {
        self.header.position
    }

    /// The payload as an event of group `G`, brought up to its newest version.
    ///
    /// # Errors
    /// If type or version is unknown, or the bytes are not exactly one datum.
    pub fn decode<G: EventGroup>(&self) -> Result<G, DecodeError> {
        G::decode(
            &self.header.event_type,
            self.header.event_version,
            &self.payload,
        )
    }
}
