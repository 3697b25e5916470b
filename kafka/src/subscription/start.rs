use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::{Offset, TopicPartitionList};
use sovereign_schemas::Position;

use super::{Start, SubscriptionBuilder};
use crate::client::{Context, Error};
use crate::offsets;
use crate::partitions::{PartitionReader, REQUEST_MAX, TopicPartition};

/// The partitions that match just now.
pub(crate) fn matching(
    builder: &SubscriptionBuilder,
    consumer: &BaseConsumer<Context>,
) -> Result<Vec<TopicPartition>, Error> {
    let metadata = consumer
        .fetch_metadata(None, REQUEST_MAX)
        .map_err(|e| consumer.context().explain("metadata", &e))?;
    let namespace = &builder.options.namespace;
    let mut found: Vec<TopicPartition> = metadata
        .topics()
        .iter()
        .filter(|topic| builder.filter.topic(namespace, topic.name()))
        .flat_map(|topic| {
            let of = |partition| TopicPartition {
                topic: topic.name().to_owned(),
                partition,
            };
            topic.partitions().iter().map(move |p| of(p.id()))
        })
        .collect();
    found.sort();
    Ok(found)
}

/// The offsets to begin at, one a partition.
pub(crate) fn offsets(
    builder: &SubscriptionBuilder,
    consumer: &BaseConsumer<Context>,
    partitions: &[TopicPartition],
) -> Result<Vec<i64>, Error> {
    if partitions.is_empty() {
        return Ok(Vec::new());
    }
    let bounds = || offsets::bounds(consumer, partitions);
    match builder.start {
        Start::Beginning | Start::Position(Position(0 | 1)) => {
            Ok(bounds()?.into_iter().map(|b| b.low).collect())
        }
        Start::Live => Ok(bounds()?.into_iter().map(|b| b.end).collect()),
        Start::Offset(offset) => Ok(bounds()?
            .into_iter()
            .map(|b| offset.clamp(b.low, b.end))
            .collect()),
        Start::Time(moment) => offsets::at_time(consumer, partitions, moment),
        Start::Position(position) => {
            let mut topics: Vec<String> = partitions.iter().map(|p| p.topic.clone()).collect();
            topics.dedup();
            let reader = PartitionReader::open(&builder.options, &topics, 65_536)?;
            let found = offsets::at_position(&reader, position)?;
            partitions
                .iter()
                .map(|at| {
                    let index = reader.partitions.iter().position(|p| p == at);
                    let offset = index.and_then(|i| found.get(i).copied());
                    offset.ok_or_else(|| Error::TopicMissing(at.to_string()))
                })
                .collect()
        }
    }
}

/// Commits the start for a group wherever it has committed nothing yet.
///
/// The brokers take this only while the group has no members; if it has, the first of them did it.
pub(crate) fn seed_group(
    builder: &SubscriptionBuilder,
    consumer: &BaseConsumer<Context>,
    partitions: &[TopicPartition],
) -> Result<(), Error> {
    let explain = |e: &rdkafka::error::KafkaError| consumer.context().explain("group offsets", e);
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for at in partitions {
        list.add_partition(&at.topic, at.partition);
    }
    let committed = consumer
        .committed_offsets(list, REQUEST_MAX)
        .map_err(|e| explain(&e))?;
    let missing: Vec<TopicPartition> = partitions
        .iter()
        .filter(|at| {
            let found = committed.find_partition(&at.topic, at.partition);
            !matches!(found.map(|f| f.offset()), Some(Offset::Offset(_)))
        })
        .cloned()
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let mut seeds = TopicPartitionList::with_capacity(missing.len());
    for (at, offset) in missing.iter().zip(offsets(builder, consumer, &missing)?) {
        seeds
            .add_partition_offset(&at.topic, at.partition, Offset::Offset(offset))
            .map_err(|e| explain(&e))?;
    }
    if let Err(error) = consumer.commit(&seeds, CommitMode::Sync) {
        use rdkafka::error::RDKafkaErrorCode as Code;
        match error.rdkafka_error_code() {
            Some(Code::UnknownMemberId | Code::StaleMemberEpoch | Code::IllegalGeneration) => {
                tracing::debug!(%error, "group has members already");
            }
            _ => return Err(explain(&error)),
        }
    }
    Ok(())
}
