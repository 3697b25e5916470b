//! The writing session: one transaction a batch, one round trip a transaction, and the next goes
//! out while the last is being committed.
//!
//! All statements of a transaction and its rows are sent at once and end with one `Sync`, which
//! makes them one transaction (PostgreSQL's manual, "Pipelining"). None of them can be made
//! dependent on the result of another, so each that finds something wrong fails, and the server
//! skips what follows: a head row that stands elsewhere would become NULL, which its column does not
//! take; a command that is known divides by zero.

use std::collections::VecDeque;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{BufMut as _, BytesMut};
use postgres_protocol::IsNull;
use postgres_protocol::message::frontend;
use sovereign_schemas::chain::Head;
use sovereign_schemas::{Digest, Position, Uuid};
use tokio::time::Instant;

use super::wire::{Ready, ServerError, Wire};
use crate::port::{Done, Refused, Transaction, WriteSession};
use crate::row::{self, CopyRows};
use crate::{Durability, StoreError};

/// A transaction that takes longer counts as lost: its fate is looked up.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(20);
/// Transactions under way: the server always has the next one at hand.
const IN_FLIGHT_MAX: usize = 2;

const TAKE_HEAD: &str = "update ledger.head set hash = $4::bytea, \
    position = case when position = $1::bigint and hash = $2::bytea then $3::bigint end";
/// The first parameter are the ids of all commands that were decided, the second those that leave
/// no event. A new statement sees what was committed while the first one waited for the lock.
const CHECK: &str = "select 1 / (case when \
    exists (select from ledger.refusals where command_id = any($1::uuid[])) \
    or exists (select from ledger.events where command_events > 0 \
    and command_id = any($2::uuid[])) \
    or not exists (select from ledger.head where position = $3::bigint) then 0 else 1 end)";
const REFUSE: &str = "insert into ledger.refusals (command_id, problem, recorded_at_us) \
    select id, problem::jsonb, at from unnest($1::uuid[], $2::text[], $3::bigint[]) \
    as refused (id, problem, at)";

/// Types of array elements (`pg_type.oid`).
mod oid {
    pub(super) const BIGINT: i32 = 20;
    pub(super) const TEXT: i32 = 25;
    pub(super) const UUID: i32 = 2950;
}

#[derive(Debug)]
pub(super) struct PgWriter {
    wire: Wire,
    /// Commits need not be durable by themselves.
    flushed_elsewhere: bool,
    /// Inside a transaction that holds the head row.
    locked: bool,
    /// The transaction under way began with the lock. Should it fail, it has to be rolled back
    /// before anything else is sent.
    alone: bool,
    /// When the transactions under way count as lost, the oldest first.
    deadlines: VecDeque<Instant>,
    /// A transaction that could not be put into bytes.
    unsendable: Option<StoreError>,
}

impl PgWriter {
    /// Prepares the statements.
    pub(super) async fn new(mut wire: Wire, durability: Durability) -> Result<Self, StoreError> {
        for (name, sql) in [
            ("head", TAKE_HEAD),
            ("check", CHECK),
            ("copy", row::COPY),
            ("refuse", REFUSE),
            ("commit", "commit"),
            (
                "durable",
                "select set_config('synchronous_commit', 'on', true)",
            ),
        ] {
            wire.prepare(name, sql)
                .map_err(|e| StoreError::Internal(e.to_string()))?;
        }
        wire.sync();
        match wire.answer().await?.error {
            Some(error) => Err(error.into()),
            None => Ok(Self {
                wire,
                flushed_elsewhere: durability == Durability::FlushedBySecondConnection,
                locked: false,
                alone: false,
                deadlines: VecDeque::new(),
                unsendable: None,
            }),
        }
    }
}

#[async_trait]
impl WriteSession for PgWriter {
    fn in_flight_max(&self) -> usize {
        if self.alone { 1 } else { IN_FLIGHT_MAX }
    }

    fn can_commit_durably(&self) -> bool {
        self.flushed_elsewhere
    }

    fn send(&mut self, transaction: &Transaction) {
        let locked = std::mem::take(&mut self.locked);
        self.alone |= locked;
        self.deadlines.push_back(Instant::now() + COMMIT_TIMEOUT);
        if let Err(error) = put(self.wire.output(), transaction, locked) {
            self.unsendable.get_or_insert(error);
        }
    }

    async fn outcome(&mut self) -> Done {
        if let Some(error) = self.unsendable.take() {
            return Done::Lost(error);
        }
        let Some(deadline) = self.deadlines.front().copied() else {
            return Done::Lost(StoreError::Internal("no transaction was sent".to_owned()));
        };
        let answer = match tokio::time::timeout_at(deadline, self.wire.answer()).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Done::Lost(error),
            Err(_) => return Done::Lost(too_slow()),
        };
        self.deadlines.pop_front();
        let done = answer.error.map_or(Done::Committed, failed);
        self.alone = false;
        // only what began with the lock can still be inside a transaction now
        if answer.ready == Ready::Idle || matches!(done, Done::Lost(_)) {
            return done;
        }
        match self.wire.simple("rollback").await {
            Ok(_) => done,
            Err(error) => Done::Lost(error),
        }
    }

    async fn lock(&mut self) -> Result<Head, StoreError> {
        self.locked = true;
        let sql = "begin; select position, hash from ledger.head for update";
        let locking = tokio::time::timeout(COMMIT_TIMEOUT, self.wire.simple(sql));
        let answer = locking.await.unwrap_or_else(|_| Err(too_slow()))?;
        let [position, hash] = answer.row.as_slice() else {
            return Err(StoreError::Internal("ledger.head has no row".to_owned()));
        };
        head(position, hash)
            .ok_or_else(|| StoreError::Internal("ledger.head has a row that is no head".to_owned()))
    }

    async fn release(&mut self) -> Result<(), StoreError> {
        if std::mem::take(&mut self.locked) {
            self.wire.simple("rollback").await?;
        }
        Ok(())
    }
}

