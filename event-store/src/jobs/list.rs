//! What the queue knows, for people and for the API; and pausing.

use sqlx::Row as _;
use sqlx::postgres::PgRow;

use super::{CHANNEL, JobQueueStore, QUEUE_NAMES};
use crate::StoreError;

/// Most rows of one page.
const ROWS_MAX: usize = 1_000;

/// One job as the queue knows it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct JobRow {
    /// Position of its submission: pages go on behind it.
    pub position: u64,
    /// Its id.
    pub job_id: String,
    /// `blocked`, `queued`, `running`, `in_doubt`, `green`, `red`, `failed`, `aborted` or
    /// `cancelled`.
    pub status: String,
    /// Which handler does it.
    pub kind: String,
    /// `high`, `default` or `low`.
    pub queue: &'static str,
    /// How often a worker has begun it.
    pub attempt: i32,
    /// Who has it, or had it last.
    pub worker: Option<String>,
    /// Stands for it among jobs that are not ended.
    pub unique_key: Option<String>,
    /// How many jobs it still waits for.
    pub waits: i32,
    /// The schedule that it is a run of.
    pub schedule: Option<String>,
}

/// One queue.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct QueueRow {
    /// `high`, `default` or `low`.
    pub queue: &'static str,
    /// Who paused it; nobody if it is not paused.
    pub paused_by: Option<String>,
    /// Jobs that wait for people.
    pub held: i64,
    /// Jobs that wait for others.
    pub blocked: i64,
    /// Jobs that wait for a worker.
    pub queued: i64,
    /// Jobs that a worker has.
    pub running: i64,
    /// Jobs that wait for a human.
    pub in_doubt: i64,
}

fn name(queue: i16) -> &'static str {
    let at = usize::try_from(queue).ok();
    at.and_then(|at| QUEUE_NAMES.get(at)).copied().unwrap_or("")
}

fn row(row: &PgRow) -> Result<JobRow, StoreError> {
    let position: i64 = row.try_get("position")?;
    Ok(JobRow {
        position: position.cast_unsigned(),
        job_id: row.try_get("job_id")?,
        status: row.try_get("status")?,
        kind: row.try_get("kind")?,
        queue: name(row.try_get("queue")?),
        attempt: row.try_get("attempt")?,
        worker: row.try_get("claimed_by")?,
        unique_key: row.try_get("unique_key")?,
        waits: row.try_get("waits")?,
        schedule: row.try_get("schedule")?,
    })
}

const COLUMNS: &str =
    "position, job_id, status, kind, queue, attempt, claimed_by, unique_key, waits, schedule";

impl JobQueueStore {
    /// Jobs behind a position, by position, at most `limit`; `ended` includes those that ended.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn list(
        &self,
        after: u64,
        limit: usize,
        ended: bool,
    ) -> Result<Vec<JobRow>, StoreError> {
        let open = if ended {
            "true"
        } else {
            "status in ('held', 'blocked', 'queued', 'running', 'in_doubt')"
        };
        let sql = format!(
            "select {COLUMNS} from ledger.jobs where position > $1 and {open} \
             order by position limit $2"
        );
        let rows = sqlx::query(&sql)
            .bind(after.cast_signed())
            .bind(limit.clamp(1, ROWS_MAX) as i64)
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(row).collect()
    }

    /// The newest job with this unique key.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn newest_of(&self, unique_key: &str) -> Result<Option<JobRow>, StoreError> {
        let sql = format!(
            "select {COLUMNS} from ledger.jobs where unique_key = $1 \
             order by position desc limit 1"
        );
        let found = sqlx::query(&sql)
            .bind(unique_key)
            .fetch_optional(&self.pool)
            .await?;
        found.as_ref().map(row).transpose()
    }

    /// The newest job of each of these schedules, where there is one.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn newest_runs(&self, schedules: &[&str]) -> Result<Vec<JobRow>, StoreError> {
        let sql = format!(
            "select j.* from unnest($1::text[]) as s (name) cross join lateral \
                 (select {COLUMNS} from ledger.jobs where schedule = s.name \
                  order by position desc limit 1) j"
        );
        let rows = sqlx::query(&sql)
            .bind(schedules)
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(row).collect()
    }

    /// One job, if the queue knows it already.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn find(&self, job: &str) -> Result<Option<JobRow>, StoreError> {
        let sql = format!("select {COLUMNS} from ledger.jobs where job_id = $1");
        let found = sqlx::query(&sql)
            .bind(job)
            .fetch_optional(&self.pool)
            .await?;
        found.as_ref().map(row).transpose()
    }

    /// All queues, the most urgent first.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn queues(&self) -> Result<Vec<QueueRow>, StoreError> {
        let rows = sqlx::query(
            "select n.queue::smallint as queue, p.paused_by, \
                 count(*) filter (where j.status = 'held') as held, \
                 count(*) filter (where j.status = 'blocked') as blocked, \
                 count(*) filter (where j.status = 'queued') as queued, \
                 count(*) filter (where j.status = 'running') as running, \
                 count(*) filter (where j.status = 'in_doubt') as in_doubt \
             from generate_series(0, 2) as n (queue) \
             left join ledger.job_queues p on p.queue = n.queue \
             left join ledger.jobs j on j.queue = n.queue \
                  and j.status in ('held', 'blocked', 'queued', 'running', 'in_doubt') \
             group by n.queue, p.paused_by order by n.queue",
        )
        .fetch_all(&self.pool)
        .await?;
        rows.iter()
            .map(|row| {
                Ok(QueueRow {
                    queue: name(row.try_get("queue")?),
                    paused_by: row.try_get("paused_by")?,
                    held: row.try_get("held")?,
                    blocked: row.try_get("blocked")?,
                    queued: row.try_get("queued")?,
                    running: row.try_get("running")?,
                    in_doubt: row.try_get("in_doubt")?,
                })
            })
            .collect()
    }

    /// Pauses a queue: nothing of it is claimed any more; what a worker has goes on.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn pause(&self, queue: u8, by: &str) -> Result<(), StoreError> {
        sqlx::query(
            "insert into ledger.job_queues (queue, paused_by) values ($1, $2) \
             on conflict (queue) do nothing",
        )
        .bind(i16::from(queue))
        .bind(by)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Lets a queue go on, and wakes workers.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn resume(&self, queue: u8) -> Result<(), StoreError> {
        let mut transaction = self.pool.begin().await?;
        sqlx::query("delete from ledger.job_queues where queue = $1")
            .bind(i16::from(queue))
            .execute(&mut *transaction)
            .await?;
        sqlx::query("select pg_notify($1, '')")
            .bind(CHANNEL)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(())
    }
}
