//! Reading, indexing and handing out events: one reader, any number of threads that each own some
//! of the aggregates.
//!
//! Each event carries its hash and the one before it is known to the reader, so links can be
//! checked by any thread. A thread that finds a difference goes on receiving, so that the smallest
//! position found by any of them is the first bad one.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use foldhash::SharedSeed;
use foldhash::quality::SeedableRandomState;
use sovereign_schemas::chain::Head;
use sovereign_schemas::{Digest, EventLog, LogError, Position};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::links::Links;
use crate::source::{Chunk, Source, View};
use crate::{Difference, Range, ReplayError, What};

/// At most so many threads.
const THREADS_MAX: usize = 64;
/// At most so many events in one read.
const BATCH_MAX: usize = 65_536;
/// Chunks that wait for one thread.
const QUEUE_CHUNKS: usize = 4;

/// How to go about it. None of these changes a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Threads that check and fold, 1 to 64; with 1 everything happens in the caller's task.
    pub threads: usize,
    /// Events in one read, 1 to 65,536; a recorded file is read in its own blocks instead.
    pub batch: usize,
}

impl Default for Options {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            threads: threads.min(THREADS_MAX),
            batch: 4_096,
        }
    }
}

/// What is done with the events of one thread's aggregates, once their links are checked.
pub(crate) trait Visitor: Send + 'static {
    type Output: Send + 'static;

    /// Stops at the first difference.
    fn visit(&mut self, events: &Own<'_>) -> Result<(), Difference>;

    fn finish(self) -> Self::Output;
}

/// Events of one thread's aggregates in a chunk, in order.
pub(crate) struct Own<'a> {
    chunk: &'a Chunk,
    /// A hash of the aggregate of each event of the chunk.
    keys: &'a [u64],
    indices: &'a [u32],
}

impl<'a> Own<'a> {
    pub(crate) fn windows(&self, length: usize) -> impl Iterator<Item = Own<'a>> {
        let (chunk, keys) = (self.chunk, self.keys);
        self.indices.chunks(length).map(move |indices| Own {
            chunk,
            keys,
            indices,
        })
    }

    /// Key, and type and id of the aggregate, of each event.
    pub(crate) fn aggregates(
        &self,
    ) -> impl ExactSizeIterator<Item = (u64, (&'a [u8], &'a [u8]))> + Clone + use<'a> {
        let (chunk, keys) = (self.chunk, self.keys);
        self.indices.iter().map(move |index| {
            let index = *index as usize;
            (keys[index], chunk.aggregate(index))
        })
    }

    /// The events with their keys.
    pub(crate) fn events(&self) -> impl Iterator<Item = (View<'a>, u64)> + use<'a> {
        let (chunk, keys) = (self.chunk, self.keys);
        self.indices.iter().map(move |index| {
            let index = *index as usize;
            (chunk.view(index), keys[index])
        })
    }
}

/// What the reader compares while it reads.
#[derive(Default)]
pub(crate) struct Compare<'a> {
    pub(crate) copy: Option<&'a mut dyn EventLog>,
    /// Heads that others claim for this log.
    pub(crate) heads: Vec<Head>,
}

/// A range that was read to its end.
#[derive(Debug)]
pub(crate) struct Done<T> {
    pub(crate) first: Position,
    pub(crate) head: Head,
    pub(crate) outputs: Vec<T>,
}

struct Feed {
    chunk: Chunk,
    /// A hash of the aggregate of each event.
    keys: Vec<u64>,
    /// Hash of the event before the first.
    previous: Digest,
}

/// One thread's part of the work: some of the links, and the events of some of the aggregates.
struct Part<V> {
    visitor: V,
    own: usize,
    threads: usize,
    links: Links,
    indices: Vec<u32>,
}

impl<V: Visitor> Part<V> {
    fn new(visitor: V, own: usize, threads: usize) -> Self {
        Self {
            visitor,
            own,
            threads,
            links: Links::default(),
            indices: Vec::new(),
        }
    }

