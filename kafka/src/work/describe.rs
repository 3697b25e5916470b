//! Who does what, as the brokers tell.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;

/// How long the brokers may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(1);

/// The partitions of `topic` that each member of the group is assigned, by client id.
pub(super) fn members<C: ClientContext + ConsumerContext>(
    consumer: &BaseConsumer<C>,
    group: &str,
    topic: &str,
) -> Result<BTreeMap<String, BTreeSet<i32>>, KafkaError> {
    let groups = consumer.fetch_group_list(Some(group), ANSWER_MAX)?;
    let mut all: BTreeMap<String, BTreeSet<i32>> = BTreeMap::new();
    for member in groups.groups().iter().flat_map(|g| g.members()) {
        let assigned = member.assignment().and_then(|bytes| parse(bytes, topic));
        let own = all.entry(member.client_id().to_owned()).or_default();
        own.extend(assigned.unwrap_or_default());
    }
    Ok(all)
}

/// Kafka's ConsumerProtocolAssignment: version, then topics with their partitions, then what the
/// assignor likes to add. `None` if it is cut off.
fn parse(mut bytes: &[u8], wanted: &str) -> Option<BTreeSet<i32>> {
    let bytes = &mut bytes;
    let _version = take(bytes, 2)?;
    let mut found = BTreeSet::new();
    for _ in 0..number(bytes)? {
        let length = u16::from_be_bytes(take(bytes, 2)?.try_into().ok()?);
        let topic = take(bytes, usize::from(length))?;
        for _ in 0..number(bytes)? {
            let partition = i32::from_be_bytes(take(bytes, 4)?.try_into().ok()?);
            if topic == wanted.as_bytes() {
                found.insert(partition);
            }
        }
    }
    Some(found)
}

fn number(bytes: &mut &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(take(bytes, 4)?.try_into().ok()?))
}

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(count)?;
    *bytes = rest;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a member got it from Kafka 4: version 3, one topic, partitions 0 and 5, no user data.
    const ASSIGNMENT: &[u8] =
        b"\x00\x03\x00\x00\x00\x01\x00\x04work\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x05\xff\xff\xff\xff";

    #[test]
    fn an_assignment_is_read_and_a_cut_one_is_none() {
        assert_eq!(parse(ASSIGNMENT, "work"), Some(BTreeSet::from([0, 5])));
        assert_eq!(parse(ASSIGNMENT, "other"), Some(BTreeSet::new()));
        for end in 0..ASSIGNMENT.len() - 4 {
            assert_eq!(parse(&ASSIGNMENT[..end], "work"), None, "{end}");
        }
        // a count that lies ends with the bytes
        assert_eq!(parse(b"\x00\x00\xff\xff\xff\xff", "work"), None);
    }
}
