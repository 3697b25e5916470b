use std::sync::Arc;

use async_trait::async_trait;
use sovereign_schemas::chain::Head;
use sovereign_schemas::{
    AggregateType, Cursor, DepartmentId, Digest, EventLog, LogError, Position, RecordedEvent,
    Timestamp,
};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, PgPool, Row as _};

use crate::shared::Shared;
use crate::{StoreError, connect, flush, row};

/// Most rows of one query: bounds the memory of a page.
const PAGE_ROWS_MAX: usize = 10_000;
/// Positions looked through by one query of a filtered read.
const FILTER_WINDOW: u64 = 50_000;

/// Reads the ledger, up to what is durable. Cheap to clone.
#[derive(Debug, Clone)]
pub struct LedgerReader {
    pub(crate) pool: PgPool,
    pub(crate) shared: Arc<Shared>,
}

/// Which events a filtered read keeps.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Of this department only.
    pub department: Option<DepartmentId>,
    /// Of this aggregate type only.
    pub aggregate_type: Option<AggregateType>,
    /// Of the aggregate with this id only.
    pub aggregate_id: Option<String>,
}

impl LedgerReader {
    /// For a process that does not write. Connects when first used, with at most
    /// `connections_max` connections.
    ///
    /// # Errors
    /// [`StoreError::Config`] if the URL is none.
    pub fn connect(database: &str, connections_max: u32) -> Result<Self, StoreError> {
        let pool = connect::pool(database, "sovereign reader", connections_max)?;
        Ok(Self {
            pool,
            shared: Shared::new(0, 0),
        })
    }

    /// The ledger as the one read port.
    #[must_use]
    pub fn log(&self) -> LedgerLog {
        LedgerLog {
            reader: self.clone(),
        }
    }

