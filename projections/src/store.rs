use std::time::Duration;

use serde::Serialize;
use sovereign_schemas::{Digest, Position};
use sqlx::postgres::PgRow;
use sqlx::{Connection as _, Executor as _, PgConnection, Postgres, Row as _, Transaction};

use crate::database::Database;
use crate::table::Stored;
use crate::views::with_view;
use crate::{DatabaseError, ProjectionError, View};

/// Applied in order, each once; never changed after a release.
const MIGRATIONS: &[&str] = &[include_str!("../migrations/0001_views.sql")];

/// `pg_advisory_xact_lock` key of migrations: "views" in ASCII.
const MIGRATION_LOCK: i64 = 0x76_69_65_77_73;

/// Rebuilding may have many rows to delete.
const ADMIN_TIMEOUT: Duration = Duration::from_mins(5);

/// How far a view has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Checkpoint {
    /// Last position folded; 0 before the first.
    pub position: Position,
    /// Hash of the event there; all zero at position 0.
    pub hash: Digest,
    /// How often the view was rebuilt. Tells a view that was rebuilt up to the same position from
    /// one that never moved.
    pub generation: i64,
}

impl Checkpoint {
    fn read(row: &PgRow) -> Result<Self, sqlx::Error> {
        let wrong = |index: &str, source| sqlx::Error::ColumnDecode {
            index: index.to_owned(),
            source,
        };
        let position: i64 = row.try_get("position")?;
        let position = u64::try_from(position).map_err(|e| wrong("position", e.into()))?;
        let hash: Vec<u8> = row.try_get("hash")?;
        let hash = <[u8; 32]>::try_from(hash.as_slice()).map_err(|e| wrong("hash", e.into()))?;
        Ok(Self {
            position: Position(position),
            hash: Digest(hash),
            generation: row.try_get("generation")?,
        })
    }

    /// Of a view in the version of this build.
    pub(crate) async fn find<V: View>(
        connection: &mut PgConnection,
    ) -> Result<Option<Self>, sqlx::Error> {
        let query = sqlx::query(
            "SELECT position, hash, generation FROM views.checkpoints \
             WHERE view = $1 AND version = $2",
        )
        .bind(V::NAME)
        .bind(V::VERSION.cast_signed());
        let row = connection.fetch_optional(query).await?;
        row.as_ref().map(Self::read).transpose()
    }

    /// Moves it if it still stands at `self` (compare and set). The row stays locked until the
    /// transaction ends, so two processes cannot write one view at a time.
    pub(crate) async fn advance<V: View>(
        &self,
        transaction: &mut Transaction<'_, Postgres>,
        to: &Self,
    ) -> Result<bool, sqlx::Error> {
        let query = sqlx::query(
            "UPDATE views.checkpoints SET position = $5, hash = $6, updated_at = now() \
             WHERE view = $1 AND version = $2 AND position = $3 AND generation = $4",
        )
        .bind(V::NAME)
        .bind(V::VERSION.cast_signed())
        .bind(self.position.0.cast_signed())
        .bind(self.generation)
        .bind(to.position.0.cast_signed())
        .bind(&to.hash.0[..]);
        Ok(transaction.execute(query).await?.rows_affected() == 1)
    }
}

/// Owns the tables: makes them, empties them.
#[derive(Debug, Clone)]
pub struct ViewsStore {
    database: Database,
}

impl ViewsStore {
    /// A store at a database; connects when it is asked for something.
    ///
    /// # Errors
    /// [`ProjectionError::DatabaseUrl`].
    pub fn new(database_url: &str) -> Result<Self, ProjectionError> {
        Ok(Self {
            database: Database::new(database_url, ADMIN_TIMEOUT)?,
        })
    }

    /// Makes or upgrades schema `views`, in one transaction and under a lock that other processes
    /// respect. Does nothing if all is there.
    ///
    /// # Errors
    /// [`ProjectionError::SchemaTooNew`] if a newer build was here; nothing is changed then.
    /// [`ProjectionError::Database`].
    pub async fn migrate(&self) -> Result<(), ProjectionError> {
        let mut connection = self.database.connect().await?;
        let work = Self::migrate_in(&mut connection);
        tokio::time::timeout(self.database.timeout(), work)
            .await
            .map_err(|_| DatabaseError::timed_out("migrating views", ADMIN_TIMEOUT.as_secs_f64()))?
    }

