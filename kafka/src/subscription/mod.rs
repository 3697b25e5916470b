//! Department topics as a stream, for Rust consumers.

mod examine;
mod filter;
mod letters;
mod reject;
mod start;
mod worker;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use sovereign_schemas::{AggregateType, ErrorCode, Position, RecordedEvent, Timestamp, Uuid};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::client::{Error, KafkaOptions};
use crate::dead_letters::{RawRecord, Standing};
use crate::partitions::TopicPartition;
use crate::record::RecordError;
use crate::registry::{RegistryError, RegistryOptions};
use filter::Filter;
pub use reject::{Rejected, RetryPolicy};
pub(crate) use start::{COORDINATOR_MAX, answered};
use worker::{Chunk, Command, Order};

/// Chunks waiting for the reader; with [`worker::CHUNK_BYTES_MAX`] this bounds memory.
const QUEUE_CHUNKS: usize = 8;

/// Where a subscription begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Start {
    /// With the first event.
    #[default]
    Beginning,
    /// With the event at this position, or the first after it, also if it is yet to come.
    Position(Position),
    /// With this offset in every partition; moved into the range that exists.
    Offset(i64),
    /// With the first event taken at this moment or later, to the millisecond.
    Time(Timestamp),
    /// With what becomes visible from now on.
    Live,
}

/// One event and where it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The event, checked against its own header.
    pub event: RecordedEvent,
    /// Topic, with its namespace.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
    /// Which attempt at it this is, from 1; more after [`Subscription::reject`].
    pub attempt: u32,
    /// The dead letter that this event comes out of, if somebody gave it back with
    /// `sovereign dead-letters retry`. It is out of its turn: later events may have come before.
    pub letter: Option<Uuid>,
    /// What a letter is written of; kept only by subscriptions that write letters.
    pub(crate) raw: Option<Raw>,
}

/// What is kept of a record until it is worked through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Raw {
    pub(crate) record: RawRecord,
    /// How the letter stands that it came out of.
    pub(crate) standing: Option<Standing>,
    /// When it failed first, if it did.
    pub(crate) first_failed_at: Option<Timestamp>,
}

impl Delivery {
    fn at(&self) -> TopicPartition {
        TopicPartition {
            topic: self.topic.clone(),
            partition: self.partition,
        }
    }
}

/// Why there is no next event, or no commit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubscriptionError {
    /// One record is no event; the next call goes on behind it.
    #[error(transparent)]
    Poison(#[from] RecordError),
    /// The subscription failed and is over.
    #[error(transparent)]
    Kafka(#[from] Error),
    /// The registry does not answer; the subscription is over.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// It failed before, or its thread is gone.
    #[error("subscription is over")]
    Over,
}

impl SubscriptionError {
    /// The stable name.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::Poison(error) => error.code(),
            Self::Kafka(error) => error.code(),
            Self::Registry(error) => error.code(),
            Self::Over => ErrorCode::Internal,
        }
    }

    /// Whether the next call may give an event.
    #[must_use]
    pub const fn goes_on(&self) -> bool {
        matches!(self, Self::Poison(_))
    }
}

