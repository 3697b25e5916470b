//! The rows of `views.checkpoints`, and the switch from one build to another.

use serde::Serialize;
use sovereign_schemas::{Digest, Position};
use sqlx::postgres::PgRow;
use sqlx::{Connection as _, Executor as _, PgConnection, Row as _};

use crate::Definition;
use crate::port::{Checkpoint, Role};

/// First key of `pg_advisory_xact_lock` for whatever makes, switches or drops builds of one view;
/// the second is a hash of its name. "view" in ASCII.
const VIEW_LOCK: i32 = 0x76_69_65_77;

/// How long a switch waits for those who read the SQL view in a transaction of their own; others
/// who want to read it wait as long.
const SWITCH_WAIT: &str = "SET LOCAL lock_timeout = '1s'";

const COLUMNS: &str = "view, version, generation, position, hash, serving, next, \
     extract(epoch FROM now() - replaced_at)::float8 AS replaced_s";

/// One build of a view: its rows as of one version of the view, from one run over the ledger.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Build {
    /// The view.
    pub view: String,
    /// Its version.
    pub version: u32,
    /// 0 for the first build of this version; each rebuild is one more.
    pub generation: i64,
    /// What it is there for.
    pub role: Role,
    /// Every event up to here is in its rows, and none after it.
    pub position: Position,
    /// Hash of the event there; all zero at position 0.
    pub hash: Digest,
    /// For how many seconds it has not served any more, if it was replaced or given up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replaced_s: Option<f64>,
}

impl Build {
    /// The table that holds its rows, with its schema.
    #[must_use]
    pub fn table(&self) -> String {
        table(&self.view, self.version, self.generation)
    }

    pub(crate) const fn checkpoint(&self) -> Checkpoint {
        Checkpoint {
            position: self.position,
            hash: self.hash,
            generation: self.generation,
            role: self.role,
        }
    }

    fn read(row: &PgRow) -> Result<Self, sqlx::Error> {
        let wrong = |index: &str, source| sqlx::Error::ColumnDecode {
            index: index.to_owned(),
            source,
        };
        let position: i64 = row.try_get("position")?;
        let position = u64::try_from(position).map_err(|e| wrong("position", e.into()))?;
        let version: i32 = row.try_get("version")?;
        let version = u32::try_from(version).map_err(|e| wrong("version", e.into()))?;
        let hash: Vec<u8> = row.try_get("hash")?;
        let hash = <[u8; 32]>::try_from(hash.as_slice()).map_err(|e| wrong("hash", e.into()))?;
        let role = match (row.try_get("serving")?, row.try_get("next")?) {
            (true, _) => Role::Serving,
            (false, true) => Role::Next,
            (false, false) => Role::Kept,
        };
        Ok(Self {
            view: row.try_get("view")?,
            version,
            generation: row.try_get("generation")?,
            role,
            position: Position(position),
            hash: Digest(hash),
            replaced_s: row.try_get("replaced_s")?,
        })
    }
}

/// The table of a build.
pub(crate) fn table(view: &str, version: u32, generation: i64) -> String {
    match generation {
        0 => format!("views.{view}_v{version}"),
        n => format!("views.{view}_v{version}_g{n}"),
    }
}

/// All builds of one view, or of all, oldest first.
pub(crate) async fn all(
    connection: &mut PgConnection,
    view: Option<&str>,
) -> Result<Vec<Build>, sqlx::Error> {
    let sql = format!(
        "SELECT {COLUMNS} FROM views.checkpoints WHERE $1::text IS NULL OR view = $1 \
         ORDER BY view, version, generation"
    );
    let rows = connection.fetch_all(sqlx::query(&sql).bind(view)).await?;
    rows.iter().map(Build::read).collect()
}

/// As [`all`] for one view, locked until the transaction ends: none of them moves any more.
pub(crate) async fn all_locked(
    connection: &mut PgConnection,
    view: &str,
) -> Result<Vec<Build>, sqlx::Error> {
    let sql = format!(
        "SELECT {COLUMNS} FROM views.checkpoints WHERE view = $1 \
         ORDER BY version, generation FOR UPDATE"
    );
    let rows = connection.fetch_all(sqlx::query(&sql).bind(view)).await?;
    rows.iter().map(Build::read).collect()
}

