use std::num::NonZeroUsize;

use lru::LruCache;
use sovereign_aggregates::AnyState;
use sovereign_schemas::{Position, Problem, RecordedEvent, chain};

use crate::StoreError;
use crate::port::{AggregateKey, Database};

/// Rows of one aggregate that one query returns; a longer aggregate takes several.
const PAGE_ROWS: usize = 512;
/// Aggregates of one query.
const KEYS_MAX: usize = 512;

/// An aggregate as its events left it.
#[derive(Debug, Clone)]
pub(crate) struct Cached {
    /// Sequence of its last event; 0 before the first.
    pub(crate) sequence: u64,
    pub(crate) state: AnyState,
}

impl Cached {
    pub(crate) fn new(key: &AggregateKey) -> Self {
        Self {
            sequence: 0,
            state: AnyState::new(key.aggregate_type),
        }
    }

    /// Takes the next event.
    ///
    /// # Errors
    /// If it does not follow, or does not decode.
    pub(crate) fn apply(&mut self, event: &RecordedEvent) -> Result<(), StoreError> {
        let broken = |cause: String| StoreError::Decode {
            position: event.position(),
            cause,
        };
        chain::check_sequence(self.sequence, &event.header).map_err(|e| broken(e.to_string()))?;
        self.state
            .apply_recorded(event)
            .map_err(|e| broken(e.to_string()))?;
        self.sequence = event.header.sequence;
        Ok(())
    }
}

/// The aggregates that were used last.
#[derive(Debug)]
pub(crate) struct Cache(LruCache<AggregateKey, Cached>);

impl Cache {
    pub(crate) fn new(aggregates_max: usize) -> Self {
        Self(LruCache::new(
            NonZeroUsize::new(aggregates_max).unwrap_or(NonZeroUsize::MIN),
        ))
    }

    pub(crate) fn contains(&self, key: &AggregateKey) -> bool {
        self.0.contains(key)
    }

    pub(crate) fn get(&mut self, key: &AggregateKey) -> Option<&mut Cached> {
        self.0.get_mut(key)
    }

    pub(crate) fn put(&mut self, key: AggregateKey, cached: Cached) {
        self.0.put(key, cached);
    }

    pub(crate) fn forget(&mut self, key: &AggregateKey) {
        self.0.pop(key);
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&AggregateKey, &Cached)> {
        self.0.iter()
    }
}

/// Aggregates, one for each key; one whose events cannot be taken says why.
pub(crate) type Loaded = Vec<(AggregateKey, Result<Cached, Problem>)>;

/// Folds aggregates from the database, as committed up to and including `up_to`.
pub(crate) async fn load(
    database: &dyn Database,
    keys: Vec<AggregateKey>,
    up_to: Position,
) -> Result<Loaded, StoreError> {
    let mut loaded = Loaded::with_capacity(keys.len());
    for chunk in keys.chunks(KEYS_MAX) {
        let mut left: Vec<(AggregateKey, Cached)> =
            chunk.iter().map(|k| (k.clone(), Cached::new(k))).collect();
        // each round reads at least one full page of each aggregate that is left
        while !left.is_empty() {
            left = load_page(database, left, up_to, &mut loaded).await?;
        }
    }
    Ok(loaded)
}

/// Takes the next page of each; returns those that may have more.
async fn load_page(
    database: &dyn Database,
    left: Vec<(AggregateKey, Cached)>,
    up_to: Position,
    loaded: &mut Loaded,
) -> Result<Vec<(AggregateKey, Cached)>, StoreError> {
    let wanted: Vec<(AggregateKey, u64)> =
        left.iter().map(|(k, c)| (k.clone(), c.sequence)).collect();
    let pages = database.aggregates(&wanted, up_to, PAGE_ROWS).await?;
    let mut more = Vec::new();
    for ((key, mut cached), page) in left.into_iter().zip(pages) {
        let full = page.len() >= PAGE_ROWS;
        let applied = page.into_iter().try_for_each(|event| {
            let event = event.map_err(StoreError::from)?;
            cached.apply(&event)
        });
        match applied {
            Err(error) => loaded.push((key, Err(error.problem()))),
            Ok(()) if full => more.push((key, cached)),
            Ok(()) => loaded.push((key, Ok(cached))),
        }
    }
    Ok(more)
}
