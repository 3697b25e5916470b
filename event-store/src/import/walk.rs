//! One pass over the rows: to check them, or to write them.

use std::collections::{HashMap, HashSet};

use sha2::{Digest as _, Sha256};
use sovereign_aggregates::{AnyCommand, AnyEvent, CommandRequest};
use sovereign_schemas::{
    CommandContext, DepartmentId, ErrorCode, IMPORT_ACTOR, Identifier, Outcome, Problem, Status,
    TYPES_NAMESPACE, Uuid,
};
use sqlx::PgPool;

use super::known::{self, Key, Known};
use super::report::{ImportProblem, ImportProgress, ImportReport};
use super::send;
use super::source::{Row, Source, put};
use super::take::{Taker, Tally, Target};
use crate::Ledger;

/// Events of one command.
const CHUNK_EVENTS_MAX: usize = 128;
/// Bytes of rows of one command; one row may go beyond.
const CHUNK_BYTES_MAX: usize = 512 << 10;
/// Aggregates that may be left out; with more it is the wrong table.
const BAD_MAX: usize = 1_000_000;

/// Aggregates that begin in a window: where they go, and what the ledger has of them.
type Begun = HashMap<(String, String), (Result<Target, Problem>, Known)>;
/// A short name of a source aggregate.
type Short = [u8; 16];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Invalid,
    Conflict,
}

/// The aggregate whose rows are coming.
struct Current {
    source: (String, String),
    short: Short,
    target: Option<Target>,
    /// Index of its type in the report.
    kind: usize,
    writing: bool,
    /// The sequence that must follow.
    next: i64,
    known: Known,
    /// Rows that belong to the next known command.
    pending: Vec<[u8; 32]>,
    fault: Option<Fault>,
    rows: u64,
    already: u64,
    /// Rows that can be taken; in a pass that writes, those that were handed to the ledger.
    taken: u64,
    tally: Tally,
}

/// Consecutive events of one aggregate and department that become one command.
struct Chunk {
    source: (String, String),
    short: Short,
    kind: usize,
    target: Target,
    department: DepartmentId,
    first: i64,
    events: Vec<AnyEvent>,
    digests: Vec<[u8; 32]>,
    bytes: usize,
}

/// One pass.
pub(super) struct Walk<'a> {
    taker: &'a Taker,
    pool: &'a PgPool,
    ledger: Option<&'a Ledger>,
    /// Name of the table.
    table: &'a str,
    /// Aggregates that cannot be taken.
    bad: &'a mut HashSet<Short>,
    report: ImportReport,
    current: Option<Current>,
    open: Option<Chunk>,
    chunks: Vec<Chunk>,
}

/// The command id of the rows from `first` on with these digests.
fn command_id(
    table: &str,
    target: &Target,
    source: &(String, String),
    first: i64,
    digests: &[[u8; 32]],
) -> Uuid {
    let mut hasher = Sha256::new();
    for part in [
        "postgres-es",
        table,
        target.aggregate_type.as_str(),
        &source.0,
        &source.1,
    ] {
        put(&mut hasher, part.as_bytes());
    }
    hasher.update(first.to_be_bytes());
    digests.iter().for_each(|digest| hasher.update(digest));
    Uuid::new_v5(&TYPES_NAMESPACE, &hasher.finalize())
}

fn short(source: &(String, String)) -> Short {
    let mut hasher = Sha256::new();
    put(&mut hasher, source.0.as_bytes());
    put(&mut hasher, source.1.as_bytes());
    let digest: [u8; 32] = hasher.finalize().into();
    let mut short = [0; 16];
    short.copy_from_slice(&digest[..16]);
    short
}

impl<'a> Walk<'a> {
    /// A pass that writes if it is given a ledger.
    pub(super) fn new(
        taker: &'a Taker,
        pool: &'a PgPool,
        ledger: Option<&'a Ledger>,
        table: &'a str,
        bad: &'a mut HashSet<Short>,
    ) -> Self {
        Self {
            taker,
            pool,
            ledger,
            table,
            bad,
            report: ImportReport::default(),
            current: None,
            open: None,
            chunks: Vec::new(),
        }
    }

