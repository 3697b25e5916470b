//! How far the topics are: one record a transaction on a compacted topic of its own, so it becomes
//! visible together with the events it speaks of and does not expire.

use std::time::{Duration, Instant};

use rdkafka::message::{BorrowedMessage, Message};
use sovereign_schemas::chain::Head;
use sovereign_schemas::{Departments, Digest, Position, Uuid};

use crate::client::{Error, KafkaOptions};
use crate::offsets::{self, Bounds};
use crate::partitions::PartitionReader;
use crate::relay::port::LastEvent;
use crate::{record, topics};

/// For how long a [`Reader`] is used.
const FRESH: Duration = Duration::from_secs(10);

/// Key of all records on the checkpoint topic.
pub(crate) const KEY: &str = "relay";

/// The last committed transaction of a relay, as the record on its checkpoint topic says (JSON).
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Checkpoint {
    /// Last position on the topics.
    pub position: Position,
    /// Its hash.
    pub hash: Digest,
    /// Which relay wrote it: tells a relay that lost its place to another from one whose
    /// transaction the broker timed out.
    pub relay: Uuid,
}

impl Checkpoint {
    pub(crate) const fn head(&self) -> Head {
        Head {
            position: self.position,
            hash: self.hash,
        }
    }
}

/// How far the topics are: the last committed checkpoint, held against the last event on them.
///
/// A lost checkpoint topic is made up for by the events themselves: transactions become visible
/// whole and in order, so the last position on any topic is the last relayed one.
///
/// `settled`: no transaction can be under way. Otherwise the checkpoint may for a moment be visible
/// before the events, as markers reach partitions one after the other.
pub(crate) fn standing(
    found: Option<Checkpoint>,
    last: LastEvent,
    settled: bool,
) -> Result<Head, Error> {
    let Some(checkpoint) = found else {
        return Ok(last.head);
    };
    if settled && last.head.position < checkpoint.position && !last.truncated {
        return Err(Error::Diverged {
            position: checkpoint.position,
            expected: format!(
                "events up to {} as the checkpoint says",
                checkpoint.position
            ),
            found: format!("events up to {}", last.head.position),
        });
    }
    Ok(checkpoint.head())
}

/// Reads what stands on the topics. Kept for a while: a client takes longer to connect than to ask.
pub(crate) struct Reader {
    inner: PartitionReader,
    checkpoint_topic: String,
    opened: Instant,
}

impl Reader {
    pub(crate) fn open(options: &KafkaOptions, departments: &Departments) -> Result<Self, Error> {
        let checkpoint_topic = options.topic(topics::names::RELAY);
        let mut topics = vec![checkpoint_topic.clone()];
        topics.extend(departments.iter().map(|d| options.topic(&d.topic())));
        Ok(Self {
            inner: PartitionReader::open(options, &topics, 65_536)?,
            checkpoint_topic,
            opened: Instant::now(),
        })
    }

    /// Whether it may still be used: topics can be given more partitions.
    pub(crate) fn is_fresh(&self) -> bool {
        self.opened.elapsed() < FRESH
    }

    /// The last committed record of the checkpoint topic.
    pub(crate) fn record(&self) -> Result<Option<Checkpoint>, Error> {
        let of_relay = |topic: &str| topic == self.checkpoint_topic;
        let found = self.tails(of_relay, |message| {
            serde_json::from_slice::<Checkpoint>(message.payload().unwrap_or_default()).ok()
        })?;
        Ok(found.0.into_iter().flatten().max_by_key(|c| c.position))
    }

    /// The last event on all topics, and whether retention has removed any.
    pub(crate) fn last_event(&self) -> Result<LastEvent, Error> {
        let of_events = |topic: &str| topic != self.checkpoint_topic;
        let (tails, bounds) = self.tails(of_events, |message| {
            let event = record::decode(message).ok()?.event;
            Some(Head {
                position: event.position(),
                hash: event.hash,
            })
        })?;
        let last = tails.into_iter().flatten().max_by_key(|head| head.position);
        Ok(LastEvent {
            head: last.unwrap_or(Head::EMPTY),
            truncated: bounds.iter().any(|b| b.low > 0),
        })
    }

    fn tails<T>(
        &self,
        of: impl Fn(&str) -> bool,
        read: impl FnMut(&BorrowedMessage<'_>) -> Option<T>,
    ) -> Result<(Vec<Option<T>>, Vec<Bounds>), Error> {
        let all = self.inner.partitions.iter().enumerate();
        let indexes: Vec<usize> = all
            .filter(|(_, at)| of(&at.topic))
            .map(|(index, _)| index)
            .collect();
        let found = offsets::tails(&self.inner, &indexes, read)?;
        // or it would go on fetching
        self.inner.assign(&[])?;
        Ok(found)
    }
}
