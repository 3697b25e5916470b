use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rdkafka::TopicPartitionList;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message as _, ToBytes};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};

use super::port::{Outgoing, TransactionalPort, Written};
use crate::client::{Context, Error, KafkaOptions};
use crate::topics::RECORD_BYTES_MAX;
use crate::{checkpoint, record};

/// Pause between two looks at what the brokers answered: short beside a round trip.
const SERVE_PAUSE: Duration = Duration::from_micros(300);

/// A transaction that takes longer may have waited for brokers that were away: their controller
/// takes the partitions from a broker that is silent for 9 s (`broker.session.timeout.ms`).
const STALL: Duration = Duration::from_secs(3);
/// For so long all partitions must have a leader before a transaction is committed behind a stall:
/// see [`super::visible`].
const STEADY: Duration = Duration::from_secs(2);
const STEADY_LOOK: Duration = Duration::from_millis(100);

/// What became of the records of one transaction.
#[derive(Default)]
struct Delivered {
    /// The first failure, which a transaction must not be committed over.
    failed: Option<KafkaError>,
    written: Vec<Written>,
}

impl Delivered {
    fn put(&mut self, topic: &str, partition: i32, offset: i64) {
        // a few partitions, and mostly the one of the record before
        let same = |w: &&mut Written| w.partition == partition && w.topic == topic;
        match self.written.iter_mut().rev().find(same) {
            Some(written) => written.offset = written.offset.max(offset),
            None => self.written.push(Written {
                topic: topic.to_owned(),
                partition,
                offset,
            }),
        }
    }
}

#[derive(Default)]
struct Deliveries {
    client: Context,
    delivered: Arc<Mutex<Delivered>>,
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.client.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.client.error(error, reason);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let mut delivered = lock(&self.delivered);
        match result {
            Ok(record) => delivered.put(record.topic(), record.partition(), record.offset()),
            Err((error, _)) => {
                delivered.failed.get_or_insert_with(|| error.clone());
            }
        }
    }
}

fn lock(delivered: &Mutex<Delivered>) -> MutexGuard<'_, Delivered> {
    delivered.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One of the two transactional producers. Its calls block.
pub(crate) struct TransactionalProducer {
    inner: BaseProducer<Deliveries>,
    client: Context,
    delivered: Arc<Mutex<Delivered>>,
    began: Instant,
    /// For one step: a bit less than the brokers' own patience with the transaction.
    patience: Duration,
}

impl TransactionalProducer {
    /// Takes over `transactional_id`: whoever held it is fenced, and what it left open is aborted
    /// (or its commit completed) when this returns.
    /// The brokers end what it leaves open after `timeout`.
    pub(crate) fn take_over(
        options: &KafkaOptions,
        transactional_id: &str,
        timeout: Duration,
    ) -> Result<Self, Error> {
        let patience = timeout * 3 / 4;
        let mut config = options.config()?;
        config
            .set("transactional.id", options.topic(transactional_id))
            .set("transaction.timeout.ms", timeout.as_millis().to_string())
            .set("message.timeout.ms", patience.as_millis().to_string())
            .set("acks", "all")
            .set("linger.ms", "0")
            .set("batch.num.messages", "10000")
            .set("message.max.bytes", RECORD_BYTES_MAX)
            .set("queue.buffering.max.messages", "1000000")
            // where the Java clients put the same key
            .set("partitioner", "murmur2_random");
        let context = Deliveries {
            client: Context::of(options),
            ..Deliveries::default()
        };
        let (client, delivered) = (context.client.clone(), Arc::clone(&context.delivered));
        let inner: BaseProducer<Deliveries> = config
            .create_with_context(context)
            .map_err(|e| Error::kafka("producer", &e))?;
        let producer = Self {
            inner,
            client,
            delivered,
            began: Instant::now(),
            patience,
        };
        let asked = producer.inner.init_transactions(patience);
        asked.map_err(|e| producer.explain("take over", &e))?;
        // where all partitions are, before the first record waits for it; if that cannot be had
        // now, the record asks
        let _ = producer.inner.client().fetch_metadata(None, patience);
        Ok(producer)
    }

    /// Adds a record to the open transaction.
    pub(crate) fn enqueue<K: ToBytes + ?Sized>(
        &self,
        mut record: BaseRecord<'_, K, [u8], ()>,
    ) -> Result<(), Error> {
        let deadline = Instant::now() + self.patience;
        loop {
            match self.inner.send(record) {
                Ok(()) => return Ok(()),
                Err((error, back)) => {
                    let full = RDKafkaErrorCode::QueueFull;
                    if error.rdkafka_error_code() != Some(full) || Instant::now() > deadline {
                        return Err(self.explain(back.topic, &error));
                    }
                    record = back;
                    self.serve();
                }
            }
        }
    }

    /// Moves a consumer group's place within the open transaction: all or nothing. The brokers
    /// refuse it from who was a member once and is none any more.
    pub(crate) fn move_group(
        &self,
        offsets: &TopicPartitionList,
        member: &ConsumerGroupMetadata,
    ) -> Result<(), Error> {
        let mut tries = 0;
        loop {
            tries += 1;
            let patience = self.patience;
            match (self.inner).send_offsets_to_transaction(offsets, member, patience) {
                Ok(()) => return Ok(()),
                Err(KafkaError::Transaction(error)) if error.is_retriable() && tries < 3 => {}
                Err(error) => return Err(self.explain("offsets", &error)),
            }
        }
    }

