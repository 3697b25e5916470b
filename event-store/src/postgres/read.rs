//! Every query that only reads.

use sovereign_schemas::chain::Head;
use sovereign_schemas::{AggregateType, Digest, LogError, Position, Problem, RecordedEvent, Uuid};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row as _};

use crate::port::{AggregateKey, Filter, Known};
use crate::{StoreError, row};

/// The head row as it stands.
pub(super) async fn head(connection: &mut PgConnection) -> Result<Head, StoreError> {
    let found = sqlx::query("select position, hash from ledger.head")
        .fetch_optional(connection)
        .await?
        .ok_or_else(|| StoreError::Internal("ledger.head has no row".to_owned()))?;
    head_of(&found)
}

pub(super) fn head_of(found: &PgRow) -> Result<Head, StoreError> {
    let position: i64 = found.try_get(0)?;
    let hash: Vec<u8> = found.try_get(1)?;
    let hash = hash
        .try_into()
        .map_err(|_| StoreError::Internal("ledger.head has a hash of a wrong length".to_owned()))?;
    Ok(Head {
        position: Position(position.cast_unsigned()),
        hash: Digest(hash),
    })
}

pub(super) async fn page(
    connection: &mut PgConnection,
    after: Position,
    limit: usize,
) -> Result<Vec<RecordedEvent>, LogError> {
    // positions are dense, so a range of positions is a page
    let sql = format!(
        "select {} from ledger.events where position > $1 order by position limit $2",
        row::COLUMNS
    );
    let rows = sqlx::query(&sql)
        .bind(after.0.cast_signed())
        .bind(limit as i64)
        .fetch_all(connection)
        .await
        .map_err(StoreError::from)?;
    events(&rows)
}

pub(super) async fn event(
    connection: &mut PgConnection,
    position: Position,
) -> Result<Option<RecordedEvent>, LogError> {
    let sql = format!(
        "select {} from ledger.events where position = $1",
        row::COLUMNS
    );
    let found = sqlx::query(&sql)
        .bind(position.0.cast_signed())
        .fetch_optional(connection)
        .await
        .map_err(StoreError::from)?;
    found.as_ref().map(row::event).transpose()
}

pub(super) async fn filtered(
    connection: &mut PgConnection,
    after: Position,
    up_to: Position,
    limit: usize,
    filter: &Filter,
) -> Result<Vec<RecordedEvent>, LogError> {
    let sql = format!(
        "select {} from ledger.events where position > $1 and position <= $2 \
         and ($3::integer is null or department = $3) \
         and ($4::text is null or aggregate_type = $4) \
         and ($5::text is null or aggregate_id = $5) \
         and ($7::text is null or aggregate_type in ('trade', 'approval') \
         or (aggregate_type = 'agent' and aggregate_id = $7)) order by position limit $6",
        row::COLUMNS
    );
    let rows = sqlx::query(&sql)
        .bind(after.0.cast_signed())
        .bind(up_to.0.cast_signed())
        .bind(filter.department.map(|d| i32::from(d.0)))
        .bind(filter.aggregate_type.map(AggregateType::as_str))
        .bind(filter.aggregate_id.as_deref())
        .bind(limit as i64)
        .bind(filter.around_agent.as_deref())
        .fetch_all(connection)
        .await
        .map_err(StoreError::from)?;
    events(&rows)
}

/// The good events before the first bad row; the bad row's error if it comes first.
fn events(rows: &[PgRow]) -> Result<Vec<RecordedEvent>, LogError> {
    let mut events = Vec::with_capacity(rows.len());
    for row in rows {
        match row::event(row) {
            Ok(event) => events.push(event),
            Err(error) if events.is_empty() => return Err(error),
            Err(_) => break,
        }
    }
    Ok(events)
}

