//! A row of `ledger.events`: read verbatim, and written as binary COPY.

use bytes::{BufMut as _, Bytes, BytesMut};
use sovereign_schemas::{
    DepartmentId, Digest, EventHeader, LogError, Position, RecordedEvent, Timestamp, Uuid,
};
use sqlx::Row as _;
use sqlx::postgres::PgRow;

/// What readers select, in the order in which [`event`] takes it.
pub(crate) const COLUMNS: &str = "position, event_id, aggregate_type, aggregate_id, sequence, \
    event_type, event_version, department, actor, command_id, correlation_id, causation_id, \
    recorded_at_us, schema_fingerprint, traceparent, payload, hash";

/// The statement whose data [`CopyRows`] writes.
pub(crate) const COPY: &str = "copy ledger.events (position, sequence, recorded_at_us, \
    event_version, department, command_events, event_id, command_id, correlation_id, \
    causation_id, aggregate_type, aggregate_id, event_type, actor, schema_fingerprint, \
    traceparent, hash, payload) from stdin (format binary)";

const COPY_COLUMNS: i16 = 18;

/// A row as an event. A value that no event can have is reported where it stands; everything else
/// is taken as it is, so that a changed column shows as a difference of hashes.
pub(crate) fn event(row: &PgRow) -> Result<RecordedEvent, LogError> {
    let position: i64 = get(row, 0, Position::START)?;
    let at = Position(position.cast_unsigned());
    let before = Position(at.0.saturating_sub(1));
    let wrong = |what: &str| LogError::Malformed {
        after: before,
        cause: what.to_owned(),
    };
    let small = |value: i32, what| u16::try_from(value).map_err(|_| wrong(what));
    let fingerprint: &[u8] = get(row, 13, before)?;
    let hash: &[u8] = get(row, 16, before)?;
    let header = EventHeader {
        position: at,
        event_id: get(row, 1, before)?,
        aggregate_type: EventHeader::type_name(get(row, 2, before)?),
        aggregate_id: get(row, 3, before)?,
        sequence: get::<i64>(row, 4, before)?.cast_unsigned(),
        event_type: EventHeader::type_name(get(row, 5, before)?),
        event_version: small(get(row, 6, before)?, "event_version is out of range")?,
        department: DepartmentId(small(get(row, 7, before)?, "department is out of range")?),
        actor: get(row, 8, before)?,
        command_id: get(row, 9, before)?,
        correlation_id: get(row, 10, before)?,
        causation_id: get(row, 11, before)?,
        recorded_at: Timestamp(get(row, 12, before)?),
        schema_fingerprint: fingerprint
            .try_into()
            .map_err(|_| wrong("schema_fingerprint has not 8 bytes"))?,
    };
    Ok(RecordedEvent {
        header,
        payload: Bytes::copy_from_slice(get(row, 15, before)?),
        hash: Digest(
            hash.try_into()
                .map_err(|_| wrong("hash has not 32 bytes"))?,
        ),
        traceparent: get(row, 14, before)?,
    })
}

fn get<'r, T>(row: &'r PgRow, column: usize, after: Position) -> Result<T, LogError>
where
    T: sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
{
    row.try_get(column).map_err(|e| LogError::Malformed {
        after,
        cause: e.to_string(),
    })
}

/// Rows in PostgreSQL's binary COPY format (its manual, "COPY", "Binary Format"), as the messages
/// that carry them.
#[derive(Debug)]
pub(crate) struct CopyRows<'a> {
    out: &'a mut BytesMut,
    /// Where the message that is being written starts.
    message: usize,
}

/// A message that has grown to so many bytes is not added to: the server works on it while the next
/// is on its way.
const MESSAGE_BYTES: usize = 32 << 10;
const COPY_DATA: u8 = b'd';

impl<'a> CopyRows<'a> {
    pub(crate) fn start(out: &'a mut BytesMut) -> Self {
        let message = out.len();
        let mut rows = Self { out, message };
        rows.open();
        rows.out.put_slice(b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0");
        rows
    }

    /// Appends one event; `command_events` is the number of events of its command if it is the
    /// first of them, else 0.
    pub(crate) fn push(&mut self, event: &RecordedEvent, command_events: u32) {
        if self.out.len() - self.message > MESSAGE_BYTES {
            self.close();
            self.open();
        }
        let header = &event.header;
        self.out.put_i16(COPY_COLUMNS);
        self.field(&header.position.0.to_be_bytes());
        self.field(&header.sequence.to_be_bytes());
        self.field(&header.recorded_at.0.to_be_bytes());
        self.field(&i32::from(header.event_version).to_be_bytes());
        self.field(&i32::from(header.department.0).to_be_bytes());
        self.field(&command_events.to_be_bytes());
        self.field(header.event_id.as_bytes());
        self.field(header.command_id.as_bytes());
        self.field(header.correlation_id.as_bytes());
        self.optional(header.causation_id.as_ref().map(Uuid::as_bytes));
        self.field(header.aggregate_type.as_bytes());
        self.field(header.aggregate_id.as_bytes());
        self.field(header.event_type.as_bytes());
        self.field(header.actor.as_bytes());
        self.field(&header.schema_fingerprint);
        self.optional(event.traceparent.as_ref().map(String::as_bytes));
        self.field(&event.hash.0);
        self.field(&event.payload);
    }

    pub(crate) fn finish(mut self) {
        self.out.put_i16(-1);
        self.close();
    }

    fn open(&mut self) {
        self.message = self.out.len();
        self.out.put_u8(COPY_DATA);
        // the length, once it is known
        self.out.put_i32(0);
    }

    fn close(&mut self) {
        // without the byte that names the message
        let length = (self.out.len() - self.message - 1) as i32;
        self.out[self.message + 1..self.message + 5].copy_from_slice(&length.to_be_bytes());
    }

    fn field(&mut self, bytes: &[u8]) {
        // a batch is far below 2 GiB, and a payload below 1 MiB
        self.out.put_i32(bytes.len() as i32);
        self.out.put_slice(bytes);
    }

    fn optional(&mut self, bytes: Option<impl AsRef<[u8]>>) {
        match bytes {
            Some(bytes) => self.field(bytes.as_ref()),
            None => self.out.put_i32(-1),
        }
    }
}
