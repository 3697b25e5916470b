//! Long stretches of the ledger, read ahead by binary COPY: the server plans once instead of once a
//! page, sends rows without converting them, and the next rows come while the last are looked at.

use futures::TryStreamExt as _;
use sovereign_schemas::{
    DepartmentId, Digest, EventHeader, LogError, Position, RecordedEvent, Timestamp, Uuid,
};
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection as _, Executor as _, PgConnection};
use tokio::sync::mpsc;

use crate::stretch::Batch;
use crate::{StoreError, connect, row};

/// Rows of one COPY: it holds a snapshot of the database for as long as it runs.
const COPY_ROWS_MAX: u64 = 50_000;
/// Events handed over at once, and how many such batches wait.
const BATCH: usize = 1_024;
const BATCHES_MAX: usize = 4;

/// Starts reading the positions behind `after` up to `last`; ends when nobody listens any more.
pub(super) fn start(
    options: PgConnectOptions,
    after: Position,
    last: Position,
) -> mpsc::Receiver<Batch> {
    let (sender, batches) = mpsc::channel(BATCHES_MAX);
    tokio::spawn(async move {
        if let Err(error) = copy(&options, after, last, &sender).await {
            // whoever is gone needs no error
            sender.send(Err(error)).await.ok();
        }
    });
    batches
}

async fn copy(
    options: &PgConnectOptions,
    mut after: Position,
    last: Position,
    sender: &mpsc::Sender<Batch>,
) -> Result<(), LogError> {
    // its own, because a connection in the middle of a COPY is of no use to a pool
    let mut connection = connect::connect(options).await?;
    let failed = |error: sqlx::Error| LogError::from(StoreError::from(error));
    connection
        .execute("set enable_seqscan = off; set jit = off")
        .await
        .map_err(failed)?;
    while after < last {
        let end = Position((after.0 + COPY_ROWS_MAX).min(last.0));
        if !copy_rows(&mut connection, after, end, last, sender).await? {
            return Ok(());
        }
        after = end;
    }
    connection.close().await.ok();
    Ok(())
}

/// One COPY; `false` if nobody listens any more.
async fn copy_rows(
    connection: &mut PgConnection,
    after: Position,
    end: Position,
    last: Position,
    sender: &mpsc::Sender<Batch>,
) -> Result<bool, LogError> {
    let failed = |error: sqlx::Error| LogError::from(StoreError::from(error));
    let statement = format!(
        "copy (select {} from ledger.events where position > {after} and position <= {end} \
         order by position) to stdout (format binary)",
        row::COLUMNS
    );
    let mut rows = Rows::new(after);
    let mut chunks = connection.copy_out_raw(&statement).await.map_err(failed)?;
    let mut damage = None;
    while damage.is_none() {
        let Some(chunk) = chunks.try_next().await.map_err(failed)? else {
            break;
        };
        damage = rows.take(&chunk).err();
        if (rows.events.len() >= BATCH || damage.is_some()) && !rows.events.is_empty() {
            let full = std::mem::replace(&mut rows.events, Vec::with_capacity(BATCH));
            if sender.send(Ok(full)).await.is_err() {
                return Ok(false);
            }
        }
    }
    if let Some(damage) = damage {
        return Err(damage);
    }
    let (ended, full) = (rows.after, std::mem::take(&mut rows.events));
    if !full.is_empty() && sender.send(Ok(full)).await.is_err() {
        return Ok(false);
    }
    if ended < end {
        return Err(LogError::Gap {
            expected: ended.next(),
            found: last,
        });
    }
    Ok(true)
}

/// What starts the data (PostgreSQL's manual, "COPY", "Binary Format"): signature, flags, length
/// of an extension that no server sends.
const FRONT: &[u8; 19] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
const COLUMNS: i16 = 17;

/// Rows in binary COPY format, wherever the server cuts them.
struct Rows {
    started: bool,
    /// A row that has not come whole.
    cut: Vec<u8>,
    /// The last good position.
    after: Position,
    events: Vec<RecordedEvent>,
}

impl Rows {
    fn new(after: Position) -> Self {
        Self {
            started: false,
            cut: Vec::new(),
            after,
            events: Vec::with_capacity(BATCH),
        }
    }

