use std::marker::PhantomData;

use async_trait::async_trait;
use sqlx::{Connection as _, Executor as _, PgConnection};

use crate::database::Database;
use crate::port::{Checkpoint, Role, ViewDatabase};
use crate::store;
use crate::table::{Stored, select_by_keys, upsert};
use crate::{DatabaseError, View};

/// The connection of one build. After any error it is given up, because nobody knows then what the
/// server has done; the next request makes a new one.
#[derive(Debug)]
pub(super) struct Session<V> {
    database: Database,
    connection: Option<PgConnection>,
    generation: i64,
    select: String,
    upsert: String,
    view: PhantomData<V>,
}

impl<V: View> Session<V>
where
    V::Row: Stored<Key = V::Key>,
{
    pub(super) fn new(database: Database, generation: i64) -> Self {
        let table = store::table(V::NAME, V::VERSION, generation);
        Self {
            database,
            connection: None,
            generation,
            select: select_by_keys::<V::Row>(&table),
            upsert: upsert::<V::Row>(&table),
            view: PhantomData,
        }
    }

    /// Takes the connection out, so that it is gone if the request does not come to its end.
    async fn open(&mut self) -> Result<PgConnection, DatabaseError> {
        if let Some(connection) = self.connection.take() {
            return Ok(connection);
        }
        let mut connection = self.database.connect().await?;
        // Rows and checkpoint are lost together or not at all, and the ledger has them: a crash of
        // the server costs a few batches folded again, a flush would be paid at every batch.
        let relaxed = connection.execute(sqlx::raw_sql("SET synchronous_commit = off"));
        self.database.within("connecting", relaxed).await?;
        Ok(connection)
    }
}

#[async_trait]
impl<V: View> ViewDatabase<V> for Session<V>
where
    V::Row: Stored<Key = V::Key>,
{
    async fn checkpoint(&mut self) -> Result<Option<Checkpoint>, DatabaseError> {
        let mut connection = self.open().await?;
        let find = store::find(&mut connection, V::NAME, V::VERSION, self.generation);
        let found = self.database.within("reading a checkpoint", find).await?;
        self.connection = Some(connection);
        Ok(found.map(|build| build.checkpoint()))
    }

    async fn rows(&mut self, keys: &[V::Key]) -> Result<Vec<V::Row>, DatabaseError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let mut connection = self.open().await?;
        let query = V::Row::bind_keys(sqlx::query(&self.select), keys);
        let found = self
            .database
            .within("reading rows", connection.fetch_all(query))
            .await?;
        let rows: Result<Vec<V::Row>, sqlx::Error> = found.iter().map(V::Row::read).collect();
        let rows = rows?;
        self.connection = Some(connection);
        Ok(rows)
    }

    async fn commit(
        &mut self,
        from: &Checkpoint,
        to: &Checkpoint,
        rows: &[V::Row],
    ) -> Result<Option<Checkpoint>, DatabaseError> {
        let mut connection = self.open().await?;
        let switches = from.role == Role::Next && to.role == Role::Serving;
        let work = async {
            let mut transaction = connection.begin().await?;
            // before any row is locked, as all who switch do
            let switches = switches && store::try_lock(&mut transaction, V::NAME).await?;
            let build = (V::NAME, V::VERSION);
            let Some(mut now) = store::advance(&mut transaction, build, from, to).await? else {
                transaction.rollback().await?;
                return Ok(None);
            };
            if !rows.is_empty() {
                let query = V::Row::bind(sqlx::query(&self.upsert), rows);
                transaction.execute(query).await?;
            }
            if switches && store::take_over(&mut transaction, build, &now).await? {
                now.role = Role::Serving;
            }
            transaction.commit().await?;
            Ok(Some(now))
        };
        let moved = self.database.within("writing rows", work).await?;
        self.connection = Some(connection);
        Ok(moved)
    }
}
