use sovereign_schemas::Position;

use crate::ReplayError;

/// The positions to look at, both ends included.
///
/// # Examples
/// ```
/// use sovereign_replay::Range;
/// use sovereign_schemas::Position;
/// assert!(Range::new(Some(Position(3)), Some(Position(2))).is_err());
/// assert_eq!(Range::WHOLE, Range::new(None, None).unwrap());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Range {
    /// First position; where the log starts if absent.
    pub first: Option<Position>,
    /// Last position; where the log ends if absent.
    pub last: Option<Position>,
}

impl Range {
    /// Everything that the log holds.
    pub const WHOLE: Self = Self {
        first: None,
        last: None,
    };

    /// Checks the ends.
    ///
    /// # Errors
    /// [`ReplayError::Range`] for position 0, and for a last position before the first.
    pub fn new(first: Option<Position>, last: Option<Position>) -> Result<Self, ReplayError> {
        let from = first.unwrap_or(Position(1));
        let to = last.unwrap_or(Position(u64::MAX));
        if from == Position::START || from > to {
            return Err(ReplayError::Range {
                first: from,
                last: to,
            });
        }
        Ok(Self { first, last })
    }
}
