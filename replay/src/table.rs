//! The aggregates of one thread, found by a hash that the pipeline has already computed.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use crate::check::printable;
use crate::source::View;
use crate::{Difference, What};

/// Takes a key that is a good hash already.
#[derive(Debug, Default)]
struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }
    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
}

/// A short name lies beside what it names: one cache miss less for each event.
const INLINE_BYTES: usize = 30;

/// The bytes of a name.
#[derive(Debug)]
pub(crate) enum Name {
    Inline {
        length: u8,
        bytes: [u8; INLINE_BYTES],
    },
    Boxed(Box<[u8]>),
}

impl Name {
    pub(crate) fn new(name: &[u8]) -> Self {
        let mut bytes = [0; INLINE_BYTES];
        match bytes.get_mut(..name.len()) {
            Some(start) => {
                start.copy_from_slice(name);
                Self::Inline {
                    length: name.len() as u8,
                    bytes,
                }
            }
            None => Self::Boxed(name.into()),
        }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Inline { length, bytes } => &bytes[..usize::from(*length)],
            Self::Boxed(bytes) => bytes,
        }
    }
}

/// One aggregate.
#[derive(Debug)]
pub(crate) struct Entry<T> {
    aggregate_type: Name,
    pub(crate) id: Name,
    pub(crate) sequence: u64,
    pub(crate) value: T,
    /// Another entry with the same key.
    next: Option<usize>,
}

/// All aggregates that one thread has met.
#[derive(Debug)]
pub(crate) struct Table<T> {
    by_key: HashMap<u64, usize, BuildHasherDefault<Identity>>,
    entries: Vec<Entry<T>>,
    /// Whether an aggregate may start with any sequence.
    partial: bool,
}

impl<T> Table<T> {
    pub(crate) fn new(partial: bool) -> Self {
        Self {
            by_key: HashMap::default(),
            entries: Vec::new(),
            partial,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn into_entries(self) -> Vec<Entry<T>> {
        self.entries
    }

    fn find(&self, key: u64, event: &View<'_>) -> Option<usize> {
        let mut at = self.by_key.get(&key).copied();
        while let Some(index) = at {
            let entry = &self.entries[index];
            if entry.id.as_bytes() == event.aggregate_id
                && entry.aggregate_type.as_bytes() == event.aggregate_type
            {
                return Some(index);
            }
            at = entry.next;
        }
        None
    }

    /// The aggregate of the event, made by `new` at its first event; its sequence is checked (I2)
    /// and advanced.
    pub(crate) fn advance(
        &mut self,
        key: u64,
        event: &View<'_>,
        new: impl FnOnce() -> Result<T, Difference>,
    ) -> Result<&mut T, Difference> {
        let index = match self.find(key, event) {
            Some(index) => index,
            None => {
                let value = new()?;
                let index = self.entries.len();
                let sequence = if self.partial {
                    event.sequence.saturating_sub(1)
                } else {
                    0
                };
                self.entries.push(Entry {
                    aggregate_type: Name::new(event.aggregate_type),
                    id: Name::new(event.aggregate_id),
                    sequence,
                    value,
                    next: self.by_key.insert(key, index),
                });
                index
            }
        };
        let entry = &mut self.entries[index];
        let expected = entry.sequence + 1;
        if event.sequence != expected {
            let of = format!(
                "{}/{}",
                printable(event.aggregate_type),
                printable(event.aggregate_id)
            );
            return Err(Difference::new(
                event.position,
                What::Sequence,
                format!("sequence {expected} of {of}"),
                format!("sequence {}", event.sequence),
            ));
        }
        entry.sequence = expected;
        Ok(&mut entry.value)
    }
}