    pub(super) async fn run(
        mut self,
        source: &mut Source,
        batch_rows: usize,
        progress: &mut (dyn FnMut(ImportProgress) + Send),
    ) -> Result<ImportReport, Problem> {
        source.rewind().await?;
        let mut done = 0;
        loop {
            let rows = source.next(batch_rows).await?;
            if rows.is_empty() {
                break;
            }
            done += rows.len() as u64;
            let mut begun = self.look_ahead(&rows).await?;
            for row in rows {
                self.row(row, &mut begun).await?;
            }
            self.send().await?;
            progress(ImportProgress {
                writing: self.ledger.is_some(),
                rows: done,
                of: source.rows,
            });
        }
        self.settle()?;
        self.send().await?;
        Ok(self.report)
    }

    /// What the ledger holds of the aggregates that begin in this window.
    async fn look_ahead(&self, rows: &[Row]) -> Result<Begun, Problem> {
        let mut begun = Begun::new();
        let mut wanted: Vec<(Key, u64)> = Vec::new();
        for row in rows {
            let source = (row.aggregate_type.clone(), row.aggregate_id.clone());
            let going = self.current.as_ref().is_some_and(|c| c.source == source);
            if going || begun.contains_key(&source) {
                continue;
            }
            let target = self.taker.target(row);
            if let Ok(target) = &target {
                wanted.push((target.key(), 0));
            }
            begun.insert(source, (target, Known::default()));
        }
        let mut found = known::look_up(self.pool, &wanted)
            .await
            .map_err(|e| e.problem())?;
        for (target, known) in begun.values_mut() {
            if let Ok(target) = target
                && let Some(of_target) = found.remove(&target.key())
            {
                *known = of_target;
            }
        }
        Ok(begun)
    }

    async fn row(&mut self, row: Row, begun: &mut Begun) -> Result<(), Problem> {
        let own = |c: &Current| c.source.0 == row.aggregate_type && c.source.1 == row.aggregate_id;
        if !self.current.as_ref().is_some_and(own) {
            self.settle()?;
            self.begin(&row, begun)?;
        }
        let Some(current) = self.current.as_mut() else {
            return Ok(());
        };
        current.rows += 1;
        if current.fault.is_some() {
            return Ok(());
        }
        if let Some(problem) = row.unusable.clone() {
            return self.fault(Fault::Invalid, row.sequence, problem);
        }
        if row.sequence != current.next {
            let problem = Problem::new(ErrorCode::InvalidSource, "sequences have a gap")
                .field("sequence")
                .expected(current.next.to_string())
                .found(row.sequence.to_string());
            return self.fault(Fault::Invalid, row.sequence, problem);
        }
        current.next += 1;
        if current.known.commands.is_empty() {
            return self.new_row(&row).await;
        }
        self.known_row(&row).await
    }

    fn begin(&mut self, row: &Row, begun: &mut Begun) -> Result<(), Problem> {
        let source = (row.aggregate_type.clone(), row.aggregate_id.clone());
        let short = short(&source);
        let lost = || Problem::new(ErrorCode::Internal, "an aggregate was not looked up");
        let (target, known) = begun.remove(&source).ok_or_else(lost)?;
        let native = self.taker.native(&source.0).is_some();
        let kind = self.report.of_type(&self.taker.shown(&source.0), native)?;
        let (target, problem) = match target {
            Ok(target) => (Some(target), None),
            Err(problem) => (None, Some(problem)),
        };
        self.current = Some(Current {
            writing: self.ledger.is_some() && !self.bad.contains(&short),
            source,
            short,
            target,
            kind,
            next: 1,
            known,
            pending: Vec::new(),
            fault: None,
            rows: 0,
            already: 0,
            taken: 0,
            tally: Tally::default(),
        });
        match problem {
            Some(problem) => self.fault(Fault::Invalid, row.sequence, problem),
            None => Ok(()),
        }
    }

    /// A row at a place where the ledger has an event.
    async fn known_row(&mut self, row: &Row) -> Result<(), Problem> {
        let table = self.table;
        let Some(current) = self.current.as_mut() else {
            return Ok(());
        };
        let (Some(command), Some(target)) =
            (current.known.commands.front().copied(), &current.target)
        else {
            return Ok(());
        };
        current.pending.push(row.digest);
        if (current.pending.len() as u64) < command.events {
            return Ok(());
        }
        let first = command.first.cast_signed();
        let expected = command_id(table, target, &current.source, first, &current.pending);
        if expected != command.command_id {
            return self.conflict(first);
        }
        current.already += command.events;
        current.pending.clear();
        current.known.commands.pop_front();
        if current.known.commands.is_empty() && current.known.more {
            let key = target.key();
            let after = command.first + command.events - 1;
            let found = known::look_up(self.pool, &[(key.clone(), after)]).await;
            let mut found = found.map_err(|e| e.problem())?;
            if let Some(current) = self.current.as_mut() {
                current.known = found.remove(&key).unwrap_or_default();
            }
        }
        Ok(())
    }

