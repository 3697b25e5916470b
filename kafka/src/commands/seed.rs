//! Where to begin where the group has no place.
//!
//! Brokers forget the place of a group that had no members for a week
//! (`offsets.retention.minutes`). Then the replies tell: they are written together with the place,
//! and stay.

use std::collections::{BTreeMap, BTreeSet};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::{Offset, TopicPartitionList};

use super::{GROUP, reply};
use crate::client::{Context, Error, KafkaOptions};
use crate::dead_letters::RawRecord;
use crate::offsets;
use crate::partitions::{PartitionReader, REQUEST_MAX, TopicPartition, settled, settled_within};
use crate::reach;
use crate::subscription::{COORDINATOR_MAX, answered};
use crate::topics::names;

/// For one fetch of one partition; a larger record still comes.
const FETCH_BYTES: u32 = 256 << 10;

/// What a session has to know of the topics.
pub(super) struct Found {
    /// Partitions of `commands.reply`.
    pub(super) reply_partitions: i32,
}

/// Looks at the topics, and commits a place for the group wherever it has none and there are
/// replies. The brokers take that only while the group has no members; while it has, they forget
/// nothing.
pub(super) fn seed(options: &KafkaOptions) -> Result<Found, Error> {
    let mut config = options.config()?;
    config
        .set("group.id", options.topic(GROUP))
        .set("isolation.level", "read_committed")
        .set("enable.auto.commit", "false");
    let context = Context::of(options);
    let asker: BaseConsumer<Context> = config
        .create_with_context(context)
        .map_err(|e| Error::kafka("consumer", &e))?;
    reach::wait(options, &asker)?;
    let commands = partitions(&asker, &options.topic(names::COMMANDS))?;
    let replies = partitions(&asker, &options.topic(names::COMMANDS_REPLY))?;
    let missing = without_place(&asker, &commands)?;
    if !missing.is_empty() {
        let last = last_replies(options, &missing)?;
        begin(&asker, &missing, &last)?;
    }
    let reply_partitions = i32::try_from(replies.len()).unwrap_or(i32::MAX);
    Ok(Found { reply_partitions })
}

fn partitions(asker: &BaseConsumer<Context>, topic: &str) -> Result<Vec<TopicPartition>, Error> {
    settled(|| {
        let found = asker
            .fetch_metadata(Some(topic), REQUEST_MAX)
            .map_err(|e| asker.context().explain(topic, &e))?;
        let all = found.topics().iter().flat_map(|t| t.partitions().iter());
        let mut all: Vec<TopicPartition> = all
            .map(|p| TopicPartition {
                topic: topic.to_owned(),
                partition: p.id(),
            })
            .collect();
        if all.is_empty() {
            return Err(Error::TopicMissing(topic.to_owned()));
        }
        all.sort();
        Ok(all)
    })
}

fn without_place(
    asker: &BaseConsumer<Context>,
    commands: &[TopicPartition],
) -> Result<Vec<TopicPartition>, Error> {
    let explain = |e: &KafkaError| asker.context().explain("group offsets", e);
    let mut list = TopicPartitionList::with_capacity(commands.len());
    for at in commands {
        list.add_partition(&at.topic, at.partition);
    }
    // the first group of a cluster waits until the brokers have made their own topic for groups
    let committed = settled_within(COORDINATOR_MAX, || {
        let asked = asker.committed_offsets(list.clone(), REQUEST_MAX);
        let asked = asked.map_err(|e| explain(&e))?;
        answered(&asked).map_err(|e| explain(&e))?;
        Ok(asked)
    })?;
    let has_none = |at: &&TopicPartition| {
        let found = committed.find_partition(&at.topic, at.partition);
        !matches!(found.map(|f| f.offset()), Some(Offset::Offset(_)))
    };
    Ok(commands.iter().filter(has_none).cloned().collect())
}

/// The last record of each of these partitions that has a reply.
fn last_replies(
    options: &KafkaOptions,
    missing: &[TopicPartition],
) -> Result<BTreeMap<i32, i64>, Error> {
    let topic = options.topic(names::COMMANDS_REPLY);
    let reader = PartitionReader::open(options, std::slice::from_ref(&topic), FETCH_BYTES)?;
    let count = i32::try_from(reader.partitions.len()).unwrap_or(i32::MAX);
    let mut last = BTreeMap::new();
    for at in missing {
        // where replies to this partition are written; others may be there, too
        let Some(index) = (reader.partitions.iter())
            .position(|reply| reply.partition == at.partition.rem_euclid(count))
        else {
            continue;
        };
        let read = |message: &rdkafka::message::BorrowedMessage<'_>| {
            let (partition, offset) = reply::origin(&RawRecord::of(message), &at.topic)?;
            (partition == at.partition).then_some(offset)
        };
        let (mut found, _) = offsets::tails(&reader, &[index], read)?;
        if let Some(offset) = found.pop().flatten() {
            last.insert(at.partition, offset);
        }
    }
    Ok(last)
}

fn begin(
    asker: &BaseConsumer<Context>,
    missing: &[TopicPartition],
    last: &BTreeMap<i32, i64>,
) -> Result<(), Error> {
    let bounds = offsets::bounds(asker, missing)?;
    let mut list = TopicPartitionList::new();
    let mut seeded = BTreeSet::new();
    for (at, bounds) in missing.iter().zip(bounds) {
        let Some(next) = last.get(&at.partition).map(|offset| offset + 1) else {
            continue;
        };
        // beyond the end: the topic was created again, and its records have no replies
        if next > bounds.end {
            continue;
        }
        list.add_partition_offset(&at.topic, at.partition, Offset::Offset(next))
            .map_err(|e| Error::kafka("offsets", &e))?;
        seeded.insert(at.partition);
    }
    if seeded.is_empty() {
        return Ok(());
    }
    match asker.commit(&list, CommitMode::Sync) {
        Ok(()) => {
            tracing::info!(partitions = ?seeded, "group of commands goes on behind its replies");
            Ok(())
        }
        Err(error) => match error.rdkafka_error_code() {
            Some(Code::UnknownMemberId | Code::IllegalGeneration) => {
                tracing::debug!(%error, "group has members already");
                Ok(())
            }
            _ => Err(asker.context().explain("group offsets", &error)),
        },
    }
}
