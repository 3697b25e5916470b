//! What can go wrong when sealing, by who must act.

use thiserror::Error;

use super::tree::INDEX_END;

/// Why a text or key could not be sealed, opened or derived.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SealError {
    /// The tree of a subject has 2^40 leaves; the caller must use another subject key.
    #[error("text index {index} is not below {INDEX_END}")]
    IndexOutOfRange {
        /// The index asked for.
        index: u64,
    },
    /// The text of this index was erased; nobody can bring it back.
    #[error("the key of text {index} was erased")]
    Erased {
        /// The index asked for.
        index: u64,
    },
    /// The text is longer than this room seals in one piece; the user must shorten it.
    #[error("text of {bytes} bytes is longer than {limit} bytes")]
    TooLong {
        /// Bytes given.
        bytes: usize,
        /// Most bytes accepted.
        limit: usize,
    },
    /// The sealed bytes end before the 16-byte tag is complete: data was lost in transport.
    #[error("sealed bytes are {bytes} bytes long, at least {at_least} expected")]
    Truncated {
        /// Bytes given.
        bytes: usize,
        /// Least bytes a sealed form has.
        at_least: usize,
    },
    /// Wrong key, wrong nonce, wrong key id, wrong index, or changed bytes; which of them cannot be
    /// told, by design of the cipher.
    #[error("sealed bytes do not open with this key, nonce, key id and index")]
    NotAuthentic,
    /// The cipher refused the input; not reachable below [`super::TEXT_BYTES_MAX`].
    #[error("the cipher refused {bytes} bytes")]
    Cipher {
        /// Bytes given.
        bytes: usize,
    },
    /// A key file or argument is not 64 hexadecimal characters; the operator must fix it.
    #[error("a key is 64 hexadecimal characters, found {found} characters{}",
        if *.bad_digit { " with one that is not hexadecimal" } else { "" })]
    KeyFormat {
        /// Characters found after the end of line was taken off.
        found: usize,
        /// True when the length fits and a character does not.
        bad_digit: bool,
    },
}
