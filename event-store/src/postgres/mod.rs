//! PostgreSQL as the ledger's database.

mod ahead;
mod open;
mod read;
mod wire;
mod write;

use async_trait::async_trait;
use sovereign_schemas::chain::Head;
use sovereign_schemas::{LogError, Position, RecordedEvent, Uuid};
use sqlx::postgres::PgConnectOptions;
use sqlx::{Executor as _, PgConnection, PgPool};
use tokio::sync::{Mutex, mpsc};

use crate::port::{AggregateKey, Backend, Database, Filter, Known, Opened};
use crate::{Durability, StoreError, connect, flush};

/// A ledger's database: a pool for reading, and what opens sessions for writing.
#[derive(Debug)]
pub(crate) struct Postgres {
    pool: PgPool,
    /// Loads aggregates for the appender: a pool asks each time whether the connection still
    /// lives, and a batch waits for the answer.
    loader: Mutex<Option<PgConnection>>,
    server: PgConnectOptions,
    durability: Durability,
}

impl Postgres {
    /// Connects when first used, with at most `readers_max` connections for reading.
    ///
    /// # Errors
    /// [`StoreError::Config`] if the URL is none.
    pub(crate) fn new(
        url: &str,
        readers_max: u32,
        durability: Durability,
    ) -> Result<Self, StoreError> {
        Ok(Self {
            pool: connect::pool(url, "sovereign reader", readers_max)?,
            loader: Mutex::new(None),
            server: connect::options(url, "sovereign reader")?,
            durability,
        })
    }
}

#[async_trait]
impl Database for Postgres {
    async fn open(
        &self,
        previous: Option<&Backend>,
        unknown: &[Uuid],
    ) -> Result<Opened, StoreError> {
        open::open(&self.server, self.durability, previous, unknown).await
    }

    async fn head(&self, durable: Position) -> Result<Head, StoreError> {
        // one connection for both, since none outlives a crash of the server
        let mut connection = self.pool.acquire().await?;
        let head = read::head(&mut connection).await?;
        if head.position > durable {
            flush::wait(&mut connection).await?;
        }
        Ok(head)
    }

    async fn identity(&self) -> Result<Uuid, StoreError> {
        Ok(sqlx::query_scalar("select id from ledger.identity")
            .fetch_one(&self.pool)
            .await?)
    }

    async fn page(
        &self,
        after: Position,
        limit: usize,
        durable: Position,
    ) -> Result<(Vec<RecordedEvent>, Head), LogError> {
        let mut connection = self.pool.acquire().await.map_err(StoreError::from)?;
        // the head first: every row up to it was committed with it
        let head = read::head(&mut connection).await?;
        let events = read::page(&mut connection, after, limit).await?;
        if events.last().is_some_and(|e| e.position() > durable) {
            flush::wait(&mut connection).await?;
        }
        Ok((events, head))
    }

    async fn event(&self, position: Position) -> Result<Option<RecordedEvent>, LogError> {
        let mut connection = self.pool.acquire().await.map_err(StoreError::from)?;
        read::event(&mut connection, position).await
    }

    async fn aggregates(
        &self,
        wanted: &[(AggregateKey, u64)],
        up_to: Position,
        limit: usize,
    ) -> Result<Vec<Vec<Result<RecordedEvent, LogError>>>, StoreError> {
        let mut loader = self.loader.lock().await;
        // taken out, so that one that is given up in the middle is not used again
        if let Some(mut connection) = loader.take() {
            let found = read::aggregates(&mut connection, wanted, up_to, limit).await;
            match found {
                Ok(found) => {
                    *loader = Some(connection);
                    return Ok(found);
                }
                // it may have died since it was last used
                Err(error) => tracing::debug!(%error, "loads on another connection"),
            }
        }
        let mut connection = connect::connect(&self.server).await?;
        connection.execute(connect::READING).await?;
        let found = read::aggregates(&mut connection, wanted, up_to, limit).await?;
        *loader = Some(connection);
        Ok(found)
    }

    async fn histories(
        &self,
        wanted: &[(AggregateKey, u64)],
        limit: usize,
        durable: Position,
    ) -> Result<Vec<Vec<Result<RecordedEvent, LogError>>>, StoreError> {
        // not by the writer's connection: readers must not stand in its way
        let mut connection = self.pool.acquire().await?;
        let all = Position(u64::MAX);
        let found = read::aggregates(&mut connection, wanted, all, limit).await?;
        let known = |event: &Result<RecordedEvent, LogError>| matches!(event, Ok(event) if event.position() <= durable);
        if !found.iter().flatten().all(known) {
            flush::wait(&mut connection).await?;
        }
        Ok(found)
    }

    async fn keys(
        &self,
        after: &(String, String),
        up_to: Position,
        limit: usize,
    ) -> Result<Vec<(String, String)>, StoreError> {
        read::keys(&mut *self.pool.acquire().await?, after, up_to, limit).await
    }

    async fn known(&self, command_ids: &[Uuid]) -> Result<Vec<(Uuid, Known)>, StoreError> {
        read::known(&mut *self.pool.acquire().await?, command_ids).await
    }

    async fn filtered(
        &self,
        after: Position,
        up_to: Position,
        limit: usize,
        filter: &Filter,
    ) -> Result<Vec<RecordedEvent>, LogError> {
        let mut connection = self.pool.acquire().await.map_err(StoreError::from)?;
        read::filtered(&mut connection, after, up_to, limit, filter).await
    }

    fn ahead(
        &self,
        after: Position,
        last: Position,
    ) -> Option<mpsc::Receiver<Result<Vec<RecordedEvent>, LogError>>> {
        let options = (*self.pool.connect_options()).clone();
        Some(ahead::start(options, after, last))
    }
}