/// Committed events of department topics, in the order of each partition (positions only grow
/// there; across partitions only the position tells the order).
///
/// With a group, partitions are shared among its members and [`Self::commit`] remembers the place;
/// an event may come again after a failure or a rebalance, so make effects idempotent by
/// position. Without a group all partitions are read and nothing is remembered.
///
/// A slow reader slows the fetching: at most a few MiB wait in memory.
///
/// With [`SubscriptionBuilder::dead_letters`] a record that is no event, or that the reader rejects
/// too often, becomes a dead letter, and the partition goes on behind it. The letter is durable
/// before [`Self::commit`] moves the group's place over the record.
///
/// # Examples
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use sovereign_kafka::{KafkaOptions, Start, Subscription};
/// let mut events = Subscription::builder(KafkaOptions::new("localhost:9092"))
///     .group("risk")
///     .departments(["trader", "hun*"])
///     .start(Start::Beginning)
///     .open()
///     .await?;
/// loop {
///     let delivery = events.next().await?;
///     println!("{} {}", delivery.event.position(), delivery.event.header.event_type);
///     events.commit().await?;
/// }
/// # }
/// ```
#[derive(Debug)]
pub struct Subscription {
    chunks: mpsc::Receiver<Chunk>,
    current: VecDeque<Result<Delivery, SubscriptionError>>,
    /// Where the partitions stand once `current` is handed out.
    behind_current: BTreeMap<TopicPartition, i64>,
    done: BTreeMap<TopicPartition, i64>,
    /// Rejected, to be handed out again at its time: no commit goes over it.
    again: VecDeque<(Instant, Delivery)>,
    held: BTreeMap<TopicPartition, BTreeSet<i64>>,
    /// Letters handed out since the last commit, which makes them done.
    letters: BTreeMap<Uuid, Standing>,
    retry: Option<RetryPolicy>,
    group: Option<String>,
    commands: std::sync::mpsc::Sender<Command>,
    over: bool,
}

/// What to subscribe to; see [`Subscription::builder`].
#[derive(Debug, Clone)]
pub struct SubscriptionBuilder {
    pub(crate) options: KafkaOptions,
    pub(crate) group: Option<String>,
    pub(crate) start: Start,
    pub(crate) filter: Filter,
    pub(crate) retry: Option<RetryPolicy>,
    pub(crate) registry: Option<RegistryOptions>,
}

impl Subscription {
    /// All events of all departments from the beginning, without a group.
    #[must_use]
    pub fn builder(options: KafkaOptions) -> SubscriptionBuilder {
        let filter = Filter::default();
        SubscriptionBuilder {
            options,
            group: None,
            start: Start::default(),
            filter,
            retry: None,
            registry: None,
        }
    }

    /// The next event; waits for it. Safe to drop while waiting.
    ///
    /// # Errors
    /// [`SubscriptionError::Poison`] for a record that is no event: call again to go on behind
    /// it. Anything else ends the subscription. Brokers that are away are waited for.
    pub async fn next(&mut self) -> Result<Delivery, SubscriptionError> {
        loop {
            if let Some((due, _)) = self.again.front() {
                tokio::time::sleep_until(*due).await;
                if let Some((_, delivery)) = self.again.pop_front() {
                    self.release(&delivery);
                    return Ok(delivery);
                }
            }
            if let Some(item) = self.current.pop_front() {
                self.note(&item);
                return item;
            }
            self.done.append(&mut self.behind_current);
            if self.over {
                return Err(SubscriptionError::Over);
            }
            match self.chunks.recv().await {
                Some(chunk) => {
                    self.current = chunk.items;
                    self.behind_current = chunk.behind;
                }
                None => self.over = true,
            }
        }
    }

    fn note(&mut self, item: &Result<Delivery, SubscriptionError>) {
        let (topic, partition, offset) = match item {
            Ok(found) => {
                self.note_letter(found);
                (&found.topic, found.partition, found.offset)
            }
            Err(SubscriptionError::Poison(found)) => (&found.topic, found.partition, found.offset),
            Err(_) => {
                self.over = true;
                return;
            }
        };
        self.done.insert(
            TopicPartition {
                topic: topic.clone(),
                partition,
            },
            offset + 1,
        );
        if self.current.is_empty() {
            self.done.append(&mut self.behind_current);
        }
    }

    /// Remembers for the group that everything handed out so far has been worked through.
    /// Partitions that another member has taken over meanwhile are left to it.
    ///
    /// # Errors
    /// [`SubscriptionError::Kafka`] if there is no group or the brokers did not take it; the
    /// subscription goes on and the next commit covers it.
    pub async fn commit(&mut self) -> Result<(), SubscriptionError> {
        if self.done.is_empty() {
            return Ok(());
        }
        let letters: Vec<Standing> = self.letters.values().cloned().collect();
        let order = Order::Commit {
            offsets: self.committable(),
            letters,
        };
        self.ask(order).await?;
        self.letters.clear();
        // what is held is committed once it was handed out again
        let held = &self.held;
        self.done.retain(|at, _| held.contains_key(at));
        Ok(())
    }

