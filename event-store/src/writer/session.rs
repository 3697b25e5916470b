//! Two sessions and the tasks on them: one commits, one flushes and answers.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::batch::{Batch, Waiting};
use super::commit::{Committer, Lost, Report, Step};
use crate::StoreError;
use crate::port::{Backend, FlushSession, WriteSession};
use crate::shared::Shared;

/// Committed batches that may wait for their flush; then the writer waits.
const UNFLUSHED_BATCHES_MAX: usize = 8;
/// A flush that takes longer counts as lost.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(20);

/// Longest that a flush waits for those who were answered by the last.
const COMPANY_MAX: Duration = Duration::from_millis(4);

/// The tasks of one pair of sessions. It ends at the first failure; another is started then.
#[derive(Debug)]
pub(crate) struct Session {
    steps: mpsc::Sender<Step>,
    reports: mpsc::Receiver<Report>,
    flusher: JoinHandle<Vec<Batch>>,
    /// The writing process, to end it should it hang on.
    pub(crate) backend: Backend,
    /// Batches that may be under way at once.
    pub(crate) in_flight_max: usize,
    /// See [`WriteSession::can_commit_durably`].
    pub(crate) can_commit_durably: bool,
}

/// Commands without an answer, in their order.
#[derive(Debug, Default)]
pub(crate) struct Unanswered {
    /// Their transaction was sent and may be committed; marked so.
    pub(crate) sent: Vec<Waiting>,
    /// Nothing of these happened.
    pub(crate) unsent: Vec<Waiting>,
}

impl Session {
    pub(crate) fn start(
        writer: Box<dyn WriteSession>,
        flushing: Box<dyn FlushSession>,
        backend: Backend,
        shared: Arc<Shared>,
    ) -> Self {
        let in_flight_max = writer.in_flight_max().max(1);
        let can_commit_durably = writer.can_commit_durably();
        let (steps, next_steps) = mpsc::channel(in_flight_max + 1);
        let (report, reports) = mpsc::channel(in_flight_max + 3);
        let (committed, to_flush) = mpsc::channel(UNFLUSHED_BATCHES_MAX);
        tokio::spawn(Committer::new(writer, next_steps, report.clone(), committed).run());
        let flusher = Flusher {
            session: flushing,
            shared,
            last: None,
        };
        let flusher = tokio::spawn(flusher.run(to_flush, report));
        Self {
            steps,
            reports,
            flusher,
            backend,
            in_flight_max,
            can_commit_durably,
        }
    }

    /// The next report; `None` once both tasks have ended.
    pub(crate) async fn report(&mut self) -> Option<Report> {
        self.reports.recv().await
    }

    /// Hands a step over; gives it back if the committer has ended. There is room for as many as
    /// may be under way.
    pub(crate) fn step(&self, step: Step) -> Option<Step> {
        let sent = self.steps.try_send(step);
        sent.err().map(mpsc::error::TrySendError::into_inner)
    }

    /// Ends both tasks and returns the commands that were not answered.
    pub(crate) async fn end(mut self) -> Unanswered {
        drop(self.steps);
        let (mut unknown, mut unsent) = (Vec::new(), Vec::new());
        while let Some(report) = self.reports.recv().await {
            match report {
                Report::Committed => {}
                Report::Failed(batches, _) => unsent.extend(batches),
                Report::Bounced(batch) => unsent.push(batch),
                Report::Lost(lost) => {
                    unknown.extend(lost.unknown);
                    unsent.extend(lost.unsent);
                }
            }
        }
        // a batch in the flusher's hands was committed, which a crash may have undone
        let unflushed = self.flusher.await.unwrap_or_default();
        let sent = unflushed.into_iter().chain(unknown);
        Unanswered {
            sent: sent.flat_map(Batch::into_unknown).collect(),
            unsent: unsent.into_iter().flat_map(Batch::into_waiting).collect(),
        }
    }
}

struct Flusher {
    session: Box<dyn FlushSession>,
    shared: Arc<Shared>,
    last: Option<Flushed>,
}

/// The last flush that was one.
#[derive(Debug, Clone, Copy)]
struct Flushed {
    took: Duration,
    ended: Instant,
    /// Callers that it answered.
    callers: usize,
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
            company(self.last, &mut batches, &mut committed).await;
            if let Err(error) = self.flush(&batches).await {
                committed.close();
                while let Some(next) = committed.recv().await {
                    batches.push(next);
                }
                // the writer may have noticed first; then nobody listens
                let _ = report.try_send(Report::Lost(Lost::because(error)));
                return batches;
            }
            for batch in batches {
                self.shared.publish(batch.events());
                metrics::counter!("sovereign_ledger_events_total")
                    .increment(batch.events().len() as u64);
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
        let done = tokio::time::timeout(FLUSH_TIMEOUT, self.session.flush()).await;
        let ended = Instant::now();
        let took = ended - started;
        metrics::histogram!("sovereign_ledger_flush_seconds").record(took.as_secs_f64());
        self.last = Some(Flushed {
            took,
            ended,
            callers: batches.iter().map(|batch| batch.items.len()).sum(),
        });
        done.unwrap_or_else(|_| {
            Err(StoreError::Unreachable(format!(
                "a flush took longer than {} s",
                FLUSH_TIMEOUT.as_secs()
            )))
        })
    }
}

/// Where the disk is what everybody waits for, callers fall into two groups that wait for each
/// other's flush. Whoever was just answered is about to be back: a flush for much fewer waits
/// for them, but no longer than half of what a flush takes.
async fn company(
    last: Option<Flushed>,
    batches: &mut Vec<Batch>,
    committed: &mut mpsc::Receiver<Batch>,
) {
    let Some(last) = last else { return };
    let until = last.ended + (last.took / 2).min(COMPANY_MAX);
    let enough = last.callers - last.callers / 4;
    let mut callers: usize = batches.iter().map(|batch| batch.items.len()).sum();
    while callers < enough && batches.len() < UNFLUSHED_BATCHES_MAX {
        let Ok(Some(next)) = tokio::time::timeout_at(until, committed.recv()).await else {
            return;
        };
        callers += next.items.len();
        batches.push(next);
    }
}
