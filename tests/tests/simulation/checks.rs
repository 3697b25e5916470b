//! What must hold after each step of a server, by the functions that production uses as well.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::FutureExt as _;
use sovereign_projections::{Agents, Approvals, Departments, Trades, check_view_equals_fold};
use sovereign_schemas::chain::{self, Head};
use sovereign_schemas::{Digest, EventHeader, MemoryLog, Position, RecordedEvent, Uuid};

use crate::broker::{At, Broker, Record};
use crate::postgres::Postgres;
use crate::views::Kept;

/// Bytes in front of the payload in a record.
const PREFIX: usize = 5;

/// A promise that was broken, with its id: I1 to I5, or a word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Violation {
    pub(crate) promise: &'static str,
    pub(crate) what: String,
}

#[derive(Default)]
pub(crate) struct Checks {
    pub(crate) violation: Option<Violation>,
    ledger: Ledger,
    /// Hashes of events that no crash may take back.
    durable: Vec<Digest>,
    /// Last position by partition, as its consumer has it, and how many records it has read.
    partitions: BTreeMap<At, (Position, usize)>,
    /// Positions that consumers have seen.
    pub(crate) seen: BTreeSet<Position>,
    views: [(u64, u64); 4],
    /// Commands that were told that they took effect, with their positions.
    pub(crate) acknowledged: BTreeMap<Uuid, (Position, Position)>,
    pub(crate) steps: u64,
}

/// The committed events as far as they were followed.
#[derive(Default)]
struct Ledger {
    boot: u64,
    head: Option<Head>,
    sequences: BTreeMap<(String, String), u64>,
    commands: BTreeMap<Uuid, Position>,
}

impl Checks {
    pub(crate) fn broken(&mut self, promise: &'static str, what: impl Into<String>) {
        let what = what.into();
        self.violation.get_or_insert(Violation { promise, what });
    }

    pub(crate) fn after_step(&mut self, postgres: &Postgres, broker: &mut Broker) {
        if self.violation.is_some() {
            return;
        }
        self.steps += 1;
        self.ledger(postgres);
        self.durable(postgres);
        for at in std::mem::take(&mut broker.grown) {
            self.partition(broker, &at);
        }
        self.view::<Agents>(0, postgres);
        self.view::<Trades>(1, postgres);
        self.view::<Approvals>(2, postgres);
        self.view::<Departments>(3, postgres);
    }

    /// I1, I2 and I3 over all that is committed.
    fn ledger(&mut self, postgres: &Postgres) {
        if self.ledger.boot != postgres.crashes {
            // a crash may have taken back what was not flushed
            self.ledger = Ledger {
                boot: postgres.crashes,
                ..Ledger::default()
            };
        }
        let mut head = self.ledger.head.unwrap_or(Head::EMPTY);
        let events = &postgres.tables.events;
        while let Some(event) = events.get(head.position.0 as usize) {
            if let Err(error) = chain::advance(&mut head, event) {
                let promise = match error {
                    chain::Broken::Density { .. } => "I1",
                    _ => "I3",
                };
                return self.broken(promise, format!("ledger: {error}"));
            }
            if let Err((promise, what)) = self.ledger.takes(event) {
                return self.broken(promise, what);
            }
        }
        self.ledger.head = Some(head);
        if head.position.0 as usize != events.len() || postgres.tables.head.0 != head {
            let row = postgres.tables.head.0.position;
            let (at, count) = (head.position, events.len());
            self.broken(
                "I1",
                format!("{count} events, chain to {at}, head row at {row}"),
            );
        }
    }

    /// What was durable once stays as it was.
    fn durable(&mut self, postgres: &Postgres) {
        let durable = postgres.durable();
        let same = durable.len() >= self.durable.len()
            && self
                .durable
                .last()
                .is_none_or(|last| durable[self.durable.len() - 1].hash == *last);
        if !same {
            let (was, is) = (self.durable.len(), durable.len());
            return self.broken("durable", format!("{was} events were durable, now {is}"));
        }
        let new = durable[self.durable.len()..].iter().map(|e| e.hash);
        self.durable.extend(new);
    }

    /// An event goes where a crash does not reach it: then no crash may take it back.
    pub(crate) fn left(
        &mut self,
        how: &'static str,
        postgres: &Postgres,
        position: Position,
        hash: Digest,
    ) {
        if position == Position::START {
            return;
        }
        match postgres.durable().get(position.0 as usize - 1) {
            Some(event) if event.hash == hash => {}
            Some(_) => self.broken("I3", format!("{how}: another event {position}")),
            None => self.broken(
                "durable",
                format!("{how}: {position}, which is not flushed"),
            ),
        }
    }