    /// A row behind everything that the ledger has.
    async fn new_row(&mut self, row: &Row) -> Result<(), Problem> {
        let taker = self.taker;
        let Some(current) = self.current.as_mut() else {
            return Ok(());
        };
        let Some(target) = current.target.clone() else {
            return Ok(());
        };
        if !current.writing {
            let checked = taker.check(row, &target, &mut current.tally).await;
            return match checked {
                Ok(()) => {
                    current.taken += 1;
                    Ok(())
                }
                Err(problem) => self.cannot(row.sequence, problem),
            };
        }
        match taker.take(row, &target).await {
            Ok(event) => {
                current.taken += 1;
                self.collect(row, event);
                Ok(())
            }
            Err(problem) => self.cannot(row.sequence, problem),
        }
    }

    /// A row that cannot be taken; what is no fault of the row ends the import.
    fn cannot(&mut self, sequence: i64, problem: Problem) -> Result<(), Problem> {
        match problem.code {
            ErrorCode::DatabaseUnreachable
            | ErrorCode::DatabaseAuth
            | ErrorCode::DiskFull
            | ErrorCode::InvalidConfig
            | ErrorCode::UnknownDepartment
            | ErrorCode::Internal => Err(problem),
            _ => self.fault(Fault::Invalid, sequence, problem),
        }
    }

    fn collect(&mut self, row: &Row, event: AnyEvent) {
        let Some(current) = &self.current else { return };
        let Some(target) = &current.target else {
            return;
        };
        let department = self.taker.department(&event);
        let fits = self.open.as_ref().is_some_and(|chunk| {
            chunk.short == current.short
                && chunk.department == department
                && chunk.events.len() < CHUNK_EVENTS_MAX
                && chunk.bytes + row.bytes() <= CHUNK_BYTES_MAX
        });
        if !fits {
            self.chunks.extend(self.open.take());
        }
        let chunk = self.open.get_or_insert_with(|| Chunk {
            source: current.source.clone(),
            short: current.short,
            kind: current.kind,
            target: target.clone(),
            department,
            first: row.sequence,
            events: Vec::new(),
            digests: Vec::new(),
            bytes: 0,
        });
        chunk.events.push(event);
        chunk.digests.push(row.digest);
        chunk.bytes += row.bytes();
    }

    /// Ends the aggregate whose rows were coming.
    fn settle(&mut self) -> Result<(), Problem> {
        if let Some(current) = &self.current
            && current.fault.is_none()
            && !current.pending.is_empty()
        {
            // the ledger's command has more events than there are rows
            let first = current
                .known
                .commands
                .front()
                .map_or(1, |c| c.first.cast_signed());
            self.conflict(first)?;
        }
        let Some(current) = self.current.take() else {
            return Ok(());
        };
        let of = &mut self.report.types[current.kind];
        of.aggregates += 1;
        of.rows += current.rows;
        of.already_imported += current.already;
        let rest = current.rows - current.already;
        // what was handed over is counted when the ledger has answered
        let handed = if current.writing { current.taken } else { 0 };
        match current.fault {
            Some(Fault::Invalid) => of.invalid += rest - handed,
            Some(Fault::Conflict) => of.conflict += rest - handed,
            None => of.imported += rest - handed,
        }
        if current.fault.is_none() {
            for (label, count) in current.tally.secrets {
                *self.report.secrets.entry(label).or_default() += count;
            }
            self.report.metadata_left_out += current.tally.metadata_left_out;
        }
        Ok(())
    }

    fn conflict(&mut self, sequence: i64) -> Result<(), Problem> {
        let problem = Problem::new(
            ErrorCode::VersionConflict,
            "the ledger has another history of this aggregate",
        )
        .field("sequence")
        .found(sequence.to_string())
        .remedy("the aggregate in the ledger was left alone; decide which history is right");
        self.fault(Fault::Conflict, sequence, problem)
    }

