//! The writing session: one transaction a batch.

use std::fmt::Write as _;
use std::time::Duration;

use futures::TryStreamExt as _;
use sovereign_schemas::chain::Head;
use sovereign_schemas::{Problem, Uuid};
use sqlx::{Either, Executor as _, PgConnection, Row as _};
use tokio::sync::mpsc;

use super::batch::Batch;
use super::first;
use crate::row::CopyBuffer;
use crate::{StoreError, read, row};

/// A transaction that takes longer counts as lost: its fate is looked up.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(20);

/// What the session is asked to do.
#[derive(Debug)]
pub(crate) enum Step {
    /// Run the batch's transaction.
    Commit(Batch),
    /// Run it inside the transaction that [`Report::HeadMoved`] left open.
    Continue(Batch),
    /// End that transaction.
    Release,
}

/// What became of it. Batches come back when nothing of them was committed.
#[derive(Debug)]
pub(crate) enum Report {
    /// Committed, and passed on to be flushed.
    Committed,
    /// Another process has written. The head row is locked and stays so until the next step.
    HeadMoved(Batch, Head),
    /// Rolled back: these commands were refused before.
    RefusedBefore(Batch, Vec<(Uuid, Problem)>),
    /// Rolled back: some command id is in the ledger already.
    Taken(Batch),
    /// Rolled back: the database does not take these rows.
    Rejected(Batch, String),
    /// The session is unusable, and whether the batch was committed is unknown.
    Lost(Option<Batch>, StoreError),
}

enum Failure {
    Moved(Head),
    Refused(Vec<(Uuid, Problem)>),
    Taken,
    Rejected(String),
    Lost(StoreError),
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Lost(error)
    }
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        if let sqlx::Error::Database(database) = &error {
            let code = database.code().unwrap_or_default().into_owned();
            let constraint = database.constraint().unwrap_or_default();
            if code == "23505" && ["events_command", "refusals_pkey"].contains(&constraint) {
                return Self::Taken;
            }
            // data that does not fit, a broken constraint, a limit of the program
            if ["22", "23", "54"]
                .iter()
                .any(|class| code.starts_with(class))
            {
                return Self::Rejected(format!("{} ({code}, {constraint})", database.message()));
            }
        }
        Self::Lost(error.into())
    }
}

/// Runs steps until the sender is gone or the session is lost.
pub(crate) async fn run(
    mut connection: PgConnection,
    mut steps: mpsc::Receiver<Step>,
    reports: mpsc::Sender<Report>,
    flusher: mpsc::Sender<Batch>,
) {
    while let Some(step) = steps.recv().await {
        let (batch, begin) = match step {
            Step::Commit(batch) => (batch, true),
            Step::Continue(batch) => (batch, false),
            Step::Release => {
                if let Err(error) = connection.execute("rollback").await {
                    let _ = reports.send(Report::Lost(None, error.into())).await;
                    return;
                }
                continue;
            }
        };
        let report = match attempt(&mut connection, &batch, begin).await {
            Ok(()) => match flusher.send(batch).await {
                Ok(()) => Report::Committed,
                Err(returned) => Report::Lost(
                    Some(returned.0),
                    StoreError::Unreachable("flush".to_owned()),
                ),
            },
            Err(failure) => report(&mut connection, batch, failure).await,
        };
        let lost = matches!(report, Report::Lost(..));
        if reports.send(report).await.is_err() || lost {
            return;
        }
    }
}

async fn attempt(connection: &mut PgConnection, batch: &Batch, begin: bool) -> Result<(), Failure> {
    if !batch.needs_transaction() {
        return Ok(());
    }
    match tokio::time::timeout(COMMIT_TIMEOUT, transaction(connection, batch, begin)).await {
        Ok(result) => result,
        Err(_) => Err(Failure::Lost(StoreError::Unreachable(format!(
            "a commit took longer than {} s",
            COMMIT_TIMEOUT.as_secs()
        )))),
    }
}

async fn report(connection: &mut PgConnection, batch: Batch, failure: Failure) -> Report {
    let report = match failure {
        Failure::Moved(head) => return Report::HeadMoved(batch, head),
        Failure::Lost(error) => return Report::Lost(Some(batch), error),
        Failure::Refused(refused) => Report::RefusedBefore(batch, refused),
        Failure::Taken => Report::Taken(batch),
        Failure::Rejected(why) => Report::Rejected(batch, why),
    };
    match connection.execute("rollback").await {
        Ok(_) => report,
        Err(error) => match report {
            Report::RefusedBefore(batch, _) | Report::Taken(batch) | Report::Rejected(batch, _) => {
                Report::Lost(Some(batch), error.into())
            }
            other => other,
        },
    }
}

