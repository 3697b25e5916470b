//! The relay's port over the simulated broker: what librdkafka does, down to its retries.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sovereign_kafka::port::{LastEvent, Outgoing, RelayPort, TransactionalPort, Work, Written};
use sovereign_kafka::{Checkpoint, Error, names};
use sovereign_schemas::chain::Head;
use sovereign_schemas::{Departments, EventHeader};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::broker::{At, ProducerId, Record, Refused};
use crate::kernel::{Lost, Process, Server, State};
use crate::sabotage::Sabotage;

/// Partitions of a department's topic.
const PARTITIONS: usize = 2;
/// Between two attempts at a request that was lost.
const RETRY: Duration = Duration::from_millis(50);

/// How long the broker lets a transaction stay open.
pub(crate) const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(4);
/// How long a producer tries one step: a bit less, as in `kafka::relay`.
const PATIENCE: Duration = Duration::from_secs(3);

#[derive(Debug)]
pub(crate) struct SimulatedBrokers {
    pub(crate) process: Process,
}

fn unreachable(what: &str) -> Error {
    Error::Unreachable {
        what: what.to_owned(),
        cause: "no answer in the simulation".to_owned(),
    }
}

impl SimulatedBrokers {
    async fn ask<R: Send + 'static>(
        &self,
        what: &str,
        op: impl FnMut(&mut State) -> Option<R> + Send + 'static,
    ) -> Result<R, Error> {
        let answer = self.process.call(Server::Kafka, op).await;
        answer.map_err(|Lost| unreachable(what))
    }
}

#[async_trait]
impl RelayPort for SimulatedBrokers {
    async fn ensure_topics(&self, departments: &Departments) -> Result<(), Error> {
        let topics: Vec<String> = departments.iter().map(|d| d.topic()).collect();
        self.ask("create topics", move |state| {
            for topic in &topics {
                state.broker.ensure_topic(topic, PARTITIONS);
            }
            state.broker.ensure_topic(names::RELAY, 1);
            Some(())
        })
        .await
    }

    async fn checkpoint(&self) -> Result<Option<Checkpoint>, Error> {
        let read = |state: &mut State| {
            let last = state.broker.last_visible(names::RELAY);
            Some(last.into_iter().find_map(|record| match &*record {
                Record::Checkpoint(json) => serde_json::from_slice(json).ok(),
                Record::Event { .. } => None,
            }))
        };
        self.ask("read checkpoint", read).await
    }

    async fn last_event(&self) -> Result<LastEvent, Error> {
        let mut head = Head::EMPTY;
        for department in Departments::default().iter() {
            let topic = department.topic();
            let read = move |state: &mut State| Some(state.broker.last_visible(&topic));
            for record in self.ask("read tails", read).await? {
                if let Record::Event { position, hash, .. } = *record
                    && position > head.position
                {
                    head = Head { position, hash };
                }
            }
        }
        let truncated = false;
        Ok(LastEvent { head, truncated })
    }

    /// Nothing to look for: see [`Producer::commit`].
    async fn ends(&self, written: &[Written]) -> Result<Vec<i64>, Error> {
        Ok(vec![0; written.len()])
    }

    async fn take_over(&self, transactional_id: &str) -> Result<Box<dyn TransactionalPort>, Error> {
        let id = transactional_id.to_owned();
        let who = self
            .ask("take over", move |state| {
                let who = state.broker.take_over(&id, TRANSACTION_TIMEOUT)?;
                state.note(|| format!("kafka: {} epoch {} begins", who.id, who.epoch));
                Some(who)
            })
            .await?;
        Ok(Box::new(Producer {
            process: self.process.clone(),
            who,
            buffer: BTreeMap::new(),
            sequences: BTreeMap::new(),
            fenced: false,
            late: None,
        }))
    }

    fn run(&self, _: &str, work: Work) -> Result<(), Error> {
        tokio::spawn(work);
        Ok(())
    }
}

/// How far a flush came, and how it ended.
type Flushed = (BTreeMap<At, usize>, Result<(), Error>);

struct Producer {
    process: Process,
    who: ProducerId,
    buffer: BTreeMap<At, Vec<Arc<Record>>>,
    sequences: BTreeMap<At, usize>,
    /// Fatal, as in librdkafka: all further calls fail.
    fenced: bool,
    /// What is under way behind a sabotaged flush.
    late: Option<JoinHandle<Flushed>>,
}

