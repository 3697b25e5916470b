mod builds;

use std::time::Duration;

use sqlx::{Connection as _, Executor as _, PgConnection, Postgres, Row as _, Transaction};

use crate::database::Database;
use crate::port::{Checkpoint, Role};
use crate::{DatabaseError, Definition, ProjectionError, ViewSet};

pub use builds::Build;
pub(crate) use builds::{
    advance, all, all_locked, find, remove, serve, serving, table, take_over, try_lock,
};

/// Applied in order, each once; never changed after a release.
const MIGRATIONS: &[&str] = &[
    include_str!("../../migrations/0001_views.sql"),
    include_str!("../../migrations/0002_builds.sql"),
];

/// `pg_advisory_xact_lock` key of migrations: "views" in ASCII.
const MIGRATION_LOCK: i64 = 0x76_69_65_77_73;

/// A table may be large, and its readers slow.
const ADMIN_TIMEOUT: Duration = Duration::from_mins(5);

/// How long a switch by hand waits for a build that somebody keeps up.
const CATCH_UP: Duration = Duration::from_secs(5);
/// How often it looks.
const CATCH_UP_STEP: Duration = Duration::from_millis(10);

/// A reader whose snapshot is older than a switch goes on to read the build that was replaced: it
/// is not dropped for so long.
pub(crate) const KEPT_FOR_READERS: Duration = Duration::from_mins(1);

/// What a switch did.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Switched {
    /// What served until now.
    pub from: Build,
    /// What serves from now on.
    pub to: Build,
}

/// Owns the tables: makes, switches and drops builds of views.
#[derive(Debug, Clone)]
pub struct ViewsStore {
    database: Database,
    views: ViewSet,
}

impl ViewsStore {
    /// A store of the views that ship; connects when it is asked for something.
    ///
    /// # Errors
    /// [`ProjectionError::DatabaseUrl`].
    pub fn new(database_url: &str) -> Result<Self, ProjectionError> {
        Self::with_views(database_url, ViewSet::shipped())
    }

    /// A store of these views.
    ///
    /// # Errors
    /// [`ProjectionError::DatabaseUrl`].
    pub fn with_views(database_url: &str, views: ViewSet) -> Result<Self, ProjectionError> {
        Ok(Self {
            database: Database::new(database_url, ADMIN_TIMEOUT)?,
            views,
        })
    }

    /// Makes or upgrades schema `views`, in one transaction and under a lock that other processes
    /// respect. A view that is new to the database serves at once; a view that is there in an
    /// older version only gets a build of this version beside it, which serves when it has caught
    /// up. Does nothing if all is there.
    ///
    /// # Errors
    /// [`ProjectionError::SchemaTooNew`] if a newer build of this program was here and changed
    /// more than views; nothing is changed then. [`ProjectionError::Database`].
    pub async fn migrate(&self) -> Result<(), ProjectionError> {
        let mut connection = self.database.connect().await?;
        let work = self.migrate_in(&mut connection);
        tokio::time::timeout(self.database.timeout(), work)
            .await
            .map_err(|_| DatabaseError::timed_out("migrating views", ADMIN_TIMEOUT.as_secs_f64()))?
    }

    /// Lets the role of this URL read the views, those of later builds as well, and no more. Does
    /// nothing if it is the owner's own role.
    ///
    /// # Errors
    /// [`ProjectionError::DatabaseUrl`]; [`ProjectionError::Database`].
    pub async fn grant_reading(&self, database_url: &str) -> Result<(), ProjectionError> {
        let reader = Database::new(database_url, ADMIN_TIMEOUT)?.options();
        let role = reader.get_username();
        if role == self.database.options().get_username() {
            return Ok(());
        }
        let role = format!("\"{}\"", role.replace('"', "\"\""));
        let sql = format!(
            "SELECT pg_advisory_xact_lock({MIGRATION_LOCK}); \
             REVOKE ALL ON ALL TABLES IN SCHEMA views FROM {role}; \
             GRANT USAGE ON SCHEMA views TO {role}; \
             GRANT SELECT ON ALL TABLES IN SCHEMA views TO {role}; \
             ALTER DEFAULT PRIVILEGES IN SCHEMA views GRANT SELECT ON TABLES TO {role}"
        );
        let mut connection = self.database.connect().await?;
        let granting = connection.execute(sqlx::raw_sql(&sql));
        self.database
            .within("granting the right to read views", granting)
            .await?;
        Ok(())
    }

