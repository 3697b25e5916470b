//! Many partitions read at once, each through its own queue: the reader takes from whichever it
//! wants next, and librdkafka stops fetching for those it leaves alone. That bounds memory
//! without pausing and fetching again.

use std::collections::HashSet;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::BorrowedMessage;
use rdkafka::{Offset, TopicPartitionList};

use crate::client::{Context, Error, KafkaOptions};
use crate::reach;

/// At most so long without any answer before a reader gives up.
pub(crate) const IDLE_MAX: Duration = Duration::from_secs(30);
/// For one metadata or offset request.
pub(crate) const REQUEST_MAX: Duration = Duration::from_secs(10);

/// For how long a cluster that is settling is asked again: topics that were just created have no
/// leader yet, or not every broker knows them.
const SETTLING_MAX: Duration = Duration::from_secs(5);

/// Asks again while the cluster is settling.
pub(crate) fn settled<T>(ask: impl Fn() -> Result<T, Error>) -> Result<T, Error> {
    settled_within(SETTLING_MAX, ask)
}

/// Asks again while the cluster is settling, for so long.
#[allow(clippy::disallowed_methods)] // only on threads that may block
pub(crate) fn settled_within<T>(
    limit: Duration,
    ask: impl Fn() -> Result<T, Error>,
) -> Result<T, Error> {
    let deadline = Instant::now() + limit;
    loop {
        match ask() {
            Err(Error::Unreachable { .. } | Error::TopicMissing(_))
                if Instant::now() < deadline =>
            {
                std::thread::sleep(Duration::from_millis(50));
            }
            result => return result,
        }
    }
}

/// One partition of one topic.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct TopicPartition {
    pub(crate) topic: String,
    pub(crate) partition: i32,
}

impl std::fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

/// What one look at a partition gave.
pub(crate) enum Polled<'r> {
    Record(BorrowedMessage<'r>),
    /// All that was committed when the broker answered has been read.
    End,
    Nothing,
}

#[derive(Default)]
struct Signal {
    ready: Mutex<bool>,
    changed: Condvar,
}

impl Signal {
    fn raise(&self) {
        *self.ready.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_one();
    }

    fn wait(&self, timeout: Duration) {
        let ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut ready, _) = self
            .changed
            .wait_timeout_while(ready, timeout, |ready| !*ready)
            .unwrap_or_else(PoisonError::into_inner);
        *ready = false;
    }
}

/// Reads committed records of a fixed set of partitions.
pub(crate) struct PartitionReader {
    // before the consumer: queues must go first
    queues: Vec<PartitionQueue<Context>>,
    pub(crate) partitions: Vec<TopicPartition>,
    pub(crate) consumer: Arc<BaseConsumer<Context>>,
    context: Context,
    signal: Arc<Signal>,
}

impl PartitionReader {
    /// Reads the partitions of these topics, with at most `fetch_bytes` asked for at once from
    /// one partition (a larger record still comes).
    pub(crate) fn open(
        options: &KafkaOptions,
        topics: &[String],
        fetch_bytes: u32,
    ) -> Result<Self, Error> {
        let context = Context::of(options);
        let mut config = options.config()?;
        config
            // needed to assign; it never joins
            .set("group.id", options.topic("sovereign.reader"))
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .set("isolation.level", "read_committed")
            .set("auto.offset.reset", "error")
            .set("check.crcs", "true")
            .set("fetch.queue.backoff.ms", "2")
            // the end of a partition is told only by an empty answer
            .set("fetch.wait.max.ms", "20")
            .set("fetch.message.max.bytes", fetch_bytes.to_string())
            .set("queued.max.messages.kbytes", "4096");
        let consumer: BaseConsumer<Context> = config
            .create_with_context(context.clone())
            .map_err(|e| Error::kafka("consumer", &e))?;
        let consumer = Arc::new(consumer);
        reach::wait(options, &consumer)?;
        let partitions = settled(|| partitions_of(&consumer, &context, topics))?;
        let signal = Arc::new(Signal::default());
        let mut queues = Vec::with_capacity(partitions.len());
        for at in &partitions {
            // before assignment, so that no record can take the consumer's own queue
            let mut queue = consumer
                .split_partition_queue(&at.topic, at.partition)
                .ok_or_else(|| Error::TopicMissing(at.to_string()))?;
            let signal = Arc::clone(&signal);
            queue.set_nonempty_callback(move || signal.raise());
            queues.push(queue);
        }
        Ok(Self {
            queues,
            partitions,
            consumer,
            context,
            signal,
        })
    }