    fn take(&mut self, chunk: &[u8]) -> Result<(), LogError> {
        if self.cut.is_empty() {
            let used = self.take_whole(chunk)?;
            self.cut.extend_from_slice(&chunk[used..]);
        } else {
            let mut bytes = std::mem::take(&mut self.cut);
            bytes.extend_from_slice(chunk);
            let used = self.take_whole(&bytes)?;
            bytes.drain(..used);
            self.cut = bytes;
        }
        Ok(())
    }

    /// Takes what is there as a whole; how many bytes that was.
    fn take_whole(&mut self, bytes: &[u8]) -> Result<usize, LogError> {
        let mut at = 0;
        if !self.started {
            match bytes.get(..FRONT.len()) {
                None => return Ok(0),
                Some(front) if front == FRONT => at = FRONT.len(),
                Some(_) => return Err(self.malformed("copy data does not start as it must")),
            }
            self.started = true;
        }
        loop {
            let mut fields = Fields {
                bytes: &bytes[at..],
            };
            match fields.count() {
                None => return Ok(at),
                // the end
                Some(-1) => return Ok(at + 2),
                Some(COLUMNS) => {}
                Some(_) => return Err(self.malformed("row of another width")),
            }
            let mut row: [Option<&[u8]>; COLUMNS as usize] = [None; COLUMNS as usize];
            for field in &mut row {
                match fields.field() {
                    Some(value) => *field = value,
                    None => return Ok(at),
                }
            }
            at = bytes.len() - fields.bytes.len();
            let event = event(&row).map_err(|what| self.malformed(what))?;
            let (expected, found) = (self.after.next(), event.position());
            if found != expected {
                return Err(LogError::Gap { expected, found });
            }
            self.after = found;
            self.events.push(event);
        }
    }

    fn malformed(&self, what: &str) -> LogError {
        LogError::Malformed {
            after: self.after,
            cause: what.to_owned(),
        }
    }
}

/// The rest of a row.
struct Fields<'a> {
    bytes: &'a [u8],
}

impl<'a> Fields<'a> {
    fn count(&mut self) -> Option<i16> {
        let (count, rest) = self.bytes.split_first_chunk()?;
        self.bytes = rest;
        Some(i16::from_be_bytes(*count))
    }

    /// `None` if it has not come whole; of its values, `None` is null.
    fn field(&mut self) -> Option<Option<&'a [u8]>> {
        let (length, rest) = self.bytes.split_first_chunk()?;
        let Ok(length) = usize::try_from(i32::from_be_bytes(*length)) else {
            self.bytes = rest;
            return Some(None);
        };
        let (value, rest) = rest.split_at_checked(length)?;
        self.bytes = rest;
        Some(Some(value))
    }
}

type Wrong = &'static str;

fn fixed<const N: usize>(field: Option<&[u8]>, what: Wrong) -> Result<[u8; N], Wrong> {
    field.and_then(|bytes| bytes.try_into().ok()).ok_or(what)
}

fn text(field: Option<&[u8]>, what: Wrong) -> Result<&str, Wrong> {
    field
        .and_then(|bytes| std::str::from_utf8(bytes).ok())
        .ok_or(what)
}

