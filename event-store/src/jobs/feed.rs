//! From events to rows: rows and position change in one transaction.

use std::collections::HashMap;
use std::sync::Arc;

use sovereign_schemas::{AggregateId, Position, RecordedEvent};
use sqlx::{PgConnection, Row as _};

use super::fold::{Change, Claimable, fold};
use super::{AHEAD_S_MAX, CHANNEL, JobQueueStore};
use crate::StoreError;

/// Most events that are taken at once.
pub const FEED_EVENTS_MAX: usize = 2_000;
/// A job that waits cannot be released before those it waits for are in the table; so many are
/// decided at once.
const DECIDED_MAX: i64 = 256;

/// What follows for a job from how others ended; a command to the job makes it true.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decided {
    /// All that it waited for ended Green.
    Unblock(AggregateId),
    /// One that it waited for did not, or does not exist.
    Cancel {
        /// The job.
        job: AggregateId,
        /// The other.
        because: String,
        /// How that ended: `dependency-red`, `-failed`, `-aborted`, `-cancelled` or `-unknown`.
        reason: String,
    },
}

fn seconds(at: sovereign_schemas::Timestamp) -> f64 {
    at.0 as f64 / 1e6
}

/// Columns of the changes, one element for each job.
#[derive(Default)]
struct Columns {
    jobs: Vec<String>,
    status: Vec<Option<&'static str>>,
    aborts: Vec<bool>,
    given_up: Vec<bool>,
    attempt: Vec<Option<i32>>,
    /// Due time in seconds since 1970.
    due: Vec<Option<f64>>,
    lease_ms: Vec<Option<i32>>,
    now: Vec<bool>,
    ended_at: Vec<Option<i64>>,
}

impl Columns {
    fn push(&mut self, job: &str, change: &Change) {
        self.jobs.push(job.to_owned());
        self.status.push(change.status.map(|s| s.as_str()));
        self.aborts.push(change.aborts);
        self.given_up.push(change.given_up);
        self.attempt.push(change.attempt);
        self.due.push(match change.claimable {
            Some(Claimable::At(at)) => Some(seconds(at)),
            _ => None,
        });
        self.lease_ms.push(match change.claimable {
            Some(Claimable::Leased(ms)) => Some(ms.max(0)),
            _ => None,
        });
        self.now.push(change.claimable == Some(Claimable::Now));
        self.ended_at.push(change.ended_at.map(|at| at.0));
    }
}

impl JobQueueStore {
    /// How far the events are in the queue.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn fed(&self) -> Result<Position, StoreError> {
        let found: i64 = sqlx::query_scalar("select position from ledger.job_feed")
            .fetch_one(&self.pool)
            .await?;
        Ok(Position(found.cast_unsigned()))
    }

    /// Takes the events of jobs behind `after` up to `reached`, all of them and in order, and wakes
    /// workers. Nothing happens, and the answer is false, if the queue does not stand at `after`:
    /// somebody else has fed it.
    ///
    /// # Errors
    /// If the database fails, or an event of a job does not decode.
    pub async fn feed(
        &self,
        after: Position,
        reached: Position,
        events: &[Arc<RecordedEvent>],
    ) -> Result<bool, StoreError> {
        let mut changes = HashMap::new();
        for event in events {
            fold(&mut changes, event)?;
        }
        // nobody waits for the disk: rows and position that a crash of the database loses are fed
        // again, since both go back together
        let relaxed = "begin; set local synchronous_commit = off";
        let mut transaction = self.pool.begin_with(relaxed).await?;
        let moved = sqlx::query("update ledger.job_feed set position = $2 where position = $1")
            .bind(after.0.cast_signed())
            .bind(reached.0.cast_signed())
            .execute(&mut *transaction)
            .await?;
        if moved.rows_affected() == 0 {
            return Ok(false);
        }
        if !changes.is_empty() {
            take(&mut transaction, &changes).await?;
            sqlx::query("select pg_notify($1, '')")
                .bind(CHANNEL)
                .execute(&mut *transaction)
                .await?;
        }
        transaction.commit().await?;
        Ok(true)
    }

    /// Empties the queue; it is fed again from the first event on. Whatever was running counts as
    /// claimed until its lease has ended once more.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn rebuild(&self) -> Result<(), StoreError> {
        let mut transaction = self.pool.begin().await?;
        for sql in [
            "delete from ledger.jobs",
            "delete from ledger.job_waits",
            "update ledger.job_feed set position = 0",
        ] {
            sqlx::query(sql).execute(&mut *transaction).await?;
        }
        transaction.commit().await?;
        Ok(())
    }

    /// What follows for jobs that wait, the oldest first, at most 256 at once. It stays until the
    /// job's own events say that it was done.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn decided(&self) -> Result<Vec<Decided>, StoreError> {
        let rows = sqlx::query(
            "select job_id, because, reason from ledger.jobs where status = 'blocked' \
             and (waits = 0 or because is not null) order by position limit $1",
        )
        .bind(DECIDED_MAX)
        .fetch_all(&self.pool)
        .await?;
        let mut decided = Vec::new();
        for row in rows {
            let id: String = row.try_get("job_id")?;
            let Ok(job) = id.parse::<AggregateId>() else {
                continue;
            };
            let because: Option<String> = row.try_get("because")?;
            let reason: Option<String> = row.try_get("reason")?;
            decided.push(match (because, reason) {
                (Some(because), Some(reason)) => Decided::Cancel {
                    job,
                    because,
                    reason,
                },
                _ => Decided::Unblock(job),
            });
        }
        Ok(decided)
    }
}

