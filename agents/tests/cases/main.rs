//! The whole market job over an in-memory ledger that really decides.
#![allow(clippy::unwrap_used)]

mod crash;
mod expiry;
mod lanes;
mod ledger;
mod people;
mod reference;
mod whole;
