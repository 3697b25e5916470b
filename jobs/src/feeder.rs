//! Keeps the queue's tables up with the ledger, and says to jobs that wait what became of others.

use std::sync::Arc;
use std::time::Duration;

use sovereign_aggregates::job::{Cancel, JobCommand};
use sovereign_event_store::{Decided, FEED_EVENTS_MAX, JobQueueStore, StoreError};
use sovereign_schemas::{
    AggregateId, AggregateType, CommandContext, DepartmentId, Identifier, Position, Problem,
    RecordedEvent, TYPES_NAMESPACE, Tail, Uuid,
};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::{JobLedger, JobRequest};

/// So long it waits for new events at most.
const WAIT: Duration = Duration::from_millis(500);
/// After a failure of the database it is tried again after so long.
const PAUSE: Duration = Duration::from_millis(500);
/// Where no event is a job's, the place is written down only so often.
const POSITIONS_UNWRITTEN_MAX: u64 = 50_000;
/// What was asked of a job is asked again, under another id, if it has no effect for so long.
const AGAIN: Duration = Duration::from_secs(30);

/// Feeds the queue from the ledger. One process does it at a time; two that do it for a moment
/// stand in each other's way, and nothing else: the place and the rows change together.
pub struct Feeder {
    queue: JobQueueStore,
    ledger: Arc<dyn JobLedger>,
    actor: Identifier,
    /// Why the queue is not fed, while it should be.
    stuck: watch::Sender<Option<Problem>>,
}

impl std::fmt::Debug for Feeder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Feeder").finish_non_exhaustive()
    }
}

impl Feeder {
    /// `actor` is who asks jobs to go on or to be cancelled.
    #[must_use]
    pub fn new(queue: JobQueueStore, ledger: Arc<dyn JobLedger>, actor: Identifier) -> Self {
        Self {
            queue,
            ledger,
            actor,
            stuck: watch::Sender::default(),
        }
    }

    /// Why the queue is not fed just now, though it is fed here; nothing if it is, or elsewhere.
    #[must_use]
    pub fn stuck(&self) -> watch::Receiver<Option<Problem>> {
        self.stuck.subscribe()
    }

    /// Feeds while `on` says so, until its sender is gone.
    pub async fn run(self, mut tail: Box<dyn Tail>, mut on: watch::Receiver<bool>) {
        loop {
            if on.wait_for(|on| *on).await.is_err() {
                return;
            }
            info!("queue of jobs is fed here");
            if let Err(error) = self.feed(tail.as_mut(), &on).await {
                warn!(%error, "queue of jobs is not fed just now");
                self.stuck.send_replace(Some(error.problem()));
                tokio::time::sleep(PAUSE).await;
            }
            if !*on.borrow() {
                self.stuck.send_replace(None);
            }
            if on.has_changed().is_err() {
                return;
            }
        }
    }

    async fn feed(
        &self,
        tail: &mut dyn Tail,
        on: &watch::Receiver<bool>,
    ) -> Result<(), StoreError> {
        let mut written = self.queue.fed().await?;
        let mut read = written;
        // a process before this one may have ended between rows and commands
        let mut decide = true;
        while *on.borrow() && on.has_changed().is_ok() {
            if decide {
                decide = self.tell().await?;
            }
            let events = tail.next(read, FEED_EVENTS_MAX, WAIT).await?;
            let Some(last) = events.last() else {
                self.goes_on();
                continue;
            };
            let reached = last.position();
            let own: Vec<Arc<RecordedEvent>> = events
                .into_iter()
                .filter(|e| e.header.aggregate_type == AggregateType::Job.as_str())
                .collect();
            read = reached;
            let unwritten = reached.0.saturating_sub(written.0);
            if own.is_empty() && unwritten < POSITIONS_UNWRITTEN_MAX {
                self.goes_on();
                continue;
            }
            if !self.queue.feed(written, reached, &own).await? {
                // somebody else was faster
                written = self.queue.fed().await?;
                read = written;
                continue;
            }
            self.goes_on();
            written = reached;
            decide |= !own.is_empty();
        }
        Ok(())
    }

    fn goes_on(&self) {
        self.stuck
            .send_if_modified(|problem| problem.take().is_some());
    }

    /// Asks jobs that wait to go on, or to be cancelled; answers whether there may be more.
    async fn tell(&self) -> Result<bool, StoreError> {
        let decided = self.queue.decided().await?;
        let more = !decided.is_empty();
        for what in decided {
            self.ask(what).await;
        }
        Ok(more)
    }

    async fn ask(&self, decided: Decided) {
        let (job, command, word) = match decided {
            Decided::Unblock(job) => (job, JobCommand::Unblock, "unblock"),
            Decided::Cancel {
                job,
                because,
                reason,
            } => {
                let (Ok(because), Ok(reason)) = (because.parse(), reason.parse()) else {
                    return;
                };
                (
                    job,
                    JobCommand::Cancel(Cancel { because, reason }),
                    "cancel",
                )
            }
        };
        let outcome = self.ledger.submit(self.request(job, command, word)).await;
        if let Some(problem) = outcome.error {
            // the tables are a little behind, or the ledger has too much to do
            tracing::debug!(code = %problem.code, message = %problem.message, "job not told");
        }
    }

    fn request(
        &self,
        job: AggregateId,
        command: JobCommand<sovereign_schemas::RawText>,
        word: &str,
    ) -> JobRequest {
        let seconds = sovereign_schemas::Timestamp::now().0 / 1_000_000;
        let turn = seconds / i64::try_from(AGAIN.as_secs()).unwrap_or(30);
        let id = format!("job/{word}/{job}/{turn}");
        let command_id = Uuid::new_v5(&TYPES_NAMESPACE, id.as_bytes());
        JobRequest {
            job,
            command,
            context: CommandContext {
                command_id,
                actor: self.actor.clone(),
                department: DepartmentId::ORCHESTRATOR,
                correlation_id: command_id,
                causation_id: None,
                traceparent: None,
            },
            subject: None,
        }
    }

    /// How far the queue is behind a position.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn lag(queue: &JobQueueStore, head: Position) -> Result<u64, StoreError> {
        Ok(head.0.saturating_sub(queue.fed().await?.0))
    }
}
