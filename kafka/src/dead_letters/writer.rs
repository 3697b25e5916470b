//! Puts letters onto topics and knows when they are durable.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, ProducerContext};

use super::letter::Letter;
use super::{Standing, names};
use crate::client::{Context, Error, KafkaOptions};

/// Letters that wait for the brokers: so many, and so many bytes of values.
const WAITING_MAX: usize = 1_000;
const WAITING_BYTES_MAX: usize = 64 << 20;
/// For one record, librdkafka's own further tries included.
const MESSAGE_MAX_MS: &str = "20000";
/// Pause before what failed is sent again.
const AGAIN_AFTER: Duration = Duration::from_millis(200);

/// What became of records, by ticket.
type Ended = Arc<Mutex<Vec<(usize, Option<KafkaError>)>>>;

#[derive(Default)]
struct Reports {
    client: Context,
    /// What became of each record, by ticket.
    ended: Ended,
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.client.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.client.error(error, reason);
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, ticket: usize) {
        let error = result.as_ref().err().map(|(error, _)| error.clone());
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        ended.push((ticket, error));
    }
}

/// What is written.
#[derive(Debug, Clone)]
pub(crate) enum Post {
    /// To `dead-letter`.
    Letter(Box<Letter>),
    /// To `dead-letter.retry`.
    Retry(Box<Letter>),
    /// To `dead-letter.state`.
    Standing(Box<Standing>),
}

impl Post {
    fn bytes(&self) -> usize {
        match self {
            Self::Letter(letter) | Self::Retry(letter) => {
                letter.record.value.as_ref().map_or(0, bytes::Bytes::len)
            }
            Self::Standing(_) => 0,
        }
    }
}

/// Writes with `acks=all` and without repetitions by the client; what is written twice because of
/// a crash has the same id.
pub(crate) struct LetterWriter {
    options: KafkaOptions,
    producer: BaseProducer<Reports>,
    client: Context,
    ended: Ended,
    /// What is not durable yet, by ticket; `true` while the client has it.
    waiting: BTreeMap<usize, (Post, bool)>,
    bytes: usize,
    tickets: usize,
}

impl LetterWriter {
    pub(crate) fn open(options: &KafkaOptions) -> Result<Self, Error> {
        let mut config = options.config()?;
        config
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set("linger.ms", "0")
            // a batch of several could be refused because of its sum
            .set("batch.num.messages", "1")
            // what the topic takes decides
            .set("message.max.bytes", "67108864")
            .set("message.timeout.ms", MESSAGE_MAX_MS)
            .set("partitioner", "murmur2_random");
        let context = Reports::default();
        let (client, ended) = (context.client.clone(), Arc::clone(&context.ended));
        let producer = config
            .create_with_context(context)
            .map_err(|e| Error::kafka("dead-letter producer", &e))?;
        Ok(Self {
            options: options.clone(),
            producer,
            client,
            ended,
            waiting: BTreeMap::new(),
            bytes: 0,
            tickets: 0,
        })
    }

    /// Hands it to the client; it is durable once [`Self::flush`] says so.
    pub(crate) fn add(&mut self, post: Post) {
        self.bytes += post.bytes();
        self.tickets += 1;
        self.waiting.insert(self.tickets, (post, false));
        self.send(self.tickets);
    }

    /// Whether it must be flushed before more is added.
    pub(crate) fn is_full(&self) -> bool {
        self.waiting.len() >= WAITING_MAX || self.bytes >= WAITING_BYTES_MAX
    }

    /// Waits until all that was added is durable, and sends again what the brokers did not take.
    /// What is not durable by then stays, and the next call goes on with it.
    pub(crate) fn flush(&mut self, patience: Duration) -> Result<(), Error> {
        let deadline = Instant::now() + patience;
        let mut last = None;
        while !self.waiting.is_empty() {
            self.producer.poll(Duration::from_millis(5));
            last = self.settle().or(last);
            let all: Vec<usize> = self.waiting.keys().copied().collect();
            for ticket in all {
                self.send(ticket);
            }
            if Instant::now() > deadline && !self.waiting.is_empty() {
                let late = KafkaError::MessageProduction(Code::OperationTimedOut);
                let error = last.unwrap_or(late);
                return Err(self.client.explain(names::DEAD_LETTER, &error));
            }
        }
        Ok(())
    }

    /// Takes note of what ended; the last failure.
    #[expect(clippy::disallowed_methods, reason = "on a thread that may block")]
    fn settle(&mut self) -> Option<KafkaError> {
        let ended = {
            let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *ended)
        };
        let mut last = None;
        for (ticket, error) in ended {
            let Some((post, sent)) = self.waiting.get_mut(&ticket) else {
                continue;
            };
            let Some(error) = error else {
                self.bytes -= post.bytes();
                self.waiting.remove(&ticket);
                continue;
            };
            *sent = false;
            let too_large = error.rdkafka_error_code() == Some(Code::MessageSizeTooLarge);
            if let (true, Post::Letter(letter) | Post::Retry(letter)) = (too_large, post)
                && letter.left_at_source.is_none()
            {
                // an older topic takes less than ours: the value stays where it lies
                self.bytes -= letter.record.value.as_ref().map_or(0, bytes::Bytes::len);
                letter.leave_at_source();
                continue;
            }
            tracing::warn!(%error, "dead letter is not durable yet");
            std::thread::sleep(AGAIN_AFTER);
            last = Some(error);
        }
        last
    }

    /// Sends what the client does not have. A full queue is not a failure: flush sends again.
    fn send(&mut self, ticket: usize) {
        let Some((post, sent @ false)) = self.waiting.get_mut(&ticket) else {
            return;
        };
        let retry = matches!(post, Post::Retry(_));
        let (topic, key, value, headers) = match post {
            Post::Letter(letter) | Post::Retry(letter) => {
                let name = if retry {
                    names::DEAD_LETTER_RETRY
                } else {
                    names::DEAD_LETTER
                };
                let record = &letter.record;
                (
                    name,
                    record.key.clone(),
                    record.value.clone(),
                    letter.headers(),
                )
            }
            Post::Standing(standing) => {
                let value = serde_json::to_vec(standing).unwrap_or_default();
                let headers = OwnedHeaders::new().insert(Header {
                    key: "content-type",
                    value: Some("application/json"),
                });
                let key = standing.id.to_string().into_bytes();
                (
                    names::DEAD_LETTER_STATE,
                    Some(key.into()),
                    Some(value.into()),
                    headers,
                )
            }
        };
        let topic = self.options.topic(topic);
        let mut record = BaseRecord::with_opaque_to(&topic, ticket).headers(headers);
        if let Some(key) = key.as_deref() {
            record = record.key(key);
        }
        if let Some(value) = value.as_deref() {
            record = record.payload(value);
        }
        match self.producer.send::<[u8], [u8]>(record) {
            Ok(()) => *sent = true,
            Err((error, _)) if error.rdkafka_error_code() == Some(Code::QueueFull) => {}
            Err((error, _)) => {
                let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
                ended.push((ticket, Some(error)));
            }
        }
    }
}
