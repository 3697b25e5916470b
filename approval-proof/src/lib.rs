//! Proves from recorded events alone who approved what, with which passkey, under which policy: no
//! server, no database, no network, and nothing that an engine says about itself.
//!
//! [`Verifier`] takes the events of a ledger from position 1 on, one after the other. It checks the
//! chain, and judges each enrolment, each request, each yes and each grant again with what the
//! events before it say. The first thing that cannot be as it is said ends it: a [`Difference`]
//! with its position. At the end, [`Report`] has a [`Proof`] for each approval.
//!
//! Texts may stay sealed: nothing here looks into one.
//!
//! What it cannot see: whether a whole history was written anew by somebody who has the passkeys'
//! owners sign it, or ends too early. Whoever has noted a head elsewhere compares it with
//! [`Report::head`].

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod approvals;
mod jobs;
mod report;
#[cfg(test)]
mod tests;
mod trades;
mod verifier;

pub use report::{
    Action, Difference, Given, JobAction, PolicyProof, Proof, Report, TradeAction, Use,
};
pub use verifier::Verifier;
