use std::collections::HashMap;
use std::num::NonZeroUsize;

use lru::LruCache;
use sovereign_aggregates::AnyState;
use sovereign_schemas::{Problem, RecordedEvent, chain};
use sqlx::{PgPool, Row as _};

use super::batch::Key;
use crate::{StoreError, row};

/// Rows of one aggregate that one query returns; a longer aggregate takes several.
const PAGE_ROWS: i64 = 512;
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
    pub(crate) fn new(key: &Key) -> Self {
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
pub(crate) struct Cache(LruCache<Key, Cached>);

impl Cache {
    pub(crate) fn new(aggregates_max: usize) -> Self {
        Self(LruCache::new(
            NonZeroUsize::new(aggregates_max).unwrap_or(NonZeroUsize::MIN),
        ))
    }

    pub(crate) fn contains(&self, key: &Key) -> bool {
        self.0.contains(key)
    }

    pub(crate) fn get(&mut self, key: &Key) -> Option<&mut Cached> {
        self.0.get_mut(key)
    }

    pub(crate) fn put(&mut self, key: Key, cached: Cached) {
        self.0.put(key, cached);
    }

    pub(crate) fn forget(&mut self, key: &Key) {
        self.0.pop(key);
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Key, &Cached)> {
        self.0.iter()
    }
}

/// Aggregates by key; one whose events cannot be taken says why.
pub(crate) type Loaded = HashMap<Key, Result<Cached, Problem>>;

/// Folds aggregates from the database, as committed up to and including `up_to`.
pub(crate) async fn load(
    pool: &PgPool,
    keys: Vec<Key>,
    up_to: Option<u64>,
) -> Result<Loaded, StoreError> {
    let mut loaded = Loaded::with_capacity(keys.len());
    for chunk in keys.chunks(KEYS_MAX) {
        let mut left: Vec<(Key, Cached)> =
            chunk.iter().map(|k| (k.clone(), Cached::new(k))).collect();
        // each round reads at least one full page of each aggregate that is left
        while !left.is_empty() {
            left = load_page(pool, left, up_to, &mut loaded).await?;
        }
    }
    Ok(loaded)
}

async fn load_page(
    pool: &PgPool,
    mut left: Vec<(Key, Cached)>,
    up_to: Option<u64>,
    loaded: &mut Loaded,
) -> Result<Vec<(Key, Cached)>, StoreError> {
    let types: Vec<&str> = left
        .iter()
        .map(|(k, _)| k.aggregate_type.as_str())
        .collect();
    let ids: Vec<&str> = left.iter().map(|(k, _)| k.id.as_str()).collect();
    let after: Vec<i64> = left.iter().map(|(_, c)| c.sequence.cast_signed()).collect();
    let sql = format!(
        "select {}, ordinal from unnest($1::text[], $2::text[], $3::bigint[]) \
         with ordinality as wanted (wanted_type, wanted_id, after_sequence, ordinal) \
         cross join lateral (select * from ledger.events e where e.aggregate_type = wanted_type \
         and e.aggregate_id = wanted_id and e.sequence > after_sequence and e.position <= $4 \
         order by e.sequence limit {PAGE_ROWS}) found order by ordinal, sequence",
        row::COLUMNS
    );
    let rows = sqlx::query(&sql)
        .bind(types)
        .bind(ids)
        .bind(after)
        .bind(up_to.map_or(i64::MAX, u64::cast_signed))
        .fetch_all(pool)
        .await?;
    let mut taken = vec![0_i64; left.len()];
    let mut broken: HashMap<usize, Problem> = HashMap::new();
    for row in &rows {
        let ordinal: i64 = row.try_get("ordinal")?;
        let at = usize::try_from(ordinal - 1).unwrap_or_default();
        taken[at] += 1;
        if broken.contains_key(&at) {
            continue;
        }
        let applied = row::event(row)
            .map_err(StoreError::from)
            .and_then(|e| left[at].1.apply(&e));
        if let Err(error) = applied {
            broken.insert(at, error.problem());
        }
    }
    let mut more = Vec::new();
    for (at, (key, cached)) in left.drain(..).enumerate() {
        match broken.remove(&at) {
            Some(problem) => {
                loaded.insert(key, Err(problem));
            }
            None if taken[at] == PAGE_ROWS => more.push((key, cached)),
            None => {
                loaded.insert(key, Ok(cached));
            }
        }
    }
    Ok(more)
}
