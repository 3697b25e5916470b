//! The thread that polls: several times faster than the library's own stream.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::{Offset, TopicPartitionList};
use tokio::runtime::Handle;
use tokio::sync::mpsc::{Sender, error::TrySendError};
use tokio::sync::oneshot;

use super::letters::Letters;
use super::{Delivery, Start, SubscriptionBuilder, SubscriptionError, start};
use crate::client::{Context, Error};
use crate::dead_letters::{Letter, Post, Standing};
use crate::partitions::TopicPartition;
use crate::reach;
use crate::record;
use crate::telemetry::{DeadLetter, Poison};

/// A chunk is handed over at the latest with so many payload bytes.
pub(crate) const CHUNK_BYTES_MAX: usize = 1 << 20;
const CHUNK_EVENTS_MAX: usize = 512;
/// How long one poll waits; bounds how late a commit is noticed.
const POLL: Duration = Duration::from_millis(10);
/// A reader that is slower than this makes the thread pause its partitions and keep polling, so
/// that the group does not take it for dead.
const PAUSE_AFTER: Duration = Duration::from_secs(1);
/// How often to look for new topics and partitions.
const REFRESH_EVERY: Duration = Duration::from_secs(30);

/// What the reader gets at once.
#[derive(Debug, Default)]
pub(crate) struct Chunk {
    pub(crate) items: VecDeque<Result<Delivery, SubscriptionError>>,
    /// Next offsets behind the chunk, over records that were filtered out as well.
    pub(crate) behind: BTreeMap<TopicPartition, i64>,
}

/// Something that the reader waits for.
#[derive(Debug)]
pub(crate) struct Command {
    pub(crate) order: Order,
    pub(crate) reply: oneshot::Sender<Result<(), Error>>,
}

#[derive(Debug)]
pub(crate) enum Order {
    /// Moves the group's place, after all letters up to there are durable.
    Commit {
        offsets: BTreeMap<TopicPartition, i64>,
        letters: Vec<Standing>,
    },
    /// Writes a letter.
    Bury(Box<Letter>),
    /// Writes the last word on a letter.
    Standing(Box<Standing>),
}

struct Worker {
    builder: SubscriptionBuilder,
    consumer: Arc<BaseConsumer<Context>>,
    chunks: Sender<Chunk>,
    commands: Receiver<Command>,
    known: HashSet<TopicPartition>,
    /// Partitions in which the position to begin at has not been reached.
    early: HashSet<TopicPartition>,
    letters: Option<Letters>,
    /// Nothing is read behind a record that could be neither delivered nor written off.
    failed: bool,
}

/// Connects, finds the start, and starts the thread.
pub(crate) fn start(
    builder: SubscriptionBuilder,
    chunks: Sender<Chunk>,
    commands: Receiver<Command>,
    runtime: Handle,
) -> Result<(), Error> {
    let consumer = connect(&builder)?;
    reach::wait(&builder.options, &consumer)?;
    let partitions = start::matching(&builder, &consumer)?;
    let letters = match (&builder.group, builder.retry) {
        (Some(group), Some(_)) => Some(Letters::open(&builder, group, runtime)?),
        _ => None,
    };
    let explain = |e: &rdkafka::error::KafkaError| consumer.context().explain("subscribe", e);
    let begun = if builder.group.is_some() {
        let begun = start::seed_group(&builder, &consumer, &partitions)?;
        subscribe(&consumer, &partitions)?;
        begun
    } else {
        let starts = start::offsets(&builder, &consumer, &partitions)?;
        let list = list(partitions.iter().zip(starts))?;
        consumer.assign(&list).map_err(|e| explain(&e))?;
        partitions.clone()
    };
    // letters that were given back have no place in the order
    let early = begun.into_iter().filter(|at| !builder.is_retry(&at.topic));
    let early = early.collect();
    let known = partitions.into_iter().collect();
    let worker = Worker {
        builder,
        consumer: Arc::new(consumer),
        chunks,
        commands,
        known,
        early,
        letters,
        failed: false,
    };
    std::thread::Builder::new()
        .name("subscription".to_owned())
        .spawn(move || worker.run())
        .map_err(|e| Error::internal("start subscription thread", e))?;
    Ok(())
}

/// By name and not by expression: brokers resolve expressions beside the join, so the first records
/// came five seconds (one heartbeat) later. New topics are looked for instead.
fn subscribe(consumer: &BaseConsumer<Context>, partitions: &[TopicPartition]) -> Result<(), Error> {
    let topics: BTreeSet<&str> = partitions.iter().map(|at| at.topic.as_str()).collect();
    let topics: Vec<&str> = topics.into_iter().collect();
    consumer
        .subscribe(&topics)
        .map_err(|e| consumer.context().explain("subscribe", &e))
}