/// A row as an event, as `row::event` reads one of a query.
fn event(row: &[Option<&[u8]>; COLUMNS as usize]) -> Result<RecordedEvent, Wrong> {
    let [
        position,
        event_id,
        aggregate_type,
        aggregate_id,
        sequence,
        event_type,
        event_version,
        department,
        actor,
        command_id,
        correlation_id,
        causation_id,
        recorded_at,
        schema_fingerprint,
        traceparent,
        payload,
        hash,
    ] = *row;
    let uuid = |field, what| fixed(field, what).map(Uuid::from_bytes);
    let small = |field, what| {
        let value = i32::from_be_bytes(fixed(field, what)?);
        u16::try_from(value).map_err(|_| what)
    };
    let header = EventHeader {
        position: Position(u64::from_be_bytes(fixed(
            position,
            "position is no number",
        )?)),
        event_id: uuid(event_id, "event_id is no uuid")?,
        aggregate_type: EventHeader::type_name(text(aggregate_type, "aggregate_type is no text")?),
        aggregate_id: text(aggregate_id, "aggregate_id is no text")?.to_owned(),
        sequence: u64::from_be_bytes(fixed(sequence, "sequence is no number")?),
        event_type: EventHeader::type_name(text(event_type, "event_type is no text")?),
        event_version: small(event_version, "event_version is out of range")?,
        department: DepartmentId(small(department, "department is out of range")?),
        actor: text(actor, "actor is no text")?.to_owned(),
        command_id: uuid(command_id, "command_id is no uuid")?,
        correlation_id: uuid(correlation_id, "correlation_id is no uuid")?,
        causation_id: match causation_id {
            None => None,
            some => Some(uuid(some, "causation_id is no uuid")?),
        },
        recorded_at: Timestamp(i64::from_be_bytes(fixed(
            recorded_at,
            "recorded_at_us is no number",
        )?)),
        schema_fingerprint: fixed(schema_fingerprint, "schema_fingerprint has not 8 bytes")?,
    };
    Ok(RecordedEvent {
        header,
        payload: bytes::Bytes::copy_from_slice(payload.ok_or("payload is null")?),
        hash: Digest(fixed(hash, "hash has not 32 bytes")?),
        traceparent: match traceparent {
            None => None,
            some => Some(text(some, "traceparent is no text")?.to_owned()),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(out: &mut Vec<u8>, value: Option<&[u8]>) {
        match value {
            Some(value) => {
                out.extend_from_slice(&(value.len() as i32).to_be_bytes());
                out.extend_from_slice(value);
            }
            None => out.extend_from_slice(&(-1_i32).to_be_bytes()),
        }
    }

    /// Rows as a server sends them, from position 1 on.
    fn data(count: i64) -> Vec<u8> {
        let mut out = FRONT.to_vec();
        for position in 1..=count {
            out.extend_from_slice(&COLUMNS.to_be_bytes());
            put(&mut out, Some(&position.to_be_bytes()));
            put(&mut out, Some(&[1; 16]));
            put(&mut out, Some(b"agent"));
            put(&mut out, Some(b"a"));
            put(&mut out, Some(&position.to_be_bytes()));
            put(&mut out, Some(b"ThoughtRecorded"));
            put(&mut out, Some(&1_i32.to_be_bytes()));
            put(&mut out, Some(&5_i32.to_be_bytes()));
            put(&mut out, Some(b"me"));
            put(&mut out, Some(&[2; 16]));
            put(&mut out, Some(&[3; 16]));
            put(&mut out, (position % 2 == 0).then_some(&[4; 16][..]));
            put(&mut out, Some(&7_i64.to_be_bytes()));
            put(&mut out, Some(&[5; 8]));
            put(&mut out, (position % 2 == 0).then_some(&b"trace"[..]));
            put(&mut out, Some(&[6; 40]));
            put(&mut out, Some(&[8; 32]));
        }
        out.extend_from_slice(&(-1_i16).to_be_bytes());
        out
    }

    #[test]
    fn rows_are_the_same_wherever_they_are_cut() {
        let data = data(5);
        let mut whole = Rows::new(Position::START);
        whole.take(&data).unwrap();
        assert_eq!(whole.events.len(), 5);
        assert_eq!(whole.after, Position(5));
        assert_eq!(whole.events[1].traceparent.as_deref(), Some("trace"));
        assert_eq!(whole.events[0].header.causation_id, None);
        for size in 1..data.len() {
            let mut rows = Rows::new(Position::START);
            for chunk in data.chunks(size) {
                rows.take(chunk).unwrap();
            }
            assert_eq!(rows.events, whole.events, "cut every {size} bytes");
            assert!(rows.cut.is_empty());
        }
    }

    #[test]
    fn a_missing_row_is_a_gap_and_a_wrong_value_is_malformed() {
        let data = data(3);
        let error = Rows::new(Position(1)).take(&data).unwrap_err();
        assert!(matches!(error, LogError::Gap { expected, found }
            if expected == Position(2) && found == Position(1)));
        for (from, to) in [(&[8; 32][..], &[8; 31][..]), (&b"me"[..], &b"\xff\xff"[..])] {
            let mut bytes = data.clone();
            let at = bytes.windows(from.len()).position(|w| w == from).unwrap();
            let length = (to.len() as i32).to_be_bytes();
            bytes.splice(at - 4..at + from.len(), length.iter().chain(to).copied());
            let error = Rows::new(Position::START).take(&bytes).unwrap_err();
            assert!(matches!(error, LogError::Malformed { after, .. } if after == Position::START));
        }
        let error = Rows::new(Position::START).take(b"PGCOPY\n\xff\r\n\0\0\0\0\x01\0\0\0\0");
        assert!(error.is_err());
    }
}
