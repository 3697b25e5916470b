//! Claims: who may try which job, for how long.

use std::time::Duration;

use sqlx::Row as _;
use sqlx::postgres::PgListener;

use super::{CHANNEL, JobQueueStore};
use crate::{StoreError, connect};

/// Most jobs of one claim.
const CLAIMS_MAX: usize = 256;

/// A job that a worker may try, until its lease ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Which.
    pub job_id: String,
    /// The queue it came from, by number: the most urgent is 0.
    pub queue: u8,
}

/// Tells when there may be something to claim.
#[derive(Debug)]
pub struct JobSignal {
    listener: PgListener,
}

impl JobSignal {
    /// Waits until somebody says that there may be something, at most `longest`.
    ///
    /// # Errors
    /// If the connection is lost; the next call connects again.
    pub async fn wait(&mut self, longest: Duration) -> Result<(), StoreError> {
        match tokio::time::timeout(longest, self.listener.recv()).await {
            Ok(Err(error)) => Err(error.into()),
            Ok(Ok(_)) | Err(_) => Ok(()),
        }
    }
}

impl JobQueueStore {
    /// Claims up to `most` jobs of one queue for `lease`, those that wait longest first. Jobs that
    /// another claims just now are passed over, not waited for.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn claim(
        &self,
        queue: u8,
        most: usize,
        worker: &str,
        lease: Duration,
    ) -> Result<Vec<Claim>, StoreError> {
        let rows = sqlx::query(
            "with free as materialized ( \
                 select job_id from ledger.jobs \
                 where queue = $1 and status in ('queued', 'running') and claimable_at <= now() \
                   and not exists (select from ledger.job_queues q where q.queue = $1) \
                 order by claimable_at, position limit $2 for update skip locked) \
             update ledger.jobs j set claimable_at = now() + $3 * interval '1 millisecond', \
                                      claimed_by = $4 \
             from free where j.job_id = free.job_id returning j.job_id, j.position",
        )
        .bind(i16::from(queue))
        .bind(most.min(CLAIMS_MAX) as i64)
        .bind(milliseconds(lease))
        .bind(worker)
        .fetch_all(&self.pool)
        .await?;
        let mut claims = Vec::with_capacity(rows.len());
        for row in rows {
            let position: i64 = row.try_get("position")?;
            let job_id = row.try_get("job_id")?;
            claims.push((position, Claim { job_id, queue }));
        }
        claims.sort_by_key(|(position, _)| *position);
        Ok(claims.into_iter().map(|(_, claim)| claim).collect())
    }

    /// Prolongs the leases of a worker; answers with those that it still has.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn renew(
        &self,
        jobs: &[String],
        worker: &str,
        lease: Duration,
    ) -> Result<Vec<String>, StoreError> {
        let kept = sqlx::query_scalar(
            "update ledger.jobs set claimable_at = now() + $3 * interval '1 millisecond' \
             where job_id = any($1) and claimed_by = $2 \
               and status in ('queued', 'running', 'in_doubt') returning job_id",
        )
        .bind(jobs)
        .bind(worker)
        .bind(milliseconds(lease))
        .fetch_all(&self.pool)
        .await?;
        Ok(kept)
    }

    /// Jobs that this worker runs and somebody has given up.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn given_up(&self, worker: &str) -> Result<Vec<String>, StoreError> {
        let found = sqlx::query_scalar(
            "select job_id from ledger.jobs \
             where claimed_by = $1 and aborting and status = 'running'",
        )
        .bind(worker)
        .fetch_all(&self.pool)
        .await?;
        Ok(found)
    }

    /// Gives a claim back that came to nothing; others may claim it at once, or after `pause`.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn give_back(
        &self,
        job: &str,
        worker: &str,
        pause: Duration,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "update ledger.jobs set claimable_at = now() + $3 * interval '1 millisecond', \
                                    claimed_by = null \
             where job_id = $1 and claimed_by = $2",
        )
        .bind(job)
        .bind(worker)
        .bind(milliseconds(pause))
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Listens for what there may be to claim.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn signal(&self) -> Result<JobSignal, StoreError> {
        let options = connect::options(&self.database, "sovereign jobs signal")?;
        let pool = sqlx::postgres::PgPoolOptions::new()
            .max_connections(1)
            .connect_lazy_with(options);
        let mut listener = PgListener::connect_with(&pool).await?;
        listener.listen(CHANNEL).await?;
        Ok(JobSignal { listener })
    }
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