    /// Everything handed out, up to the first record of each partition that waits to be handed
    /// out again.
    fn committable(&self) -> BTreeMap<TopicPartition, i64> {
        let first = |at: &TopicPartition| self.held.get(at).and_then(|held| held.first().copied());
        self.done
            .iter()
            .map(|(at, next)| (at.clone(), first(at).map_or(*next, |held| held.min(*next))))
            .collect()
    }

    async fn ask(&self, order: Order) -> Result<(), SubscriptionError> {
        let (reply, answer) = oneshot::channel();
        self.commands
            .send(Command { order, reply })
            .map_err(|_| SubscriptionError::Over)?;
        Ok(answer.await.map_err(|_| SubscriptionError::Over)??)
    }
}

impl SubscriptionBuilder {
    /// Shares the partitions with the other members of this group and remembers its place.
    #[must_use]
    pub fn group(mut self, name: impl Into<String>) -> Self {
        self.group = Some(name.into());
        self
    }

    /// Only these departments: names as in `dept.<name>`, with `*` for any characters and `?` for
    /// one. All by default.
    #[must_use]
    pub fn departments<T: Into<String>>(mut self, patterns: impl IntoIterator<Item = T>) -> Self {
        self.filter.departments = patterns.into_iter().map(Into::into).collect();
        self
    }

    /// Where to begin. A group begins there only in partitions that it has not committed in.
    #[must_use]
    pub const fn start(mut self, start: Start) -> Self {
        self.start = start;
        self
    }

    /// Only events of this kind of aggregate; repeat for more.
    #[must_use]
    pub fn aggregate_type(mut self, aggregate_type: AggregateType) -> Self {
        self.filter
            .aggregate_types
            .push(aggregate_type.as_str().to_owned());
        self
    }

    /// Only events of this aggregate; repeat for more.
    #[must_use]
    pub fn aggregate_id(mut self, id: impl Into<String>) -> Self {
        self.filter.aggregate_ids.push(id.into());
        self
    }

    /// Only events of this type, such as `ThoughtRecorded`; repeat for more.
    #[must_use]
    pub fn event_type(mut self, name: impl Into<String>) -> Self {
        self.filter.event_types.push(name.into());
        self
    }

    /// Turns records that are no events, or whose payload does not decode, into dead letters, and
    /// gives [`Subscription::reject`] its meaning. Needs a group, whose letters they are.
    #[must_use]
    pub const fn dead_letters(mut self, retry: RetryPolicy) -> Self {
        self.retry = Some(retry);
        self
    }

    /// Also holds the schema id in front of each payload against this registry: whoever reads with
    /// a stock client decodes by it. For subscriptions with [`Self::dead_letters`]; each id is
    /// asked for once, and a registry that is away for a minute ends the subscription.
    #[must_use]
    pub fn registry(mut self, options: RegistryOptions) -> Self {
        self.registry = Some(options);
        self
    }

    /// Connects and begins. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`Error`] if the brokers cannot be reached, no topic matches, or dead letters are wanted
    /// without a group.
    pub async fn open(self) -> Result<Subscription, Error> {
        if self.retry.is_some() && self.group.is_none() {
            let message = "is needed for dead letters: a letter belongs to the group that failed";
            return Err(Error::config("group", message));
        }
        let (retry, group) = (self.retry, self.group.clone());
        let runtime = tokio::runtime::Handle::current();
        let (chunks_in, chunks) = mpsc::channel(QUEUE_CHUNKS);
        let (commands, commands_out) = std::sync::mpsc::channel();
        tokio::task::spawn_blocking(move || worker::start(self, chunks_in, commands_out, runtime))
            .await
            .map_err(|e| Error::internal("subscribe", e))??;
        Ok(Subscription {
            chunks,
            current: VecDeque::new(),
            behind_current: BTreeMap::new(),
            done: BTreeMap::new(),
            again: VecDeque::new(),
            held: BTreeMap::new(),
            letters: BTreeMap::new(),
            retry,
            group,
            commands,
            over: false,
        })
    }
}
