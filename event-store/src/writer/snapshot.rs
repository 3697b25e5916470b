use std::collections::HashMap;

use sovereign_aggregates::AnyState;
use sovereign_schemas::chain::Head;
use sovereign_schemas::{AggregateType, LogError, Position};

use super::cache::{self, Cached};
use crate::port::AggregateKey;
use crate::{LedgerReader, StoreError};

/// One aggregate: its type, id, last sequence and state.
pub type LiveState = (AggregateType, String, u64, AnyState);

/// Aggregates of one query.
const PAGE_ROWS: usize = 10_000;

/// All aggregates at `head`: those of the hot cache as they are, the others folded from the
/// database.
pub(crate) async fn fill_up(
    reader: &LedgerReader,
    head: Head,
    mut cached: HashMap<AggregateKey, Cached>,
) -> Result<Vec<LiveState>, StoreError> {
    let mut states = Vec::with_capacity(cached.len());
    let mut after = (String::new(), String::new());
    loop {
        let keys = page_of_keys(reader, head.position, &mut after).await?;
        if keys.is_empty() {
            break;
        }
        let (here, missing): (Vec<AggregateKey>, Vec<AggregateKey>) =
            keys.into_iter().partition(|key| cached.contains_key(key));
        for key in here {
            if let Some(found) = cached.remove(&key) {
                states.push((key.aggregate_type, key.id, found.sequence, found.state));
            }
        }
        let loaded = cache::load(&*reader.database, missing, head.position).await?;
        for (key, found) in loaded {
            let found = found.map_err(|problem| StoreError::Decode {
                position: head.position,
                cause: format!("{}/{}: {problem}", key.aggregate_type, key.id),
            })?;
            states.push((key.aggregate_type, key.id, found.sequence, found.state));
        }
    }
    // an aggregate in memory that has events and none in the ledger would be a lost write
    if let Some((key, _)) = cached.iter().find(|(_, c)| c.sequence > 0) {
        return Err(StoreError::Internal(format!(
            "{}/{} is in memory and not in the ledger",
            key.aggregate_type, key.id
        )));
    }
    states.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
    Ok(states)
}

async fn page_of_keys(
    reader: &LedgerReader,
    head: Position,
    after: &mut (String, String),
) -> Result<Vec<AggregateKey>, StoreError> {
    let names = reader.database.keys(after, head, PAGE_ROWS).await?;
    let mut keys = Vec::with_capacity(names.len());
    for (name, id) in names {
        let aggregate_type = name.parse().map_err(|_| {
            LogError::Internal(format!("aggregate type {name:?} is unknown to this build"))
        })?;
        keys.push(AggregateKey {
            aggregate_type,
            id: id.clone(),
        });
        *after = (name, id);
    }
    Ok(keys)
}
