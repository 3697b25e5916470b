//! The aggregates of one thread, found by a hash that the pipeline has already computed.
//!
//! A fold over many aggregates waits for memory, not for arithmetic. So a slot of the index is
//! eight bytes, what tells an aggregate apart fills one cache line, and the aggregates of a whole
//! window are looked up before the first of them is used: the processor then has many of those
//! cache misses under way at once.

use std::hint::black_box;

use crate::check::printable;
use crate::source::View;
use crate::{Difference, What};

/// Events that are looked up together.
pub(crate) const WINDOW: usize = 64;

/// Type and id up to this length lie in the entry itself: one cache miss less for each event.
const INLINE_BYTES: usize = 45;

/// The bytes of an aggregate's type and id.
#[derive(Debug)]
pub(crate) enum Name {
    Inline {
        type_length: u8,
        length: u8,
        bytes: [u8; INLINE_BYTES],
    },
    Boxed {
        type_length: usize,
        bytes: Box<[u8]>,
    },
}

impl Name {
    pub(crate) fn new(aggregate_type: &[u8], id: &[u8]) -> Self {
        let type_length = aggregate_type.len();
        let length = type_length + id.len();
        let mut bytes = [0; INLINE_BYTES];
        match bytes.get_mut(..length) {
            Some(whole) => {
                let (first, second) = whole.split_at_mut(type_length);
                first.copy_from_slice(aggregate_type);
                second.copy_from_slice(id);
                Self::Inline {
                    type_length: type_length as u8,
                    length: length as u8,
                    bytes,
                }
            }
            None => Self::Boxed {
                type_length,
                bytes: [aggregate_type, id].concat().into(),
            },
        }
    }

    #[inline]
    fn parts(&self) -> (&[u8], &[u8]) {
        match self {
            Self::Inline {
                type_length,
                length,
                bytes,
            } => bytes[..usize::from(*length)].split_at(usize::from(*type_length)),
            Self::Boxed { type_length, bytes } => bytes.split_at(*type_length),
        }
    }

    /// The id's bytes.
    pub(crate) fn id(&self) -> &[u8] {
        self.parts().1
    }
}

/// One aggregate; all but its value fills one cache line.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Entry<T> {
    pub(crate) name: Name,
    key: u64,
    pub(crate) sequence: u64,
    pub(crate) value: T,
}

impl<T> Entry<T> {
    #[inline]
    fn is(&self, key: u64, aggregate: (&[u8], &[u8])) -> bool {
        self.key == key && self.name.parts() == aggregate
    }
}

/// A slot holds the index of an entry plus one in its low bits, and bits of the key above; 0 is
/// free.
const INDEX_BITS: u32 = 40;
const INDEX_MASK: u64 = (1 << INDEX_BITS) - 1;

/// All aggregates that one thread has met.
#[derive(Debug)]
pub(crate) struct Table<T> {
    slots: Vec<u64>,
    entries: Vec<Entry<T>>,
    /// Whether an aggregate may start with any sequence.
    partial: bool,
}

/// Where the aggregates of a window were found.
pub(crate) type Found = [Option<usize>; WINDOW];

impl<T> Table<T> {
    pub(crate) fn new(partial: bool) -> Self {
        Self {
            slots: vec![0; 1 << 10],
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

    #[inline]
    fn start(&self, key: u64) -> usize {
        // the number of slots is a power of two
        key as usize & (self.slots.len() - 1)
    }

    #[inline]
    fn slot(key: u64, index: usize) -> u64 {
        (key & !INDEX_MASK) | (index as u64 + 1)
    }

    #[inline]
    fn find(&self, key: u64, aggregate: (&[u8], &[u8])) -> Option<usize> {
        let mut at = self.start(key);
        loop {
            let slot = self.slots[at];
            if slot == 0 {
                return None;
            }
            if (slot ^ key) & !INDEX_MASK == 0 {
                let index = ((slot & INDEX_MASK) - 1) as usize;
                if self.entries[index].is(key, aggregate) {
                    return Some(index);
                }
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
    }

    /// Looks up the aggregates of at most [`WINDOW`] events, in three passes of which each starts
    /// loads that do not wait for each other; `touch` reads something of a value that will be
    /// needed soon.
    pub(crate) fn find_window<'e>(
        &self,
        events: impl ExactSizeIterator<Item = (u64, (&'e [u8], &'e [u8]))> + Clone,
        touch: impl Fn(&T) -> u64,
    ) -> Found {
        let mut first = [0_u64; WINDOW];
        let mut loaded = 0_u64;
        for (slot, (key, _)) in first.iter_mut().zip(events.clone()) {
            *slot = self.slots[self.start(key)];
        }
        for slot in &first[..events.len().min(WINDOW)] {
            let index = (slot & INDEX_MASK).wrapping_sub(1) as usize;
            if let Some(entry) = self.entries.get(index) {
                loaded ^= entry.key ^ touch(&entry.value);
            }
        }
        black_box(loaded);
        let mut found = [None; WINDOW];
        for (found, (key, aggregate)) in found.iter_mut().zip(events) {
            *found = self.find(key, aggregate);
        }
        found
    }

    fn insert(&mut self, key: u64, event: &View<'_>, value: T) -> usize {
        if (self.entries.len() + 1) * 2 > self.slots.len() {
            self.grow();
        }
        let index = self.entries.len();
        let sequence = if self.partial {
            event.sequence.saturating_sub(1)
        } else {
            0
        };
        self.entries.push(Entry {
            name: Name::new(event.aggregate_type, event.aggregate_id),
            key,
            sequence,
            value,
        });
        self.occupy(key, index);
        index
    }

    fn occupy(&mut self, key: u64, index: usize) {
        let mut at = self.start(key);
        while self.slots[at] != 0 {
            at = (at + 1) & (self.slots.len() - 1);
        }
        self.slots[at] = Self::slot(key, index);
    }

    fn grow(&mut self) {
        self.slots = vec![0; self.slots.len() * 4];
        for index in 0..self.entries.len() {
            self.occupy(self.entries[index].key, index);
        }
    }

    /// The aggregate of the event, made by `new` at its first event; its sequence is checked (I2)
    /// and advanced. `found` is where it was when its window was looked up.
    #[inline]
    pub(crate) fn advance(
        &mut self,
        found: Option<usize>,
        key: u64,
        event: &View<'_>,
        new: impl FnOnce() -> Result<T, Difference>,
    ) -> Result<&mut T, Difference> {
        let aggregate = (event.aggregate_type, event.aggregate_id);
        // an event before it in the window may have been its first
        let index = match found.or_else(|| self.find(key, aggregate)) {
            Some(index) => index,
            None => {
                let value = new()?;
                self.insert(key, event, value)
            }
        };
        let entry = &mut self.entries[index];
        let expected = entry.sequence + 1;
        if event.sequence != expected {
            return Err(sequence_differs(event, expected));
        }
        entry.sequence = expected;
        Ok(&mut entry.value)
    }
}

#[cold]
fn sequence_differs(event: &View<'_>, expected: u64) -> Difference {
    let of = format!(
        "{}/{}",
        printable(event.aggregate_type),
        printable(event.aggregate_id)
    );
    Difference::new(
        event.position,
        What::Sequence,
        format!("sequence {expected} of {of}"),
        format!("sequence {}", event.sequence),
    )
}
