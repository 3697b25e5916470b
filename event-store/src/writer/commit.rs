//! The task that has transactions run, some ahead of the answers to those before them.

use std::collections::VecDeque;

use sovereign_schemas::chain::Head;
use sovereign_schemas::{Problem, Uuid};
use tokio::sync::mpsc;

use super::batch::Batch;
use crate::StoreError;
use crate::port::{Done, WriteSession};

/// What the session is asked to do.
#[derive(Debug)]
pub(crate) enum Step {
    /// Run the batch's transaction after those before it.
    Commit(Batch),
    /// The same, after a failure was reported: inside the lock if it holds.
    Restart(Batch),
    /// After a failure was reported: there is nothing to run inside the lock.
    Release,
}

impl Step {
    fn into_batch(self) -> Option<Batch> {
        match self {
            Self::Commit(batch) | Self::Restart(batch) => Some(batch),
            Self::Release => None,
        }
    }
}

/// What became of it. Batches come back when nothing of them was committed.
#[derive(Debug)]
pub(crate) enum Report {
    /// The oldest batch is committed, and passed on to be flushed.
    Committed,
    /// Nothing of these batches, the oldest first, was committed. What is committed next has to
    /// come as [`Step::Restart`].
    Failed(Vec<Batch>, Why),
    /// It was on its way when a failure was reported.
    Bounced(Batch),
    /// The session is unusable.
    Lost(Lost),
}

/// Why the oldest of the returned batches could not be committed.
#[derive(Debug)]
pub(crate) enum Why {
    /// Another process has written. The head row is locked and stays so until the next step.
    HeadMoved(Head),
    /// These commands were refused before.
    RefusedBefore(Vec<(Uuid, Problem)>),
    /// Some command id is in the ledger already.
    Taken,
    /// The database does not take these rows.
    Rejected(String),
}

/// What a lost session leaves.
#[derive(Debug)]
pub(crate) struct Lost {
    /// Whether these were committed is unknown.
    pub(crate) unknown: Vec<Batch>,
    /// These were never sent.
    pub(crate) unsent: Vec<Batch>,
    pub(crate) error: StoreError,
}

impl Lost {
    pub(crate) const fn because(error: StoreError) -> Self {
        Self {
            unknown: Vec::new(),
            unsent: Vec::new(),
            error,
        }
    }
}

/// A batch that waits for its outcome. One that does not need the database waits for those before
/// it all the same: its answers rest on theirs.
struct Pending {
    batch: Batch,
    sent: bool,
}

/// Runs steps until their sender is gone or the session is lost.
pub(crate) struct Committer {
    pub(crate) session: Box<dyn WriteSession>,
    pub(crate) steps: mpsc::Receiver<Step>,
    pub(crate) reports: mpsc::Sender<Report>,
    pub(crate) flusher: mpsc::Sender<Batch>,
    pending: VecDeque<Pending>,
    /// A failure was reported, and no step after it has come yet.
    failed: bool,
}

impl Committer {
    pub(crate) fn new(
        session: Box<dyn WriteSession>,
        steps: mpsc::Receiver<Step>,
        reports: mpsc::Sender<Report>,
        flusher: mpsc::Sender<Batch>,
    ) -> Self {
        Self {
            session,
            steps,
            reports,
            flusher,
            pending: VecDeque::new(),
            failed: false,
        }
    }

    pub(crate) async fn run(mut self) {
        if let Err(error) = self.work().await {
            let (sent, unsent): (Vec<_>, Vec<_>) =
                self.pending.drain(..).partition(|pending| pending.sent);
            let mut lost = Lost {
                unknown: sent.into_iter().map(|p| p.batch).collect(),
                unsent: unsent.into_iter().map(|p| p.batch).collect(),
                error,
            };
            self.steps.close();
            while let Some(step) = self.steps.recv().await {
                lost.unsent.extend(step.into_batch());
            }
            // if nobody listens, the ledger has ended
            let _ = self.reports.send(Report::Lost(lost)).await;
        }
    }

    async fn work(&mut self) -> Result<(), StoreError> {
        let mut ended = false;
        loop {
            let in_flight_max = self.session.in_flight_max().max(1);
            let room = self.pending.len() < in_flight_max && !ended;
            let Some(oldest) = self.pending.front() else {
                match self.steps.recv().await {
                    Some(step) => self.step(step).await?,
                    None => return Ok(()),
                }
                continue;
            };
            if !oldest.sent {
                self.take(Done::Committed).await?;
                continue;
            }
            tokio::select! {
                biased;
                step = self.steps.recv(), if room => match step {
                    Some(step) => self.step(step).await?,
                    None => ended = true,
                },
                done = self.session.outcome() => self.take(done).await?,
            }
        }
    }

    async fn step(&mut self, step: Step) -> Result<(), StoreError> {
        match step {
            Step::Commit(batch) if self.failed => self.report(Report::Bounced(batch)).await,
            Step::Commit(batch) => {
                self.send(batch);
                Ok(())
            }
            Step::Restart(batch) => {
                self.failed = false;
                if !batch.needs_transaction() {
                    self.session.release().await?;
                }
                self.send(batch);
                Ok(())
            }
            Step::Release => {
                self.failed = false;
                self.session.release().await
            }
        }
    }

    fn send(&mut self, batch: Batch) {
        let sent = batch.needs_transaction();
        if sent {
            self.session.send(&batch.transaction);
        }
        self.pending.push_back(Pending { batch, sent });
    }

    /// What became of the oldest.
    async fn take(&mut self, done: Done) -> Result<(), StoreError> {
        let moved = matches!(done, Done::HeadMoved);
        let why = match done {
            Done::Committed => return self.committed().await,
            Done::Lost(error) => return Err(error),
            // replaced below, once the row is locked
            Done::HeadMoved => Why::Taken,
            Done::RefusedBefore(refused) => Why::RefusedBefore(refused),
            Done::Taken => Why::Taken,
            Done::Rejected(why) => Why::Rejected(why),
        };
        // what rests on it cannot be committed either
        for _ in self.pending.iter().skip(1).filter(|p| p.sent) {
            match self.session.outcome().await {
                Done::Lost(error) => return Err(error),
                Done::Committed => {
                    let text = "a transaction was committed after one before it was not";
                    return Err(StoreError::Internal(text.to_owned()));
                }
                _ => {}
            }
        }
        let why = if moved {
            Why::HeadMoved(self.session.lock().await?)
        } else {
            why
        };
        let batches = self.pending.drain(..).map(|p| p.batch).collect();
        self.failed = true;
        self.report(Report::Failed(batches, why)).await
    }

    async fn committed(&mut self) -> Result<(), StoreError> {
        let Some(Pending { batch, sent }) = self.pending.pop_front() else {
            return Ok(());
        };
        match self.flusher.send(batch).await {
            Ok(()) => self.report(Report::Committed).await,
            Err(returned) => {
                let batch = returned.0;
                self.pending.push_front(Pending { batch, sent });
                Err(StoreError::Unreachable("flush".to_owned()))
            }
        }
    }

    async fn report(&mut self, report: Report) -> Result<(), StoreError> {
        // nobody listens only while the session is being ended, and then everything is received
        self.reports
            .send(report)
            .await
            .map_err(|_| StoreError::Closed)
    }
}
