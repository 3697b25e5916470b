//! A model of Kafka's transactions: one broker, its logs survive its crashes.
//!
//! Modelled: transactional ids with epochs, fencing by a take-over and by timeout, sequence numbers
//! that make a repeated produce request harmless, records of open transactions that hold readers
//! back, and markers that reach partitions one after the other behind the answer to a commit
//! (KIP-98).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use sovereign_schemas::{Digest, Position};
use tokio::time::Instant;

/// Topic and partition.
pub(crate) type At = (String, usize);

/// A record as a consumer would get it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Record {
    Event {
        position: Position,
        hash: Digest,
        key: String,
        canonical: Vec<u8>,
        value: Vec<u8>,
    },
    Checkpoint(Vec<u8>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Open,
    Committed,
    Aborted,
}

#[derive(Debug)]
struct Entry {
    producer: u64,
    fate: Fate,
    record: Arc<Record>,
}

#[derive(Debug, Default)]
pub(crate) struct Partition {
    log: Vec<Entry>,
    /// Of each producer the epoch and the next sequence number.
    producers: BTreeMap<u64, (u16, usize)>,
    /// Of each open transaction its first offset.
    open: BTreeMap<u64, usize>,
    /// Up to here a read-committed consumer has read.
    read: usize,
    /// What it has got.
    pub(crate) visible: Vec<Arc<Record>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Transaction {
    None,
    Ongoing(Instant),
    /// Decided; markers are on their way.
    Ending(bool),
    Ended(bool),
}

/// What the transaction coordinator knows of one transactional id.
#[derive(Debug)]
struct Coordinated {
    producer: u64,
    epoch: u16,
    timeout: Duration,
    transaction: Transaction,
    partitions: BTreeSet<At>,
}

/// Markers to be written.
#[derive(Debug, Clone)]
pub(crate) struct Marking {
    id: String,
    producer: u64,
    epoch: u16,
    commit: bool,
    pub(crate) partitions: Vec<At>,
}

impl fmt::Display for Marking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.commit { "commit" } else { "abort" };
        write!(f, "{what} of {} epoch {}", self.id, self.epoch)
    }
}

/// Why a producer is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    Fenced,
    Invalid,
}

/// Who produces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProducerId {
    pub(crate) id: String,
    pub(crate) producer: u64,
    pub(crate) epoch: u16,
}

#[derive(Debug, Default)]
pub(crate) struct Broker {
    pub(crate) up: bool,
    pub(crate) boot: u64,
    pub(crate) topics: BTreeMap<String, Vec<Partition>>,
    coordinated: BTreeMap<String, Coordinated>,
    /// Transactions that were decided in this step.
    pub(crate) markings: Vec<Marking>,
    /// Partitions whose visible records have grown and were not checked yet.
    pub(crate) grown: Vec<At>,
    /// A take-over neither fences nor ends what is open.
    pub(crate) does_not_fence: bool,
    /// Acknowledges every so many-th record without keeping it.
    pub(crate) loses: Option<u64>,
    produced: u64,
}

impl Broker {
    pub(crate) fn start() -> Self {
        Self {
            up: true,
            ..Self::default()
        }
    }

    pub(crate) fn crash(&mut self) {
        self.up = false;
        self.boot += 1;
    }

    pub(crate) fn ensure_topic(&mut self, topic: &str, partitions: usize) {
        let make = || (0..partitions).map(|_| Partition::default()).collect();
        self.topics.entry(topic.to_owned()).or_insert_with(make);
    }

    /// `None` while an earlier transaction ends.
    pub(crate) fn take_over(&mut self, id: &str, timeout: Duration) -> Option<ProducerId> {
        let next = self.coordinated.len() as u64 + 1;
        // without fencing each take-over is as good as an id of its own
        let own = self.does_not_fence.then(|| format!("{id} {next}"));
        let id = own.as_deref().unwrap_or(id);
        let known = self.coordinated.entry(id.to_owned());
        let known = known.or_insert_with(|| Coordinated {
            producer: next,
            epoch: 0,
            timeout,
            transaction: Transaction::None,
            partitions: BTreeSet::new(),
        });
        match known.transaction {
            Transaction::Ending(_) => return None,
            Transaction::Ongoing(_) => {
                known.epoch += 1;
                self.end(id, false);
                return None;
            }
            Transaction::None | Transaction::Ended(_) => {}
        }
        known.epoch += 1;
        known.transaction = Transaction::None;
        Some(ProducerId {
            id: id.to_owned(),
            producer: known.producer,
            epoch: known.epoch,
        })
    }

    fn fenced(&self, who: &ProducerId) -> bool {
        self.coordinated
            .get(&who.id)
            .is_none_or(|known| known.epoch != who.epoch)
    }

