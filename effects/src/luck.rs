//! Numbers that look random and follow from a seed, so that a repeat meets the same luck.

use sovereign_schemas::Digest;

use crate::EffectId;

/// A stream of bytes for one effect: SHA-256 over seed, effect id, purpose and a counter.
#[derive(Debug, Clone)]
pub(crate) struct Luck {
    seed: u64,
    id: EffectId,
    purpose: &'static str,
    block: u64,
    left: Vec<u8>,
}

impl Luck {
    pub(crate) const fn new(seed: u64, id: EffectId, purpose: &'static str) -> Self {
        Self {
            seed,
            id,
            purpose,
            block: 0,
            left: Vec::new(),
        }
    }

    pub(crate) fn fill(&mut self, out: &mut [u8]) {
        for byte in out {
            if self.left.is_empty() {
                let digest = Digest::of(&[
                    b"sovereign luck v1\0",
                    &self.seed.to_be_bytes(),
                    self.id.0.as_bytes(),
                    &self.block.to_be_bytes(),
                    self.purpose.as_bytes(),
                ]);
                self.block += 1;
                self.left = digest.0.into_iter().rev().collect();
            }
            *byte = self.left.pop().unwrap_or_default();
        }
    }

    /// A uniform number up to and including `most`.
    pub(crate) fn up_to(&mut self, most: u64) -> u64 {
        let mut fill = |bytes: &mut [u8]| -> Result<(), std::convert::Infallible> {
            self.fill(bytes);
            Ok(())
        };
        match up_to(most, &mut fill) {
            Ok(number) => number,
            Err(never) => match never {},
        }
    }
}

/// A uniform number up to and including `most`, from a source of random bytes: what would make some
/// numbers likelier than others is drawn again, which is less than half of the draws.
pub(crate) fn up_to<E>(
    most: u64,
    fill: &mut impl FnMut(&mut [u8]) -> Result<(), E>,
) -> Result<u64, E> {
    let Some(count) = most.checked_add(1) else {
        let mut bytes = [0; 8];
        fill(&mut bytes)?;
        return Ok(u64::from_be_bytes(bytes));
    };
    let fair = u64::MAX - u64::MAX % count;
    loop {
        let mut bytes = [0; 8];
        fill(&mut bytes)?;
        let number = u64::from_be_bytes(bytes);
        if number < fair {
            return Ok(number % count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn luck_follows_from_seed_effect_and_purpose() {
        let id = EffectId::of("job", 1);
        let draw = |seed, id, purpose| Luck::new(seed, id, purpose).up_to(u64::MAX);
        assert_eq!(draw(7, id, "a"), draw(7, id, "a"));
        let others = [
            draw(8, id, "a"),
            draw(7, EffectId::of("job", 2), "a"),
            draw(7, id, "b"),
        ];
        assert!(others.iter().all(|other| *other != draw(7, id, "a")));
    }

    #[test]
    fn numbers_stay_in_range_and_reach_both_ends() {
        let mut luck = Luck::new(1, EffectId::of("job", 1), "range");
        let drawn: Vec<u64> = (0..1_000).map(|_| luck.up_to(9)).collect();
        assert_eq!(drawn.iter().min(), Some(&0));
        assert_eq!(drawn.iter().max(), Some(&9));
    }
}