    fn fault(&mut self, fault: Fault, sequence: i64, problem: Problem) -> Result<(), Problem> {
        let Some(current) = self.current.as_mut() else {
            return Ok(());
        };
        current.fault = Some(fault);
        let (short, source) = (current.short, current.source.clone());
        self.leave_out(short, &source, sequence, problem)
    }

    fn leave_out(
        &mut self,
        short: Short,
        source: &(String, String),
        sequence: i64,
        problem: Problem,
    ) -> Result<(), Problem> {
        self.bad.insert(short);
        if self.bad.len() > BAD_MAX {
            return Err(Problem::new(
                ErrorCode::InvalidSource,
                format!("more than {BAD_MAX} aggregates cannot be taken"),
            ));
        }
        self.report.problem(ImportProblem {
            aggregate_type: self.taker.shown(&source.0),
            aggregate_id: self.taker.shown(&source.1),
            sequence,
            problem,
        });
        Ok(())
    }

    /// Writes what has been collected.
    async fn send(&mut self) -> Result<(), Problem> {
        self.chunks.extend(self.open.take());
        let chunks = std::mem::take(&mut self.chunks);
        let Some(ledger) = self.ledger.filter(|_| !chunks.is_empty()) else {
            return Ok(());
        };
        let mut requests = Vec::with_capacity(chunks.len());
        let mut sent = Vec::with_capacity(chunks.len());
        for mut chunk in chunks {
            let events = std::mem::take(&mut chunk.events);
            requests.push(self.request(&chunk, events)?);
            sent.push(chunk);
        }
        let outcomes = send::in_order(ledger, &requests).await?;
        for (chunk, outcome) in sent.iter().zip(outcomes) {
            self.answered(chunk, outcome)?;
        }
        Ok(())
    }

    fn request(&self, chunk: &Chunk, events: Vec<AnyEvent>) -> Result<CommandRequest, Problem> {
        let internal = |message: &str| Problem::new(ErrorCode::Internal, message);
        let actor: Identifier = IMPORT_ACTOR
            .parse()
            .map_err(|_| internal("the actor of imports is no name"))?;
        let command = AnyCommand::recorded(events)
            .ok_or_else(|| internal("events of one command are of several types"))?;
        Ok(CommandRequest {
            aggregate_id: chunk.target.aggregate_id.clone(),
            command,
            context: CommandContext {
                command_id: command_id(
                    self.table,
                    &chunk.target,
                    &chunk.source,
                    chunk.first,
                    &chunk.digests,
                ),
                actor,
                department: chunk.department,
                // all that one table set off
                correlation_id: Uuid::new_v5(&TYPES_NAMESPACE, self.table.as_bytes()),
                causation_id: None,
                traceparent: None,
            },
            expected_sequence: Some(chunk.first.cast_unsigned() - 1),
            source: None,
        })
    }

    fn answered(&mut self, chunk: &Chunk, outcome: Outcome) -> Result<(), Problem> {
        let rows = chunk.digests.len() as u64;
        let of = &mut self.report.types[chunk.kind];
        // a repeat is one of our own, whose first answer was lost
        let done = matches!(outcome.status, Status::Accepted | Status::Duplicate)
            || (outcome.status == Status::Refused && outcome.positions.is_some());
        if done {
            of.imported += rows;
            if let Some((first, last)) = outcome.positions {
                self.report.wrote(first, last);
            }
            return Ok(());
        }
        let lost = || Problem::new(ErrorCode::Internal, "the ledger gave no reason");
        let problem = outcome.error.unwrap_or_else(lost);
        let fault = match problem.code {
            ErrorCode::VersionConflict => Fault::Conflict,
            ErrorCode::PayloadTooLarge => Fault::Invalid,
            _ => return Err(problem),
        };
        match fault {
            Fault::Conflict => of.conflict += rows,
            Fault::Invalid => of.invalid += rows,
        }
        if let Some(current) = self.current.as_mut().filter(|c| c.short == chunk.short) {
            current.fault.get_or_insert(fault);
        }
        if !self.bad.contains(&chunk.short) {
            self.leave_out(chunk.short, &chunk.source, chunk.first, problem)?;
        }
        Ok(())
    }
}