/// One build, if it is there.
pub(crate) async fn find(
    connection: &mut PgConnection,
    view: &str,
    version: u32,
    generation: i64,
) -> Result<Option<Build>, sqlx::Error> {
    let sql = format!(
        "SELECT {COLUMNS} FROM views.checkpoints \
         WHERE view = $1 AND version = $2 AND generation = $3"
    );
    let query = sqlx::query(&sql)
        .bind(view)
        .bind(version.cast_signed())
        .bind(generation);
    let row = connection.fetch_optional(query).await?;
    row.as_ref().map(Build::read).transpose()
}

/// The build that serves, if the view is there.
pub(crate) async fn serving(
    connection: &mut PgConnection,
    view: &str,
) -> Result<Option<Build>, sqlx::Error> {
    let sql = format!("SELECT {COLUMNS} FROM views.checkpoints WHERE view = $1 AND serving");
    let row = connection
        .fetch_optional(sqlx::query(&sql).bind(view))
        .await?;
    row.as_ref().map(Build::read).transpose()
}

/// Moves a checkpoint if it still stands at `from` (compare and set). The row stays locked until
/// the transaction ends, so two processes cannot write one build at a time. `None` if it has
/// moved.
pub(crate) async fn advance(
    connection: &mut PgConnection,
    (view, version): (&str, u32),
    from: &Checkpoint,
    to: &Checkpoint,
) -> Result<Option<Checkpoint>, sqlx::Error> {
    let sql = format!(
        "UPDATE views.checkpoints SET position = $5, hash = $6, updated_at = now() \
         WHERE view = $1 AND version = $2 AND position = $3 AND generation = $4 \
         RETURNING {COLUMNS}"
    );
    let query = sqlx::query(&sql)
        .bind(view)
        .bind(version.cast_signed())
        .bind(from.position.0.cast_signed())
        .bind(from.generation)
        .bind(to.position.0.cast_signed())
        .bind(&to.hash.0[..]);
    let row = connection.fetch_optional(query).await?;
    Ok(row
        .as_ref()
        .map(Build::read)
        .transpose()?
        .map(|build| build.checkpoint()))
}

/// Only one at a time makes, switches or drops builds of a view. Held until the transaction ends.
pub(crate) async fn lock(connection: &mut PgConnection, view: &str) -> Result<(), sqlx::Error> {
    let query = sqlx::query("SELECT pg_advisory_xact_lock($1, hashtext($2))");
    connection.execute(query.bind(VIEW_LOCK).bind(view)).await?;
    Ok(())
}

/// As [`lock`], unless somebody else has it.
pub(crate) async fn try_lock(
    connection: &mut PgConnection,
    view: &str,
) -> Result<bool, sqlx::Error> {
    let query = sqlx::query("SELECT pg_try_advisory_xact_lock($1, hashtext($2))");
    let row = connection
        .fetch_one(query.bind(VIEW_LOCK).bind(view))
        .await?;
    row.try_get(0)
}

/// Makes the empty table and the checkpoint of a build.
pub(crate) async fn create(
    connection: &mut PgConnection,
    view: &Definition,
    generation: i64,
    role: Role,
) -> Result<(), sqlx::Error> {
    let table = table(view.name, view.version, generation);
    connection
        .execute(sqlx::raw_sql(&(view.ddl)(&table)))
        .await?;
    let sql = "INSERT INTO views.checkpoints (view, version, generation, position, hash, serving, \
               next) VALUES ($1, $2, $3, 0, $4, $5, $6)";
    let query = sqlx::query(sql)
        .bind(view.name)
        .bind(view.version.cast_signed())
        .bind(generation)
        .bind(&Digest::ZERO.0[..])
        .bind(role == Role::Serving)
        .bind(role == Role::Next);
    connection.execute(query).await?;
    Ok(())
}

/// A build that waited for its turn waits no more.
pub(crate) async fn give_up_next(
    connection: &mut PgConnection,
    view: &str,
) -> Result<(), sqlx::Error> {
    let sql = "UPDATE views.checkpoints SET next = false, replaced_at = now() \
               WHERE view = $1 AND next";
    connection.execute(sqlx::query(sql).bind(view)).await?;
    Ok(())
}

/// Drops a build's table and checkpoint; the checkpoint first, as projectors do, so that nobody
/// deadlocks.
pub(crate) async fn remove(
    connection: &mut PgConnection,
    build: &Build,
) -> Result<(), sqlx::Error> {
    let sql = "DELETE FROM views.checkpoints \
               WHERE view = $1 AND version = $2 AND generation = $3 AND NOT serving";
    let query = sqlx::query(sql)
        .bind(&build.view)
        .bind(build.version.cast_signed())
        .bind(build.generation);
    if connection.execute(query).await?.rows_affected() == 1 {
        let drop = format!("DROP TABLE {}", build.table());
        connection.execute(&*drop).await?;
    }
    Ok(())
}

