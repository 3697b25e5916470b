//! Letters as they stand: what lies on `dead-letter`, and the last word on each.

use std::collections::BTreeMap;

use bytes::Bytes;
use rdkafka::message::{BorrowedMessage, Message};
use sovereign_schemas::{Digest, Timestamp, Uuid};

use super::letter::{Failing, Letter, Origin, RawRecord};
use super::{LetterState, Standing, names};
use crate::client::{Error, KafkaOptions};
use crate::offsets;
use crate::partitions::PartitionReader;

/// For one fetch of one partition; a larger record still comes.
const FETCH_BYTES: u32 = 1 << 20;

/// One letter without its bytes.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Summary {
    /// Its id.
    pub id: Uuid,
    /// The consumer group that failed.
    pub group: String,
    /// Where the record lies.
    pub origin: Origin,
    /// The last failure.
    pub failing: Failing,
    /// What became of it.
    pub state: LetterState,
    /// When its state changed last, if it ever did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changed_at: Option<Timestamp>,
    /// Why it was dropped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Length of the original value; `None` if there was none.
    pub value_bytes: Option<u64>,
}

impl Summary {
    fn of(letter: &Letter) -> Self {
        Self {
            id: letter.id,
            group: letter.group.clone(),
            origin: letter.origin.clone(),
            failing: letter.failing.clone(),
            state: LetterState::Open,
            changed_at: None,
            reason: None,
            value_bytes: letter.value_bytes,
        }
    }

    fn apply(&mut self, standing: Standing) {
        self.state = standing.state;
        self.failing = standing.failing;
        self.changed_at = Some(standing.changed_at);
        self.reason = standing.reason;
    }

    pub(super) fn standing(&self, changed_at: Timestamp) -> Standing {
        Standing {
            id: self.id,
            state: self.state,
            failing: self.failing.clone(),
            changed_at,
            reason: self.reason.clone(),
        }
    }
}

/// One record of the two topics that letters are told by.
pub(super) enum Entry {
    Letter(Box<Letter>),
    Standing(Box<Standing>),
    /// Somebody else's.
    Foreign,
}

impl Entry {
    pub(super) fn of(options: &KafkaOptions, message: &BorrowedMessage<'_>) -> Self {
        if message.topic() == options.topic(names::DEAD_LETTER) {
            let letter = Letter::read(RawRecord::of(message));
            return letter.map_or(Self::Foreign, |letter| Self::Letter(Box::new(letter)));
        }
        let standing = serde_json::from_slice(message.payload().unwrap_or_default());
        standing.map_or(Self::Foreign, |standing| Self::Standing(Box::new(standing)))
    }
}

/// Topics and offsets from which all letters are read.
pub(super) fn open(options: &KafkaOptions) -> Result<(PartitionReader, Vec<(usize, i64)>), Error> {
    let topics = [names::DEAD_LETTER, names::DEAD_LETTER_STATE].map(|name| options.topic(name));
    let reader = PartitionReader::open(options, &topics, FETCH_BYTES)?;
    let bounds = offsets::bounds(&reader.consumer, &reader.partitions)?;
    let starts = bounds.iter().enumerate().map(|(i, b)| (i, b.low)).collect();
    Ok((reader, starts))
}

fn read(
    options: &KafkaOptions,
    mut each: impl FnMut(&Letter),
) -> Result<BTreeMap<Uuid, Summary>, Error> {
    let (reader, starts) = open(options)?;
    let mut letters: BTreeMap<Uuid, Summary> = BTreeMap::new();
    let mut standings: BTreeMap<Uuid, Standing> = BTreeMap::new();
    reader.drain(&starts, |_, message| {
        match Entry::of(options, message) {
            Entry::Letter(letter) => {
                each(&letter);
                // a second copy says nothing new
                let known = letters.entry(letter.id);
                known.or_insert_with(|| Summary::of(&letter));
            }
            Entry::Standing(standing) => {
                standings.insert(standing.id, *standing);
            }
            Entry::Foreign => {}
        }
        Ok(false)
    })?;
    for (id, standing) in standings {
        if let Some(summary) = letters.get_mut(&id) {
            summary.apply(standing);
        }
    }
    Ok(letters)
}

pub(super) fn list(options: &KafkaOptions) -> Result<Vec<Summary>, Error> {
    let mut all: Vec<Summary> = read(options, |_| {})?.into_values().collect();
    all.sort_by_key(|s| (s.failing.first_failed_at, s.id));
    Ok(all)
}

/// One letter with its bytes.
pub(super) fn find(options: &KafkaOptions, id: Uuid) -> Result<Option<(Summary, Letter)>, Error> {
    let mut found = None;
    let mut letters = read(options, |letter| {
        if letter.id == id && found.is_none() {
            found = Some(letter.clone());
        }
    })?;
    Ok(letters.remove(&id).zip(found))
}

/// The value that was left at the source; `None` if the record there is gone or another.
pub(crate) fn fetch_source(
    options: &KafkaOptions,
    letter: &Letter,
) -> Result<Option<Bytes>, Error> {
    let origin = &letter.origin;
    let reader =
        match PartitionReader::open(options, std::slice::from_ref(&origin.topic), FETCH_BYTES) {
            Ok(reader) => reader,
            Err(Error::TopicMissing(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
    let Some(index) =
        (0..reader.partitions.len()).find(|&i| reader.partitions[i].partition == origin.partition)
    else {
        return Ok(None);
    };
    let bounds = offsets::bounds(&reader.consumer, &reader.partitions)?[index];
    if !(bounds.low..bounds.end).contains(&origin.offset) {
        return Ok(None);
    }
    let mut found = None;
    reader.drain(&[(index, origin.offset)], |_, message| {
        if message.offset() == origin.offset {
            found = message.payload().map(Bytes::copy_from_slice);
        }
        Ok(true)
    })?;
    let same = |value: &Bytes| letter.left_at_source == Some(Digest::of(&[value]));
    Ok(found.filter(same))
}