fn too_slow() -> StoreError {
    StoreError::Unreachable(format!(
        "a commit took longer than {} s",
        COMMIT_TIMEOUT.as_secs()
    ))
}

/// Nothing of the transaction happened, unless the session is lost.
fn failed(error: ServerError) -> Done {
    match (error.code.as_str(), error.constraint.as_str()) {
        ("23502", _) if error.table == "head" => Done::HeadMoved,
        // the divisor is 0 only if a command is known
        ("22012", _) | ("23505", "events_command" | "refusals_pkey") => Done::Taken,
        // data that does not fit, a broken constraint, a limit of the program
        (code, constraint)
            if ["22", "23", "54"]
                .iter()
                .any(|class| code.starts_with(class)) =>
        {
            Done::Rejected(format!("{} ({code}, {constraint})", error.message))
        }
        _ => Done::Lost(error.into()),
    }
}

/// A head row as text.
fn head(position: &[u8], hash: &[u8]) -> Option<Head> {
    let position = std::str::from_utf8(position).ok()?.parse().ok()?;
    let hash = std::str::from_utf8(hash).ok()?.strip_prefix("\\x")?;
    Some(Head {
        position: Position(position),
        hash: hash.parse::<Digest>().ok()?,
    })
}

fn put(out: &mut BytesMut, transaction: &Transaction, locked: bool) -> Result<(), StoreError> {
    let (before, after) = (transaction.before, transaction.after);
    if transaction.durable {
        execute(out, "durable", &[])?;
    }
    let position = after.position.0.to_be_bytes();
    let old_position = before.position.0.to_be_bytes();
    execute(
        out,
        "head",
        &[&old_position, &before.hash.0, &position, &after.hash.0],
    )?;
    let decided = uuids(transaction.decided.iter());
    let without_events = uuids(transaction.without_events.iter());
    execute(out, "check", &[&decided, &without_events, &position])?;
    if !transaction.refusals.is_empty() {
        refuse(out, &transaction.refusals)?;
    }
    if !transaction.events.is_empty() {
        execute(out, "copy", &[])?;
        let mut rows = CopyRows::start(out);
        for (event, command_events) in transaction.rows() {
            rows.push(event, command_events);
        }
        rows.finish();
        frontend::copy_done(out);
    }
    if locked {
        execute(out, "commit", &[])?;
    }
    frontend::sync(out);
    Ok(())
}

/// Runs a prepared statement with parameters in binary.
fn execute(out: &mut BytesMut, name: &str, parameters: &[&[u8]]) -> Result<(), StoreError> {
    let put = |value: &&[u8], out: &mut BytesMut| {
        out.put_slice(value);
        Ok(IsNull::No)
    };
    let too_large = |what: String| StoreError::Internal(format!("{name}: {what}"));
    frontend::bind("", name, [1], parameters, put, [], out).map_err(|e| match e {
        frontend::BindError::Conversion(e) => too_large(e.to_string()),
        frontend::BindError::Serialization(e) => too_large(e.to_string()),
    })?;
    frontend::execute("", 0, out).map_err(|e| too_large(e.to_string()))
}

fn refuse(out: &mut BytesMut, refusals: &[Refused]) -> Result<(), StoreError> {
    let ids = uuids(refusals.iter().map(|refused| &refused.command_id));
    let (mut problems, mut times) = (Array::of(oid::TEXT), Array::of(oid::BIGINT));
    for refused in refusals {
        let json = serde_json::to_string(&refused.problem)
            .map_err(|e| StoreError::Internal(e.to_string()))?;
        // jsonb cannot hold it, and no problem of ours does
        problems.push(json.replace("\\u0000", "\\ufffd").as_bytes());
        times.push(&refused.at.0.to_be_bytes());
    }
    execute(out, "refuse", &[&ids, &problems.finish(), &times.finish()])
}

fn uuids<'a>(ids: impl Iterator<Item = &'a Uuid>) -> Vec<u8> {
    let mut array = Array::of(oid::UUID);
    ids.for_each(|id| array.push(id.as_bytes()));
    array.finish()
}

/// A one-dimensional array without NULL, in the server's binary form (`array_send`).
struct Array {
    bytes: Vec<u8>,
    count: i32,
}

/// Where the number of elements stands.
const COUNT_AT: usize = 12;

impl Array {
    fn of(element: i32) -> Self {
        let mut bytes = Vec::with_capacity(64);
        // dimensions, whether there is a NULL, type; then elements and the first one's number
        for number in [1, 0, element, 0, 1] {
            bytes.put_i32(number);
        }
        Self { bytes, count: 0 }
    }

    fn push(&mut self, element: &[u8]) {
        self.count += 1;
        self.bytes.put_i32(element.len() as i32);
        self.bytes.put_slice(element);
    }

    fn finish(mut self) -> Vec<u8> {
        self.bytes[COUNT_AT..COUNT_AT + 4].copy_from_slice(&self.count.to_be_bytes());
        self.bytes
    }
}
