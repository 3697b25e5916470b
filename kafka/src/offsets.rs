//! Where to start reading: ends, tails, and the offset of a position or a moment.

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::{Offset, TopicPartitionList};
use sovereign_schemas::{Position, Timestamp};

use crate::client::{Context, Error};
use crate::partitions::{PartitionReader, REQUEST_MAX, TopicPartition, settled};
use crate::record;

/// Kafka's special timestamps in a ListOffsets request: first and (read-committed) last offset.
const EARLIEST: i64 = -2;
const LATEST: i64 = -1;

/// First offset and last stable offset of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) low: i64,
    pub(crate) end: i64,
}

fn list_offsets(
    consumer: &BaseConsumer<Context>,
    partitions: &[TopicPartition],
    timestamp_ms: i64,
) -> Result<Vec<i64>, Error> {
    settled(|| ask_offsets(consumer, partitions, timestamp_ms))
}

fn ask_offsets(
    consumer: &BaseConsumer<Context>,
    partitions: &[TopicPartition],
    timestamp_ms: i64,
) -> Result<Vec<i64>, Error> {
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for at in partitions {
        list.add_partition_offset(&at.topic, at.partition, Offset::from_raw(timestamp_ms))
            .map_err(|e| Error::kafka("offsets", &e))?;
    }
    let answer = consumer
        .offsets_for_times(list, REQUEST_MAX)
        .map_err(|e| consumer.context().explain("offsets", &e))?;
    partitions
        .iter()
        .map(|at| {
            let found = answer
                .find_partition(&at.topic, at.partition)
                .ok_or_else(|| Error::TopicMissing(at.to_string()))?;
            found
                .error()
                .map_err(|e| consumer.context().explain(&at.to_string(), &e))?;
            Ok(found.offset().to_raw().unwrap_or(LATEST))
        })
        .collect()
}

/// Last stable offsets, all partitions in one request.
pub(crate) fn ends(
    consumer: &BaseConsumer<Context>,
    partitions: &[TopicPartition],
) -> Result<Vec<i64>, Error> {
    ask_offsets(consumer, partitions, LATEST)
}

/// First and last stable offsets, all partitions in two requests.
pub(crate) fn bounds(
    consumer: &BaseConsumer<Context>,
    partitions: &[TopicPartition],
) -> Result<Vec<Bounds>, Error> {
    let low = list_offsets(consumer, partitions, EARLIEST)?;
    let end = list_offsets(consumer, partitions, LATEST)?;
    Ok(low
        .into_iter()
        .zip(end)
        .map(|(low, end)| Bounds {
            low,
            end: end.max(low),
        })
        .collect())
}

/// The first offset whose record was taken at `moment` or later; Kafka keeps milliseconds, so a
/// record of the same millisecond may come first.
pub(crate) fn at_time(
    consumer: &BaseConsumer<Context>,
    partitions: &[TopicPartition],
    moment: Timestamp,
) -> Result<Vec<i64>, Error> {
    let bounds = bounds(consumer, partitions)?;
    let found = list_offsets(consumer, partitions, moment.0.div_euclid(1000).max(0))?;
    Ok(found
        .into_iter()
        .zip(bounds)
        .map(|(offset, bounds)| if offset < 0 { bounds.end } else { offset })
        .collect())
}

/// For each partition the first offset whose record stands at `position` or later; the end of what
/// is committed if there is none: there, earlier positions may follow, out of a transaction that
/// was open. Otherwise exact, because positions grow within a partition: a binary search that
/// reads one record of every partition a round.
pub(crate) fn at_position(reader: &PartitionReader, position: Position) -> Result<Vec<i64>, Error> {
    let mut ranges = bounds(&reader.consumer, &reader.partitions)?;
    if position <= Position(1) {
        return Ok(ranges.into_iter().map(|range| range.low).collect());
    }
    loop {
        let middles: Vec<(usize, i64)> = ranges
            .iter()
            .enumerate()
            .filter(|(_, range)| range.low < range.end)
            .map(|(index, range)| (index, range.low + (range.end - range.low) / 2))
            .collect();
        if middles.is_empty() {
            return Ok(ranges.into_iter().map(|range| range.low).collect());
        }
        let mut found: Vec<Option<(i64, bool)>> = vec![None; ranges.len()];
        reader.drain(&middles, |index, message| {
            // what is no event has no place in the order; look at the next
            let Ok(stands) = record::position(message) else {
                return Ok(false);
            };
            found[index] = Some((message.offset(), stands < position));
            Ok(true)
        })?;
        for (index, middle) in middles {
            match found[index] {
                Some((offset, true)) => ranges[index].low = offset + 1,
                // the record, or nothing but transaction markers: the answer is not behind
                _ => ranges[index].end = middle,
            }
        }
    }
}

/// The last committed record of each of these partitions (by index) that `read` makes something
/// of, and their bounds.
///
/// Transaction markers and aborted records take up offsets too, so it looks back in growing
/// steps.
pub(crate) fn tails<T>(
    reader: &PartitionReader,
    indexes: &[usize],
    mut read: impl FnMut(&BorrowedMessage<'_>) -> Option<T>,
) -> Result<(Vec<Option<T>>, Vec<Bounds>), Error> {
    let partitions: Vec<TopicPartition> = indexes
        .iter()
        .map(|&index| reader.partitions[index].clone())
        .collect();
    let bounds = bounds(&reader.consumer, &partitions)?;
    let mut found: Vec<Option<T>> = bounds.iter().map(|_| None).collect();
    let mut open: Vec<usize> = (0..bounds.len())
        .filter(|&i| bounds[i].low < bounds[i].end)
        .collect();
    let mut back = 64_i64;
    while !open.is_empty() {
        let starts: Vec<(usize, i64)> = open
            .iter()
            .map(|&i| (i, bounds[i].low.max(bounds[i].end.saturating_sub(back))))
            .collect();
        let of_reader: Vec<(usize, i64)> = starts
            .iter()
            .map(|&(i, start)| (indexes[i], start))
            .collect();
        reader.drain(&of_reader, |index, message| {
            if let Some(i) = indexes.iter().position(|&of| of == index) {
                found[i] = read(message).or(found[i].take());
            }
            Ok(false)
        })?;
        open = starts
            .into_iter()
            .filter(|&(i, start)| found[i].is_none() && start > bounds[i].low)
            .map(|(i, _)| i)
            .collect();
        back = back.saturating_mul(16);
    }
    Ok((found, bounds))
}