    async fn migrate_in(connection: &mut PgConnection) -> Result<(), ProjectionError> {
        let mut transaction = connection.begin().await?;
        let lock = sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(MIGRATION_LOCK);
        transaction.execute(lock).await?;
        let base = "SET LOCAL client_min_messages = warning; \
             CREATE SCHEMA IF NOT EXISTS views; \
             CREATE TABLE IF NOT EXISTS views.migrations (\
                 version integer PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())";
        transaction.execute(sqlx::raw_sql(base)).await?;
        let newest = "SELECT coalesce(max(version), 0) FROM views.migrations";
        let found: i32 = transaction.fetch_one(newest).await?.try_get(0)?;
        let known = MIGRATIONS.len() as i32;
        if found > known {
            return Err(ProjectionError::SchemaTooNew { found, known });
        }
        for (version, sql) in (1..).zip(MIGRATIONS).skip(found.unsigned_abs() as usize) {
            transaction.execute(sqlx::raw_sql(sql)).await?;
            let applied = sqlx::query("INSERT INTO views.migrations (version) VALUES ($1)");
            transaction.execute(applied.bind(version)).await?;
            tracing::info!(version, "views migrated");
        }
        transaction.commit().await?;
        Ok(())
    }

    /// Empties a view and sets its checkpoint to 0, in one transaction. Whoever runs the view
    /// folds it again from the first event.
    ///
    /// # Errors
    /// [`ProjectionError::UnknownView`], [`ProjectionError::NotMigrated`] or
    /// [`ProjectionError::Database`].
    pub async fn rebuild(&self, view: &str) -> Result<(), ProjectionError> {
        with_view!(view, V => self.rebuild_view::<V>().await)?
    }

    async fn rebuild_view<V: View>(&self) -> Result<(), ProjectionError>
    where
        V::Row: Stored,
    {
        let mut connection = self.database.connect().await?;
        let work = async {
            let mut transaction = connection.begin().await?;
            // the checkpoint first, as projectors do, so that nobody deadlocks
            let query = sqlx::query(
                "UPDATE views.checkpoints SET position = 0, hash = $3, \
                 generation = generation + 1, updated_at = now() \
                 WHERE view = $1 AND version = $2",
            )
            .bind(V::NAME)
            .bind(V::VERSION.cast_signed())
            .bind(&Digest::ZERO.0[..]);
            let moved = transaction.execute(query).await?;
            // not TRUNCATE: readers with an older snapshot must go on to see the rows that belong
            // to its checkpoint
            transaction
                .execute(&*format!("DELETE FROM {}", V::Row::TABLE))
                .await?;
            transaction.commit().await?;
            Ok(moved.rows_affected() == 1)
        };
        if !self.database.within("rebuilding a view", work).await? {
            return Err(ProjectionError::NotMigrated {
                view: V::NAME,
                version: V::VERSION,
            });
        }
        tracing::info!(view = V::NAME, "view emptied, to be rebuilt");
        Ok(())
    }

    /// How far a view has come.
    ///
    /// # Errors
    /// As [`Self::rebuild`].
    pub async fn checkpoint(&self, view: &str) -> Result<Checkpoint, ProjectionError> {
        let mut connection = self.database.connect().await?;
        with_view!(view, V => {
            let find = Checkpoint::find::<V>(&mut connection);
            let found = self.database.within("reading a checkpoint", find).await?;
            found.ok_or(ProjectionError::NotMigrated { view: V::NAME, version: V::VERSION })
        })?
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::ddl;
    use crate::{AgentRow, ApprovalRow, DepartmentRow, TradeRow};

    #[test]
    fn migrations_hold_the_tables_that_the_rows_need() {
        for table in [
            ddl::<AgentRow>(),
            ddl::<TradeRow>(),
            ddl::<ApprovalRow>(),
            ddl::<DepartmentRow>(),
        ] {
            assert!(
                MIGRATIONS.iter().any(|m| m.contains(&table)),
                "missing:\n{table}"
            );
        }
    }
}