    /// Hands over what the brokers answered, then lets them work a little. Not the library's own
    /// wait: with less than a millisecond left it turns in a busy loop, which cost half a core.
    #[expect(
        clippy::disallowed_methods,
        reason = "each lane has a thread of its own"
    )]
    fn serve(&self) {
        self.inner.poll(Duration::ZERO);
        if self.inner.in_flight_count() > 0 {
            std::thread::sleep(SERVE_PAUSE);
        }
    }

    /// What ended the transaction, if that is why a record was not sent: the records say only that
    /// they were thrown away, and a commit that is not possible says why.
    fn behind(&self, failed: KafkaError) -> KafkaError {
        use RDKafkaErrorCode::{PurgeInflight, PurgeQueue};
        let thrown_away = [Some(PurgeQueue), Some(PurgeInflight)];
        if !thrown_away.contains(&failed.rdkafka_error_code()) {
            return failed;
        }
        let committed = self.inner.commit_transaction(Duration::from_secs(3));
        committed.err().unwrap_or(failed)
    }

    /// Waits until the partitions written to have kept their leaders for a while.
    #[expect(
        clippy::disallowed_methods,
        reason = "each lane has a thread of its own"
    )]
    fn steady(&self) -> Result<(), Error> {
        let deadline = Instant::now() + self.patience;
        let mut since = Instant::now();
        while since.elapsed() < STEADY {
            std::thread::sleep(STEADY_LOOK);
            let topics: BTreeSet<String> = lock(&self.delivered)
                .written
                .iter()
                .map(|written| written.topic.clone())
                .collect();
            let led = topics.iter().all(|topic| self.led(topic));
            if !led {
                since = Instant::now();
            }
            if since > deadline {
                let late = KafkaError::Flush(RDKafkaErrorCode::LeaderNotAvailable);
                return Err(self.explain("commit", &late));
            }
        }
        Ok(())
    }

    fn led(&self, topic: &str) -> bool {
        let found = self.inner.client().fetch_metadata(Some(topic), STEADY);
        found.is_ok_and(|found| {
            let topics = found.topics().iter();
            topics
                .flat_map(|topic| topic.partitions())
                .all(|partition| partition.leader() >= 0)
        })
    }

    /// The cause behind an error: once fenced, calls fail with whatever comes first.
    fn explain(&self, what: &str, error: &KafkaError) -> Error {
        self.inner.poll(Duration::ZERO);
        if let Some((code, reason)) = self.inner.client().fatal_error() {
            let fatal = KafkaError::Global(code);
            return match Error::kafka(what, &fatal) {
                Error::Fenced => Error::Fenced,
                Error::Rights { .. } => self.client.explain(what, &fatal),
                _ => Error::internal(what, reason),
            };
        }
        self.client.explain(what, error)
    }
}

#[async_trait]
impl TransactionalPort for TransactionalProducer {
    fn begin(&mut self) -> Result<(), Error> {
        self.began = Instant::now();
        lock(&self.delivered).written.clear();
        self.inner
            .begin_transaction()
            .map_err(|e| self.explain("begin", &e))
    }

    fn send(&mut self, record: &Outgoing<'_>) -> Result<(), Error> {
        match *record {
            Outgoing::Event {
                topic,
                event,
                canonical,
                value,
            } => self.enqueue(
                BaseRecord::to(topic)
                    .key(event.header.aggregate_id.as_str())
                    .payload(value)
                    .timestamp(event.header.recorded_at.0.div_euclid(1000))
                    .headers(record::headers(event, canonical)),
            ),
            Outgoing::Checkpoint { topic, value } => {
                self.enqueue(BaseRecord::to(topic).key(checkpoint::KEY).payload(value))
            }
        }
    }

    /// In steps of [`SERVE_PAUSE`]: the library's own flush waits in steps of 100 ms.
    async fn flush(&mut self) -> Result<(), Error> {
        let deadline = Instant::now() + self.patience;
        loop {
            let open = self.inner.in_flight_count();
            let failed = lock(&self.delivered).failed.clone();
            if let Some(error) = failed {
                return Err(self.explain("produce", &self.behind(error)));
            }
            if open == 0 {
                return Ok(());
            }
            if Instant::now() > deadline {
                let late = KafkaError::Flush(RDKafkaErrorCode::OperationTimedOut);
                return Err(self.explain("produce", &late));
            }
            self.serve();
        }
    }

    async fn commit(&mut self) -> Result<Vec<Written>, Error> {
        if self.began.elapsed() > STALL {
            self.steady()?;
        }
        let mut tries = 0;
        loop {
            tries += 1;
            match self.inner.commit_transaction(self.patience) {
                Ok(()) => return Ok(std::mem::take(&mut lock(&self.delivered).written)),
                Err(KafkaError::Transaction(error)) if error.is_retriable() && tries < 3 => {}
                Err(error) => return Err(self.explain("commit", &error)),
            }
        }
    }

    async fn abort(&mut self) {
        if let Err(error) = self.inner.abort_transaction(Duration::from_secs(3)) {
            tracing::debug!(%error, "abort failed");
        }
    }
}