    /// Starts reading these partitions (by index) at these offsets, and stops all others. What was
    /// fetched before is dropped.
    pub(crate) fn assign(&self, starts: &[(usize, i64)]) -> Result<(), Error> {
        let mut list = TopicPartitionList::with_capacity(starts.len());
        for &(index, offset) in starts {
            let at = &self.partitions[index];
            list.add_partition_offset(&at.topic, at.partition, Offset::Offset(offset))
                .map_err(|e| Error::kafka("assign", &e))?;
        }
        self.consumer
            .assign(&list)
            .map_err(|e| self.context.explain("assign", &e))
    }

    /// Looks at one partition without waiting.
    pub(crate) fn poll(&self, index: usize) -> Result<Polled<'_>, Error> {
        match self.queues[index].poll(Duration::ZERO) {
            None => Ok(Polled::Nothing),
            Some(Ok(message)) => Ok(Polled::Record(message)),
            Some(Err(KafkaError::PartitionEOF(_))) => Ok(Polled::End),
            Some(Err(error)) => {
                let what = self.partitions[index].to_string();
                match self.context.explain(&what, &error) {
                    // librdkafka tries again by itself; the caller's idle limit bounds it
                    Error::Unreachable { .. } => Ok(Polled::Nothing),
                    other => Err(other),
                }
            }
        }
    }

    /// Waits until a partition may have something, at most so long, and serves the client.
    pub(crate) fn wait(&self, timeout: Duration) -> Result<(), Error> {
        self.signal.wait(timeout);
        while let Some(result) = self.consumer.poll(Duration::ZERO) {
            match result {
                Ok(message) => {
                    return Err(Error::internal(
                        "consumer",
                        format!("{} bypassed its queue", rdkafka::Message::topic(&message)),
                    ));
                }
                Err(error) => match self.context.explain("consumer", &error) {
                    Error::Unreachable { .. } => {}
                    other => return Err(other),
                },
            }
        }
        Ok(())
    }

    /// Reads each of these partitions from its offset until its end, or until `stop` says so.
    pub(crate) fn drain(
        &self,
        starts: &[(usize, i64)],
        mut each: impl FnMut(usize, &BorrowedMessage<'_>) -> Result<bool, Error>,
    ) -> Result<(), Error> {
        self.assign(starts)?;
        let mut open: HashSet<usize> = starts.iter().map(|s| s.0).collect();
        let mut heard = Instant::now();
        while !open.is_empty() {
            let mut any = false;
            for &(index, _) in starts {
                while open.contains(&index) {
                    match self.poll(index)? {
                        Polled::Nothing => break,
                        Polled::Record(message) => {
                            any = true;
                            if each(index, &message)? {
                                open.remove(&index);
                            }
                        }
                        Polled::End => {
                            any = true;
                            open.remove(&index);
                        }
                    }
                }
            }
            if any {
                heard = Instant::now();
            } else if heard.elapsed() > IDLE_MAX {
                return Err(self.silent());
            } else {
                self.wait(Duration::from_millis(20))?;
            }
        }
        Ok(())
    }

    /// What to say after [`IDLE_MAX`] without an answer.
    pub(crate) fn silent(&self) -> Error {
        let error = KafkaError::MessageConsumption(RDKafkaErrorCode::OperationTimedOut);
        self.context.explain("read topics", &error)
    }
}

fn partitions_of(
    consumer: &BaseConsumer<Context>,
    context: &Context,
    topics: &[String],
) -> Result<Vec<TopicPartition>, Error> {
    let metadata = consumer
        .fetch_metadata(None, REQUEST_MAX)
        .map_err(|e| context.explain("metadata", &e))?;
    let mut found = Vec::new();
    for topic in topics {
        let entry = metadata.topics().iter().find(|t| t.name() == topic);
        let ids: Vec<i32> = entry
            .map(|t| t.partitions().iter().map(|p| p.id()).collect())
            .unwrap_or_default();
        if ids.is_empty() {
            return Err(Error::TopicMissing(topic.clone()));
        }
        found.extend(ids.into_iter().map(|id| TopicPartition {
            topic: topic.clone(),
            partition: id,
        }));
    }
    found.sort();
    Ok(found)
}
