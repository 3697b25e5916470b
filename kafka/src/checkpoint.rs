//! How far the topics are: one record a transaction on a compacted topic of its own, so it becomes
//! visible together with the events it speaks of and does not expire.

use rdkafka::message::Message;
use sovereign_schemas::chain::Head;
use sovereign_schemas::{Departments, Digest, Position, Uuid};

use crate::client::{Error, KafkaOptions};
use crate::partitions::PartitionReader;
use crate::relay::port::LastEvent;
use crate::{offsets, record, topics};

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

/// The last committed record of the checkpoint topic.
pub(crate) fn read_record(options: &KafkaOptions) -> Result<Option<Checkpoint>, Error> {
    let topic = options.topic(topics::names::RELAY);
    let reader = PartitionReader::open(options, &[topic], 65_536)?;
    let found = offsets::tails(&reader, |message| {
        serde_json::from_slice::<Checkpoint>(message.payload().unwrap_or_default()).ok()
    })?;
    Ok(found.into_iter().flatten().max_by_key(|c| c.position))
}

/// The last event on all topics, and whether retention has removed any.
pub(crate) fn last_event(
    options: &KafkaOptions,
    departments: &Departments,
) -> Result<LastEvent, Error> {
    let topics: Vec<String> = departments
        .iter()
        .map(|d| options.topic(&d.topic()))
        .collect();
    let reader = PartitionReader::open(options, &topics, 65_536)?;
    let truncated = offsets::bounds(&reader.consumer, &reader.partitions)?
        .iter()
        .any(|b| b.low > 0);
    let tails = offsets::tails(&reader, |message| {
        let event = record::decode(message).ok()?.event;
        Some(Head {
            position: event.position(),
            hash: event.hash,
        })
    })?;
    let last = tails.into_iter().flatten().max_by_key(|head| head.position);
    Ok(LastEvent {
        head: last.unwrap_or(Head::EMPTY),
        truncated,
    })
}