impl Producer {
    /// Repeats a request until it is answered or patience ends.
    async fn insist<R: Send + 'static>(
        &mut self,
        what: &str,
        op: impl FnMut(&mut State) -> Option<Result<R, Refused>> + Clone + Send + 'static,
    ) -> Result<R, Error> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.process.call(Server::Kafka, op.clone()).await {
                Ok(Ok(done)) => return Ok(done),
                Ok(Err(Refused::Fenced)) => {
                    self.fenced = true;
                    return Err(Error::Fenced);
                }
                Ok(Err(Refused::Invalid)) => {
                    return Err(Error::Internal {
                        what: what.to_owned(),
                        cause: "invalid in this state".to_owned(),
                    });
                }
                Err(Lost) if Instant::now() > deadline => return Err(unreachable(what)),
                Err(Lost) => sleep(RETRY).await,
            }
        }
    }

    async fn deliver(&mut self, at: At, records: Vec<Arc<Record>>) -> Result<(), Error> {
        let (who, partition) = (self.who.clone(), at.clone());
        self.insist("add partition", move |state| {
            state.broker.add(&who, &partition)
        })
        .await?;
        // in one or two requests
        let cut = self.process.world.state().rng.below(records.len() as u64);
        let (first, second) = records.split_at(cut as usize);
        for part in [first, second] {
            let sequence = *self.sequences.entry(at.clone()).or_default();
            let (who, at, part) = (self.who.clone(), at.clone(), part.to_vec());
            *self.sequences.entry(at.clone()).or_default() += part.len();
            self.insist("produce", move |state| {
                let done = state.broker.produce(&who, &at, sequence, &part);
                if done.is_ok() {
                    took(state, &who, &at, &part);
                }
                Some(done)
            })
            .await?;
        }
        Ok(())
    }

    async fn finish(&mut self, commit: bool) -> Result<(), Error> {
        let who = self.who.clone();
        self.insist("end transaction", move |state| {
            let done = state.broker.finish(&who, commit);
            let what = if commit { "commit" } else { "abort" };
            state.note(|| format!("kafka: {what} by {} epoch {}: {done:?}", who.id, who.epoch));
            Some(done)
        })
        .await
    }

    /// Sabotage: what a client without a flush does.
    fn deliver_later(&mut self) -> JoinHandle<(BTreeMap<At, usize>, Result<(), Error>)> {
        let mut later = Self {
            process: self.process.clone(),
            who: self.who.clone(),
            buffer: std::mem::take(&mut self.buffer),
            sequences: self.sequences.clone(),
            fenced: false,
            late: None,
        };
        tokio::spawn(async move {
            let done = later.deliver_all().await;
            (later.sequences, done)
        })
    }

    async fn late(&mut self) -> Result<(), Error> {
        let Some(late) = self.late.take() else {
            return Ok(());
        };
        let (sequences, done) = late.await.map_err(|_| unreachable("deliver"))?;
        self.sequences = sequences;
        done
    }

    async fn deliver_all(&mut self) -> Result<(), Error> {
        let mut batches: Vec<_> = std::mem::take(&mut self.buffer).into_iter().collect();
        self.process.world.state().rng.shuffle(&mut batches);
        for (at, records) in batches {
            self.deliver(at, records).await?;
        }
        Ok(())
    }
}

/// The broker holds records; nothing of them may be taken back by the ledger.
fn took(state: &mut State, who: &ProducerId, at: &At, records: &[Arc<Record>]) {
    let positions = |records: &[Arc<Record>]| {
        let of = |record: &Arc<Record>| match **record {
            Record::Event { position, .. } => position.to_string(),
            Record::Checkpoint(_) => "checkpoint".to_owned(),
        };
        records.iter().map(of).collect::<Vec<_>>().join(" ")
    };
    state.note(|| {
        let (topic, partition) = at;
        let held = positions(records);
        format!(
            "kafka: {topic}/{partition} takes {held} from {} epoch {}",
            who.id, who.epoch
        )
    });
    for record in records {
        if let Record::Event { position, hash, .. } = **record {
            state
                .checks
                .left("relayed", &state.postgres, position, hash);
        }
    }
}

/// Where the record goes: the same key always to the same partition.
fn partition(topic: &str, key: &str) -> At {
    let sum: usize = key.bytes().map(usize::from).sum();
    (topic.to_owned(), sum % PARTITIONS)
}

#[async_trait]
impl TransactionalPort for Producer {
    fn begin(&mut self) -> Result<(), Error> {
        self.buffer.clear();
        if self.fenced {
            return Err(Error::Fenced);
        }
        Ok(())
    }

    fn send(&mut self, record: &Outgoing<'_>) -> Result<(), Error> {
        let (at, record) = match *record {
            Outgoing::Event {
                topic,
                event,
                canonical,
                value,
            } => {
                let header = EventHeader::decode(canonical).map_err(|e| Error::Internal {
                    what: "send".to_owned(),
                    cause: e.to_string(),
                })?;
                let key = event.header.aggregate_id.clone();
                let record = Record::Event {
                    position: header.position,
                    hash: event.hash,
                    canonical: canonical.to_vec(),
                    value: value.to_vec(),
                    key,
                };
                (partition(topic, &event.header.aggregate_id), record)
            }
            Outgoing::Checkpoint { topic, value } => {
                ((topic.to_owned(), 0), Record::Checkpoint(value.to_vec()))
            }
        };
        self.buffer.entry(at).or_default().push(Arc::new(record));
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), Error> {
        let early = Sabotage::FlushReturnsEarly;
        if self.process.world.state().sabotaged(early) {
            self.late = Some(self.deliver_later());
            return Ok(());
        }
        self.deliver_all().await
    }

    /// These brokers never forget a marker, and the invariants are checked on what readers see.
    async fn commit(&mut self) -> Result<Vec<Written>, Error> {
        self.late().await?;
        self.finish(true).await?;
        Ok(Vec::new())
    }

    async fn abort(&mut self) {
        let _ = self.late().await;
        self.buffer.clear();
        if !self.fenced {
            let _ = self.finish(false).await;
        }
    }
}
