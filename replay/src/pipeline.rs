//! Reading, indexing and handing out events: one reader, any number of threads that each own some
//! of the aggregates.
//!
//! Each event carries its hash and the one before it is known to the reader, so links can be
//! checked by any thread. A thread that finds a difference goes on receiving, so that the smallest
//! position found by any of them is the first bad one.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sovereign_schemas::chain::Head;
use sovereign_schemas::{Digest, EventLog, LogError, Position};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

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

/// What is done with each event.
pub(crate) trait Visitor: Send + 'static {
    type Output: Send + 'static;

    /// `previous` is the hash of the event before, `key` a hash of the aggregate.
    fn visit(&mut self, event: &View<'_>, previous: &Digest, key: u64) -> Result<(), Difference>;

    fn finish(self) -> Self::Output;
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

impl Feed {
    /// Visits the events of thread `own` out of `threads`.
    fn visit<V: Visitor>(
        &self,
        visitor: &mut V,
        own: usize,
        threads: usize,
    ) -> Result<(), Difference> {
        for (index, key) in self.keys.iter().enumerate() {
            // the low bits choose within a thread's table
            if threads > 1 && (key >> 32) as usize % threads != own {
                continue;
            }
            let previous = if index == 0 {
                self.previous
            } else {
                self.chunk.hash(index - 1)
            };
            visitor.visit(&self.chunk.view(index), &previous, *key)?;
        }
        Ok(())
    }
}

type Finished<V> = (Option<Difference>, <V as Visitor>::Output);

enum Workers<V: Visitor> {
    Here(V),
    Threads {
        queues: Vec<mpsc::Sender<Arc<Feed>>>,
        tasks: Vec<JoinHandle<Finished<V>>>,
    },
}

/// Of two findings the first position counts; at one position the visitor's, since a broken link
/// says more than a copy that differs.
fn keep_first(reader: &mut Option<Difference>, visitor: Difference) {
    if reader
        .as_ref()
        .is_none_or(|found| visitor.position <= found.position)
    {
        *reader = Some(visitor);
    }
}

impl<V: Visitor> Workers<V> {
    fn start(threads: usize, damaged: &Arc<AtomicBool>, make: impl Fn() -> V) -> Self {
        if threads == 1 {
            return Self::Here(make());
        }
        let (mut queues, mut tasks) = (Vec::new(), Vec::new());
        for own in 0..threads {
            let (sender, mut receiver) = mpsc::channel::<Arc<Feed>>(QUEUE_CHUNKS);
            let (mut visitor, damaged) = (make(), Arc::clone(damaged));
            queues.push(sender);
            tasks.push(tokio::task::spawn_blocking(move || {
                let mut difference = None;
                while let Some(feed) = receiver.blocking_recv() {
                    if difference.is_none() {
                        difference = feed.visit(&mut visitor, own, threads).err();
                    }
                    if difference.is_some() {
                        damaged.store(true, Ordering::Relaxed);
                    }
                }
                (difference, visitor.finish())
            }));
        }
        Self::Threads { queues, tasks }
    }

    async fn feed(&mut self, feed: Feed) -> Result<(), ReplayError> {
        match self {
            Self::Here(visitor) => {
                feed.visit(visitor, 0, 1)?;
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
            Self::Here(visitor) => Ok(vec![visitor.finish()]),
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

struct Reading<'a, 'b, 'c, V: Visitor> {
    source: &'a mut Source<'b>,
    compare: Compare<'c>,
    last: Option<Position>,
    batch: usize,
    head: Head,
    hasher: RandomState,
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
        hasher: RandomState::new(),
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
