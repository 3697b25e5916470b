//! A model of one PostgreSQL: tables, a write-ahead log, and a crash that takes back whatever was
//! committed and not flushed (`synchronous_commit = off`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sovereign_event_store::port::{Done, Known, Transaction};
use sovereign_schemas::chain::Head;
use sovereign_schemas::{Position, Problem, RecordedEvent, Uuid};

use crate::views::ViewTables;
use sovereign_tests::rng::Rng;

/// Applies a committed change; also when the log is replayed after a crash.
pub(crate) type Redo = Arc<dyn Fn(&mut Tables) + Send + Sync>;

/// What a session sees: everything that is committed, durable or not.
#[derive(Default)]
pub(crate) struct Tables {
    pub(crate) events: Vec<Arc<RecordedEvent>>,
    pub(crate) head: Head0,
    /// Of each command that took effect its first position and the count of its events.
    pub(crate) commands: BTreeMap<Uuid, (Position, u32)>,
    pub(crate) refusals: BTreeMap<Uuid, Problem>,
    /// Last sequence by aggregate.
    pub(crate) sequences: BTreeMap<(String, String), u64>,
    pub(crate) views: ViewTables,
}

/// The head row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Head0(pub(crate) Head);

impl Default for Head0 {
    fn default() -> Self {
        Self(Head::EMPTY)
    }
}

pub(crate) struct Postgres {
    pub(crate) up: bool,
    pub(crate) boot: u64,
    pub(crate) tables: Tables,
    log: Vec<Redo>,
    /// Entries of the log that a crash does not take back.
    flushed: usize,
    /// Of each entry of the log how many events there are after it.
    events_at: Vec<usize>,
    /// Sessions that live.
    sessions: BTreeSet<u64>,
    next_session: u64,
    /// Which session holds the lock on the head row.
    lock: Option<u64>,
    pub(crate) crashes: u64,
    pub(crate) does_not_serialise: bool,
    pub(crate) ids_are_not_unique: bool,
    pub(crate) flush_lies: bool,
    pub(crate) flips_a_bit: bool,
}

impl Postgres {
    pub(crate) fn start() -> Self {
        Self {
            up: true,
            boot: 0,
            tables: Tables::default(),
            log: Vec::new(),
            flushed: 0,
            events_at: Vec::new(),
            sessions: BTreeSet::new(),
            next_session: 1,
            lock: None,
            crashes: 0,
            does_not_serialise: false,
            ids_are_not_unique: false,
            flush_lies: false,
            flips_a_bit: false,
        }
    }

    /// Everything flushed survives, and maybe some of the rest.
    pub(crate) fn crash(&mut self, rng: &mut Rng) -> usize {
        self.up = false;
        self.boot += 1;
        self.crashes += 1;
        self.sessions.clear();
        self.lock = None;
        let open = (self.log.len() - self.flushed) as u64;
        // most often all of it is lost: that is the hard case
        let kept = if rng.per_mille(700) {
            0
        } else {
            rng.below(open + 1)
        };
        self.flushed += kept as usize;
        self.log.truncate(self.flushed);
        self.events_at.truncate(self.flushed);
        let lost = open - kept;
        self.tables = Tables::default();
        for redo in &self.log {
            redo(&mut self.tables);
        }
        lost as usize
    }

    pub(crate) fn commit(&mut self, redo: Redo) {
        redo(&mut self.tables);
        self.log.push(redo);
        self.events_at.push(self.tables.events.len());
    }

    /// End of the log.
    pub(crate) fn written(&self) -> usize {
        self.log.len()
    }

    /// The disk has everything up to here.
    pub(crate) fn flush(&mut self, to: usize) {
        self.flushed = self.flushed.max(to.min(self.log.len()));
    }

    /// The events that no crash takes back.
    pub(crate) fn durable(&self) -> &[Arc<RecordedEvent>] {
        let last = self.flushed.checked_sub(1);
        let count = last.map_or(0, |last| self.events_at[last]);
        &self.tables.events[..count]
    }

    pub(crate) fn connect(&mut self) -> u64 {
        let session = self.next_session;
        self.next_session += 1;
        self.sessions.insert(session);
        session
    }

    /// Ends a session with its transaction.
    pub(crate) fn end(&mut self, session: u64) {
        self.sessions.remove(&session);
        if self.lock == Some(session) {
            self.lock = None;
        }
    }

    pub(crate) fn lives(&self, session: u64) -> bool {
        self.sessions.contains(&session)
    }

    /// Whether the head row is now this session's.
    pub(crate) fn try_lock(&mut self, session: u64) -> bool {
        if self.does_not_serialise {
            return true;
        }
        match self.lock {
            Some(other) if other != session => false,
            _ => {
                self.lock = Some(session);
                true
            }
        }
    }

    pub(crate) fn unlock(&mut self, session: u64) {
        if self.lock == Some(session) {
            self.lock = None;
        }
    }

    pub(crate) fn locked_by(&self, session: u64) -> bool {
        self.lock == Some(session)
    }

    pub(crate) fn known(&self, command_id: Uuid) -> Option<Known> {
        if let Some((first, events)) = self.tables.commands.get(&command_id) {
            let first = &self.tables.events[first.0 as usize - 1];
            return Some(Known::Effective {
                first: Box::new((**first).clone()),
                events: *events,
            });
        }
        let refused = self.tables.refusals.get(&command_id)?;
        Some(Known::Refused(Box::new(refused.clone())))
    }

    /// The ledger's transaction, all of it in one moment, by a session that holds the lock.
    pub(crate) fn transact(&mut self, transaction: &Transaction) -> Done {
        let tables = &self.tables;
        let refused: Vec<_> = transaction
            .decided
            .iter()
            .filter_map(|id| Some((*id, tables.refusals.get(id)?.clone())))
            .collect();
        if !refused.is_empty() {
            return Done::RefusedBefore(refused);
        }
        let taken = |id: &Uuid| tables.commands.contains_key(id);
        if !self.ids_are_not_unique && transaction.without_events.iter().any(taken) {
            return Done::Taken;
        }
        if tables.head.0 != transaction.before && !self.does_not_serialise {
            return Done::HeadMoved;
        }
        let mut rows = transaction.rows().filter(|(_, count)| *count > 0);
        if !self.ids_are_not_unique && rows.any(|(event, _)| taken(&event.header.command_id)) {
            return Done::Taken;
        }
        if transaction.writes() {
            let transaction = Arc::new(transaction.clone());
            let flips = self.flips_a_bit && self.log.len() % 7 == 6;
            self.commit(Arc::new(move |tables: &mut Tables| {
                apply(tables, &transaction, flips);
            }));
        }
        Done::Committed
    }
}

fn apply(tables: &mut Tables, transaction: &Transaction, flips: bool) {
    tables.head = Head0(transaction.after);
    for (event, count) in transaction.rows() {
        let header = &event.header;
        if count > 0 {
            let first = (header.position, count);
            tables.commands.insert(header.command_id, first);
        }
        let aggregate = (
            header.aggregate_type.to_string(),
            header.aggregate_id.clone(),
        );
        tables.sequences.insert(aggregate, header.sequence);
        let mut event = event.clone();
        if flips && !event.payload.is_empty() {
            let mut bytes = event.payload.to_vec();
            bytes[0] ^= 1;
            event.payload = bytes.into();
        }
        tables.events.push(Arc::new(event));
    }
    for refused in &transaction.refusals {
        let problem = refused.problem.clone();
        tables.refusals.insert(refused.command_id, problem);
    }
}