fn connect(builder: &SubscriptionBuilder) -> Result<BaseConsumer<Context>, Error> {
    let mut config = builder.options.config()?;
    config
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("isolation.level", "read_committed")
        // the start is set by us; this is for partitions that come later and for retention, where
        // skipping would lose events
        .set("auto.offset.reset", "earliest")
        .set("fetch.queue.backoff.ms", "2")
        .set("fetch.wait.max.ms", "100")
        .set("queued.max.messages.kbytes", "16384");
    match &builder.group {
        Some(group) => config
            .set("group.id", group)
            .set("group.protocol", "consumer"),
        None => config.set("group.id", builder.options.topic("sovereign.reader")),
    };
    config
        .create_with_context(Context::of(&builder.options))
        .map_err(|e| Error::kafka("consumer", &e))
}

fn list<'a>(
    offsets: impl Iterator<Item = (&'a TopicPartition, i64)>,
) -> Result<TopicPartitionList, Error> {
    let mut list = TopicPartitionList::new();
    for (at, offset) in offsets {
        list.add_partition_offset(&at.topic, at.partition, Offset::Offset(offset))
            .map_err(|e| Error::kafka("offsets", &e))?;
    }
    Ok(list)
}

impl Worker {
    fn run(mut self) {
        let mut refreshed = Instant::now();
        while !self.chunks.is_closed() {
            self.serve_commands();
            let chunk = self.collect();
            let over = chunk
                .items
                .back()
                .is_some_and(|i| matches!(i, Err(e) if !e.goes_on()));
            let empty = chunk.items.is_empty() && chunk.behind.is_empty();
            if !empty && !self.hand_over(chunk) || over || self.failed {
                return;
            }
            if refreshed.elapsed() > REFRESH_EVERY {
                refreshed = Instant::now();
                if let Err(error) = self.refresh() {
                    tracing::warn!(%error, "subscription cannot look for new partitions");
                }
            }
        }
    }

    /// One poll that waits, then what is there already.
    fn collect(&mut self) -> Chunk {
        let mut chunk = Chunk::default();
        let mut bytes = 0;
        let mut wait = POLL;
        let consumer = Arc::clone(&self.consumer);
        while chunk.items.len() < CHUNK_EVENTS_MAX && bytes < CHUNK_BYTES_MAX && !self.failed {
            match consumer.poll(wait) {
                None => break,
                Some(Ok(message)) => {
                    bytes += message.payload_len();
                    self.take(&message, &mut chunk);
                }
                Some(Err(error)) => match self.consumer.context().explain("subscription", &error) {
                    // librdkafka reconnects by itself
                    Error::Unreachable { .. } => {}
                    other => {
                        chunk.items.push_back(Err(other.into()));
                        break;
                    }
                },
            }
            wait = Duration::ZERO;
        }
        chunk
    }

    fn take(&mut self, message: &BorrowedMessage<'_>, chunk: &mut Chunk) {
        let at = TopicPartition {
            topic: message.topic().to_owned(),
            partition: message.partition(),
        };
        if self.is_early(&at, message) {
            chunk.behind.insert(at, message.offset() + 1);
            return;
        }
        let taken = match self.letters.take() {
            None => Ok(self.take_plain(message)),
            Some(mut letters) => {
                let taken = letters.take(&self.builder, message);
                self.letters = Some(letters);
                taken
            }
        };
        match taken {
            Ok(item) => {
                chunk.items.extend(item);
                chunk.behind.insert(at, message.offset() + 1);
            }
            Err(error) => {
                self.failed = true;
                chunk.items.push_back(Err(error));
            }
        }
    }

    /// Whether this stands before the position to begin at. The search for it sees what is
    /// committed; what was in an open transaction then, or comes later, may stand before it too.
    fn is_early(&mut self, at: &TopicPartition, message: &BorrowedMessage<'_>) -> bool {
        let Start::Position(from) = self.builder.start else {
            return false;
        };
        if !self.early.contains(at) {
            return false;
        }
        let early = record::position(message).is_ok_and(|position| position < from);
        if !early {
            self.early.remove(at);
        }
        early
    }

