//! Which queue is asked first.

/// Weights of the queues high, default and low.
const WEIGHTS: [u32; 3] = [16, 4, 1];

/// Chooses among queues by weight: of 21 turns 16 begin with high, 4 with default and 1 with low,
/// spread evenly (smooth weighted round-robin, as in nginx). A queue that has nothing passes its
/// turn on to the others, the most urgent first, so no turn is lost and none of them starves.
///
/// # Examples
/// ```
/// use sovereign_jobs::Turns;
/// let mut turns = Turns::new(&[0, 1, 2]);
/// let firsts: Vec<u8> = (0..21).map(|_| turns.next()[0]).collect();
/// assert_eq!(firsts.iter().filter(|q| **q == 0).count(), 16);
/// assert_eq!(firsts.iter().filter(|q| **q == 2).count(), 1);
/// ```
#[derive(Debug, Clone)]
pub struct Turns {
    /// Queue and credit, the most urgent first.
    credits: Vec<(u8, i64)>,
}

impl Turns {
    /// Among these queues, by number; numbers above 2 are left out.
    #[must_use]
    pub fn new(queues: &[u8]) -> Self {
        let mut queues: Vec<u8> = queues.iter().copied().filter(|q| *q <= 2).collect();
        queues.sort_unstable();
        queues.dedup();
        Self {
            credits: queues.into_iter().map(|q| (q, 0)).collect(),
        }
    }

    /// The order in which queues are asked this time.
    #[allow(clippy::should_implement_trait)] // it never ends, and is no iterator
    pub fn next(&mut self) -> Vec<u8> {
        let weight = |queue: u8| i64::from(WEIGHTS[usize::from(queue)]);
        let total: i64 = self.credits.iter().map(|(q, _)| weight(*q)).sum();
        for (queue, credit) in &mut self.credits {
            *credit += weight(*queue);
        }
        // the first of equals: the most urgent
        let Some(most) = self.credits.iter().map(|(_, credit)| *credit).max() else {
            return Vec::new();
        };
        let first = self.credits.iter_mut().find(|(_, credit)| *credit == most);
        let Some((first, credit)) = first else {
            return Vec::new();
        };
        *credit -= total;
        let first = *first;
        let others = self.credits.iter().map(|(q, _)| *q).filter(|q| *q != first);
        std::iter::once(first).chain(others).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn low_gets_its_turn_within_every_21() {
        let mut turns = Turns::new(&[2, 1, 0, 7]);
        let firsts: Vec<u8> = (0..210).map(|_| turns.next()[0]).collect();
        for window in firsts.windows(21) {
            assert!(window.contains(&2), "{window:?}");
        }
        assert_eq!(turns.next().len(), 3);
        assert_eq!(Turns::new(&[]).next(), Vec::<u8>::new());
        assert_eq!(Turns::new(&[2]).next(), vec![2]);
    }
}
