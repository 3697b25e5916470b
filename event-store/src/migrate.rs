//! Versioned schemas: each change is a file under `migrations/`, applied once and in order.

use sqlx::{Connection as _, Executor as _, PgConnection};

use crate::StoreError;

/// One change, in the order of its version.
struct Migration {
    version: i64,
    name: &'static str,
    sql: &'static str,
}

/// All changes of one schema of a database.
pub(crate) struct Migrations {
    schema: &'static str,
    list: &'static [Migration],
}

/// Events, head, refusals and the schema registry.
pub(crate) const LEDGER: Migrations = Migrations {
    schema: "ledger",
    list: &[
        Migration {
            version: 1,
            name: "events",
            sql: include_str!("../migrations/ledger-0001-events.sql"),
        },
        Migration {
            version: 2,
            name: "registry",
            sql: include_str!("../migrations/ledger-0002-registry.sql"),
        },
        Migration {
            version: 3,
            name: "checkpoints",
            sql: include_str!("../migrations/ledger-0003-checkpoints.sql"),
        },
        Migration {
            version: 4,
            name: "sharing",
            sql: include_str!("../migrations/ledger-0004-sharing.sql"),
        },
        Migration {
            version: 5,
            name: "sequence",
            sql: include_str!("../migrations/ledger-0005-sequence.sql"),
        },
        Migration {
            version: 6,
            name: "jobs",
            sql: include_str!("../migrations/ledger-0006-jobs.sql"),
        },
        Migration {
            version: 7,
            name: "schedules",
            sql: include_str!("../migrations/ledger-0007-schedules.sql"),
        },
        Migration {
            version: 8,
            name: "held",
            sql: include_str!("../migrations/ledger-0008-held.sql"),
        },
        Migration {
            version: 9,
            name: "aborts",
            sql: include_str!("../migrations/ledger-0009-aborts.sql"),
        },
    ],
};

/// Subject keys.
pub(crate) const KEYS: Migrations = Migrations {
    schema: "keys",
    list: &[
        Migration {
            version: 1,
            name: "subjects",
            sql: include_str!("../migrations/keys-0001-subjects.sql"),
        },
        Migration {
            version: 2,
            name: "master",
            sql: include_str!("../migrations/keys-0002-master.sql"),
        },
    ],
};

impl Migrations {
    fn known(&self) -> i64 {
        self.list.last().map_or(0, |m| m.version)
    }

    /// Brings the schema up to this build, in one transaction: a failure leaves it as it was.
    ///
    /// # Errors
    /// [`StoreError::SchemaTooNew`], or what the database says.
    pub(crate) async fn run(&self, connection: &mut PgConnection) -> Result<(), StoreError> {
        let mut transaction = connection.begin().await?;
        // two engines that start at once take turns; the number is ours alone
        sqlx::query("select pg_advisory_xact_lock(hashtextextended($1, 5894))")
            .bind(self.schema)
            .execute(&mut *transaction)
            .await?;
        let found = self.found(&mut transaction).await?;
        if found > self.known() {
            return Err(StoreError::SchemaTooNew {
                schema: self.schema,
                found,
                known: self.known(),
            });
        }
        for migration in self.list.iter().filter(|m| m.version > found) {
            transaction.execute(migration.sql).await?;
            let insert = format!(
                "insert into {}.sovereign_schema (version, name) values ($1, $2)",
                self.schema
            );
            sqlx::query(&insert)
                .bind(migration.version)
                .bind(migration.name)
                .execute(&mut *transaction)
                .await?;
            tracing::info!(
                schema = self.schema,
                migration.version,
                migration.name,
                "migrated"
            );
        }
        transaction.commit().await?;
        Ok(())
    }

    async fn found(&self, connection: &mut PgConnection) -> Result<i64, StoreError> {
        let table = format!("{}.sovereign_schema", self.schema);
        let exists: bool = sqlx::query_scalar("select to_regclass($1) is not null")
            .bind(&table)
            .fetch_one(&mut *connection)
            .await?;
        if !exists {
            // "if not exists" still asks for the right to create, which an engine that merely
            // uses a migrated database need not have
            let sql = format!(
                "create schema if not exists {}; create table {table} (version bigint primary \
                 key, name text not null, applied_at timestamptz not null default now())",
                self.schema
            );
            connection.execute(sql.as_str()).await?;
        }
        let found: Option<i64> = sqlx::query_scalar(&format!("select max(version) from {table}"))
            .fetch_one(&mut *connection)
            .await?;
        Ok(found.unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_dense_and_start_at_one() {
        for migrations in [LEDGER, KEYS] {
            let versions: Vec<i64> = migrations.list.iter().map(|m| m.version).collect();
            let expected: Vec<i64> = (1..).take(versions.len()).collect();
            assert_eq!(versions, expected);
        }
    }
}
