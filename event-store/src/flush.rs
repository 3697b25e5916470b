//! When a commit is durable. This is the one place that knows.
//!
//! The writing session commits with `synchronous_commit = off`, so the lock on the head row is not
//! held during the flush. A second session then writes an empty logical message and waits for it
//! to be flushed: everything before it in the write-ahead log is then on disk, all commits that the
//! writer has seen return among them. Several commits share one flush. Until then nothing is
//! acknowledged, relayed, pushed or shown.
//!
//! Another process that reads the tail compares positions of the write-ahead log: a commit that it
//! can see lies before the insert position it reads afterwards.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::{Executor as _, PgConnection};

use crate::StoreError;
use crate::port::FlushSession;

/// How an acknowledged command is made durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// A second connection forces the flush (PostgreSQL 17 or later; older servers get
    /// [`Self::SynchronousCommit`]).
    #[default]
    FlushedBySecondConnection,
    /// Each batch waits for its own flush, with the head row locked meanwhile. Also waits for
    /// synchronous standbys, if the server has any.
    SynchronousCommit,
}

/// First server version whose `pg_logical_emit_message` can flush.
pub(crate) const FLUSH_SERVER_VERSION: i32 = 170_000;

/// Looks at the flush position so many times, a millisecond apart, before it forces a flush.
const LOOKS_MAX: u32 = 10;

/// The second connection.
#[derive(Debug)]
pub(crate) struct PgFlusher {
    connection: PgConnection,
    durability: Durability,
}

impl PgFlusher {
    pub(crate) const fn new(connection: PgConnection, durability: Durability) -> Self {
        Self {
            connection,
            durability,
        }
    }
}

#[async_trait]
impl FlushSession for PgFlusher {
    async fn flush(&mut self) -> Result<(), StoreError> {
        match self.durability {
            Durability::FlushedBySecondConnection => force(&mut self.connection).await,
            // our own commits are durable, but an answer may rest on those of another process
            Durability::SynchronousCommit => wait(&mut self.connection).await,
        }
    }
}

/// Flushes everything that was written to the log before this call.
async fn force(connection: &mut PgConnection) -> Result<(), StoreError> {
    // the message does not belong to a transaction, so it needs none and leaves no row
    sqlx::query("select pg_logical_emit_message(false, 'sovereign', '', true)")
        .execute(connection)
        .await?;
    Ok(())
}

/// Returns once everything that an earlier statement of this connection could see is durable.
pub(crate) async fn wait(connection: &mut PgConnection) -> Result<(), StoreError> {
    // a standby is sent only what its primary has flushed
    let written: Option<i64> = sqlx::query_scalar(
        "select case when pg_is_in_recovery() then null \
         else pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint end",
    )
    .fetch_one(&mut *connection)
    .await?;
    let Some(written) = written else {
        return Ok(());
    };
    for _ in 0..LOOKS_MAX {
        let flushed: bool = sqlx::query_scalar(
            "select pg_wal_lsn_diff(pg_current_wal_flush_lsn(), '0/0')::bigint >= $1",
        )
        .bind(written)
        .fetch_one(&mut *connection)
        .await?;
        if flushed {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // the writer may be gone, or the last record may be one that nobody waits for; the server's own
    // writer would take up to 600 ms
    if crate::connect::server_version(connection).await? >= FLUSH_SERVER_VERSION {
        return force(connection).await;
    }
    // a durable commit that has written something flushes all that lies before it
    connection
        .execute(
            "begin; set local synchronous_commit = on; \
             select pg_logical_emit_message(true, 'sovereign', ''); commit",
        )
        .await?;
    Ok(())
}