    /// The last durable event.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn head(&self) -> Result<Head, StoreError> {
        let mut connection = self.pool.acquire().await?;
        let head = stored_head(&mut connection).await?;
        if head.position > self.shared.flushed().position {
            flush::wait(&mut connection).await?;
            self.shared.advance(head);
        }
        Ok(head)
    }

    /// The first position recorded at or after `time`; the one after the head if there is none.
    ///
    /// # Errors
    /// If the database fails or a row is missing.
    pub async fn position_at(&self, time: Timestamp) -> Result<Position, StoreError> {
        // recorded times never fall from one position to the next, and positions are dense: about
        // thirty look-ups by primary key, and no index that each append would have to keep
        let (mut low, mut high) = (1, self.head().await?.position.0 + 1);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.recorded_at(Position(middle)).await? < time {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(Position(low))
    }

    async fn recorded_at(&self, position: Position) -> Result<Timestamp, StoreError> {
        let found: Option<i64> =
            sqlx::query_scalar("select recorded_at_us from ledger.events where position = $1")
                .bind(position.0.cast_signed())
                .fetch_optional(&self.pool)
                .await?;
        let found = found.ok_or(LogError::Gap {
            expected: position,
            found: position.next(),
        })?;
        Ok(Timestamp(found))
    }

    /// The events of one aggregate after `after_sequence` (0 for all), by sequence, at most
    /// `limit`.
    ///
    /// # Errors
    /// If the database fails or a row is no event.
    pub async fn read_aggregate(
        &self,
        aggregate_type: AggregateType,
        aggregate_id: &str,
        after_sequence: u64,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, StoreError> {
        let mut connection = self.pool.acquire().await?;
        let sql = format!(
            "select {} from ledger.events where aggregate_type = $1 and aggregate_id = $2 \
             and sequence > $3 order by sequence limit $4",
            row::COLUMNS
        );
        let rows = sqlx::query(&sql)
            .bind(aggregate_type.as_str())
            .bind(aggregate_id)
            .bind(after_sequence.cast_signed())
            .bind(page(limit))
            .fetch_all(&mut *connection)
            .await?;
        Ok(self.durable(&mut connection, events(&rows)?).await?)
    }

    /// The next events after `after` that pass the filter, and how far was looked: the returned
    /// position is where to go on, and the end of the ledger is reached when it is the head's.
    /// Looks through at most 50,000 positions, so it may return nothing before the end.
    ///
    /// # Errors
    /// If the database fails or a row is no event.
    pub async fn read_filtered(
        &self,
        after: Position,
        limit: usize,
        filter: &Filter,
    ) -> Result<(Vec<RecordedEvent>, Position), StoreError> {
        let head = self.head().await?.position;
        let last = Position(after.0.saturating_add(FILTER_WINDOW).min(head.0));
        if last <= after {
            return Ok((Vec::new(), after));
        }
        let sql = format!(
            "select {} from ledger.events where position > $1 and position <= $2 \
             and ($3::integer is null or department = $3) \
             and ($4::text is null or aggregate_type = $4) \
             and ($5::text is null or aggregate_id = $5) order by position limit $6",
            row::COLUMNS
        );
        let rows = sqlx::query(&sql)
            .bind(after.0.cast_signed())
            .bind(last.0.cast_signed())
            .bind(filter.department.map(|d| i32::from(d.0)))
            .bind(filter.aggregate_type.map(AggregateType::as_str))
            .bind(filter.aggregate_id.as_deref())
            .bind(page(limit))
            .fetch_all(&self.pool)
            .await?;
        let found = events(&rows)?;
        let full = rows.len() >= limit.clamp(1, PAGE_ROWS_MAX);
        let reached = found
            .last()
            .filter(|_| full)
            .map_or(last, RecordedEvent::position);
        Ok((found, reached))
    }

    /// Passes the events on once they are durable.
    async fn durable(
        &self,
        connection: &mut PgConnection,
        events: Vec<RecordedEvent>,
    ) -> Result<Vec<RecordedEvent>, LogError> {
        if let Some(newest) = events.iter().max_by_key(|e| e.position())
            && newest.position() > self.shared.flushed().position
        {
            flush::wait(connection).await?;
            self.shared.advance(Head {
                position: newest.position(),
                hash: newest.hash,
            });
        }
        Ok(events)
    }

    /// Rows by position whether they are durable or not, for the writer, which must build on what
    /// other writers have committed.
    pub(crate) async fn committed(
        &self,
        after: Position,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, LogError> {
        let mut connection = self.pool.acquire().await.map_err(StoreError::from)?;
        page_after(&mut connection, after, limit).await
    }

    async fn read(&self, after: Position, limit: usize) -> Result<Vec<RecordedEvent>, LogError> {
        let mut connection = self.pool.acquire().await.map_err(StoreError::from)?;
        // the head first: every row up to it was committed with it
        let head = stored_head(&mut connection).await?;
        let mut found = page_after(&mut connection, after, limit).await?;
        let dense = found
            .iter()
            .zip(after.0 + 1..)
            .take_while(|(event, expected)| event.position().0 == *expected)
            .count();
        let expected = Position(after.0 + dense as u64 + 1);
        let next = found.get(dense).map(RecordedEvent::position);
        let ended = found.len() < limit.clamp(1, PAGE_ROWS_MAX);
        if dense == 0 {
            if let Some(found) = next {
                return Err(LogError::Gap { expected, found });
            }
            if ended && head.position >= expected {
                return Err(LogError::Gap {
                    expected,
                    found: head.position,
                });
            }
        }
        found.truncate(dense);
        self.durable(&mut connection, found).await
    }
}

/// The ledger in position order.
#[derive(Debug, Clone)]
pub struct LedgerLog {
    reader: LedgerReader,
}

#[async_trait]
impl EventLog for LedgerLog {
    async fn read(
        &mut self,
        after: Cursor,
        limit: usize,
    ) -> Result<(Vec<RecordedEvent>, Cursor), LogError> {
        let events = self.reader.read(after.position, limit).await?;
        let cursor = events.last().map_or(after, |e| e.position().into());
        Ok((events, cursor))
    }
}

fn page(limit: usize) -> i64 {
    limit.clamp(1, PAGE_ROWS_MAX) as i64
}

async fn page_after(
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
        .bind(page(limit))
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

/// The head row as it stands, durable or not.
pub(crate) async fn stored_head(connection: &mut PgConnection) -> Result<Head, StoreError> {
    let found = sqlx::query("select position, hash from ledger.head")
        .fetch_optional(connection)
        .await?
        .ok_or_else(|| StoreError::Internal("ledger.head has no row".to_owned()))?;
    head_of(&found)
}

pub(crate) fn head_of(found: &PgRow) -> Result<Head, StoreError> {
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
