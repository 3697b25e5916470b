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

    /// Saves positions, all or none; one that is behind the saved one changes nothing.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn save(&self, positions: &[(String, Position)]) -> Result<(), StoreError> {
        // in one order everywhere, so that two engines do not wait for each other in a circle
        let mut sorted: Vec<&(String, Position)> = positions.iter().collect();
        sorted.sort();
        let names: Vec<&str> = sorted.iter().map(|(name, _)| name.as_str()).collect();
        let places: Vec<i64> = sorted.iter().map(|(_, p)| p.0.cast_signed()).collect();
        sqlx::query(
            "insert into ledger.checkpoints as c (name, position) \
             select * from unnest($1::text[], $2::bigint[]) \
             on conflict (name) do update set position = excluded.position \
             where c.position < excluded.position",
        )
        .bind(names)
        .bind(places)
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}