    async fn migrate_in(&self, connection: &mut PgConnection) -> Result<(), ProjectionError> {
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
        for view in self.views.iter() {
            ensure(&mut transaction, view).await?;
        }
        transaction.commit().await?;
        Ok(())
    }

    /// Builds a view again from the first event, in the version of this program, beside the build
    /// that serves; whoever runs the view switches when the new build has caught up. A rebuild
    /// under way begins again.
    ///
    /// # Errors
    /// [`ProjectionError::UnknownView`]; [`ProjectionError::NotMigrated`];
    /// [`ProjectionError::NotReady`] while a newer version is being built;
    /// [`ProjectionError::Database`].
    pub async fn rebuild(&self, view: &str) -> Result<(), ProjectionError> {
        let view = *self.views.get(view)?;
        let mut connection = self.database.connect().await?;
        let mut transaction = self.begin(&mut connection, view.name).await?;
        let found = all_locked(&mut transaction, view.name).await?;
        if found.is_empty() {
            return Err(not_migrated(&view));
        }
        let newer = |b: &&Build| b.role == Role::Next && b.version > view.version;
        if let Some(newer) = found.iter().find(newer) {
            let reason = format!("version {} is being built", newer.version);
            return Err(ProjectionError::not_ready(view.name, reason));
        }
        builds::give_up_next(&mut transaction, view.name).await?;
        let of_version = found.iter().filter(|b| b.version == view.version);
        let last = of_version.map(|b| b.generation).max();
        let generation = last.map_or(0, |g| g + 1);
        builds::create(&mut transaction, &view, generation, Role::Next).await?;
        transaction.commit().await?;
        tracing::info!(
            view = view.name,
            version = view.version,
            generation,
            "rebuild begins"
        );
        Ok(())
    }

    /// Lets the newest version below the one that serves serve again, rows and flag in one
    /// transaction. Its newer version is kept, and does not come back by itself.
    ///
    /// If somebody keeps the older version up, the switch waits up to 5 s until it is not behind.
    /// If nobody does, it is refused unless `stale` is set: then readers get older rows, with
    /// their position.
    ///
    /// # Errors
    /// [`ProjectionError::UnknownView`], [`ProjectionError::NotReady`] if there is no older
    /// version or it is behind, [`ProjectionError::Database`].
    pub async fn rollback(&self, view: &str, stale: bool) -> Result<Switched, ProjectionError> {
        self.switch_by_hand(view, None, stale).await
    }

    /// Lets the newest build of a version serve that does not: as [`Self::rollback`], in any
    /// direction. With `stale` this is also how a rebuild replaces a build that stands beyond the
    /// end of the ledger, because an older copy of the ledger was restored.
    ///
    /// # Errors
    /// As [`Self::rollback`].
    pub async fn switch(
        &self,
        view: &str,
        version: u32,
        stale: bool,
    ) -> Result<Switched, ProjectionError> {
        self.switch_by_hand(view, Some(version), stale).await
    }