    /// A caller is told that its command took effect at these positions, now or before.
    pub(crate) fn acknowledge(
        &mut self,
        postgres: &Postgres,
        command_id: Uuid,
        (first, last): (Position, Position),
    ) {
        for position in first.0..=last.0 {
            let found = postgres.durable().get(position as usize - 1);
            match found.map(|e| e.header.command_id) {
                Some(id) if id == command_id => {}
                Some(_) => {
                    let what = format!("acknowledged: position {position} is of another command");
                    return self.broken("I2", what);
                }
                None => {
                    let what = format!("acknowledged: {position}, which is not flushed");
                    return self.broken("durable", what);
                }
            }
        }
        let told = *self.acknowledged.entry(command_id).or_insert((first, last));
        if told != (first, last) {
            let what = format!("told {told:?} at first and then {:?}", (first, last));
            self.broken("I2", format!("command {command_id}: {what}"));
        }
    }

    /// I1 for a reader that stands at `after`, and nothing but durable events.
    pub(crate) fn handed_out(
        &mut self,
        postgres: &Postgres,
        after: Position,
        events: &[Arc<RecordedEvent>],
    ) {
        let mut expected = after.next();
        for event in events {
            let found = event.position();
            if found != expected {
                let what = format!("tail: position {expected} expected, {found} found");
                return self.broken("I1", what);
            }
            self.left("handed out", postgres, found, event.hash);
            expected = expected.next();
        }
    }

    /// I4 and I3 for what has become visible in a partition.
    fn partition(&mut self, broker: &Broker, at: &At) {
        let Some(partition) = broker.topics.get(&at.0).and_then(|t| t.get(at.1)) else {
            return;
        };
        let (mut last, read) = self.partitions.get(at).copied().unwrap_or_default();
        for record in &partition.visible[read..] {
            let Record::Event {
                position,
                hash,
                key,
                canonical,
                value,
            } = &**record
            else {
                continue;
            };
            let name = format!("{}/{}", at.0, at.1);
            if let Err(error) = chain::check_partition_order(&name, last, *position) {
                return self.broken("I4", error.to_string());
            }
            last = *position;
            if !self.seen.insert(*position) {
                return self.broken("I4", format!("position {position} is visible twice"));
            }
            let Some(durable) = self.durable.get(position.0 as usize - 1) else {
                return self.broken("durable", format!("{name}: {position} is not flushed"));
            };
            let before = position.0.checked_sub(2).map(|i| self.durable[i as usize]);
            let before = before.unwrap_or(Digest::ZERO);
            let payload = value.get(PREFIX..).unwrap_or_default();
            let computed = chain::hash(&before, canonical, payload);
            if computed != *durable || hash != durable {
                return self.broken("I3", format!("{name}: bytes of {position} differ"));
            }
            let header = EventHeader::decode(canonical);
            if !header.is_ok_and(|h| h.aggregate_id == *key) {
                return self.broken("I3", format!("{name}: key of {position} differs"));
            }
        }
        self.partitions
            .insert(at.clone(), (last, partition.visible.len()));
    }

    /// I5 whenever a view has moved.
    fn view<V: Kept>(&mut self, index: usize, postgres: &Postgres) {
        let table = V::table(&postgres.tables.views);
        let now = (postgres.crashes, table.version);
        if std::mem::replace(&mut self.views[index], now) == now {
            return;
        }
        let checkpoint = table.checkpoint;
        let to = checkpoint.position;
        let events = postgres.tables.events.iter().take(to.0 as usize);
        let mut log = MemoryLog::new(events.map(|e| (**e).clone()).collect());
        let rows: Vec<V::Row> = table.rows.values().cloned().collect();
        let checked = check_view_equals_fold::<V>(&mut log, to, &rows).now_or_never();
        match checked {
            Some(Ok(())) => {}
            Some(Err(error)) => self.broken("I5", error.to_string()),
            None => self.broken("I5", "the check waits"),
        }
    }
}

impl Ledger {
    /// I2: sequences are dense, and a command takes effect once. (Commands of the callers here
    /// cause one event each.)
    fn takes(&mut self, event: &RecordedEvent) -> Result<(), (&'static str, String)> {
        let header = &event.header;
        let aggregate = (
            header.aggregate_type.to_string(),
            header.aggregate_id.clone(),
        );
        let last = self.sequences.entry(aggregate).or_default();
        chain::check_sequence(*last, header).map_err(|e| ("I2", format!("ledger: {e}")))?;
        *last = header.sequence;
        let position = header.position;
        let before = self.commands.insert(header.command_id, position);
        match before {
            Some(before) => {
                let what = format!("took effect at {before} and again at {position}");
                Err(("I2", format!("command {}: {what}", header.command_id)))
            }
            None => Ok(()),
        }
    }
}
