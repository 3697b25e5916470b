//! The tree of hashes that turns one subject key and an index into one key per text.
//!
//! The construction is the pseudorandom function of Goldreich, Goldwasser and Micali, "How to
//! Construct Random Functions" (JACM 1986), with HMAC-SHA-256 as the generator; that it can be
//! punctured is from Boneh and Waters, "Constrained Pseudorandom Functions and Their Applications"
//! (ASIACRYPT 2013).

use hmac::{Hmac, Mac};
use sha2::Sha256;
use zeroize::Zeroize;

use super::{SealError, SubjectKey, TextKey};

/// Depth of the tree in bits; part of the stored format.
pub const INDEX_BITS: u32 = 40;

/// First index that does not exist: a subject has 2^40 texts, numbered from 0.
pub const INDEX_END: u64 = 1 << INDEX_BITS;

/// The last text of a subject is none: its key makes the likenesses of all the others.
pub const LIKENESS_INDEX: u64 = INDEX_END - 1;

/// The message that turns a leaf into an AES-256 key, so that no node is ever used as a key itself.
const LEAF_LABEL: &[u8] = b"sovereign text key v1";

/// One node of the tree. Whoever holds it can derive everything below it.
pub(super) type Node = [u8; 32];

pub(super) fn hmac(key: &Node, message: &[u8]) -> Node {
    // The array form of a key cannot be of a wrong length, unlike `new_from_slice`.
    let mut block = [0_u8; 64];
    block[..32].copy_from_slice(key);
    // HMAC pads a short key with zeros to the hash's block, so the padded key is the same key.
    let mut mac = <Hmac<Sha256> as hmac::digest::KeyInit>::new(&block.into());
    block.zeroize();
    mac.update(message);
    mac.finalize().into_bytes().into()
}

/// The child of `node` on side `bit` (0 left, 1 right).
pub(super) fn child(node: &Node, bit: u8) -> Node {
    hmac(node, &[bit])
}

/// The text key of a leaf.
pub(super) fn leaf_key(leaf: &Node) -> TextKey {
    TextKey::from_bytes(hmac(leaf, LEAF_LABEL))
}

/// The bit of `index` that leads from `depth` to `depth + 1`; the most significant bit comes first.
pub(super) fn bit_at(index: u64, depth: u32) -> u8 {
    u8::from(index >> (INDEX_BITS - 1 - depth) & 1 == 1)
}

pub(super) fn check(index: u64) -> Result<(), SealError> {
    if index < INDEX_END {
        Ok(())
    } else {
        Err(SealError::IndexOutOfRange { index })
    }
}

/// Walks from `node` at `depth` down to the leaf of `index`.
pub(super) fn descend(mut node: Node, depth: u32, index: u64) -> TextKey {
    for step in depth..INDEX_BITS {
        let next = child(&node, bit_at(index, step));
        node.zeroize();
        node = next;
    }
    let key = leaf_key(&node);
    node.zeroize();
    key
}

/// A subject key with the nodes of the last path kept, so that the next index costs about two
/// hashes and the leaf's one instead of forty-one.
///
/// It gives exactly the keys of [`SubjectKey::derive`], in any order of indexes.
pub struct KeyPath {
    nodes: [Node; INDEX_BITS as usize + 1],
    /// The index whose path `nodes` holds; none before the first use.
    last: Option<u64>,
}

impl KeyPath {
    /// Starts at the root; no hash is computed yet.
    pub fn new(root: &SubjectKey) -> Self {
        let mut nodes = [[0; 32]; INDEX_BITS as usize + 1];
        nodes[0] = *root.expose();
        Self { nodes, last: None }
    }

    /// The key of text `index`.
    ///
    /// # Errors
    /// [`SealError::IndexOutOfRange`] when `index` is not below [`INDEX_END`].
    pub fn derive(&mut self, index: u64) -> Result<TextKey, SealError> {
        check(index)?;
        let shared = match self.last {
            None => 0,
            Some(last) => INDEX_BITS.min((last ^ index).leading_zeros() - (64 - INDEX_BITS)),
        };
        for depth in shared..INDEX_BITS {
            let at = depth as usize;
            self.nodes[at + 1] = child(&self.nodes[at], bit_at(index, depth));
        }
        self.last = Some(index);
        Ok(leaf_key(&self.nodes[INDEX_BITS as usize]))
    }
}

impl std::fmt::Debug for KeyPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyPath")
            .field("last", &self.last)
            .finish_non_exhaustive()
    }
}

impl Drop for KeyPath {
    fn drop(&mut self) {
        self.nodes.zeroize();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn hmac_agrees_with_rfc_4231_style_short_keys() {
        // The padded form must equal the library's own treatment of a 32-byte key.
        let key = [0x0b; 32];
        let mut mac = <Hmac<Sha256> as Mac>::new_from_slice(&key).unwrap();
        mac.update(b"Hi There");
        assert_eq!(
            hmac(&key, b"Hi There"),
            <[u8; 32]>::from(mac.finalize().into_bytes())
        );
    }

    #[test]
    fn bits_are_taken_from_most_significant_to_least() {
        assert_eq!(bit_at(1 << 39, 0), 1);
        assert_eq!(bit_at(1, 39), 1);
        assert_eq!(bit_at(1, 0), 0);
    }

    #[test]
    fn refuses_an_index_past_the_last_leaf() {
        let root = SubjectKey::from_bytes([1; 32]);
        let beyond = SealError::IndexOutOfRange { index: INDEX_END };
        assert_eq!(root.derive(INDEX_END).unwrap_err(), beyond);
        assert_eq!(KeyPath::new(&root).derive(INDEX_END).unwrap_err(), beyond);
        assert!(root.derive(INDEX_END - 1).is_ok());
    }

    proptest! {
        #[test]
        fn a_kept_path_gives_the_same_keys_in_any_order(
            root: [u8; 32], indexes in prop::collection::vec(0..INDEX_END, 1..20), near in 0u64..50,
        ) {
            let root = SubjectKey::from_bytes(root);
            let mut path = KeyPath::new(&root);
            for index in indexes.into_iter().chain(near..near + 10).chain([near, near]) {
                let kept = path.derive(index).unwrap();
                let walked = root.derive(index).unwrap();
                prop_assert_eq!(kept.expose(), walked.expose());
            }
        }
    }
}
