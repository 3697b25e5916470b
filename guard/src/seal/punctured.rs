//! A subject key with holes: all texts but the erased ones stay derivable.

use zeroize::Zeroize;

use super::{
    SealError, SubjectKey, TextKey,
    tree::{self, INDEX_BITS, Node},
};

struct Subtree {
    /// Levels below the root, 0..=40.
    depth: u32,
    /// The first `depth` bits of every index below this node.
    prefix: u64,
    node: Node,
}

impl Subtree {
    fn covers(&self, index: u64) -> bool {
        index >> (INDEX_BITS - self.depth) == self.prefix
    }
}

impl Drop for Subtree {
    fn drop(&mut self) {
        self.node.zeroize();
    }
}

/// The nodes that are left of a tree after texts were erased from it.
///
/// A puncture replaces the one node above the text by the at most 40 siblings along the way down to
/// it. The hash cannot be run upwards, so the erased key is gone once the old nodes are (copies of
/// the subject key elsewhere, such as a backup of the key table, must be replaced too).
pub struct PuncturedKey {
    subtrees: Vec<Subtree>,
}

impl PuncturedKey {
    /// The whole tree, with no hole yet.
    pub fn new(root: &SubjectKey) -> Self {
        Self {
            subtrees: vec![Subtree {
                depth: 0,
                prefix: 0,
                node: *root.expose(),
            }],
        }
    }

    /// Takes nodes as they were stored: (depth 0..=40, the first `depth` bits of the index, node).
    ///
    /// Gives none when a depth is above 40 or a prefix does not fit its depth.
    pub fn from_nodes(nodes: impl IntoIterator<Item = (u32, u64, [u8; 32])>) -> Option<Self> {
        let fits =
            |&(depth, prefix, _): &(u32, u64, Node)| depth <= INDEX_BITS && prefix >> depth == 0;
        nodes
            .into_iter()
            .map(|stored| fits(&stored).then_some(stored))
            .map(|stored| {
                stored.map(|(depth, prefix, node)| Subtree {
                    depth,
                    prefix,
                    node,
                })
            })
            .collect::<Option<Vec<_>>>()
            .map(|subtrees| Self { subtrees })
    }

    /// The nodes to store: (depth, prefix, node), in no particular order.
    pub fn nodes(&self) -> impl Iterator<Item = (u32, u64, &[u8; 32])> {
        self.subtrees
            .iter()
            .map(|subtree| (subtree.depth, subtree.prefix, &subtree.node))
    }

    /// The key of text `index`, equal to that of the unpunctured subject key.
    ///
    /// # Errors
    /// [`SealError::Erased`] after [`Self::puncture`] of that index, and
    /// [`SealError::IndexOutOfRange`].
    pub fn derive(&self, index: u64) -> Result<TextKey, SealError> {
        tree::check(index)?;
        let subtree = self.subtrees.iter().find(|subtree| subtree.covers(index));
        let subtree = subtree.ok_or(SealError::Erased { index })?;
        Ok(tree::descend(subtree.node, subtree.depth, index))
    }

    /// Erases the key of one text; erasing it again changes nothing.
    ///
    /// # Errors
    /// [`SealError::IndexOutOfRange`].
    pub fn puncture(&mut self, index: u64) -> Result<(), SealError> {
        tree::check(index)?;
        let Some(at) = self
            .subtrees
            .iter()
            .position(|subtree| subtree.covers(index))
        else {
            return Ok(());
        };
        let mut above = self.subtrees.swap_remove(at);
        while above.depth < INDEX_BITS {
            let bit = tree::bit_at(index, above.depth);
            let below = |bit: u8| Subtree {
                depth: above.depth + 1,
                prefix: above.prefix << 1 | u64::from(bit),
                node: tree::child(&above.node, bit),
            };
            let (kept, next) = (below(1 - bit), below(bit));
            self.subtrees.push(kept);
            above = next;
        }
        Ok(())
    }
}

impl std::fmt::Debug for PuncturedKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PuncturedKey")
            .field("nodes", &self.subtrees.len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;
    use crate::seal::INDEX_END;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn derives_all_but_the_punctured_indexes(
            root: [u8; 32], erased in prop::collection::btree_set(0..INDEX_END, 1..8),
            others in prop::collection::vec(0..INDEX_END, 8),
        ) {
            let root = SubjectKey::from_bytes(root);
            let mut punctured = PuncturedKey::new(&root);
            for &index in &erased {
                punctured.puncture(index).unwrap();
                punctured.puncture(index).unwrap();
            }
            let stored = punctured.nodes().map(|(depth, prefix, node)| (depth, prefix, *node));
            let punctured = PuncturedKey::from_nodes(stored).unwrap();
            prop_assert!(punctured.subtrees.len() <= 40 * erased.len());
            // the neighbours of a hole are where a wrong sibling would show
            let near = erased.iter().map(|index| index ^ 1);
            for index in others.iter().copied().chain(near).chain(erased.iter().copied()) {
                match punctured.derive(index) {
                    Ok(key) => {
                        prop_assert!(!erased.contains(&index));
                        let whole = root.derive(index).unwrap();
                        prop_assert_eq!(key.expose(), whole.expose());
                    }
                    Err(error) => {
                        prop_assert!(erased.contains(&index));
                        prop_assert_eq!(error, SealError::Erased { index });
                    }
                }
            }
        }
    }

    #[test]
    fn refuses_stored_nodes_that_are_not_of_this_tree() {
        assert!(PuncturedKey::from_nodes([(41, 0, [0; 32])]).is_none());
        assert!(PuncturedKey::from_nodes([(3, 8, [0; 32])]).is_none());
        assert!(PuncturedKey::from_nodes([(3, 7, [0; 32])]).is_some());
    }
}