    async fn switch_by_hand(
        &self,
        view: &str,
        version: Option<u32>,
        stale: bool,
    ) -> Result<Switched, ProjectionError> {
        let view = self.views.get(view)?.name;
        let mut connection = self.database.connect().await?;
        let mut transaction = self.begin(&mut connection, view).await?;
        let found = all(&mut transaction, Some(view)).await?;
        let from = found.iter().find(|b| b.role == Role::Serving);
        let from = from.ok_or_else(|| ProjectionError::not_ready(view, "no version serves"))?;
        let to = found.iter().filter(|b| match version {
            Some(wanted) => b.version == wanted && b.role != Role::Serving,
            None => b.version < from.version,
        });
        let to = to.max_by_key(|b| (b.version, b.generation));
        let to = to.ok_or_else(|| {
            let reason = match version {
                Some(version) if version == from.version => {
                    format!("version {version} serves already")
                }
                Some(version) => format!("there is no version {version}"),
                None => format!("there is no version older than {}", from.version),
            };
            ProjectionError::not_ready(view, reason)
        })?;
        let (from, to) = caught_up(&mut transaction, from, to).await?;
        if to.position < from.position && !stale {
            let reason = format!(
                "version {} stands at position {}, version {} at {}, and nobody brings it up",
                to.version, to.position, from.version, from.position
            );
            return Err(ProjectionError::not_ready(view, reason));
        }
        serve(&mut transaction, &to).await?;
        transaction.commit().await?;
        tracing::info!(view, from = from.version, to = to.version, position = %to.position,
            "view switched by hand");
        Ok(Switched {
            from: Build {
                role: Role::Kept,
                ..from
            },
            to: Build {
                role: Role::Serving,
                replaced_s: None,
                ..to
            },
        })
    }

    /// Drops every build of a view that neither serves nor waits for its turn, or only those of
    /// one version (then one that waits as well). Returns what was dropped.
    ///
    /// # Errors
    /// [`ProjectionError::UnknownView`]; [`ProjectionError::NotReady`] if the version serves, or
    /// did within the last minute and `at_once` is not set: readers that began before the switch
    /// may still be reading it. [`ProjectionError::Database`].
    pub async fn drop_kept(
        &self,
        view: &str,
        version: Option<u32>,
        at_once: bool,
    ) -> Result<Vec<Build>, ProjectionError> {
        let view = self.views.get(view)?.name;
        let mut connection = self.database.connect().await?;
        let mut transaction = self.begin(&mut connection, view).await?;
        let found = all_locked(&mut transaction, view).await?;
        let chosen = |b: &Build| match version {
            Some(version) => b.version == version && b.role != Role::Serving,
            None => b.role == Role::Kept,
        };
        let serves = |b: &Build| Some(b.version) == version && b.role == Role::Serving;
        let dropped: Vec<Build> = found.iter().filter(|b| chosen(b)).cloned().collect();
        if dropped.is_empty() && found.iter().any(serves) {
            return Err(ProjectionError::not_ready(view, "that version serves"));
        }
        let young = |b: &&Build| {
            b.replaced_s
                .is_some_and(|s| s < KEPT_FOR_READERS.as_secs_f64())
        };
        if let Some(young) = dropped.iter().find(young)
            && !at_once
        {
            let reason = format!("version {} served within the last minute", young.version);
            return Err(ProjectionError::not_ready(view, reason));
        }
        for build in &dropped {
            remove(&mut transaction, build).await?;
        }
        transaction.commit().await?;
        Ok(dropped)
    }

    /// All builds of all views, also of views and versions that this program does not know.
    ///
    /// # Errors
    /// [`ProjectionError::Database`].
    pub async fn builds(&self) -> Result<Vec<Build>, ProjectionError> {
        let mut connection = self.database.connect().await?;
        let find = all(&mut connection, None);
        Ok(self.database.within("reading checkpoints", find).await?)
    }

    /// How far the build has come that serves.
    ///
    /// # Errors
    /// [`ProjectionError::UnknownView`], [`ProjectionError::NotMigrated`] or
    /// [`ProjectionError::Database`].
    pub async fn checkpoint(&self, view: &str) -> Result<Checkpoint, ProjectionError> {
        let view = self.views.get(view)?;
        let mut connection = self.database.connect().await?;
        let find = serving(&mut connection, view.name);
        let found = self.database.within("reading a checkpoint", find).await?;
        Ok(found.ok_or_else(|| not_migrated(view))?.checkpoint())
    }

