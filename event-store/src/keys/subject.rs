use sovereign_guard::seal::{KeyPath, SealError, SubjectKey, TextKey};
use sovereign_schemas::Uuid;

/// Indexes reserved at once: one statement for so many texts.
pub(super) const BLOCK: u64 = 1_024;

/// What is known of one subject: its key and the rest of a reserved block.
#[derive(Default)]
pub(super) struct Subject {
    key: Option<(Uuid, KeyPath)>,
    next: u64,
    end: u64,
}

impl Subject {
    /// The next leaf of the block; `None` if it is used up.
    pub(super) fn next(&mut self) -> Result<Option<(Uuid, u64, TextKey)>, SealError> {
        let Some((key_id, path)) = self.key.as_mut().filter(|_| self.next < self.end) else {
            return Ok(None);
        };
        let index = self.next;
        let key = path.derive(index)?;
        self.next += 1;
        Ok(Some((*key_id, index, key)))
    }

    /// Takes the block that ends before `end`.
    pub(super) fn refill(&mut self, key_id: Uuid, key: &SubjectKey, end: u64) {
        if self.key.as_ref().is_none_or(|(known, _)| *known != key_id) {
            self.key = Some((key_id, KeyPath::new(key)));
        }
        self.next = end.saturating_sub(BLOCK);
        self.end = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_given_out_once_and_in_order() {
        let root = SubjectKey::from_bytes([9; 32]);
        let mut subject = Subject::default();
        assert!(subject.next().unwrap().is_none());
        subject.refill(Uuid::from_u128(1), &root, 2 * BLOCK);
        for index in BLOCK..2 * BLOCK {
            let (_, found, key) = subject.next().unwrap().unwrap();
            assert_eq!(found, index);
            assert_eq!(key.expose(), root.derive(index).unwrap().expose());
        }
        assert!(subject.next().unwrap().is_none());
    }
}
