use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use sovereign_schemas::Position;

/// Which events' reactions are not durable yet.
#[derive(Debug, Default)]
pub(super) struct Outstanding(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    seen: Position,
    open: BTreeSet<Position>,
}

impl Outstanding {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn reset(&self) {
        *self.inner() = Inner::default();
    }

    /// The reactions to this event are about to be carried out. Before [`Self::seen`] of it.
    pub(super) fn open(&self, position: Position) {
        self.inner().open.insert(position);
    }

    /// They all have had their effect.
    pub(super) fn close(&self, position: Position) {
        self.inner().open.remove(&position);
    }

    /// Everything up to here was looked at.
    pub(super) fn seen(&self, position: Position) {
        self.inner().seen = position;
    }

    /// Up to here every reaction has had its effect.
    pub(super) fn durable(&self) -> Position {
        let inner = self.inner();
        match inner.open.first() {
            Some(first) => Position(first.0 - 1).min(inner.seen),
            None => inner.seen,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_open_reaction_holds_the_checkpoint() {
        let outstanding = Outstanding::default();
        for position in 1..=5 {
            if position != 3 {
                outstanding.open(Position(position));
            }
            outstanding.seen(Position(position));
        }
        assert_eq!(outstanding.durable(), Position(0));
        outstanding.close(Position(1));
        outstanding.close(Position(4));
        assert_eq!(outstanding.durable(), Position(1));
        outstanding.close(Position(2));
        assert_eq!(outstanding.durable(), Position(4));
        outstanding.close(Position(5));
        assert_eq!(outstanding.durable(), Position(5));
    }
}