    /// Checks its share of the links, then visits its aggregates' events up to the first link
    /// that does not hold. A link needs no other, so its share is any stretch of the chunk.
    fn take(&mut self, feed: &Feed) -> Result<(), Difference> {
        let (own, threads, count) = (self.own, self.threads, feed.chunk.len());
        let share = count * own / threads..count * (own + 1) / threads;
        let broken = self.links.check(&feed.chunk, &feed.previous, share).err();
        let end = broken.as_ref().map_or(count, |(index, _)| *index);
        self.indices.clear();
        // the low bits choose within a thread's table
        let mine = |key: u64| threads == 1 || (key >> 32) as usize % threads == own;
        let keys = feed.keys[..end].iter().zip(0_u32..);
        self.indices
            .extend(keys.filter(|(key, _)| mine(**key)).map(|(_, index)| index));
        self.visitor.visit(&Own {
            chunk: &feed.chunk,
            keys: &feed.keys,
            indices: &self.indices,
        })?;
        broken.map_or(Ok(()), |(_, found)| Err(found))
    }
}

type Finished<V> = (Option<Difference>, <V as Visitor>::Output);

enum Workers<V: Visitor> {
    Here(Box<Part<V>>),
    Threads {
        queues: Vec<mpsc::Sender<Arc<Feed>>>,
        tasks: Vec<JoinHandle<Finished<V>>>,
    },
}

/// Of two findings the first position counts; at one position the one that says more: a broken
/// link more than what follows from the event, and that more than a copy that differs.
fn keep_first(kept: &mut Option<Difference>, found: Difference) {
    let rank = |difference: &Difference| {
        let says = match difference.what {
            What::Hash => 0,
            What::Copy | What::Head => 2,
            _ => 1,
        };
        (difference.position, says)
    };
    if kept.as_ref().is_none_or(|kept| rank(&found) < rank(kept)) {
        *kept = Some(found);
    }
}

impl<V: Visitor> Workers<V> {
    fn start(threads: usize, damaged: &Arc<AtomicBool>, make: impl Fn() -> V) -> Self {
        if threads == 1 {
            return Self::Here(Box::new(Part::new(make(), 0, 1)));
        }
        let (mut queues, mut tasks) = (Vec::new(), Vec::new());
        for own in 0..threads {
            let (sender, mut receiver) = mpsc::channel::<Arc<Feed>>(QUEUE_CHUNKS);
            let (mut part, damaged) = (Part::new(make(), own, threads), Arc::clone(damaged));
            queues.push(sender);
            tasks.push(tokio::task::spawn_blocking(move || {
                let mut difference = None;
                while let Some(feed) = receiver.blocking_recv() {
                    if difference.is_none() {
                        difference = part.take(&feed).err();
                    }
                    if difference.is_some() {
                        damaged.store(true, Ordering::Relaxed);
                    }
                }
                (difference, part.visitor.finish())
            }));
        }
        Self::Threads { queues, tasks }
    }

    async fn feed(&mut self, feed: Feed) -> Result<(), ReplayError> {
        match self {
            Self::Here(part) => {
                part.take(&feed)?;
                // whoever shares this thread gets its turn
                tokio::task::yield_now().await;
            }
            Self::Threads { queues, .. } => {
                let feed = Arc::new(feed);
                for queue in queues {
                    let sent = queue.send(Arc::clone(&feed)).await;
                    sent.map_err(|_| ReplayError::Internal("a thread ended early".to_owned()))?;
                }
            }
        }
        Ok(())
    }

    async fn finish(
        self,
        difference: &mut Option<Difference>,
    ) -> Result<Vec<V::Output>, ReplayError> {
        match self {
            Self::Here(part) => Ok(vec![part.visitor.finish()]),
            Self::Threads { queues, tasks } => {
                drop(queues);
                let mut outputs = Vec::with_capacity(tasks.len());
                for task in tasks {
                    let (found, output) = task
                        .await
                        .map_err(|error| ReplayError::Internal(error.to_string()))?;
                    if let Some(found) = found {
                        keep_first(difference, found);
                    }
                    outputs.push(output);
                }
                Ok(outputs)
            }
        }
    }
}

