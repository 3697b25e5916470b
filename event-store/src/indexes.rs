//! Whether the ledger's indexes say what its rows say.
//!
//! Aggregates are loaded, repeats are found and positions are read through three unique indexes. An
//! index that has lost entries (a broken disk, a collation that changed, somebody with rights on the
//! catalogue) makes the ledger answer wrongly although every row is whole.

use std::collections::BTreeMap;

use sovereign_schemas::Position;
use sqlx::{Executor as _, PgConnection, Row as _};

use crate::{StoreError, connect};

/// Positions that are compared as one number at first.
const BUCKET: i64 = 65_536;

/// One index of `ledger.events`.
struct Index {
    name: &'static str,
    /// Which rows it holds.
    rows: &'static str,
    /// Its own order.
    order: &'static str,
}

const INDEXES: [Index; 3] = [
    Index {
        name: "events_position",
        rows: "true",
        order: "position",
    },
    Index {
        name: "events_sequence",
        rows: "true",
        order: "aggregate_id, aggregate_type, sequence",
    },
    Index {
        name: "events_command",
        rows: "command_events > 0",
        order: "command_id",
    },
];

/// An index that disagrees with the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexDifference {
    /// The first event that only one of them has; 1 if the index is missing as a whole.
    pub position: Position,
    /// Its name.
    pub index: &'static str,
    /// What the table says.
    pub by_scan: String,
    /// What the index says.
    pub by_index: String,
}

/// Number and sum of hashes of the positions in each bucket.
type Buckets = BTreeMap<i64, (i64, String)>;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Scan,
    Index,
}

/// Reads a ledger's table once by scan and once by each index, in one snapshot, and compares which
/// events are there. Takes about as long as reading the ledger four times.
///
/// # Errors
/// If the database cannot be reached or fails.
pub async fn check_indexes(database: &str) -> Result<Option<IndexDifference>, StoreError> {
    let server = connect::options(database, "sovereign verify")?;
    let mut connection = connect::connect(&server).await?;
    connection
        .execute("begin isolation level repeatable read, read only")
        .await?;
    let checked = check(&mut connection).await;
    connection.execute("rollback").await?;
    checked
}

async fn check(connection: &mut PgConnection) -> Result<Option<IndexDifference>, StoreError> {
    let mut first: Option<IndexDifference> = None;
    for index in &INDEXES {
        let found = check_one(connection, index).await?;
        first = match (first, found) {
            (Some(known), Some(new)) if new.position < known.position => Some(new),
            (None, new) => new,
            (known, _) => known,
        };
    }
    Ok(first)
}

async fn check_one(
    connection: &mut PgConnection,
    index: &Index,
) -> Result<Option<IndexDifference>, StoreError> {
    let usable: Option<bool> = sqlx::query_scalar(
        "select i.indisunique and i.indisvalid and i.indisready and i.indislive from pg_index i \
         join pg_class c on c.oid = i.indexrelid \
         where i.indrelid = 'ledger.events'::regclass and c.relname = $1",
    )
    .bind(index.name)
    .fetch_optional(&mut *connection)
    .await?;
    let differs = |position: i64, by_scan: &str, by_index: &str| IndexDifference {
        position: Position(position.cast_unsigned()),
        index: index.name,
        by_scan: by_scan.to_owned(),
        by_index: by_index.to_owned(),
    };
    match usable {
        None => return Ok(Some(differs(1, "a unique index", "no such index"))),
        Some(false) => return Ok(Some(differs(1, "a unique index", "an index out of use"))),
        Some(true) => {}
    }
    let by_scan = buckets(connection, index, Way::Scan).await?;
    let by_index = buckets(connection, index, Way::Index).await?;
    let all = by_scan.keys().chain(by_index.keys());
    let Some(bucket) = all.filter(|b| by_scan.get(*b) != by_index.get(*b)).min() else {
        return Ok(None);
    };
    let scanned = positions(connection, index, Way::Scan, *bucket).await?;
    let indexed = positions(connection, index, Way::Index, *bucket).await?;
    let longest = scanned.len().max(indexed.len());
    let at = (0..longest).find(|i| scanned.get(*i) != indexed.get(*i));
    Ok(at.map(|at| match (scanned.get(at), indexed.get(at)) {
        (Some(row), entry) if entry.is_none_or(|entry| row < entry) => {
            differs(*row, "the event is there", "no entry for it")
        }
        (_, entry) => differs(
            entry.copied().unwrap_or_default(),
            "no such event, or only one",
            "an entry for it",
        ),
    }))
}

/// The rows as one of the two ways gives them.
async fn rows(
    connection: &mut PgConnection,
    index: &Index,
    way: Way,
) -> Result<String, StoreError> {
    let (scan, other) = match way {
        Way::Scan => ("on", "off"),
        Way::Index => ("off", "on"),
    };
    // with sorting off, the order of an index is had only from that index
    connection
        .execute(
            format!(
                "set local enable_seqscan = {scan}; set local enable_indexscan = {other}; \
                 set local enable_indexonlyscan = {other}; set local enable_bitmapscan = off; \
                 set local enable_sort = {scan}; set local enable_incremental_sort = off"
            )
            .as_str(),
        )
        .await?;
    let order = match way {
        Way::Scan => String::new(),
        Way::Index => format!("order by {}", index.order),
    };
    Ok(format!(
        "(select position from ledger.events where {} {order} offset 0) as found",
        index.rows
    ))
}

async fn buckets(
    connection: &mut PgConnection,
    index: &Index,
    way: Way,
) -> Result<Buckets, StoreError> {
    let rows = rows(connection, index, way).await?;
    let sql = format!(
        "select position / {BUCKET}, count(*), \
         sum(hashint8extended(position, 5894)::numeric)::text from {rows} group by 1"
    );
    let mut buckets = Buckets::new();
    for row in sqlx::query(&sql)
        .persistent(false)
        .fetch_all(connection)
        .await?
    {
        buckets.insert(row.try_get(0)?, (row.try_get(1)?, row.try_get(2)?));
    }
    Ok(buckets)
}

async fn positions(
    connection: &mut PgConnection,
    index: &Index,
    way: Way,
    bucket: i64,
) -> Result<Vec<i64>, StoreError> {
    let rows = rows(connection, index, way).await?;
    let sql = format!("select position from {rows} where position / {BUCKET} = $1");
    let mut positions: Vec<i64> = sqlx::query_scalar(&sql)
        .persistent(false)
        .bind(bucket)
        .fetch_all(connection)
        .await?;
    positions.sort_unstable();
    Ok(positions)
}