async fn take(
    connection: &mut PgConnection,
    changes: &HashMap<String, Change>,
) -> Result<(), StoreError> {
    insert(connection, changes).await?;
    let mut columns = Columns::default();
    // in one order everywhere: workers claim single rows, and nobody waits in a circle
    let mut sorted: Vec<_> = changes.iter().collect();
    sorted.sort_by_key(|(job, _)| *job);
    for (job, change) in sorted {
        if change.status.is_some() || change.given_up {
            columns.push(job, change);
        }
    }
    sqlx::query(
        "update ledger.jobs j set \
             status = coalesce(c.status, case when j.status = 'running' then 'running' else 'queued' end), \
             attempt = coalesce(c.attempt, j.attempt), \
             ended_at_us = coalesce(c.ended_at, j.ended_at_us), \
             aborting = j.aborting or c.given_up, \
             claimable_at = case \
                 when c.due is not null then to_timestamp(least(c.due, extract(epoch from now()) + $9)) \
                 when c.lease_ms is not null then \
                     greatest(j.claimable_at, now() + c.lease_ms * interval '1 millisecond') \
                 when c.now or (c.aborts and j.status <> 'running') then now() \
                 else j.claimable_at end \
         from unnest($1::text[], $2::text[], $3::bool[], $4::int[], $5::float8[], $6::int[], \
                     $7::bool[], $8::bigint[], $10::bool[]) \
              as c (job_id, status, aborts, attempt, due, lease_ms, now, ended_at, given_up) \
         where j.job_id = c.job_id",
    )
    .bind(&columns.jobs)
    .bind(&columns.status)
    .bind(&columns.aborts)
    .bind(&columns.attempt)
    .bind(&columns.due)
    .bind(&columns.lease_ms)
    .bind(&columns.now)
    .bind(&columns.ended_at)
    .bind(AHEAD_S_MAX as f64)
    .bind(&columns.given_up)
    .execute(&mut *connection)
    .await?;
    settle(connection, changes).await
}