    /// A transaction in which nobody else makes, switches or drops builds of the view.
    async fn begin<'c>(
        &self,
        connection: &'c mut PgConnection,
        view: &str,
    ) -> Result<Transaction<'c, Postgres>, ProjectionError> {
        let work = async {
            let mut transaction = connection.begin().await?;
            builds::lock(&mut transaction, view).await?;
            Ok(transaction)
        };
        Ok(self.database.within("locking a view", work).await?)
    }
}

fn not_migrated(view: &Definition) -> ProjectionError {
    ProjectionError::NotMigrated {
        view: view.name,
        version: view.version,
    }
}

/// Makes the build of this program's version, if the database needs one.
async fn ensure(transaction: &mut PgConnection, view: &Definition) -> Result<(), sqlx::Error> {
    builds::lock(transaction, view.name).await?;
    let found = all_locked(transaction, view.name).await?;
    let newest = found.iter().map(|b| b.version).max();
    match newest {
        None => {
            builds::create(transaction, view, 0, Role::Serving).await?;
            let made = find(transaction, view.name, view.version, 0).await?;
            if let Some(made) = made {
                serve(transaction, &made).await?;
            }
        }
        Some(newest) if newest < view.version => {
            builds::give_up_next(transaction, view.name).await?;
            builds::create(transaction, view, 0, Role::Next).await?;
            let (view, version) = (view.name, view.version);
            tracing::info!(
                view,
                version,
                "new version is built beside the one that serves"
            );
        }
        // it is there, or was there and is no longer wanted
        Some(_) => {}
    }
    Ok(())
}

/// Waits a while until `to` is not behind `from`, which stands still meanwhile; both are locked
/// then.
async fn caught_up(
    transaction: &mut PgConnection,
    from: &Build,
    to: &Build,
) -> Result<(Build, Build), sqlx::Error> {
    let hold = "SELECT 1 FROM views.checkpoints WHERE view = $1 AND serving FOR UPDATE";
    transaction
        .execute(sqlx::query(hold).bind(&from.view))
        .await?;
    let until = tokio::time::Instant::now() + CATCH_UP;
    loop {
        let found = all(transaction, Some(&from.view)).await?;
        let of = |b: &Build| {
            let same = |f: &&Build| (f.version, f.generation) == (b.version, b.generation);
            found.iter().find(same).cloned()
        };
        let (from_now, to_now) = (of(from), of(to));
        let waits = match (&from_now, &to_now) {
            (Some(from), Some(to)) => to.position < from.position,
            _ => return Err(sqlx::Error::RowNotFound),
        };
        if !waits || tokio::time::Instant::now() > until {
            let locked = all_locked(transaction, &from.view).await?;
            let same = |b: &Build| {
                let same = |f: &&Build| (f.version, f.generation) == (b.version, b.generation);
                locked
                    .iter()
                    .find(same)
                    .cloned()
                    .ok_or(sqlx::Error::RowNotFound)
            };
            return Ok((same(from)?, same(to)?));
        }
        tokio::time::sleep(CATCH_UP_STEP).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn migrations_hold_the_tables_that_the_rows_of_the_first_versions_need() {
        // later views are made at a start, as later versions are
        let first = ["agents", "trades", "approvals", "departments"];
        let shipped = ViewSet::shipped();
        let then = |name: &str, version| version == 1 && first.contains(&name);
        for view in shipped.iter().filter(|v| then(v.name, v.version)) {
            let ddl = (view.ddl)(&table(view.name, 1, 0));
            for statement in ddl.split_inclusive(";\n") {
                assert!(MIGRATIONS[0].contains(statement), "missing:\n{statement}");
            }
        }
    }
}
