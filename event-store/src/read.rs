use std::sync::Arc;

use async_trait::async_trait;
use sovereign_schemas::chain::Head;
use sovereign_schemas::{
    AggregateType, Cursor, EventLog, LogError, Position, RecordedEvent, Timestamp, Uuid,
};

use crate::port::{AggregateKey, Database, Filter, SystemClock};
use crate::postgres::Postgres;
use crate::shared::Shared;
use crate::stretch::{STRETCH_MIN, Stretch};
use crate::{Durability, StoreError};

/// Most rows of one query: bounds the memory of a page.
const PAGE_ROWS_MAX: usize = 10_000;
/// Who asks for less at once is not read ahead for.
const READ_ON_LIMIT_MIN: usize = 256;
/// Positions looked through by one query of a filtered read.
const FILTER_WINDOW: u64 = 50_000;

/// Reads the ledger, up to what is durable. Cheap to clone.
#[derive(Debug, Clone)]
pub struct LedgerReader {
    pub(crate) database: Arc<dyn Database>,
    pub(crate) shared: Arc<Shared>,
}

impl LedgerReader {
    /// For a process that does not write. Connects when first used, with at most
    /// `connections_max` connections.
    ///
    /// # Errors
    /// [`StoreError::Config`] if the URL is none.
    pub fn connect(database: &str, connections_max: u32) -> Result<Self, StoreError> {
        let database = Postgres::new(database, connections_max, Durability::default())?;
        Ok(Self {
            database: Arc::new(database),
            shared: Shared::new(0, 0, Arc::new(SystemClock)),
        })
    }

    /// The ledger as the one read port.
    #[must_use]
    pub fn log(&self) -> LedgerLog {
        LedgerLog {
            reader: self.clone(),
            reads_on: None,
            stretch: None,
        }
    }

    /// The last durable event.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn head(&self) -> Result<Head, StoreError> {
        let head = self.database.head(self.shared.flushed().position).await?;
        self.shared.advance(head);
        Ok(head)
    }

    /// Tells this ledger from every other; the same for all who use it, and in its backups.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn identity(&self) -> Result<Uuid, StoreError> {
        self.database.identity().await
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
        let found = self.database.event(position).await?;
        let found = found.ok_or(LogError::Gap {
            expected: position,
            found: position.next(),
        })?;
        Ok(found.header.recorded_at)
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
        let key = AggregateKey {
            aggregate_type,
            id: aggregate_id.to_owned(),
        };
        let wanted = [(key, after_sequence)];
        let durable = self.shared.flushed().position;
        let mut found = self
            .database
            .histories(&wanted, page(limit), durable)
            .await?;
        let mut events = Vec::new();
        for event in found.pop().unwrap_or_default() {
            match event {
                Ok(event) => events.push(event),
                Err(error) if events.is_empty() => return Err(error.into()),
                // the good ones first; the next page starts with the error
                Err(_) => break,
            }
        }
        Ok(events)
    }

    /// The first event of each of these aggregates, in the order in which they are wanted.
    ///
    /// # Errors
    /// If the database fails or a row is no event.
    pub async fn read_first(
        &self,
        wanted: &[(AggregateType, String)],
    ) -> Result<Vec<Option<RecordedEvent>>, StoreError> {
        let key = |(aggregate_type, id): &(AggregateType, String)| AggregateKey {
            aggregate_type: *aggregate_type,
            id: id.clone(),
        };
        let wanted: Vec<_> = wanted.iter().map(|each| (key(each), 0)).collect();
        let durable = self.shared.flushed().position;
        let found = self.database.histories(&wanted, 1, durable).await?;
        let first = found.into_iter().map(|events| events.into_iter().next());
        Ok(first.map(Option::transpose).collect::<Result<_, _>>()?)
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
        let found = self
            .database
            .filtered(after, last, page(limit), filter)
            .await?;
        let full = found.len() >= page(limit);
        let reached = found
            .last()
            .filter(|_| full)
            .map_or(last, RecordedEvent::position);
        Ok((found, reached))
    }

    async fn read(&self, after: Position, limit: usize) -> Result<Vec<RecordedEvent>, LogError> {
        let limit = page(limit);
        let durable = self.shared.flushed().position;
        let (mut found, head) = self.database.page(after, limit, durable).await?;
        let dense = found
            .iter()
            .zip(after.0 + 1..)
            .take_while(|(event, expected)| event.position().0 == *expected)
            .count();
        let expected = Position(after.0 + dense as u64 + 1);
        let next = found.get(dense).map(RecordedEvent::position);
        let ended = found.len() < limit;
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
        if let Some(newest) = found.last() {
            self.shared.advance(Head {
                position: newest.position(),
                hash: newest.hash,
            });
        }
        Ok(found)
    }
}

/// The ledger in position order. Whoever reads on through many events is read ahead for.
#[derive(Debug)]
pub struct LedgerLog {
    reader: LedgerReader,
    /// Where the last read ended, if it found all that it may find at once.
    reads_on: Option<Position>,
    stretch: Option<Stretch>,
}

impl Clone for LedgerLog {
    /// Another place to read from; what was read ahead stays with the first.
    fn clone(&self) -> Self {
        self.reader.log()
    }
}

impl LedgerLog {
    async fn read_on(
        &mut self,
        after: Position,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, LogError> {
        if self.stretch.as_ref().is_none_or(|s| s.after != after) {
            self.stretch = None;
            // a second read in a row will hardly be the last
            if self.reads_on == Some(after) && limit >= READ_ON_LIMIT_MIN {
                let head = self.reader.head().await?.position;
                if head.0.saturating_sub(after.0) >= STRETCH_MIN {
                    let batches = self.reader.database.ahead(after, head);
                    self.stretch = batches.map(|batches| Stretch::new(batches, after, head));
                }
            }
        }
        if let Some(stretch) = &mut self.stretch {
            match stretch.next(limit).await {
                Ok(events) if events.is_empty() => self.stretch = None,
                Ok(events) => return Ok(events),
                Err(error) => {
                    self.stretch = None;
                    return Err(error);
                }
            }
        }
        self.reader.read(after, limit).await
    }
}

#[async_trait]
impl EventLog for LedgerLog {
    async fn read(
        &mut self,
        after: Cursor,
        limit: usize,
    ) -> Result<(Vec<RecordedEvent>, Cursor), LogError> {
        let events = self.read_on(after.position, limit).await?;
        let cursor: Cursor = events.last().map_or(after, |e| e.position().into());
        let full = events.len() >= limit.clamp(1, PAGE_ROWS_MAX);
        // within a stretch a read may give less, and goes on all the same
        self.reads_on = (full || self.stretch.is_some()).then_some(cursor.position);
        Ok((events, cursor))
    }
}

fn page(limit: usize) -> usize {
    limit.clamp(1, PAGE_ROWS_MAX)
}