/// Lets a build that waits for its turn serve, unless the one that serves stands beyond it or
/// somebody who reads the SQL view does not let go of it. Says whether it serves now. The caller
/// holds [`lock`].
pub(crate) async fn take_over(
    connection: &mut PgConnection,
    (view, version): (&str, u32),
    checkpoint: &Checkpoint,
) -> Result<bool, sqlx::Error> {
    // from here on nobody moves the build that serves
    let found = all_locked(connection, view).await?;
    let of = |b: &&Build| (b.version, b.generation) == (version, checkpoint.generation);
    let Some(own) = found.iter().find(of).filter(|b| b.role == Role::Next) else {
        return Ok(false);
    };
    let serving = found.iter().find(|b| b.role == Role::Serving);
    if serving.is_some_and(|serving| serving.position > own.position) {
        return Ok(false);
    }
    let mut attempt = connection.begin().await?;
    match serve(&mut attempt, own).await {
        Ok(()) => attempt.commit().await?,
        Err(error) if has_state(&error, "55P03") => {
            attempt.rollback().await?;
            return Ok(false);
        }
        Err(error) => return Err(error),
    }
    Ok(true)
}

/// Lets a build serve instead of the one that does, flag and SQL view together. The caller holds
/// [`lock`] and the rows of all builds.
pub(crate) async fn serve(connection: &mut PgConnection, build: &Build) -> Result<(), sqlx::Error> {
    // first, so that whoever reads the SQL view keeps us from nothing but this
    connection.execute(SWITCH_WAIT).await?;
    replace_view(connection, build).await?;
    // one row after the other: the unique index looks at each
    let stops = "UPDATE views.checkpoints SET serving = false, replaced_at = now() \
                 WHERE view = $1 AND serving";
    connection
        .execute(sqlx::query(stops).bind(&build.view))
        .await?;
    let serves = "UPDATE views.checkpoints SET serving = true, next = false, replaced_at = NULL \
                  WHERE view = $1 AND version = $2 AND generation = $3";
    let query = sqlx::query(serves)
        .bind(&build.view)
        .bind(build.version.cast_signed())
        .bind(build.generation);
    connection.execute(query).await?;
    Ok(())
}

/// Points the SQL view without a version at the build's table.
async fn replace_view(connection: &mut PgConnection, build: &Build) -> Result<(), sqlx::Error> {
    let (view, table) = (&build.view, build.table());
    let mut attempt = connection.begin().await?;
    let replace = format!("CREATE OR REPLACE VIEW views.{view} AS SELECT * FROM {table}");
    match attempt.execute(&*replace).await {
        Ok(_) => return attempt.commit().await,
        // Postgres lets a replacement add columns at the end and nothing else
        Err(error) if has_state(&error, "42P16") => attempt.rollback().await?,
        Err(error) => return Err(error),
    }
    let grants = grants(connection, view).await?;
    connection
        .execute(&*format!("DROP VIEW views.{view}"))
        .await?;
    connection
        .execute(&*format!(
            "CREATE VIEW views.{view} AS SELECT * FROM {table}"
        ))
        .await?;
    for grant in grants {
        connection.execute(&*grant).await?;
    }
    Ok(())
}

/// What others may do with the SQL view, as statements that say so again.
async fn grants(connection: &mut PgConnection, view: &str) -> Result<Vec<String>, sqlx::Error> {
    let sql = "SELECT format('GRANT %s ON views.%I TO %s%s', acl.privilege_type, relname, \
                   CASE WHEN acl.grantee = 0 THEN 'PUBLIC' ELSE acl.grantee::regrole::text END, \
                   CASE WHEN acl.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END) \
               FROM pg_class, aclexplode(relacl) AS acl \
               WHERE oid = to_regclass('views.' || quote_ident($1)) AND acl.grantee <> relowner";
    let rows = connection.fetch_all(sqlx::query(sql).bind(view)).await?;
    rows.iter().map(|row| row.try_get(0)).collect()
}

/// Whether Postgres says exactly this (PostgreSQL manual, appendix A).
pub(crate) fn has_state(error: &sqlx::Error, state: &str) -> bool {
    let refused = error.as_database_error();
    refused.is_some_and(|refused| refused.code().as_deref() == Some(state))
}
