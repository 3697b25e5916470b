use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt::Debug;
use std::hash::Hash;
use std::ops::Deref;

use sovereign_schemas::avro::DecodeError;
use sovereign_schemas::{EventHeader, RecordedEvent};

/// Why a fold cannot take an event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FoldError {
    /// The payload is no event that this build knows.
    #[error("event cannot be decoded: {0}")]
    Decode(#[from] DecodeError),
    /// The event needs a row that an earlier event had to create.
    #[error("row {key} is missing")]
    RowMissing {
        /// Key of the row.
        key: String,
    },
    /// The event creates a row that is there already.
    #[error("row {key} exists already")]
    RowExists {
        /// Key of the row.
        key: String,
    },
    /// A number does not fit its column.
    #[error("{column} is out of range")]
    OutOfRange {
        /// The column.
        column: &'static str,
    },
}

/// A pure fold of events into rows. The same events give the same rows, in any batches (I5, I6).
///
/// Each event touches at most one row, which the event alone names; so the rows that a batch
/// needs are known before it is folded, and are fetched in one go.
pub trait View: Send + Sync + 'static {
    /// Name, as in tables, metrics and health.
    const NAME: &'static str;
    /// Raised when the same events give other rows or columns; each version has its own tables.
    const VERSION: u32;
    /// Names a row.
    type Key: Clone + Eq + Hash + Ord + Debug + Send + Sync;
    /// A row, every column of it.
    type Row: Clone + PartialEq + Debug + serde::Serialize + Send + Sync;

    /// Which row an event touches; `None` if it means nothing to this view. Most views ask the
    /// header only; one that has to look into a payload and cannot read it names any row, and
    /// fails in [`Self::fold`].
    fn key(event: &RecordedEvent) -> Option<Self::Key>;

    /// The key of a row.
    fn row_key(row: &Self::Row) -> Self::Key;

    /// Whether an event is certainly the first that touches its row, so that nobody needs to look
    /// for the row. `false` is always correct.
    fn opens(_header: &EventHeader) -> bool {
        false
    }

    /// Brings the row up to the event. `None` is a row that does not exist yet.
    ///
    /// # Errors
    /// Why the event cannot be taken. The row is then unchanged.
    fn fold(row: &mut Option<Self::Row>, event: &RecordedEvent) -> Result<(), FoldError>;
}

/// One row during a batch.
#[derive(Debug)]
struct Slot<R> {
    row: Option<R>,
    wanted: bool,
    changed: bool,
}

/// The rows that a run of events touches, and the fold over them.
#[derive(Debug)]
pub(crate) struct Batch<V: View> {
    keys: HashMap<V::Key, usize>,
    slots: Vec<Slot<V::Row>>,
    /// For each event the slot that it touches.
    places: Vec<Option<usize>>,
}

impl<V: View> Batch<V> {
    /// Finds out what the events touch; `known` yields rows that are at hand.
    pub(crate) fn plan<E: Deref<Target = RecordedEvent>>(
        events: &[E],
        mut known: impl FnMut(&V::Key) -> Option<V::Row>,
    ) -> Self {
        let mut keys = HashMap::new();
        let mut slots = Vec::new();
        let mut places = Vec::with_capacity(events.len());
        for event in events {
            let Some(key) = V::key(event) else {
                places.push(None);
                continue;
            };
            let place = match keys.entry(key) {
                Entry::Occupied(found) => *found.get(),
                Entry::Vacant(free) => {
                    let row = known(free.key());
                    let wanted = row.is_none() && !V::opens(&event.header);
                    slots.push(Slot {
                        row,
                        wanted,
                        changed: false,
                    });
                    *free.insert(slots.len() - 1)
                }
            };
            places.push(Some(place));
        }
        Self {
            keys,
            slots,
            places,
        }
    }

    /// Keys of rows that may exist and are not at hand, in order.
    pub(crate) fn wanted(&self) -> Vec<V::Key> {
        let wanted = self
            .keys
            .iter()
            .filter(|&(_, &place)| self.slots[place].wanted);
        let mut keys: Vec<V::Key> = wanted.map(|(key, _)| key.clone()).collect();
        keys.sort_unstable();
        keys
    }

    /// Takes a row that was fetched.
    pub(crate) fn supply(&mut self, row: V::Row) {
        if let Some(&place) = self.keys.get(&V::row_key(&row)) {
            self.slots[place].row = Some(row);
        }
    }

    /// Folds the events that were planned for, up to the first that fails. Returns how many were
    /// folded, and what was wrong with the next one.
    pub(crate) fn fold<E: Deref<Target = RecordedEvent>>(
        &mut self,
        events: &[E],
    ) -> (usize, Option<FoldError>) {
        for (index, (event, place)) in events.iter().zip(&self.places).enumerate() {
            let Some(place) = *place else { continue };
            let slot = &mut self.slots[place];
            if let Err(error) = V::fold(&mut slot.row, event) {
                return (index, Some(error));
            }
            slot.changed = true;
        }
        (events.len(), None)
    }

    /// The rows that the fold changed, in order of their keys.
    pub(crate) fn into_changed(self) -> Vec<V::Row> {
        let changed = self.slots.into_iter().filter(|slot| slot.changed);
        let mut rows: Vec<V::Row> = changed.filter_map(|slot| slot.row).collect();
        rows.sort_by_cached_key(V::row_key);
        rows
    }
}

/// Adds to a counter.
pub(crate) fn add(counter: i64, n: i64, column: &'static str) -> Result<i64, FoldError> {
    counter
        .checked_add(n)
        .ok_or(FoldError::OutOfRange { column })
}