/// The first position of the range and the hash before it.
async fn start(
    source: &mut Source<'_>,
    range: Range,
    previous: Option<Digest>,
) -> Result<(Position, Digest), ReplayError> {
    let own = match source {
        Source::File(file) => Some(file.info()),
        Source::Log(_) => None,
    };
    let first = range
        .first
        .unwrap_or(own.map_or(Position(1), |info| info.first));
    if let Some(previous) = previous {
        return Ok((first, previous));
    }
    if first == Position(1) {
        return Ok((first, Digest::ZERO));
    }
    if let Some(info) = own.filter(|info| info.first >= first) {
        // a file that starts later is told apart by the first read
        return Ok((first, info.previous_hash));
    }
    let before = Position(first.0 - 1);
    match source.next(Position(before.0 - 1), 1, Some(before)).await? {
        Some(chunk) if chunk.len() > 0 => Ok((first, chunk.hash(0))),
        _ => Err(Difference::new(
            before,
            What::Missing,
            format!("position {before}"),
            "the end of the log",
        )
        .into()),
    }
}

/// A fast hash under a secret of this run: whoever made the log cannot aim at one place of a table.
fn hasher() -> SeedableRandomState {
    let secret = RandomState::new().hash_one(0_u64);
    SeedableRandomState::with_seed(secret, SharedSeed::global_random())
}

struct Reading<'a, 'b, 'c, V: Visitor> {
    source: &'a mut Source<'b>,
    compare: Compare<'c>,
    last: Option<Position>,
    batch: usize,
    head: Head,
    hasher: SeedableRandomState,
    workers: Workers<V>,
    scratch: Vec<u8>,
}

impl<V: Visitor> Reading<'_, '_, '_, V> {
    /// Reads and hands out one chunk; `false` at the end.
    async fn step(&mut self) -> Result<bool, ReplayError> {
        let Some(chunk) = self
            .source
            .next(self.head.position, self.batch, self.last)
            .await?
        else {
            self.at_end()?;
            return Ok(false);
        };
        let previous = self.head.hash;
        let mut keys = Vec::with_capacity(chunk.len());
        let mut expected = self.head.position.next();
        for index in 0..chunk.len() {
            let found = chunk.position(index);
            if found != expected {
                return Err(LogError::Gap { expected, found }.into());
            }
            keys.push(self.hasher.hash_one(chunk.aggregate(index)));
            expected = expected.next();
        }
        let end = chunk.len() - 1;
        let head = Head {
            position: chunk.position(end),
            hash: chunk.hash(end),
        };
        let compared = self.compare(&chunk).await;
        self.head = head;
        // what was read is visited even where the copy differs: the link may say more
        let visited = self
            .workers
            .feed(Feed {
                chunk,
                keys,
                previous,
            })
            .await;
        match (compared, visited) {
            (Err(ReplayError::Difference(copy)), Err(ReplayError::Difference(link))) => {
                let mut first = Some(copy);
                keep_first(&mut first, link);
                first.map_or(Ok(true), |found| Err(found.into()))
            }
            (_, Err(error)) | (Err(error), Ok(())) => Err(error),
            (Ok(()), Ok(())) => Ok(true),
        }
    }

    fn at_end(&self) -> Result<(), Difference> {
        let claimed = self.compare.heads.iter().map(|head| head.position).max();
        let claimed = self.last.or(claimed);
        match claimed.filter(|claimed| *claimed > self.head.position) {
            None => Ok(()),
            Some(claimed) => Err(Difference::new(
                self.head.position.next(),
                What::Missing,
                format!("positions up to {claimed}"),
                format!("the end of the log after {}", self.head.position),
            )),
        }
    }

    /// Compares a chunk with the other copy, and with the head that somebody else claims.
    async fn compare(&mut self, chunk: &Chunk) -> Result<(), ReplayError> {
        if let Some(copy) = self.compare.copy.as_deref_mut() {
            let mut index = 0;
            while index < chunk.len() {
                let after = Position(chunk.position(index).0 - 1);
                let (events, _) = match copy.read(after.into(), chunk.len() - index).await {
                    Ok(read) => read,
                    Err(error @ (LogError::Unreachable(_) | LogError::Internal(_))) => {
                        return Err(error.into());
                    }
                    Err(error) => {
                        return Err(copy_differs(&chunk.view(index), error.to_string()).into());
                    }
                };
                if events.is_empty() {
                    return Err(copy_differs(&chunk.view(index), "nothing".into()).into());
                }
                for event in events.iter().take(chunk.len() - index) {
                    same(&chunk.view(index), event, &mut self.scratch)?;
                    index += 1;
                }
            }
        }
        for claimed in &self.compare.heads {
            let index = claimed
                .position
                .0
                .checked_sub(chunk.position(0).0)
                .map(|i| i as usize);
            let found = index
                .filter(|index| *index < chunk.len())
                .map(|index| chunk.hash(index));
            if let Some(found) = found.filter(|found| *found != claimed.hash) {
                let (expected, found) = (claimed.hash.to_string(), found.to_string());
                return Err(Difference::new(claimed.position, What::Head, expected, found).into());
            }
        }
        Ok(())
    }

    /// Without a last position the other copy must end here as well.
    async fn copy_ends(&mut self) -> Result<(), ReplayError> {
        let Some(copy) = self
            .compare
            .copy
            .as_deref_mut()
            .filter(|_| self.last.is_none())
        else {
            return Ok(());
        };
        let (events, _) = copy.read(self.head.position.into(), 1).await?;
        events.first().map_or(Ok(()), |event| {
            let found = format!("event with hash {}", event.hash);
            Err(Difference::new(event.position(), What::Copy, "nothing", found).into())
        })
    }
}