async fn insert(
    connection: &mut PgConnection,
    changes: &HashMap<String, Change>,
) -> Result<(), StoreError> {
    let mut new: Vec<_> = changes
        .iter()
        .filter_map(|(job, c)| Some((job, c.new.as_ref()?)))
        .collect();
    if new.is_empty() {
        return Ok(());
    }
    new.sort_by_key(|(_, new)| new.position);
    // clocks differ a little: what is due at once is never due later than now
    let due = |new: &super::fold::NewJob| new.run_at.map(seconds);
    sqlx::query(
        "insert into ledger.jobs (job_id, position, submitted_at_us, kind, queue, unique_key, \
                                  schedule, status, waits, claimable_at) \
         select c.job_id, c.position, c.at, c.kind, c.queue, c.unique_key, c.schedule, \
                'queued', 0, \
                coalesce(to_timestamp(least(c.due, extract(epoch from now()) + $8)), \
                         least(now(), to_timestamp(c.at / 1e6))) \
         from unnest($1::text[], $2::bigint[], $3::bigint[], $4::text[], $5::smallint[], \
                     $6::text[], $7::float8[], $9::text[]) \
              as c (job_id, position, at, kind, queue, unique_key, due, schedule) \
         on conflict (job_id) do nothing",
    )
    .bind(new.iter().map(|(job, _)| job.as_str()).collect::<Vec<_>>())
    .bind(
        new.iter()
            .map(|(_, n)| n.position.cast_signed())
            .collect::<Vec<_>>(),
    )
    .bind(
        new.iter()
            .map(|(_, n)| n.submitted_at.0)
            .collect::<Vec<_>>(),
    )
    .bind(new.iter().map(|(_, n)| n.kind.as_str()).collect::<Vec<_>>())
    .bind(new.iter().map(|(_, n)| n.queue).collect::<Vec<_>>())
    .bind(
        new.iter()
            .map(|(_, n)| n.unique_key.as_deref())
            .collect::<Vec<_>>(),
    )
    .bind(new.iter().map(|(_, n)| due(n)).collect::<Vec<_>>())
    .bind(AHEAD_S_MAX as f64)
    .bind(
        new.iter()
            .map(|(_, n)| n.schedule.as_deref())
            .collect::<Vec<_>>(),
    )
    .execute(&mut *connection)
    .await?;
    let pairs = new.iter();
    let pairs =
        pairs.flat_map(|(job, n)| n.after.iter().map(move |on| (on.as_str(), job.as_str())));
    let (on, jobs): (Vec<&str>, Vec<&str>) = pairs.unzip();
    if on.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "insert into ledger.job_waits (waits_for, job_id) \
         select * from unnest($1::text[], $2::text[]) on conflict do nothing",
    )
    .bind(&on)
    .bind(&jobs)
    .execute(connection)
    .await?;
    Ok(())
}

/// Brings what waits up to date with what ended. Only a job that stands before another in the
/// ledger can be waited for: so there are no circles.
async fn settle(
    connection: &mut PgConnection,
    changes: &HashMap<String, Change>,
) -> Result<(), StoreError> {
    let ended = |c: &Change| c.status.is_some_and(|s| s.ended());
    let ended: Vec<&str> = changes
        .iter()
        .filter(|(_, c)| ended(c))
        .map(|(job, _)| job.as_str())
        .collect();
    let waiting = |c: &Change| c.new.as_ref().is_some_and(|n| !n.after.is_empty());
    let waiting: Vec<&str> = changes
        .iter()
        .filter(|(_, c)| waiting(c))
        .map(|(job, _)| job.as_str())
        .collect();
    if ended.is_empty() && waiting.is_empty() {
        return Ok(());
    }
    let affected: Vec<String> = sqlx::query_scalar(
        "select distinct job_id from ledger.job_waits \
         where waits_for = any($1) or job_id = any($2)",
    )
    .bind(&ended)
    .bind(&waiting)
    .fetch_all(&mut *connection)
    .await?;
    if affected.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "update ledger.jobs j set because = w.waits_for, \
             reason = 'dependency-' || coalesce(d.status, 'unknown') \
         from ledger.job_waits w \
         left join ledger.jobs o on o.job_id = w.job_id \
         left join ledger.jobs d on d.job_id = w.waits_for and d.position < o.position \
         where w.job_id = any($1) and j.job_id = w.job_id and j.because is null \
           and (d.job_id is null or d.status in ('red', 'failed', 'aborted', 'cancelled'))",
    )
    .bind(&affected)
    .execute(&mut *connection)
    .await?;
    sqlx::query(
        "delete from ledger.job_waits w using ledger.jobs d \
         where w.job_id = any($1) and d.job_id = w.waits_for and d.status = 'green'",
    )
    .bind(&affected)
    .execute(&mut *connection)
    .await?;
    sqlx::query(
        "update ledger.jobs j set waits = \
             (select count(*) from ledger.job_waits w where w.job_id = j.job_id) \
         where j.job_id = any($1)",
    )
    .bind(&affected)
    .execute(connection)
    .await?;
    Ok(())
}
