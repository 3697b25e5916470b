//! Sealing of free text: pure cryptography over keys and nonces that the caller brings.
//!
//! One subject (an agent or a person) has one 32-byte [`SubjectKey`]. The key of its text number
//! `index` is a leaf of a binary tree of hashes over that key ([`SubjectKey::derive`]), so no row
//! per text is kept, destroying the subject's key erases all its texts, and replacing it by the
//! sibling nodes along one path ([`PuncturedKey::puncture`]) erases a single text. The subject keys
//! themselves rest wrapped by a [`MasterKey`] that lives in a file apart from the ledger.
//!
//! Everything here is deterministic; nonces and new keys come in through the caller's seam.

mod error;
mod hex;
mod master;
mod punctured;
mod subject;
mod text;
mod tree;

pub use error::SealError;
pub use master::MasterKey;
pub use punctured::PuncturedKey;
pub use subject::SubjectKey;
pub use text::{SEAL_OVERHEAD_BYTES, TEXT_BYTES_MAX, TextKey, likeness, open, seal};
pub use tree::{INDEX_BITS, INDEX_END, KeyPath, LIKENESS_INDEX};