pub(super) async fn aggregates(
    connection: &mut PgConnection,
    wanted: &[(AggregateKey, u64)],
    up_to: Position,
    limit: usize,
) -> Result<Vec<Vec<Result<RecordedEvent, LogError>>>, StoreError> {
    if let [(key, after)] = wanted {
        return Ok(vec![one(connection, key, *after, up_to, limit).await?]);
    }
    let types: Vec<&str> = wanted
        .iter()
        .map(|(key, _)| key.aggregate_type.as_str())
        .collect();
    let ids: Vec<&str> = wanted.iter().map(|(key, _)| key.id.as_str()).collect();
    let after: Vec<i64> = wanted.iter().map(|(_, at)| at.cast_signed()).collect();
    let sql = format!(
        "select {}, ordinal from unnest($1::text[], $2::text[], $3::bigint[]) \
         with ordinality as wanted (wanted_type, wanted_id, after_sequence, ordinal) \
         cross join lateral (select * from ledger.events e where e.aggregate_type = wanted_type \
         and e.aggregate_id = wanted_id and e.sequence > after_sequence and e.position <= $4 \
         order by e.sequence limit $5) found order by ordinal, sequence",
        row::COLUMNS
    );
    let rows = sqlx::query(&sql)
        .bind(types)
        .bind(ids)
        .bind(after)
        .bind(i64::try_from(up_to.0).unwrap_or(i64::MAX))
        .bind(limit as i64)
        .fetch_all(connection)
        .await?;
    let mut found: Vec<Vec<_>> = wanted.iter().map(|_| Vec::new()).collect();
    for row in &rows {
        let ordinal: i64 = row.try_get("ordinal")?;
        let at = usize::try_from(ordinal - 1).unwrap_or_default();
        found[at].push(row::event(row));
    }
    Ok(found)
}

/// One aggregate by the statement for one: PostgreSQL keeps its plan, and makes one each time for
/// the statement for many.
async fn one(
    connection: &mut PgConnection,
    key: &AggregateKey,
    after: u64,
    up_to: Position,
    limit: usize,
) -> Result<Vec<Result<RecordedEvent, LogError>>, StoreError> {
    let sql = format!(
        "select {} from ledger.events where aggregate_type = $1 and aggregate_id = $2 \
         and sequence > $3 and position <= $4 order by sequence limit $5",
        row::COLUMNS
    );
    let rows = sqlx::query(&sql)
        .bind(key.aggregate_type.as_str())
        .bind(&key.id)
        .bind(after.cast_signed())
        .bind(i64::try_from(up_to.0).unwrap_or(i64::MAX))
        .bind(limit as i64)
        .fetch_all(connection)
        .await?;
    Ok(rows.iter().map(row::event).collect())
}

pub(super) async fn keys(
    connection: &mut PgConnection,
    after: &(String, String),
    up_to: Position,
    limit: usize,
) -> Result<Vec<(String, String)>, StoreError> {
    let rows = sqlx::query(
        "select aggregate_type, aggregate_id from ledger.events \
         where sequence = 1 and position <= $1 and (aggregate_type, aggregate_id) > ($2, $3) \
         order by aggregate_type, aggregate_id limit $4",
    )
    .bind(up_to.0.cast_signed())
    .bind(&after.0)
    .bind(&after.1)
    .bind(limit as i64)
    .fetch_all(connection)
    .await?;
    let mut keys = Vec::with_capacity(rows.len());
    for row in rows {
        keys.push((row.try_get(0)?, row.try_get(1)?));
    }
    Ok(keys)
}

pub(super) async fn known(
    connection: &mut PgConnection,
    command_ids: &[Uuid],
) -> Result<Vec<(Uuid, Known)>, StoreError> {
    let mut known = Vec::new();
    let sql = format!(
        "select {}, command_events from ledger.events \
         where command_id = any($1) and command_events > 0",
        row::COLUMNS
    );
    let rows = sqlx::query(&sql)
        .bind(command_ids)
        .fetch_all(&mut *connection)
        .await?;
    for row in rows {
        let first = Box::new(row::event(&row)?);
        let events: i32 = row.try_get("command_events")?;
        let events = events.max(1).cast_unsigned();
        known.push((first.header.command_id, Known::Effective { first, events }));
    }
    let refused = sqlx::query(
        "select command_id, problem::text from ledger.refusals where command_id = any($1)",
    )
    .bind(command_ids)
    .fetch_all(&mut *connection)
    .await?;
    for row in refused {
        let problem = problem(row.try_get(1)?)?;
        known.push((row.try_get(0)?, Known::Refused(Box::new(problem))));
    }
    Ok(known)
}

/// A stored refusal.
pub(super) fn problem(json: &str) -> Result<Problem, StoreError> {
    serde_json::from_str(json)
        .map_err(|e| StoreError::Internal(format!("a stored refusal does not parse: {e}")))
}
