//! From no connection to a pair of sessions.

use sovereign_schemas::Uuid;
use sovereign_schemas::chain::Head;
use sqlx::postgres::PgConnectOptions;
use sqlx::{Executor as _, PgConnection};

use super::write::PgWriter;
use super::{read, wire};
use crate::flush::{self, PgFlusher};
use crate::port::{Backend, Known, Opened};
use crate::{Durability, StoreError, connect};

/// Ids of one look-up.
const IDS_MAX: usize = 4_096;

/// Connects, waits until no transaction of ours can still be under way, and looks up the commands
/// whose fate is unknown.
pub(super) async fn open(
    server: &PgConnectOptions,
    wanted: Durability,
    previous: Option<&Backend>,
    unknown: &[Uuid],
) -> Result<Opened, StoreError> {
    let mut session =
        connect::connect(&server.clone().application_name("sovereign flusher")).await?;
    let durability = durability(&mut session, wanted).await?;
    session.execute(settings(durability).as_str()).await?;
    if let Some(previous) = previous {
        end_backend(&mut session, previous).await?;
    }
    let (head, known) = look(&mut session, unknown).await?;
    let name = format!("sovereign writer {}", Uuid::now_v7().simple());
    let mut wire = connect::in_time(server, wire::connect(server, &name)).await?;
    wire.simple(&settings(durability)).await?;
    let process = wire.process;
    Ok(Opened {
        writer: Box::new(PgWriter::new(wire, durability).await?),
        flusher: Box::new(PgFlusher::new(session, durability)),
        backend: Backend { process, name },
        head,
        known,
    })
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

fn settings(durability: Durability) -> String {
    let commit = match durability {
        Durability::FlushedBySecondConnection => "off",
        Durability::SynchronousCommit => "on",
    };
    // a process that was stopped in the middle of a transaction must not lock out the others
    format!(
        "set synchronous_commit = {commit}; set idle_in_transaction_session_timeout = '5s'; \
         set default_transaction_isolation = 'read committed'; set jit = off; \
         set enable_seqscan = off; set plan_cache_mode = force_generic_plan"
    )
}

/// Our previous writing backend may still wait for data that never comes, with the head row locked.
async fn end_backend(connection: &mut PgConnection, previous: &Backend) -> Result<(), StoreError> {
    sqlx::query(
        "select pg_terminate_backend(pid) from pg_stat_activity \
         where pid = $1 and application_name = $2",
    )
    .bind(previous.process)
    .bind(&previous.name)
    .execute(connection)
    .await?;
    Ok(())
}

/// Looks while holding the head row: a transaction of the lost session that was still under way
/// has ended, one way or the other, once the lock is ours.
async fn look(
    connection: &mut PgConnection,
    unknown: &[Uuid],
) -> Result<(Head, Vec<(Uuid, Known)>), StoreError> {
    connection.execute("begin").await?;
    let locked = sqlx::query("select position, hash from ledger.head for update")
        .fetch_optional(&mut *connection)
        .await?
        .ok_or_else(|| StoreError::Internal("ledger.head has no row".to_owned()))?;
    let head = read::head_of(&locked)?;
    let mut known = Vec::new();
    for ids in unknown.chunks(IDS_MAX) {
        known.extend(read::known(connection, ids).await?);
    }
    connection.execute("rollback").await?;
    Ok((head, known))
}
