//! The hash chain, and invariants I1 to I4 as functions: used by tests, debug builds and `verify`.

use crate::{Digest, EventHeader, Position, RecordedEvent};

/// `SHA-256(previous ‖ canonical header ‖ payload)` (I3).
#[must_use]
pub fn hash(previous: &Digest, header: &[u8], payload: &[u8]) -> Digest {
    Digest::of(&[&previous.0, header, payload])
}

/// The hash that `event` must carry after `previous`.
#[must_use]
pub fn expected_hash(previous: &Digest, header: &EventHeader, payload: &[u8]) -> Digest {
    let mut bytes = Vec::with_capacity(256);
    header.encode(&mut bytes);
    hash(previous, &bytes, payload)
}

/// The end of a chain: where it stands and its last hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Head {
    /// Last position; 0 for an empty ledger.
    pub position: Position,
    /// Hash of the last event; [`Digest::ZERO`] for an empty ledger.
    pub hash: Digest,
}

impl Head {
    /// Before the first event.
    pub const EMPTY: Self = Self {
        position: Position::START,
        hash: Digest::ZERO,
    };
}

/// A broken invariant, with the numbers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// I1: positions are dense.
    #[error("position {expected} expected, {found} found")]
    Density {
        /// What had to come.
        expected: Position,
        /// What came.
        found: Position,
    },
    /// I2: sequences are dense per aggregate.
    #[error("position {position}: sequence {expected} of {aggregate} expected, {found} found")]
    Sequence {
        /// Where.
        position: Position,
        /// Which aggregate, as type/id.
        aggregate: String,
        /// What had to come.
        expected: u64,
        /// What came.
        found: u64,
    },
    /// I3: the chain holds.
    #[error("position {position}: hash {expected} expected, {found} found")]
    Hash {
        /// Where.
        position: Position,
        /// As computed.
        expected: Digest,
        /// As stored.
        found: Digest,
    },
    /// I4: within one partition positions only grow.
    #[error("partition {partition}: position {found} after {after}")]
    Order {
        /// Topic and partition.
        partition: String,
        /// The earlier record.
        after: Position,
        /// The later record.
        found: Position,
    },
}

impl Broken {
    /// The first bad position.
    #[must_use]
    pub const fn position(&self) -> Position {
        match self {
            Self::Density { expected, .. } => *expected,
            Self::Sequence { position, .. } | Self::Hash { position, .. } => *position,
            Self::Order { found, .. } => *found,
        }
    }
}

/// I1 and I3 for one event after `head`; on success `head` stands at the event.
///
/// # Errors
/// [`Broken::Density`] or [`Broken::Hash`]; `head` is unchanged.
pub fn advance(head: &mut Head, event: &RecordedEvent) -> Result<(), Broken> {
    let expected = head.position.next();
    if event.position() != expected {
        return Err(Broken::Density {
            expected,
            found: event.position(),
        });
    }
    let hash = expected_hash(&head.hash, &event.header, &event.payload);
    if hash != event.hash {
        return Err(Broken::Hash {
            position: expected,
            expected: hash,
            found: event.hash,
        });
    }
    *head = Head {
        position: expected,
        hash,
    };
    Ok(())
}

/// I2 for one event of an aggregate whose last sequence was `last` (0 before the first).
///
/// # Errors
/// [`Broken::Sequence`].
pub fn check_sequence(last: u64, header: &EventHeader) -> Result<(), Broken> {
    if header.sequence == last + 1 {
        return Ok(());
    }
    Err(Broken::Sequence {
        position: header.position,
        aggregate: format!("{}/{}", header.aggregate_type, header.aggregate_id),
        expected: last + 1,
        found: header.sequence,
    })
}

/// I4 for one record of a partition.
///
/// # Errors
/// [`Broken::Order`].
pub fn check_partition_order(
    partition: &str,
    last: Position,
    found: Position,
) -> Result<(), Broken> {
    if found > last {
        return Ok(());
    }
    Err(Broken::Order {
        partition: partition.to_owned(),
        after: last,
        found,
    })
}
