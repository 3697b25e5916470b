use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};

use super::RelayOptions;
use super::port::{Outgoing, TransactionalPort};
use crate::client::{Context, Error};
use crate::topics::RECORD_BYTES_MAX;
use crate::{checkpoint, record};

/// Pause between two looks at what the brokers answered: short beside a round trip.
const SERVE_PAUSE: Duration = Duration::from_micros(300);

/// Keeps the first delivery failure, which a transaction must not be committed over.
#[derive(Default)]
struct Deliveries {
    client: Context,
    failed: Arc<Mutex<Option<KafkaError>>>,
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
        if let Err((error, _)) = result {
            let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
            failed.get_or_insert_with(|| error.clone());
        }
    }
}

/// One of the two transactional producers. Its calls block.
pub(crate) struct TransactionalProducer {
    inner: BaseProducer<Deliveries>,
    client: Context,
    failed: Arc<Mutex<Option<KafkaError>>>,
    /// For one step: a bit less than the brokers' own patience with the transaction.
    patience: Duration,
}

impl TransactionalProducer {
    /// Takes over `transactional_id`: whoever held it is fenced, and what it left open is aborted
    /// (or its commit completed) when this returns.
    pub(crate) fn take_over(options: &RelayOptions, transactional_id: &str) -> Result<Self, Error> {
        let patience = options.transaction_timeout * 3 / 4;
        let mut config = options.kafka.config()?;
        config
            .set("transactional.id", options.kafka.topic(transactional_id))
            .set(
                "transaction.timeout.ms",
                options.transaction_timeout.as_millis().to_string(),
            )
            .set("message.timeout.ms", patience.as_millis().to_string())
            .set("acks", "all")
            .set("linger.ms", "0")
            .set("batch.num.messages", "10000")
            .set("message.max.bytes", RECORD_BYTES_MAX)
            .set("queue.buffering.max.messages", "1000000")
            // where the Java clients put the same key
            .set("partitioner", "murmur2_random");
        let context = Deliveries {
            client: Context::of(&options.kafka),
            ..Deliveries::default()
        };
        let (client, failed) = (context.client.clone(), Arc::clone(&context.failed));
        let inner: BaseProducer<Deliveries> = config
            .create_with_context(context)
            .map_err(|e| Error::kafka("producer", &e))?;
        let producer = Self {
            inner,
            client,
            failed,
            patience,
        };
        let asked = producer.inner.init_transactions(patience);
        asked.map_err(|e| producer.explain("take over", &e))?;
        Ok(producer)
    }

    fn enqueue(&self, mut record: BaseRecord<'_, str, [u8], ()>) -> Result<(), Error> {
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
            let failed = self
                .failed
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone();
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

    async fn commit(&mut self) -> Result<(), Error> {
        let mut tries = 0;
        loop {
            tries += 1;
            match self.inner.commit_transaction(self.patience) {
                Ok(()) => return Ok(()),
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
