use sovereign_schemas::{Digest, ErrorCode, Problem};
use sqlx::PgPool;

use crate::{StoreError, connect};

/// At most so many bytes in one artifact: 64 MiB.
pub const ARTIFACT_BYTES_MAX: u64 = 64 << 20;

/// Public input of tasks, by digest, where every engine finds it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Artifacts {
    pool: PgPool,
}

impl Artifacts {
    /// Uses a ledger's database, which must be migrated. Connects when first used.
    ///
    /// # Errors
    /// [`StoreError::Config`] if the URL is none.
    pub fn connect(database: &str) -> Result<Self, StoreError> {
        Ok(Self {
            pool: connect::pool(database, "sovereign artifacts", 1)?,
        })
    }

    /// Keeps what has this digest; does nothing if it is kept already.
    ///
    /// # Errors
    /// [`ErrorCode::PayloadTooLarge`] above [`ARTIFACT_BYTES_MAX`], or what the database says.
    pub async fn put(&self, digest: Digest, content: &[u8]) -> Result<(), Problem> {
        if content.len() as u64 > ARTIFACT_BYTES_MAX {
            return Err(too_large(content.len()));
        }
        if self.has(digest).await.map_err(|e| e.problem())? {
            return Ok(());
        }
        sqlx::query(
            "insert into ledger.artifacts (digest, content) values ($1, $2) \
             on conflict (digest) do nothing",
        )
        .bind(&digest.0[..])
        .bind(content)
        .execute(&self.pool)
        .await
        .map_err(|e| StoreError::from(e).problem())?;
        Ok(())
    }

    async fn has(&self, digest: Digest) -> Result<bool, StoreError> {
        let found: bool =
            sqlx::query_scalar("select exists (select from ledger.artifacts where digest = $1)")
                .bind(&digest.0[..])
                .fetch_one(&self.pool)
                .await?;
        Ok(found)
    }

    /// What has this digest, if it is kept. Whoever gets it checks the digest.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn get(&self, digest: Digest) -> Result<Option<Vec<u8>>, StoreError> {
        let found = sqlx::query_scalar("select content from ledger.artifacts where digest = $1")
            .bind(&digest.0[..])
            .fetch_optional(&self.pool)
            .await?;
        Ok(found)
    }
}

fn too_large(bytes: usize) -> Problem {
    Problem::new(
        ErrorCode::PayloadTooLarge,
        "the file is too large to be kept where every engine finds it",
    )
    .found(format!("{bytes} bytes"))
    .expected(format!("at most {ARTIFACT_BYTES_MAX} bytes"))
    .remedy("compress it with gzip, or split it by instrument")
}
