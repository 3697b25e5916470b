//! From no connection to a session: what the database holds is the truth, memory is rebuilt.

use sovereign_schemas::chain::Head;
use sovereign_schemas::{Position, Timestamp, Uuid};
use sqlx::postgres::PgConnectOptions;
use sqlx::{Executor as _, PgConnection, Row as _};

use super::LedgerOptions;
use super::batch::Tip;
use super::first::{self, First};
use super::session::Session;
use crate::shared::Shared;
use crate::{Durability, LedgerReader, StoreError, connect, flush, read};

/// Ids of one look-up.
const IDS_MAX: usize = 4_096;

/// A fresh session, and what the database knows.
#[derive(Debug)]
pub(crate) struct Connected {
    pub(crate) session: Session,
    pub(crate) tip: Tip,
    /// The asked command ids that took effect or were refused, durably.
    pub(crate) found: Vec<(Uuid, First)>,
}

/// Connects, waits until no transaction of ours can still be under way, and looks up the commands
/// whose fate is unknown.
pub(crate) async fn connect(
    options: &LedgerOptions,
    reader: &LedgerReader,
    previous: Option<&(i32, String)>,
    unknown: &[Uuid],
) -> Result<Connected, StoreError> {
    let name = format!("sovereign writer {}", Uuid::now_v7().simple());
    let server = connect::options(&options.database, &name)?;
    let mut writer = connect::connect(&server).await?;
    let durability = durability(&mut writer, options.durability).await?;
    prepare(&mut writer, durability).await?;
    if let Some((process, name)) = previous {
        end_backend(&mut writer, *process, name).await?;
    }
    let process: i32 = sqlx::query_scalar("select pg_backend_pid()")
        .fetch_one(&mut writer)
        .await?;

    let (tip, found) = look(&mut writer, unknown).await?;
    let mut flushing = flushing_connection(&server).await?;
    // whatever was found may not be on disk yet, and answers rest on it
    match durability {
        Durability::FlushedBySecondConnection => flush::force(&mut flushing).await?,
        Durability::SynchronousCommit => flush::wait(&mut flushing).await?,
    }
    let shared = std::sync::Arc::clone(&reader.shared);
    rewind_is_refused(&shared, tip.head)?;
    shared.advance(tip.head);
    shared.database_answers();
    let session = Session::start(writer, flushing, (process, name), durability, shared);
    Ok(Connected {
        session,
        tip,
        found,
    })
}

async fn flushing_connection(server: &PgConnectOptions) -> Result<PgConnection, StoreError> {
    connect::connect(&server.clone().application_name("sovereign flusher")).await
}

async fn durability(
    connection: &mut PgConnection,
    wanted: Durability,
) -> Result<Durability, StoreError> {
    let version = connect::server_version(connection).await?;
    if wanted == Durability::FlushedBySecondConnection && version < flush::FLUSH_SERVER_VERSION {
        tracing::warn!(
            version,
            "server cannot flush on demand, each commit waits for its flush"
        );
        return Ok(Durability::SynchronousCommit);
    }
    Ok(wanted)
}

async fn prepare(connection: &mut PgConnection, durability: Durability) -> Result<(), StoreError> {
    let commit = match durability {
        Durability::FlushedBySecondConnection => "off",
        Durability::SynchronousCommit => "on",
    };
    // a process that was stopped in the middle of a transaction must not lock out the others
    let sql = format!(
        "set synchronous_commit = {commit}; set idle_in_transaction_session_timeout = '15s'; \
         set default_transaction_isolation = 'read committed'; set jit = off; \
         set enable_seqscan = off"
    );
    connection.execute(sql.as_str()).await?;
    Ok(())
}

/// Our previous writing backend may still wait for data that never comes, with the head row locked.
async fn end_backend(
    connection: &mut PgConnection,
    process: i32,
    name: &str,
) -> Result<(), StoreError> {
    sqlx::query(
        "select pg_terminate_backend(pid) from pg_stat_activity \
         where pid = $1 and application_name = $2",
    )
    .bind(process)
    .bind(name)
    .execute(connection)
    .await?;
    Ok(())
}

/// Looks while holding the head row: a transaction of the lost session that was still under way
/// has ended, one way or the other, once the lock is ours.
async fn look(
    connection: &mut PgConnection,
    unknown: &[Uuid],
) -> Result<(Tip, Vec<(Uuid, First)>), StoreError> {
    connection.execute("begin").await?;
    let locked = sqlx::query("select position, hash from ledger.head for update")
        .fetch_optional(&mut *connection)
        .await?
        .ok_or_else(|| StoreError::Internal("ledger.head has no row".to_owned()))?;
    let tip = tip(connection, read::head_of(&locked)?).await?;
    let mut found = Vec::new();
    for ids in unknown.chunks(IDS_MAX) {
        found.extend(first::look_up(connection, ids).await?);
    }
    connection.execute("rollback").await?;
    Ok((tip, found))
}

/// The tip at `head`, whose event must be there and carry its hash.
pub(crate) async fn tip(connection: &mut PgConnection, head: Head) -> Result<Tip, StoreError> {
    if head.position == Position::START {
        return Ok(Tip {
            head,
            recorded_at: Timestamp(i64::MIN),
        });
    }
    let last = sqlx::query("select recorded_at_us, hash from ledger.events where position = $1")
        .bind(head.position.0.cast_signed())
        .fetch_optional(connection)
        .await?;
    let Some(last) = last else {
        return Err(StoreError::Internal(format!(
            "ledger.head stands at {}, and no event is there",
            head.position
        )));
    };
    let hash: Vec<u8> = last.try_get(1)?;
    if hash != head.hash.0 {
        return Err(StoreError::Internal(format!(
            "ledger.head and the event at {} carry different hashes",
            head.position
        )));
    }
    Ok(Tip {
        head,
        recorded_at: Timestamp(last.try_get(0)?),
    })
}

/// A database that was put back to an older state must not be written by an engine that has
/// already shown newer events.
fn rewind_is_refused(shared: &Shared, found: Head) -> Result<(), StoreError> {
    let known = shared.flushed();
    if found.position >= known.position {
        return Ok(());
    }
    Err(StoreError::Internal(format!(
        "the ledger ended at {} and now ends at {}; it was restored from an older copy, \
         restart the engine to go on from there",
        known.position, found.position
    )))
}
