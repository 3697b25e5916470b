use std::marker::PhantomData;

use sqlx::{Connection as _, Executor as _, PgConnection};

use crate::database::Database;
use crate::store::Checkpoint;
use crate::table::{Stored, select_by_keys, upsert};
use crate::{DatabaseError, View};

/// One view's connection. After any error it is given up, because nobody knows then what the
/// server has done; the next request makes a new one.
#[derive(Debug)]
pub(super) struct Session<V> {
    database: Database,
    connection: Option<PgConnection>,
    select: String,
    upsert: String,
    view: PhantomData<V>,
}

impl<V: View> Session<V>
where
    V::Row: Stored<Key = V::Key>,
{
    pub(super) fn new(database: Database) -> Self {
        Self {
            database,
            connection: None,
            select: select_by_keys::<V::Row>(),
            upsert: upsert::<V::Row>(),
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

    pub(super) async fn checkpoint(&mut self) -> Result<Option<Checkpoint>, DatabaseError> {
        let mut connection = self.open().await?;
        let find = Checkpoint::find::<V>(&mut connection);
        let found = self.database.within("reading a checkpoint", find).await?;
        self.connection = Some(connection);
        Ok(found)
    }

    /// The rows that exist of those with these keys.
    pub(super) async fn rows(&mut self, keys: &[V::Key]) -> Result<Vec<V::Row>, DatabaseError> {
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

    /// Writes rows and moves the checkpoint in one transaction, if it still stands at `from`;
    /// `false` if it does not, and then nothing is written.
    pub(super) async fn commit(
        &mut self,
        from: &Checkpoint,
        to: &Checkpoint,
        rows: &[V::Row],
    ) -> Result<bool, DatabaseError> {
        let mut connection = self.open().await?;
        let work = async {
            let mut transaction = connection.begin().await?;
            if !from.advance::<V>(&mut transaction, to).await? {
                transaction.rollback().await?;
                return Ok(false);
            }
            if !rows.is_empty() {
                let query = V::Row::bind(sqlx::query(&self.upsert), rows);
                transaction.execute(query).await?;
            }
            transaction.commit().await?;
            Ok(true)
        };
        let moved = self.database.within("writing rows", work).await?;
        self.connection = Some(connection);
        Ok(moved)
    }
}
