//! Recorded files, verification, replay and digests: the same code over every log.
//!
//! [`verify`] checks that a log is what it claims to be; [`replay`] folds it into states and their
//! digests; [`export`] writes it into a file ([`FileLog`]) that both can read with no server.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod check;
pub mod contract;
mod digest;
mod error;
mod export;
mod file;
mod fold;
mod links;
mod manifest;
mod pipeline;
mod range;
pub mod sample;
mod source;
mod table;
#[cfg(test)]
mod tests;
mod verify;

pub use digest::{Digests, digest_of_states};
pub use error::{Difference, ReplayError, What};
pub use export::export;
pub use file::{BLOCK_BYTES_MAX, FileInfo, FileLog, FileWriter};
pub use fold::{ReplayReport, replay};
pub use manifest::RunManifest;
pub use pipeline::Options;
pub use range::Range;
pub use source::Source;
pub use verify::{Expectations, VerifyReport, verify};
