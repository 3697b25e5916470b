//! Two connections and the tasks on them: one commits, one flushes and answers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::PgConnection;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::batch::{Batch, Waiting};
use super::commit::{self, Report, Step};
use crate::flush;
use crate::shared::Shared;
use crate::{Durability, StoreError};

/// Committed batches that may wait for their flush; then the writer waits.
const UNFLUSHED_BATCHES_MAX: usize = 8;
/// A flush that takes longer counts as lost.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(20);

/// The tasks of one pair of connections. It ends at the first failure; another is started then.
#[derive(Debug)]
pub(crate) struct Session {
    steps: mpsc::Sender<Step>,
    reports: mpsc::Receiver<Report>,
    flusher: JoinHandle<Vec<Batch>>,
    /// The writing backend's process id and application name, to end it should it hang on.
    pub(crate) backend: (i32, String),
}

impl Session {
    pub(crate) fn start(
        writer: PgConnection,
        flushing: PgConnection,
        backend: (i32, String),
        durability: Durability,
        shared: Arc<Shared>,
    ) -> Self {
        let (steps, next_steps) = mpsc::channel(2);
        let (report, reports) = mpsc::channel(4);
        let (committed, to_flush) = mpsc::channel(UNFLUSHED_BATCHES_MAX);
        tokio::spawn(commit::run(writer, next_steps, report.clone(), committed));
        let flusher = Flusher {
            connection: flushing,
            durability,
            shared,
        };
        let flusher = tokio::spawn(flusher.run(to_flush, report));
        Self {
            steps,
            reports,
            flusher,
            backend,
        }
    }

    /// The next report; `None` once both tasks have ended.
    pub(crate) async fn report(&mut self) -> Option<Report> {
        self.reports.recv().await
    }

    /// Hands a step over. One step is under way at a time, so there is room.
    pub(crate) fn step(&self, step: Step) -> Result<(), Step> {
        self.steps
            .try_send(step)
            .map_err(mpsc::error::TrySendError::into_inner)
    }

    /// Ends both tasks and returns, in order, the commands that were not answered. Those whose
    /// transaction may have been committed are marked so.
    pub(crate) async fn end(mut self) -> Vec<Waiting> {
        drop(self.steps);
        let mut failed = Vec::new();
        let mut unknown = Vec::new();
        while let Some(report) = self.reports.recv().await {
            match report {
                Report::Committed => {}
                Report::Lost(batch, _) => unknown.extend(batch),
                Report::HeadMoved(batch, _)
                | Report::RefusedBefore(batch, _)
                | Report::Taken(batch)
                | Report::Rejected(batch, _) => failed.push(batch),
            }
        }
        // a batch in the flusher's hands was committed, which a crash may have undone
        let unflushed = self.flusher.await.unwrap_or_default();
        let sent = unflushed
            .into_iter()
            .chain(unknown)
            .flat_map(Batch::into_unknown);
        sent.chain(failed.into_iter().flat_map(Batch::into_waiting))
            .collect()
    }
}

struct Flusher {
    connection: PgConnection,
    durability: Durability,
    shared: Arc<Shared>,
}

impl Flusher {
    /// Returns the batches that it could not flush.
    async fn run(
        mut self,
        mut committed: mpsc::Receiver<Batch>,
        report: mpsc::Sender<Report>,
    ) -> Vec<Batch> {
        while let Some(first) = committed.recv().await {
            let mut batches = vec![first];
            // what was committed during the last flush shares the next one
            while let Ok(next) = committed.try_recv() {
                batches.push(next);
            }
            if let Err(error) = self.flush(&batches).await {
                committed.close();
                while let Some(next) = committed.recv().await {
                    batches.push(next);
                }
                // the writer may have noticed first; then nobody listens
                let _ = report.try_send(Report::Lost(None, error));
                return batches;
            }
            for batch in batches {
                self.shared.publish(&batch.events);
                metrics::counter!("sovereign_ledger_events_total")
                    .increment(batch.events.len() as u64);
                metrics::gauge!("sovereign_ledger_flushed_position")
                    .set(self.shared.flushed().position.0 as f64);
                batch.answer_all();
            }
        }
        Vec::new()
    }

    async fn flush(&mut self, batches: &[Batch]) -> Result<(), StoreError> {
        let flushed = self.shared.flushed().position;
        if !batches.iter().any(|b| b.needs_flush(flushed)) {
            return Ok(());
        }
        let started = Instant::now();
        let done = tokio::time::timeout(FLUSH_TIMEOUT, self.flush_now()).await;
        metrics::histogram!("sovereign_ledger_flush_seconds")
            .record(started.elapsed().as_secs_f64());
        done.unwrap_or_else(|_| {
            Err(StoreError::Unreachable(format!(
                "a flush took longer than {} s",
                FLUSH_TIMEOUT.as_secs()
            )))
        })
    }

    async fn flush_now(&mut self) -> Result<(), StoreError> {
        match self.durability {
            Durability::FlushedBySecondConnection => flush::force(&mut self.connection).await,
            // our own commits are durable, but an answer may rest on those of another process
            Durability::SynchronousCommit => flush::wait(&mut self.connection).await,
        }
    }
}
