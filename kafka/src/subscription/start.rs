use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};
use sovereign_schemas::Position;

use super::{Start, SubscriptionBuilder};
use crate::client::{Context, Error};
use crate::offsets;
use crate::partitions::{PartitionReader, REQUEST_MAX, TopicPartition, settled_within};
use crate::topics::names;

/// How long a group's coordinator may take to be there.
pub(crate) const COORDINATOR_MAX: Duration = Duration::from_secs(30);

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
        .filter(|topic| {
            builder.filter.topic(namespace, topic.name()) || builder.is_retry(topic.name())
        })
        .flat_map(|topic| {
            let of = |partition| TopicPartition {
                topic: topic.name().to_owned(),
                partition,
            };
            topic.partitions().iter().map(move |p| of(p.id()))
        })
        .collect();
    found.sort();
    let retries = found
        .iter()
        .filter(|at| builder.is_retry(&at.topic))
        .count();
    if found.len() == retries {
        return Err(Error::TopicMissing(builder.filter.wanted(namespace)));
    }
    if builder.retry.is_some() && retries == 0 {
        return Err(Error::TopicMissing(builder.retry_topic()));
    }
    Ok(found)
}

impl SubscriptionBuilder {
    pub(crate) fn retry_topic(&self) -> String {
        self.options.topic(names::DEAD_LETTER_RETRY)
    }

    /// Whether letters that were given back come on this topic.
    pub(crate) fn is_retry(&self, topic: &str) -> bool {
        let name = topic.strip_prefix(self.options.namespace.as_str());
        self.retry.is_some() && name == Some(names::DEAD_LETTER_RETRY)
    }
}

/// The offsets to begin at, one a partition. Letters that were given back have no place in the order
/// of events: all of them are looked at.
pub(crate) fn offsets(
    builder: &SubscriptionBuilder,
    consumer: &BaseConsumer<Context>,
    partitions: &[TopicPartition],
) -> Result<Vec<i64>, Error> {
    let (retries, events): (Vec<_>, Vec<_>) = partitions
        .iter()
        .cloned()
        .partition(|at| builder.is_retry(&at.topic));
    let lows = if retries.is_empty() {
        Vec::new()
    } else {
        offsets::bounds(consumer, &retries)?
    };
    let lows = lows.into_iter().map(|b| b.low);
    let starts = events_offsets(builder, consumer, &events)?;
    let found: BTreeMap<TopicPartition, i64> = retries
        .into_iter()
        .zip(lows)
        .chain(events.into_iter().zip(starts))
        .collect();
    partitions
        .iter()
        .map(|at| {
            let offset = found.get(at).copied();
            offset.ok_or_else(|| Error::TopicMissing(at.to_string()))
        })
        .collect()
}

fn events_offsets(
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

/// The call succeeds also where the brokers answered for one partition with an error. Its offset
/// reads like one that was never committed, and seeding it would take the group's place from it.
pub(crate) fn answered(committed: &TopicPartitionList) -> Result<(), KafkaError> {
    committed
        .elements()
        .iter()
        .try_for_each(rdkafka::topic_partition_list::TopicPartitionListElem::error)
}

/// Commits the start for a group wherever it has committed nothing yet; gives these partitions.
///
/// The brokers take this only while the group has no members; if it has, the first of them did it.
pub(crate) fn seed_group(
    builder: &SubscriptionBuilder,
    consumer: &BaseConsumer<Context>,
    partitions: &[TopicPartition],
) -> Result<Vec<TopicPartition>, Error> {
    let explain = |e: &KafkaError| consumer.context().explain("group offsets", e);
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for at in partitions {
        list.add_partition(&at.topic, at.partition);
    }
    // the first group of a cluster waits until the brokers have made their own topic for groups
    let committed = settled_within(COORDINATOR_MAX, || {
        let asked = consumer.committed_offsets(list.clone(), REQUEST_MAX);
        let asked = asked.map_err(|e| explain(&e))?;
        answered(&asked).map_err(|e| explain(&e))?;
        Ok(asked)
    })?;
    let missing: Vec<TopicPartition> = partitions
        .iter()
        .filter(|at| {
            let found = committed.find_partition(&at.topic, at.partition);
            !matches!(found.map(|f| f.offset()), Some(Offset::Offset(_)))
        })
        .cloned()
        .collect();
    if missing.is_empty() {
        return Ok(missing);
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
    Ok(missing)
}

#[cfg(test)]
mod tests {
    use rdkafka::config::{ClientConfig, FromClientConfig as _};
    use rdkafka::mocking::MockCluster;

    use super::*;

    /// Real brokers answer so only where rights end between two requests.
    #[test]
    fn partition_answered_with_an_error_is_not_one_without_a_commit() {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("t", 1, 1).unwrap();
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", cluster.bootstrap_servers())
            .set("group.id", "g");
        let consumer = BaseConsumer::from_config(&config).unwrap();
        let ask = |partitions: &[i32]| {
            let mut list = TopicPartitionList::new();
            for partition in partitions {
                list.add_partition("t", *partition);
            }
            consumer.committed_offsets(list, REQUEST_MAX).unwrap()
        };
        let good = ask(&[0]);
        assert_eq!(good.elements()[0].offset(), Offset::Invalid);
        assert!(answered(&good).is_ok());
        let bad = ask(&[0, 7]);
        // what a call that succeeds gives for it is no different
        assert_eq!(bad.elements()[1].offset(), Offset::Invalid);
        assert!(answered(&bad).is_err());
    }
}
