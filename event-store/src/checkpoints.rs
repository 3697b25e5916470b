use sovereign_schemas::Position;
use sqlx::PgPool;

use crate::{StoreError, connect};

/// Remembers by name how far a part has come that reacts to events. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Checkpoints {
    pool: PgPool,
}

impl Checkpoints {
    /// Uses a ledger's database, which must be migrated. Connects when first used.
    ///
    /// # Errors
    /// [`StoreError::Config`] if the URL is none.
    pub fn connect(database: &str) -> Result<Self, StoreError> {
        Ok(Self {
            pool: connect::pool(database, "sovereign checkpoints", 1)?,
        })
    }

    /// The last saved position; 0 if none was.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn load(&self, name: &str) -> Result<Position, StoreError> {
        let found: Option<i64> =
            sqlx::query_scalar("select position from ledger.checkpoints where name = $1")
                .bind(name)
                .fetch_optional(&self.pool)
                .await?;
        Ok(Position(found.unwrap_or(0).cast_unsigned()))
    }

    /// Saves a position; one that is behind the saved one changes nothing.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn save(&self, name: &str, position: Position) -> Result<(), StoreError> {
        sqlx::query(
            "insert into ledger.checkpoints as c (name, position) values ($1, $2) \
             on conflict (name) do update set position = greatest(c.position, $2)",
        )
        .bind(name)
        .bind(position.0.cast_signed())
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}
