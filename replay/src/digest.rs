//! One number for the state of everything.
//!
//! All lengths are 8 bytes big-endian. The digest of an aggregate is
//! `SHA-256(len ‖ type ‖ len ‖ id ‖ sequence as 8 bytes big-endian ‖ canonical state)`; of a type,
//! SHA-256 over the digests of its aggregates in the order of their ids' bytes; of all, SHA-256
//! over `len ‖ name ‖ digest` of each type in the order of [`AggregateType::ALL`].

use std::cmp::Ordering;

use serde::Serialize;
use sha2::{Digest as _, Sha256};
use sovereign_aggregates::AnyState;
use sovereign_schemas::{AggregateType, Digest};

use crate::table::Name;

/// The digests of all states. Equal states at equal sequences have equal digests, whatever they
/// were folded from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Digests {
    /// Of all agents.
    pub agent: Digest,
    /// Of all trades.
    pub trade: Digest,
    /// Of all approvals.
    pub approval: Digest,
    /// Of everything.
    pub all: Digest,
}

/// The digest of one aggregate, with what it is ordered by.
#[derive(Debug)]
pub(crate) struct AggregateDigest {
    aggregate_type: AggregateType,
    id: Name,
    digest: Digest,
}

pub(crate) fn put_prefixed(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u64).to_be_bytes());
    out.extend_from_slice(bytes);
}

impl AggregateDigest {
    pub(crate) fn new(id: Name, sequence: u64, state: &AnyState) -> Self {
        let aggregate_type = state.aggregate_type();
        let mut front = Vec::with_capacity(128);
        put_prefixed(&mut front, aggregate_type.as_str().as_bytes());
        put_prefixed(&mut front, id.as_bytes());
        front.extend_from_slice(&sequence.to_be_bytes());
        let digest = Digest::of(&[&front, &state.canonical()]);
        Self {
            aggregate_type,
            id,
            digest,
        }
    }

    fn order(&self, other: &Self) -> Ordering {
        let types = self.aggregate_type.cmp(&other.aggregate_type);
        types.then_with(|| self.id.as_bytes().cmp(other.id.as_bytes()))
    }
}

/// Combines the digests of aggregates, which may come in any order.
pub(crate) fn combine(mut aggregates: Vec<AggregateDigest>) -> Digests {
    aggregates.sort_unstable_by(AggregateDigest::order);
    let of_type = |wanted: AggregateType| {
        let mut hasher = Sha256::new();
        for aggregate in aggregates.iter().filter(|a| a.aggregate_type == wanted) {
            hasher.update(aggregate.digest.0);
        }
        Digest(hasher.finalize().into())
    };
    let mut all = Vec::new();
    for aggregate_type in AggregateType::ALL {
        put_prefixed(&mut all, aggregate_type.as_str().as_bytes());
        all.extend_from_slice(&of_type(*aggregate_type).0);
    }
    Digests {
        agent: of_type(AggregateType::Agent),
        trade: of_type(AggregateType::Trade),
        approval: of_type(AggregateType::Approval),
        all: Digest::of(&[&all]),
    }
}

/// The digests of live states (type, id, last sequence, state), to compare with those of a replay.
/// Each aggregate must come once; the order does not matter.
pub fn digest_of_states(
    states: impl IntoIterator<Item = (AggregateType, impl AsRef<str>, u64, AnyState)>,
) -> Digests {
    combine(
        states
            .into_iter()
            .map(|(_, id, sequence, state)| {
                AggregateDigest::new(Name::new(id.as_ref().as_bytes()), sequence, &state)
            })
            .collect(),
    )
}
