//! One block of a recorded file, indexed but not copied.

use std::mem;
use std::sync::{Arc, Mutex, PoisonError};

use sovereign_schemas::avro::{DecodeError, Reader};
use sovereign_schemas::borrowed::{Borrowed as _, Utf8};
use sovereign_schemas::{Digest, EventHeader, LogError, Position, RecordedEvent};

/// Bytes `at..at + len` of a block.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    at: u32,
    len: u32,
}

impl Span {
    #[inline]
    fn of(self, bytes: &[u8]) -> &[u8] {
        &bytes[self.at as usize..self.at as usize + self.len as usize]
    }
}

/// Where the parts of one record lie.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Slot {
    pub(crate) position: u64,
    pub(crate) sequence: u64,
    pub(crate) event_version: u16,
    header: Span,
    aggregate_type: Span,
    aggregate_id: Span,
    event_type: Span,
    payload: Span,
    traceparent: Option<Span>,
}

/// Reads a string's place; its bytes are UTF-8.
#[inline]
fn text(input: &mut Reader<'_>) -> Result<Span, DecodeError> {
    let text = Utf8::take(input)?.as_bytes();
    Ok(span(input.at() - text.len(), input.at()))
}

// a block has less than 4 GiB
const fn span(from: usize, to: usize) -> Span {
    Span {
        at: from as u32,
        len: (to - from) as u32,
    }
}

#[inline]
fn integer<T: TryFrom<i64>>(input: &mut Reader<'_>) -> Result<T, DecodeError> {
    let at = input.at();
    T::try_from(input.long()?).map_err(|_| DecodeError::Integer { at })
}

impl Slot {
    /// Accepts exactly what [`EventHeader::take`] accepts for the header; a property test holds it
    /// to that. Every value has one spelling, so an accepted header is in canonical form.
    pub(super) fn take(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let start = input.at();
        let position = integer(input)?;
        input.take(16)?;
        let aggregate_type = text(input)?;
        let aggregate_id = text(input)?;
        let sequence = integer(input)?;
        let event_type = text(input)?;
        let event_version = integer(input)?;
        integer::<u16>(input)?;
        Utf8::take(input)?;
        input.take(32)?;
        let at = input.at();
        match input.long()? {
            0 => {}
            1 => {
                input.take(16)?;
            }
            index => return Err(DecodeError::Branch { at, index }),
        }
        input.long()?;
        input.take(8)?;
        let header = span(start, input.at());
        let payload = input.bytes()?.len();
        let payload = span(input.at() - payload, input.at());
        input.take(32)?;
        let at = input.at();
        let traceparent = match input.long()? {
            0 => None,
            1 => Some(text(input)?),
            index => return Err(DecodeError::Branch { at, index }),
        };
        Ok(Self {
            position,
            sequence,
            event_version,
            header,
            aggregate_type,
            aggregate_id,
            event_type,
            payload,
            traceparent,
        })
    }
}

/// Memory of blocks that are done with. Asking the system for it again costs a page fault for each
/// 4 KiB.
#[derive(Debug, Clone, Default)]
pub(super) struct Pool(Arc<Mutex<Vec<Memory>>>);

/// Bytes and places of one block.
type Memory = (Vec<u8>, Vec<Slot>);

/// So many blocks' memory is kept.
const POOL_BLOCKS_MAX: usize = 16;

impl Pool {
    /// Empty, with whatever capacity an earlier block had.
    pub(super) fn take(&self) -> (Vec<u8>, Vec<Slot>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.pop().unwrap_or_default()
    }

    fn give_back(&self, mut bytes: Vec<u8>, mut slots: Vec<Slot>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < POOL_BLOCKS_MAX {
            bytes.clear();
            slots.clear();
            kept.push((bytes, slots));
        }
    }
}

/// The good events of a block, and what comes after them if the block is damaged.
#[derive(Debug)]
pub(crate) struct Block {
    bytes: Vec<u8>,
    slots: Vec<Slot>,
    flaw: Option<Flaw>,
    pool: Pool,
}

impl Drop for Block {
    fn drop(&mut self) {
        let (bytes, slots) = (mem::take(&mut self.bytes), mem::take(&mut self.slots));
        self.pool.give_back(bytes, slots);
    }
}

/// Why a block is not read to its end.
#[derive(Debug, Clone)]
pub(super) enum Flaw {
    Gap { found: Position },
    Malformed(String),
}

impl Flaw {
    pub(super) fn after(self, after: Position) -> LogError {
        match self {
            Self::Gap { found } => LogError::Gap {
                expected: after.next(),
                found,
            },
            Self::Malformed(cause) => LogError::Malformed { after, cause },
        }
    }
}

