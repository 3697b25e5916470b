//! Where the schemas of the Confluent-compatible registry are kept. It only stores; what may be
//! registered or deleted is decided by the API in front of it.

use sovereign_schemas::Digest;
use sqlx::postgres::PgRow;
use sqlx::{PgPool, Row as _};

use crate::{StoreError, connect};

/// Connections for the registry.
const CONNECTIONS_MAX: u32 = 2;
const COLUMNS: &str = "select s.id, v.subject, v.version, s.schema, v.deleted from \
                       ledger.registry_versions v join ledger.registry_schemas s on s.id = v.schema_id";

/// One version of one subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredSchema {
    /// Id of the text, from 1; the same in all subjects.
    pub id: u32,
    /// The subject.
    pub subject: String,
    /// From 1.
    pub version: u32,
    /// The schema, normalized.
    pub schema: String,
    /// Deleted softly.
    pub deleted: bool,
}

impl StoredSchema {
    fn from_row(row: &PgRow) -> Result<Self, StoreError> {
        Ok(Self {
            id: unsigned(row.try_get("id")?)?,
            subject: row.try_get("subject")?,
            version: unsigned(row.try_get("version")?)?,
            schema: row.try_get("schema")?,
            deleted: row.try_get("deleted")?,
        })
    }
}

fn unsigned(value: i32) -> Result<u32, StoreError> {
    u32::try_from(value).map_err(|_| StoreError::Internal(format!("registry holds number {value}")))
}

fn signed(value: u32) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}

/// The registry's tables in the ledger's database. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SchemaRegistry {
    pool: PgPool,
}

impl SchemaRegistry {
    /// Uses a ledger's database, which must be migrated. Connects when first used.
    ///
    /// # Errors
    /// [`StoreError::Config`] if the URL is none.
    pub fn connect(database: &str) -> Result<Self, StoreError> {
        Ok(Self {
            pool: connect::pool(database, "sovereign registry", CONNECTIONS_MAX)?,
        })
    }

    /// All versions of one subject, or of all (`None`), by subject and version, deleted ones
    /// included.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn versions(&self, subject: Option<&str>) -> Result<Vec<StoredSchema>, StoreError> {
        let sql = format!(
            "{COLUMNS} where $1::text is null or v.subject = $1 order by v.subject, v.version"
        );
        let rows = sqlx::query(&sql)
            .bind(subject)
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(StoredSchema::from_row).collect()
    }

    /// All versions with this id, by subject and version.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn with_id(&self, id: u32) -> Result<Vec<StoredSchema>, StoreError> {
        let sql = format!("{COLUMNS} where s.id = $1 order by v.subject, v.version");
        let rows = sqlx::query(&sql)
            .bind(signed(id))
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(StoredSchema::from_row).collect()
    }

    /// Adds version `after + 1` if `after` is the highest version of the subject, deleted ones
    /// included (0 if it has none); `None` if it is not. A text that has an id keeps it.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn append(
        &self,
        subject: &str,
        schema: &str,
        after: u32,
    ) -> Result<Option<StoredSchema>, StoreError> {
        let mut transaction = self.pool.begin().await?;
        // registrations are rare: they take turns, so that nobody's look is outdated
        sqlx::query("lock table ledger.registry_versions in share row exclusive mode")
            .execute(&mut *transaction)
            .await?;
        let highest: Option<i32> = sqlx::query_scalar(
            "select max(version) from ledger.registry_versions where subject = $1",
        )
        .bind(subject)
        .fetch_one(&mut *transaction)
        .await?;
        if unsigned(highest.unwrap_or(0))? != after {
            return Ok(None);
        }
        let digest = Digest::of(&[schema.as_bytes()]);
        sqlx::query(
            "insert into ledger.registry_schemas (schema, digest) select $1, $2 \
             where not exists (select from ledger.registry_schemas where digest = $2)",
        )
        .bind(schema)
        .bind(digest.0.as_slice())
        .execute(&mut *transaction)
        .await?;
        let id: i32 =
            sqlx::query_scalar("select id from ledger.registry_schemas where digest = $1")
                .bind(digest.0.as_slice())
                .fetch_one(&mut *transaction)
                .await?;
        let version = after + 1;
        sqlx::query(
            "insert into ledger.registry_versions (subject, version, schema_id) values ($1, $2, $3)",
        )
        .bind(subject)
        .bind(signed(version))
        .bind(id)
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(Some(StoredSchema {
            id: unsigned(id)?,
            subject: subject.to_owned(),
            version,
            schema: schema.to_owned(),
            deleted: false,
        }))
    }

    /// Deletes versions, softly or for good; those that are gone are left alone.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn delete(
        &self,
        subject: &str,
        versions: &[u32],
        for_good: bool,
    ) -> Result<(), StoreError> {
        let versions: Vec<i32> = versions.iter().copied().map(signed).collect();
        let sql = if for_good {
            "delete from ledger.registry_versions where subject = $1 and version = any($2)"
        } else {
            "update ledger.registry_versions set deleted = true \
             where subject = $1 and version = any($2)"
        };
        sqlx::query(sql)
            .bind(subject)
            .bind(versions)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// A setting of a subject, or of all (`None`).
    ///
    /// # Errors
    /// If the database fails.
    pub async fn setting(
        &self,
        setting: Setting,
        subject: Option<&str>,
    ) -> Result<Option<String>, StoreError> {
        let (table, column) = setting.place();
        let sql = format!("select {column} from ledger.{table} where subject = $1");
        let found = sqlx::query_scalar(&sql)
            .bind(subject.unwrap_or(""))
            .fetch_optional(&self.pool)
            .await?;
        Ok(found)
    }

    /// Sets or takes away a setting.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn set(
        &self,
        setting: Setting,
        subject: Option<&str>,
        value: Option<&str>,
    ) -> Result<(), StoreError> {
        let (table, column) = setting.place();
        let subject = subject.unwrap_or("");
        match value {
            Some(value) => {
                let sql = format!(
                    "insert into ledger.{table} (subject, {column}) values ($1, $2) \
                     on conflict (subject) do update set {column} = $2"
                );
                sqlx::query(&sql)
                    .bind(subject)
                    .bind(value)
                    .execute(&self.pool)
                    .await?;
            }
            None => {
                let sql = format!("delete from ledger.{table} where subject = $1");
                sqlx::query(&sql).bind(subject).execute(&self.pool).await?;
            }
        }
        Ok(())
    }
}

/// What can be set for a subject or for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setting {
    /// The compatibility level.
    Compatibility,
    /// Whether it may be written to.
    Mode,
}

impl Setting {
    const fn place(self) -> (&'static str, &'static str) {
        match self {
            Self::Compatibility => ("registry_config", "compatibility"),
            Self::Mode => ("registry_mode", "mode"),
        }
    }
}
