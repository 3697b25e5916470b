//! I3 for a stretch of events.
//!
//! Each event is stored with its hash and follows one that is, so no link waits for another: any
//! thread may check any stretch.

use std::ops::Range;

use sovereign_schemas::{Digest, chain};

use crate::source::Chunk;
use crate::{Difference, What};

/// Memory for checking links.
#[derive(Debug, Default)]
pub(crate) struct Links {
    header: Vec<u8>,
}

impl Links {
    /// Checks the links of the events `range` of a chunk; `before` is the hash before its first.
    /// The index and the difference of the first that does not hold.
    pub(crate) fn check(
        &mut self,
        chunk: &Chunk,
        before: &Digest,
        range: Range<usize>,
    ) -> Result<(), (usize, Difference)> {
        let mut previous = match range.start {
            0 => *before,
            start => chunk.hash(start - 1),
        };
        for index in range {
            let header = chunk.header(index);
            let header = header.bytes(&mut self.header);
            let hash = chain::hash(&previous, header, chunk.payload(index));
            let found = chunk.hash(index);
            if hash != found {
                let (hash, found) = (hash.to_string(), found.to_string());
                let position = chunk.position(index);
                return Err((index, Difference::new(position, What::Hash, hash, found)));
            }
            previous = found;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sovereign_schemas::RecordedEvent;

    use super::*;
    use crate::sample;

    /// Events with payloads of these lengths, rechained.
    fn events(lengths: &[usize]) -> Vec<RecordedEvent> {
        let mut events = sample::events(5, lengths.len(), 10);
        let mut previous = Digest::ZERO;
        for (event, length) in events.iter_mut().zip(lengths) {
            event.payload = vec![*length as u8; *length].into();
            event.hash = chain::expected_hash(&previous, &event.header, &event.payload);
            previous = event.hash;
        }
        events
    }

    proptest! {
        #[test]
        fn agrees_with_the_contract_for_any_lengths_and_names_the_first_broken_link(
            lengths in proptest::collection::vec(prop_oneof![
                0_usize..400, 0_usize..70, Just(70_000_usize)
            ], 1..300),
            broken in proptest::collection::vec(0_usize..300, 0..3),
            from in 0_usize..300,
        ) {
            let mut events = events(&lengths);
            let from = from % events.len();
            let range = from..events.len();
            for index in &broken {
                let count = events.len();
                let mut payload = events[index % count].payload.to_vec();
                payload.push(1);
                events[index % count].payload = payload.into();
            }
            let first = broken.iter().map(|i| i % lengths.len()).filter(|i| *i >= from).min();
            let chunk = Chunk::Events(events);
            let found = Links::default().check(&chunk, &Digest::ZERO, range);
            prop_assert_eq!(found.err().map(|(index, _)| index), first);
        }
    }
}
