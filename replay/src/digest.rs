//! One number for the state of everything.
//!
//! All lengths are 8 bytes big-endian. The digest of an aggregate is
//! `SHA-256(len ‖ type ‖ len ‖ id ‖ sequence as 8 bytes big-endian ‖ canonical state)`; of a type,
//! SHA-256 over the digests of its aggregates in the order of their ids' bytes; of all, SHA-256
//! over `len ‖ name ‖ digest` of each type in the order of [`AggregateType::ALL`]. A type that came
//! later than the first three takes part only if there is an aggregate of it, so that digests noted
//! before it came stay what they were.

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
    /// Of all imported aggregates; none if there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub imported: Option<Digest>,
    /// Of the policy; none if none was adopted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<Digest>,
    /// Of all approvers; none if there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approver: Option<Digest>,
    /// Of all jobs; none if there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job: Option<Digest>,
    /// Of the schedules; none if none were adopted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedules: Option<Digest>,
    /// Of everything.
    pub all: Digest,
}

/// The digest of one aggregate, with what it is ordered by.
#[derive(Debug)]
pub(crate) struct AggregateDigest {
    aggregate_type: AggregateType,
    /// The first bytes of the id, so that most comparisons end here.
    front: u128,
    name: Name,
    digest: Digest,
}

pub(crate) fn put_prefixed(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u64).to_be_bytes());
    out.extend_from_slice(bytes);
}

impl AggregateDigest {
    fn new(aggregate_type: AggregateType, name: Name, digest: Digest) -> Self {
        let id = name.id();
        let mut front = [0; 16];
        let length = id.len().min(front.len());
        front[..length].copy_from_slice(&id[..length]);
        Self {
            aggregate_type,
            front: u128::from_be_bytes(front),
            name,
            digest,
        }
    }

    fn order(&self, other: &Self) -> Ordering {
        let types = self.aggregate_type.cmp(&other.aggregate_type);
        types
            .then_with(|| self.front.cmp(&other.front))
            .then_with(|| self.name.id().cmp(other.name.id()))
    }
}

/// The digests of aggregates: name, last sequence and state of each. Hashed one at a time by the
/// implementation that everything rests on: here, unlike at a link, nothing would show a mistake.
pub(crate) fn digests(
    aggregates: impl IntoIterator<Item = (Name, u64, AnyState)>,
) -> Vec<AggregateDigest> {
    let mut bytes = Vec::with_capacity(512);
    let digest = |(name, sequence, state): (Name, u64, AnyState)| {
        let aggregate_type = state.aggregate_type();
        bytes.clear();
        put_prefixed(&mut bytes, aggregate_type.as_str().as_bytes());
        put_prefixed(&mut bytes, name.id());
        bytes.extend_from_slice(&sequence.to_be_bytes());
        state.put_canonical(&mut bytes);
        AggregateDigest::new(aggregate_type, name, Digest::of(&[&bytes]))
    };
    aggregates.into_iter().map(digest).collect()
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
    let there = |wanted: AggregateType| aggregates.iter().any(|a| a.aggregate_type == wanted);
    let later = |wanted: AggregateType| there(wanted).then(|| of_type(wanted));
    for aggregate_type in AggregateType::ALL {
        let first = matches!(
            aggregate_type,
            AggregateType::Agent | AggregateType::Trade | AggregateType::Approval
        );
        if !first && !there(*aggregate_type) {
            continue;
        }
        put_prefixed(&mut all, aggregate_type.as_str().as_bytes());
        all.extend_from_slice(&of_type(*aggregate_type).0);
    }
    Digests {
        agent: of_type(AggregateType::Agent),
        trade: of_type(AggregateType::Trade),
        approval: of_type(AggregateType::Approval),
        imported: later(AggregateType::Imported),
        policy: later(AggregateType::Policy),
        approver: later(AggregateType::Approver),
        job: later(AggregateType::Job),
        schedules: later(AggregateType::Schedules),
        all: Digest::of(&[&all]),
    }
}

/// The digests of live states (type, id, last sequence, state), to compare with those of a replay.
/// Each aggregate must come once; the order does not matter.
pub fn digest_of_states(
    states: impl IntoIterator<Item = (AggregateType, impl AsRef<str>, u64, AnyState)>,
) -> Digests {
    combine(digests(states.into_iter().map(
        |(aggregate_type, id, sequence, state)| {
            let name = Name::new(aggregate_type.as_str().as_bytes(), id.as_ref().as_bytes());
            (name, sequence, state)
        },
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_those_that_the_formats_page_describes() {
        // with and without aggregates of the type that takes part only if there are any
        for types in [3, 4, AggregateType::ALL.len()] {
            check(&AggregateType::ALL[..types]);
        }
    }

    fn check(types: &[AggregateType]) {
        // ids of all lengths, some too long to lie in an entry
        let ids = (0..200).map(|n| "i".repeat(n % 70 + 1) + &n.to_string());
        let states: Vec<_> = ids
            .zip(1_u64..)
            .map(|(id, sequence)| {
                let aggregate_type = types[sequence as usize % types.len()];
                (aggregate_type, id, sequence, AnyState::new(aggregate_type))
            })
            .collect();
        let mut one_by_one: Vec<_> = states
            .iter()
            .map(|(aggregate_type, id, sequence, state)| {
                let mut bytes = Vec::new();
                put_prefixed(&mut bytes, aggregate_type.as_str().as_bytes());
                put_prefixed(&mut bytes, id.as_bytes());
                bytes.extend_from_slice(&sequence.to_be_bytes());
                bytes.extend_from_slice(&state.canonical());
                (*aggregate_type, id.clone(), Digest::of(&[&bytes]))
            })
            .collect();
        one_by_one.sort();
        let mut all = Vec::new();
        for aggregate_type in types {
            let own = one_by_one.iter().filter(|(t, _, _)| t == aggregate_type);
            let digests: Vec<u8> = own.flat_map(|(_, _, digest)| digest.0).collect();
            put_prefixed(&mut all, aggregate_type.as_str().as_bytes());
            all.extend_from_slice(&Digest::of(&[&digests]).0);
        }
        let mut shuffled = states;
        shuffled.rotate_left(77);
        assert_eq!(digest_of_states(shuffled).all, Digest::of(&[&all]));
    }
}