fn copy_differs(event: &View<'_>, found: String) -> Difference {
    let expected = format!("event with hash {}", event.hash);
    Difference::new(event.position, What::Copy, expected, found)
}

fn same(
    event: &View<'_>,
    copy: &sovereign_schemas::RecordedEvent,
    scratch: &mut Vec<u8>,
) -> Result<(), Difference> {
    let differs = |what: &str, expected: String, found: String| {
        let (expected, found) = (format!("{what} {expected}"), format!("{what} {found}"));
        Err(Difference::new(event.position, What::Copy, expected, found))
    };
    if event.hash != copy.hash {
        return differs("hash", event.hash.to_string(), copy.hash.to_string());
    }
    let mut own = Vec::new();
    scratch.clear();
    copy.header.encode(scratch);
    let header = event.header.bytes(&mut own);
    if header != &scratch[..] {
        let digests = (Digest::of(&[header]), Digest::of(&[scratch]));
        return differs(
            "header with sha-256",
            digests.0.to_string(),
            digests.1.to_string(),
        );
    }
    if *event.payload != copy.payload[..] {
        let digests = (Digest::of(&[event.payload]), Digest::of(&[&copy.payload]));
        return differs(
            "payload with sha-256",
            digests.0.to_string(),
            digests.1.to_string(),
        );
    }
    Ok(())
}

/// Reads a range to its end and hands each event to the visitor that owns its aggregate.
pub(crate) async fn run<V: Visitor>(
    source: &mut Source<'_>,
    range: Range,
    previous: Option<Digest>,
    options: Options,
    compare: Compare<'_>,
    make: impl Fn(Position) -> V,
    progress: &mut (dyn FnMut(Position) + Send),
) -> Result<Done<V::Output>, ReplayError> {
    let range = Range::new(range.first, range.last)?;
    let (first, previous) = start(source, range, previous).await?;
    let damaged = Arc::new(AtomicBool::new(false));
    let threads = options.threads.clamp(1, THREADS_MAX);
    let mut reading = Reading {
        source,
        compare,
        last: range.last,
        batch: options.batch.clamp(1, BATCH_MAX),
        head: Head {
            position: Position(first.0 - 1),
            hash: previous,
        },
        hasher: hasher(),
        workers: Workers::start(threads, &damaged, || make(first)),
        scratch: Vec::new(),
    };
    let mut stopped = None;
    while !damaged.load(Ordering::Relaxed) {
        match reading.step().await {
            Ok(true) => progress(reading.head.position),
            Ok(false) => {
                stopped = reading.copy_ends().await.err();
                break;
            }
            Err(error) => {
                stopped = Some(error);
                break;
            }
        }
    }
    let head = reading.head;
    let (mut difference, other) = match stopped {
        Some(ReplayError::Difference(found)) => (Some(found), None),
        other => (None, other),
    };
    let outputs = reading.workers.finish(&mut difference).await?;
    match (difference, other) {
        // a finding outlasts a server that went away after it
        (Some(found), _) => Err(found.into()),
        (None, Some(error)) => Err(error),
        (None, None) => Ok(Done {
            first,
            head,
            outputs,
        }),
    }
}
