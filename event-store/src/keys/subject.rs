use sovereign_guard::seal::{KeyPath, LIKENESS_INDEX, SealError, SubjectKey, TextKey};
use sovereign_schemas::Uuid;

/// Indexes reserved at once: one statement for so many texts.
pub(super) const BLOCK: u64 = 1_024;

/// What is known of one subject: its key and the rest of a reserved block.
#[derive(Default)]
pub(super) struct Subject {
    key: Option<(Uuid, KeyPath)>,
    likeness: Option<TextKey>,
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
        if index >= LIKENESS_INDEX {
            return Err(SealError::IndexOutOfRange { index });
        }
        let key = path.derive(index)?;
        self.next += 1;
        Ok(Some((*key_id, index, key)))
    }

    /// What makes likenesses; none before the first block.
    pub(super) const fn likeness(&self) -> Option<&TextKey> {
        self.likeness.as_ref()
    }

    /// Takes the block that ends before `end`.
    pub(super) fn refill(
        &mut self,
        key_id: Uuid,
        key: &SubjectKey,
        end: u64,
    ) -> Result<(), SealError> {
        if self.key.as_ref().is_none_or(|(known, _)| *known != key_id) {
            self.likeness = Some(key.derive(LIKENESS_INDEX)?);
            self.key = Some((key_id, KeyPath::new(key)));
        }
        self.next = end.saturating_sub(BLOCK);
        self.end = end;
        Ok(())
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
        subject
            .refill(Uuid::from_u128(1), &root, 2 * BLOCK)
            .unwrap();
        for index in BLOCK..2 * BLOCK {
            let (_, found, key) = subject.next().unwrap().unwrap();
            assert_eq!(found, index);
            assert_eq!(key.expose(), root.derive(index).unwrap().expose());
        }
        assert!(subject.next().unwrap().is_none());
        let likeness = subject.likeness().unwrap();
        assert_eq!(
            likeness.expose(),
            root.derive(LIKENESS_INDEX).unwrap().expose()
        );
        subject
            .refill(Uuid::from_u128(1), &root, LIKENESS_INDEX + 1)
            .unwrap();
        let last = (LIKENESS_INDEX + 1 - BLOCK..LIKENESS_INDEX).map(|_| subject.next());
        assert!(
            last.into_iter()
                .all(|leaf| leaf.is_ok_and(|leaf| leaf.is_some()))
        );
        assert!(subject.next().is_err(), "that key is given out to no text");
    }
}