async fn transaction(
    connection: &mut PgConnection,
    batch: &Batch,
    begin: bool,
) -> Result<(), Failure> {
    let taken = take_head(connection, batch, begin).await?;
    if !taken.refused.is_empty() {
        return Err(Failure::Refused(taken.refused));
    }
    if taken.repeats {
        return Err(Failure::Taken);
    }
    if taken.moved {
        // the row was not locked by an update that did not match it
        let found = sqlx::query("select position, hash from ledger.head for update")
            .fetch_one(&mut *connection)
            .await?;
        return Err(Failure::Moved(read::head_of(&found)?));
    }
    if batch.copy.rows() > 0 {
        let mut copy = connection.copy_in_raw(row::COPY).await?;
        copy.send(batch.copy.bytes()).await?;
        copy.send(&CopyBuffer::TRAILER[..]).await?;
        copy.finish().await?;
    }
    if !batch.refusals.is_empty() {
        remember_refusals(connection, batch).await?;
    }
    connection.execute("commit").await?;
    Ok(())
}

/// What the first round trip of a transaction tells.
struct TakenHead {
    moved: bool,
    refused: Vec<(Uuid, Problem)>,
    repeats: bool,
}

/// Moves the head row, which serialises all writers, and looks whether a command of the batch was
/// refused before, or took effect before although it would not now: one round trip.
async fn take_head(
    connection: &mut PgConnection,
    batch: &Batch,
    begin: bool,
) -> Result<TakenHead, Failure> {
    let (before, after) = (batch.before.head, batch.after.head);
    let mut sql = String::with_capacity(512 + batch.items.len() * 39);
    write!(
        sql,
        "{}; update ledger.head set position = {}, hash = '\\x{}' \
         where position = {} and hash = '\\x{}'; \
         select command_id, problem::text from ledger.refusals where command_id = any(",
        if begin {
            "begin"
        } else {
            "select 1 where false"
        },
        after.position,
        after.hash,
        before.position,
        before.hash,
    )
    .map_err(|e| StoreError::Internal(e.to_string()))?;
    put_ids(
        &mut sql,
        batch.items.iter().map(|item| item.waiting.command_id()),
    );
    if !batch.without_events.is_empty() {
        sql.push_str(
            "); select 1 from ledger.events where command_events > 0 and command_id = any(",
        );
        put_ids(&mut sql, batch.without_events.iter().copied());
    }
    sql.push(')');

    let mut results = connection.fetch_many(sql.as_str());
    let mut taken = TakenHead {
        moved: true,
        refused: Vec::new(),
        repeats: false,
    };
    let mut finished = 0;
    while let Some(result) = results.try_next().await? {
        match result {
            Either::Left(done) => {
                finished += 1;
                // the second statement is the update
                if finished == 2 {
                    taken.moved = done.rows_affected() != 1;
                }
            }
            Either::Right(_) if finished == 3 => taken.repeats = true,
            Either::Right(found) => {
                let json: String = found.try_get(1)?;
                taken
                    .refused
                    .push((found.try_get(0)?, first::problem(&json)?));
            }
        }
    }
    Ok(taken)
}

/// An array of ids as a literal; they are hexadecimal digits and dashes.
fn put_ids(sql: &mut String, ids: impl Iterator<Item = Uuid>) {
    sql.push_str("'{");
    for (at, id) in ids.enumerate() {
        if at > 0 {
            sql.push(',');
        }
        sql.push_str(id.hyphenated().encode_lower(&mut Uuid::encode_buffer()));
    }
    sql.push_str("}'::uuid[]");
}

async fn remember_refusals(connection: &mut PgConnection, batch: &Batch) -> Result<(), Failure> {
    let mut ids = Vec::with_capacity(batch.refusals.len());
    let mut problems = Vec::with_capacity(batch.refusals.len());
    let mut times = Vec::with_capacity(batch.refusals.len());
    for refused in &batch.refusals {
        let json = serde_json::to_string(&refused.problem)
            .map_err(|e| StoreError::Internal(e.to_string()))?;
        ids.push(refused.command_id);
        // jsonb cannot hold it, and no problem of ours does
        problems.push(json.replace("\\u0000", "\\ufffd"));
        times.push(refused.at.0);
    }
    sqlx::query(
        "insert into ledger.refusals (command_id, problem, recorded_at_us) \
         select id, problem::jsonb, at from unnest($1::uuid[], $2::text[], $3::bigint[]) \
         as refused (id, problem, at)",
    )
    .bind(ids)
    .bind(problems)
    .bind(times)
    .execute(connection)
    .await?;
    Ok(())
}
