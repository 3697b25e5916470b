//! The recorded file: a standard Avro object container file (specification 1.12, codec `null`) of
//! `sovereign.RecordedEvent`, whose metadata makes it self-contained.
//!
//! Written out here because the generic reader accepts damaged data and is several times slower.
//! Avro nests records by concatenation, so the canonical header that the chain hashes lies in the
//! file as it is.

mod block;
mod container;
mod content;
mod reader;
#[cfg(test)]
mod tests;
mod writer;

use sovereign_schemas::{Digest, Position};

pub(crate) use block::{Block, Slot};
pub(crate) use content::ContentCheck;
pub use reader::FileLog;
pub use writer::FileWriter;

/// A block of a recorded file holds at most so many bytes: 4 MiB. It ends as soon as it reaches
/// 256 KiB, and one event has little more than 1 MiB.
pub const BLOCK_BYTES_MAX: usize = 4 << 20;
const BLOCK_BYTES_TARGET: usize = 256 << 10;
/// The file's header holds at most so many bytes: 1 MiB.
const HEADER_BYTES_MAX: usize = 1 << 20;
const MAGIC: &[u8; 4] = b"Obj\x01";
const SYNC_BYTES: usize = 16;
const FORMAT: &str = "1";

/// What a recorded file says about itself in its metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct FileInfo {
    /// First position, at least 1.
    pub first: Position,
    /// Last position; one before `first` if the file holds no event.
    pub last: Position,
    /// Hash of the event before `first`; all zero if `first` is 1.
    pub previous_hash: Digest,
    /// Hash of the event at `last`; equal to `previous_hash` if the file holds no event.
    pub last_hash: Digest,
}