impl Block {
    /// Indexes `count` records that must start at position `first` and not go beyond `last`.
    /// `damage` is what is known to be wrong behind the bytes.
    pub(super) fn index(
        pool: &Pool,
        (bytes, mut slots): (Vec<u8>, Vec<Slot>),
        count: u64,
        first: Position,
        last: Position,
        damage: Option<Flaw>,
    ) -> Self {
        let mut input = Reader::new(&bytes);
        // a record has about a hundred bytes at least, so the count cannot make this large
        let plausible = usize::try_from(count)
            .unwrap_or(usize::MAX)
            .min(bytes.len() / 100 + 1);
        slots.reserve(plausible);
        let mut flaw = None;
        let mut expected = first;
        for _ in 0..count {
            match Slot::take(&mut input) {
                Ok(slot) if slot.position == expected.0 && expected <= last => slots.push(slot),
                Ok(slot) if slot.position > expected.0 => {
                    flaw = Some(Flaw::Gap {
                        found: Position(slot.position),
                    });
                }
                Ok(slot) => flaw = Some(Flaw::Malformed(format!("position {}", slot.position))),
                // bytes that end too early are explained by the damage behind them
                Err(error @ DecodeError::Truncated { .. }) => {
                    flaw = damage.clone().or(Some(Flaw::Malformed(error.to_string())));
                }
                Err(error) => flaw = Some(Flaw::Malformed(error.to_string())),
            }
            if flaw.is_some() {
                break;
            }
            expected = expected.next();
        }
        if flaw.is_none() {
            flaw = input
                .finish()
                .err()
                .map(|error| Flaw::Malformed(error.to_string()))
                .or(damage);
        }
        Self {
            bytes,
            slots,
            flaw,
            pool: pool.clone(),
        }
    }

    pub(super) fn flaw(&self) -> Option<Flaw> {
        self.flaw.clone()
    }

    #[inline]
    pub(crate) fn slots(&self) -> &[Slot] {
        &self.slots
    }

    #[inline]
    pub(crate) fn header(&self, slot: &Slot) -> &[u8] {
        slot.header.of(&self.bytes)
    }

    #[inline]
    pub(crate) fn payload(&self, slot: &Slot) -> &[u8] {
        slot.payload.of(&self.bytes)
    }

    /// The hash follows the payload.
    #[inline]
    pub(crate) fn hash(&self, slot: &Slot) -> Digest {
        let at = slot.payload.at as usize + slot.payload.len as usize;
        let mut hash = [0; 32];
        hash.copy_from_slice(&self.bytes[at..at + 32]);
        Digest(hash)
    }

    /// The fingerprint ends the header.
    #[inline]
    pub(crate) fn fingerprint(&self, slot: &Slot) -> [u8; 8] {
        let header = self.header(slot);
        let mut fingerprint = [0; 8];
        fingerprint.copy_from_slice(&header[header.len() - 8..]);
        fingerprint
    }

    /// UTF-8.
    #[inline]
    pub(crate) fn aggregate_type(&self, slot: &Slot) -> &[u8] {
        slot.aggregate_type.of(&self.bytes)
    }

    /// UTF-8.
    #[inline]
    pub(crate) fn aggregate_id(&self, slot: &Slot) -> &[u8] {
        slot.aggregate_id.of(&self.bytes)
    }

    /// UTF-8.
    #[inline]
    pub(crate) fn event_type(&self, slot: &Slot) -> &[u8] {
        slot.event_type.of(&self.bytes)
    }

    fn text(&self, span: Span) -> &str {
        // checked when the slot was taken
        std::str::from_utf8(span.of(&self.bytes)).unwrap_or_default()
    }

    /// A copy of one event that does not hold on to the block.
    pub(crate) fn event(&self, slot: &Slot) -> Result<RecordedEvent, DecodeError> {
        Ok(RecordedEvent {
            header: EventHeader::decode(self.header(slot))?,
            payload: bytes::Bytes::copy_from_slice(self.payload(slot)),
            hash: self.hash(slot),
            traceparent: slot.traceparent.map(|span| self.text(span).to_owned()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record() -> (Vec<u8>, usize) {
        let event = crate::sample::events(7, 20, 5).pop().unwrap();
        let mut bytes = Vec::new();
        event.header.encode(&mut bytes);
        let header = bytes.len();
        super::super::writer::put_rest(&mut bytes, &event);
        (bytes, header)
    }

    proptest! {
        #[test]
        fn slot_accepts_exactly_the_headers_that_the_contract_accepts(
            at in 0_usize..200, mask in 1_u8..=255,
        ) {
            let (mut bytes, header) = record();
            bytes[at % header] ^= mask;
            let mut canonical = Reader::new(&bytes);
            let expected = EventHeader::take(&mut canonical);
            let mut input = Reader::new(&bytes);
            let taken = Slot::take(&mut input);
            match (expected, taken) {
                (Ok(header), Ok(slot)) => {
                    let mut again = Vec::new();
                    header.encode(&mut again);
                    prop_assert_eq!(&again[..], slot.header.of(&bytes));
                    prop_assert_eq!(header.position.0, slot.position);
                    prop_assert_eq!(header.sequence, slot.sequence);
                    prop_assert_eq!(header.event_version, slot.event_version);
                    prop_assert_eq!(header.aggregate_id.as_bytes(), slot.aggregate_id.of(&bytes));
                    prop_assert_eq!(header.event_type.as_bytes(), slot.event_type.of(&bytes));
                }
                (Err(_), slot) => prop_assert!(slot.is_err()),
                // the parts behind the header are not where they were, which is an error too
                (Ok(shifted), Err(_)) => {
                    let mut again = Vec::new();
                    shifted.encode(&mut again);
                    prop_assert_ne!(again.len(), header);
                }
            }
        }
    }
}
