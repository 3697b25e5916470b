//! What the ledger holds already of the aggregates that are brought in.

use std::collections::{HashMap, VecDeque};

use sovereign_schemas::{AggregateType, Uuid};
use sqlx::{PgPool, Row as _};

use crate::StoreError;

/// Commands of one aggregate that one query returns; a longer history takes several.
const PAGE_COMMANDS: usize = 64;
/// Aggregates of one query.
const KEYS_MAX: usize = 512;

/// An aggregate of the ledger.
pub(super) type Key = (AggregateType, String);

/// A command whose events the ledger holds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Command {
    pub(super) first: u64,
    pub(super) events: u64,
    pub(super) command_id: Uuid,
}

/// The next commands of an aggregate in the ledger, and whether more may follow.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    pub(super) commands: VecDeque<Command>,
    pub(super) more: bool,
}

/// The commands of these aggregates after a sequence.
pub(super) async fn look_up(
    pool: &PgPool,
    keys: &[(Key, u64)],
) -> Result<HashMap<Key, Known>, StoreError> {
    let mut found: HashMap<Key, Known> = HashMap::new();
    for chunk in keys.chunks(KEYS_MAX) {
        let types: Vec<&str> = chunk.iter().map(|((t, _), _)| t.as_str()).collect();
        let ids: Vec<&str> = chunk.iter().map(|((_, id), _)| id.as_str()).collect();
        let after: Vec<i64> = chunk.iter().map(|(_, s)| s.cast_signed()).collect();
        let sql = format!(
            "select ordinal, sequence, command_events, command_id from \
             unnest($1::text[], $2::text[], $3::bigint[]) \
             with ordinality as wanted (wanted_type, wanted_id, after_sequence, ordinal) \
             cross join lateral (select sequence, command_events, command_id from ledger.events e \
             where e.aggregate_type = wanted_type and e.aggregate_id = wanted_id \
             and e.sequence > after_sequence and e.command_events > 0 \
             order by e.sequence limit {PAGE_COMMANDS}) found order by ordinal, sequence"
        );
        let rows = sqlx::query(&sql)
            .bind(types)
            .bind(ids)
            .bind(after)
            .fetch_all(pool)
            .await?;
        for row in rows {
            let ordinal: i64 = row.try_get(0)?;
            let (first, events): (i64, i32) = (row.try_get(1)?, row.try_get(2)?);
            let key = &chunk[usize::try_from(ordinal - 1).unwrap_or_default()].0;
            let known = found.entry(key.clone()).or_default();
            known.commands.push_back(Command {
                first: first.cast_unsigned(),
                events: u64::from(events.cast_unsigned()),
                command_id: row.try_get(3)?,
            });
            known.more = known.commands.len() == PAGE_COMMANDS;
        }
    }
    Ok(found)
}
