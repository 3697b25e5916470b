//! The key of one subject: root of the tree of its text keys.

use zeroize::{Zeroize, Zeroizing};

use super::{SealError, TextKey, hex, tree};

/// 32 bytes from which every text key of one subject follows. Printing it shows a mask; dropping it
/// overwrites it.
#[derive(Clone)]
pub struct SubjectKey([u8; 32]);

impl SubjectKey {
    /// Takes 32 bytes from the caller's source of randomness.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Reads 64 hexadecimal characters, with or without an end of line.
    ///
    /// # Errors
    /// [`SealError::KeyFormat`] for anything else.
    pub fn from_hex(text: &str) -> Result<Self, SealError> {
        hex::decode(text).map(Self)
    }

    /// 64 hexadecimal characters in lower case, for `sovereign keys show` and nothing else.
    pub fn to_hex(&self) -> Zeroizing<String> {
        hex::encode(&self.0)
    }

    /// The bytes themselves; every use is a place where the key can leak.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// The key of text `index`: forty HMACs along the bits of the index from the most significant
    /// (bit 39) to the least, and one to turn the leaf into a key. [`super::KeyPath`] is cheaper
    /// for many.
    ///
    /// # Errors
    /// [`SealError::IndexOutOfRange`] when `index` is not below [`super::INDEX_END`].
    pub fn derive(&self, index: u64) -> Result<TextKey, SealError> {
        tree::check(index)?;
        Ok(tree::descend(self.0, 0, index))
    }
}

impl std::fmt::Debug for SubjectKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SubjectKey(****)")
    }
}

impl Drop for SubjectKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}