    fn take_plain(
        &self,
        message: &BorrowedMessage<'_>,
    ) -> Option<Result<Delivery, SubscriptionError>> {
        match record::decode(message) {
            Ok(decoded) if !self.builder.filter.event(&decoded.event.header) => None,
            Ok(decoded) => Some(Ok(Delivery {
                event: decoded.event,
                topic: message.topic().to_owned(),
                partition: message.partition(),
                offset: message.offset(),
                attempt: 1,
                letter: None,
                raw: None,
            })),
            Err(error) => {
                Poison { error: &error }.emit();
                Some(Err(error.into()))
            }
        }
    }

    /// Waits until the reader has room; false if it is gone.
    #[allow(clippy::disallowed_methods)] // on its own thread
    fn hand_over(&mut self, chunk: Chunk) -> bool {
        let began = Instant::now();
        let mut paused = false;
        let mut chunk = chunk;
        loop {
            match self.chunks.try_send(chunk) {
                Ok(()) => {
                    if paused {
                        self.pause(false);
                    }
                    return true;
                }
                Err(TrySendError::Closed(_)) => return false,
                Err(TrySendError::Full(back)) => chunk = back,
            }
            self.serve_commands();
            if began.elapsed() < PAUSE_AFTER {
                std::thread::sleep(Duration::from_millis(1));
                continue;
            }
            // again each time: a rebalance may have brought partitions that are not paused
            self.pause(true);
            paused = true;
            let consumer = Arc::clone(&self.consumer);
            if self.failed {
                std::thread::sleep(POLL);
                continue;
            }
            if let Some(Ok(message)) = consumer.poll(POLL) {
                self.take(&message, &mut chunk);
            }
        }
    }

    fn pause(&self, pause: bool) {
        let done = self.consumer.assignment().and_then(|all| {
            if pause {
                self.consumer.pause(&all)
            } else {
                self.consumer.resume(&all)
            }
        });
        if let Err(error) = done {
            tracing::warn!(%error, pause, "subscription cannot pause or resume");
        }
    }

    fn serve_commands(&mut self) {
        while let Ok(command) = self.commands.try_recv() {
            let done = self.carry_out(command.order);
            // a reader that does not wait any more does not need it
            let _ = command.reply.send(done);
        }
    }

    fn carry_out(&mut self, order: Order) -> Result<(), Error> {
        let mut post = |post: Option<Post>| {
            let Some(letters) = &mut self.letters else {
                return Ok(());
            };
            post.map_or(Ok(()), |post| letters.post(post))?;
            letters.flush()
        };
        match order {
            Order::Bury(letter) => {
                DeadLetter { letter: &letter }.emit();
                post(Some(Post::Letter(letter)))
            }
            Order::Standing(standing) => post(Some(Post::Standing(standing))),
            Order::Commit { offsets, letters } => {
                post(None)?;
                for standing in letters {
                    post(Some(Post::Standing(Box::new(standing))))?;
                }
                self.commit(&offsets)
            }
        }
    }

    fn commit(&self, offsets: &BTreeMap<TopicPartition, i64>) -> Result<(), Error> {
        if self.builder.group.is_none() {
            return Err(Error::config(
                "group",
                "is not set; there is nothing to commit to",
            ));
        }
        let explain = |e: &rdkafka::error::KafkaError| self.consumer.context().explain("commit", e);
        let ours = self.consumer.assignment().map_err(|e| explain(&e))?;
        let ours = |at: &TopicPartition| ours.find_partition(&at.topic, at.partition).is_some();
        let list = list(
            offsets
                .iter()
                .filter(|(at, _)| ours(at))
                .map(|(at, o)| (at, *o)),
        )?;
        if list.count() == 0 {
            return Ok(());
        }
        self.consumer
            .commit(&list, CommitMode::Sync)
            .map_err(|e| explain(&e))
    }

    /// What came since is read from its beginning.
    fn refresh(&mut self) -> Result<(), Error> {
        let all = start::matching(&self.builder, &self.consumer)?;
        let new: Vec<TopicPartition> = all
            .iter()
            .filter(|at| !self.known.contains(at))
            .cloned()
            .collect();
        if new.is_empty() {
            return Ok(());
        }
        if self.builder.group.is_some() {
            // partitions of topics that it has already are handed out by the brokers themselves
            subscribe(&self.consumer, &all)?;
            self.known.extend(new);
            return Ok(());
        }
        let list = list(new.iter().map(|at| (at, 0)))?;
        self.consumer
            .incremental_assign(&list)
            .map_err(|e| self.consumer.context().explain("subscribe", &e))?;
        self.known.extend(new);
        Ok(())
    }
}