    /// Makes the partition part of the transaction; `None` while the one before it ends.
    pub(crate) fn add(&mut self, who: &ProducerId, at: &At) -> Option<Result<(), Refused>> {
        if self.fenced(who) {
            return Some(Err(Refused::Fenced));
        }
        let known = self.coordinated.get_mut(&who.id)?;
        match known.transaction {
            Transaction::Ending(_) => return None,
            Transaction::None | Transaction::Ended(_) => {
                known.transaction = Transaction::Ongoing(Instant::now());
                known.partitions.clear();
            }
            Transaction::Ongoing(_) => {}
        }
        known.partitions.insert(at.clone());
        Some(Ok(()))
    }

    /// Appends records whose first has this sequence number.
    pub(crate) fn produce(
        &mut self,
        who: &ProducerId,
        at: &At,
        sequence: usize,
        records: &[Arc<Record>],
    ) -> Result<(), Refused> {
        let partition = self.partition(at).ok_or(Refused::Invalid)?;
        let (epoch, next) = partition.producers.entry(who.producer).or_default();
        if *epoch > who.epoch {
            return Err(Refused::Fenced);
        }
        if *epoch < who.epoch {
            (*epoch, *next) = (who.epoch, 0);
        }
        // a repeat whose answer was lost
        if sequence < *next {
            return Ok(());
        }
        if sequence > *next {
            return Err(Refused::Invalid);
        }
        *next += records.len();
        let first = partition.log.len();
        partition.open.entry(who.producer).or_insert(first);
        for record in records {
            self.produced += 1;
            if self
                .loses
                .is_some_and(|each| self.produced.is_multiple_of(each))
                && matches!(**record, Record::Event { .. })
            {
                continue;
            }
            let entry = Entry {
                producer: who.producer,
                fate: Fate::Open,
                record: Arc::clone(record),
            };
            if let Some(partition) = self.partition(at) {
                partition.log.push(entry);
            }
        }
        Ok(())
    }

    fn partition(&mut self, at: &At) -> Option<&mut Partition> {
        self.topics.get_mut(&at.0)?.get_mut(at.1)
    }

    /// Commits or aborts; the answer comes before the markers.
    pub(crate) fn finish(&mut self, who: &ProducerId, commit: bool) -> Result<(), Refused> {
        if self.fenced(who) {
            return Err(Refused::Fenced);
        }
        let known = self.coordinated.get(&who.id).ok_or(Refused::Fenced)?;
        match known.transaction {
            Transaction::Ongoing(_) => {
                self.end(&who.id, commit);
                Ok(())
            }
            // a repeat whose answer was lost
            Transaction::Ending(how) | Transaction::Ended(how) if how == commit => Ok(()),
            _ => Err(Refused::Invalid),
        }
    }

    fn end(&mut self, id: &str, commit: bool) {
        if let Some(known) = self.coordinated.get_mut(id) {
            known.transaction = Transaction::Ending(commit);
            self.markings.push(Marking {
                id: id.to_owned(),
                producer: known.producer,
                epoch: known.epoch,
                commit,
                partitions: known.partitions.iter().cloned().collect(),
            });
        }
    }

    /// Aborts transactions that took too long, and fences who left them.
    pub(crate) fn time_out(&mut self) -> Vec<String> {
        let late = |known: &Coordinated| match known.transaction {
            Transaction::Ongoing(since) => since.elapsed() > known.timeout,
            _ => false,
        };
        let ids: Vec<String> = self
            .coordinated
            .iter()
            .filter(|(_, known)| late(known))
            .map(|(id, _)| id.clone())
            .collect();
        for id in &ids {
            if let Some(known) = self.coordinated.get_mut(id) {
                known.epoch += 1;
            }
            self.end(id, false);
        }
        ids
    }

    /// Writes one marker.
    pub(crate) fn mark(&mut self, marking: &Marking, at: &At) {
        let Some(partition) = self.partition(at) else {
            return;
        };
        let known = partition.producers.entry(marking.producer).or_default();
        if known.0 < marking.epoch {
            *known = (marking.epoch, 0);
        }
        let fate = if marking.commit {
            Fate::Committed
        } else {
            Fate::Aborted
        };
        let own = |e: &&mut Entry| e.producer == marking.producer && e.fate == Fate::Open;
        partition
            .log
            .iter_mut()
            .filter(own)
            .for_each(|e| e.fate = fate);
        partition.open.remove(&marking.producer);
        let stable = partition.open.values().min().copied();
        let stable = stable.unwrap_or(partition.log.len());
        for entry in &partition.log[partition.read.min(stable)..stable] {
            if entry.fate == Fate::Committed {
                partition.visible.push(Arc::clone(&entry.record));
            }
        }
        partition.read = partition.read.max(stable);
        self.grown.push(at.clone());
    }

    /// All markers are written.
    pub(crate) fn marked(&mut self, marking: &Marking) {
        if let Some(known) = self.coordinated.get_mut(&marking.id) {
            known.transaction = Transaction::Ended(marking.commit);
        }
    }

    /// The last visible record of each partition.
    pub(crate) fn last_visible(&self, topic: &str) -> Vec<Arc<Record>> {
        let partitions = self.topics.get(topic).into_iter().flatten();
        partitions
            .filter_map(|p| p.visible.last().cloned())
            .collect()
    }
}
