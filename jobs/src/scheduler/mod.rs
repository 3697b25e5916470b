//! Submits the jobs of schedules when they are due. Ids of jobs and commands follow from schedule
//! and due time, so whoever does it a second time (another engine, one that was restarted, one
//! whose clock was set back) makes no second job.

mod plan;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sovereign_aggregates::job::{JobCommand, Submit};
use sovereign_schemas::{
    AggregateId, CommandContext, DepartmentId, Departments, ErrorCode, Identifier, Problem,
    RawText, RecordedEvent, Status, TYPES_NAMESPACE, Timestamp, Uuid,
};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::{JobLedger, JobRequest, name_of, numbered};

pub use plan::{Plan, Run};

/// It looks at its clock and for new schedules at least so often.
const TICK: Duration = Duration::from_secs(1);
/// Ids that are tried for one run, if others' jobs have the first.
const NUMBERS_MAX: u64 = 16;
/// Events of the schedules that are read at once.
const EVENTS_MAX: usize = 100;

/// The events that adopted schedules, as the scheduler reads them.
#[async_trait]
pub trait ScheduleLog: Send + Sync {
    /// Events of the schedules behind a sequence, in order, at most `limit`.
    ///
    /// # Errors
    /// If they cannot be read just now.
    async fn adopted(&self, after: u64, limit: usize) -> Result<Vec<RecordedEvent>, Problem>;
}

/// Submits what is due. One process does it at a time; two that do it for a moment do it once.
pub struct Scheduler {
    log: Arc<dyn ScheduleLog>,
    ledger: Arc<dyn JobLedger>,
    departments: Departments,
    actor: Identifier,
    /// Why no jobs are submitted, while they should be.
    stuck: watch::Sender<Option<Problem>>,
}

impl std::fmt::Debug for Scheduler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scheduler").finish_non_exhaustive()
    }
}

impl Plan {
    /// Takes what was adopted since.
    ///
    /// # Errors
    /// If it cannot be read, or does not decode.
    pub async fn follow(&mut self, log: &dyn ScheduleLog) -> Result<(), Problem> {
        loop {
            let events = log.adopted(self.sequence(), EVENTS_MAX).await?;
            for event in &events {
                self.apply(event).map_err(Problem::from)?;
            }
            if events.len() < EVENTS_MAX {
                return Ok(());
            }
        }
    }
}

impl Scheduler {
    /// `actor` is who submits the jobs.
    #[must_use]
    pub fn new(
        log: Arc<dyn ScheduleLog>,
        ledger: Arc<dyn JobLedger>,
        departments: Departments,
        actor: Identifier,
    ) -> Self {
        Self {
            log,
            ledger,
            departments,
            actor,
            stuck: watch::Sender::default(),
        }
    }

    /// Why nothing is submitted just now, though it is this process' part; nothing if all is well.
    #[must_use]
    pub fn stuck(&self) -> watch::Receiver<Option<Problem>> {
        self.stuck.subscribe()
    }

    /// Submits while `on` says so, until its sender is gone.
    pub async fn run(self, mut on: watch::Receiver<bool>) {
        let mut plan = Plan::default();
        loop {
            if on.wait_for(|on| *on).await.is_err() {
                return;
            }
            let problem = self.tick(&mut plan, Timestamp::now()).await.err();
            self.stuck.send_if_modified(|stuck| {
                let changed = *stuck != problem;
                *stuck = problem;
                changed
            });
            // the clock is looked at again: submitting takes a moment
            let now = Timestamp::now();
            let next = plan.next(now).map_or(TICK, |next| {
                Duration::from_micros(next.0.saturating_sub(now.0).unsigned_abs())
            });
            tokio::select! {
                () = tokio::time::sleep(next.min(TICK)) => {}
                changed = on.changed() => match changed {
                    Ok(()) => { self.stuck.send_replace(None); }
                    Err(_) => return,
                },
            }
        }
    }

    /// Submits what is due at this moment.
    ///
    /// # Errors
    /// Why something that is due was not submitted; the next tick tries again.
    async fn tick(&self, plan: &mut Plan, now: Timestamp) -> Result<(), Problem> {
        plan.follow(self.log.as_ref()).await?;
        if plan.timetable().unreadable() {
            let message = "this build cannot read the schedules that hold; none of them runs";
            return Err(Problem::new(ErrorCode::InvalidSchedule, message)
                .remedy("run the build that adopted them, or adopt others"));
        }
        let mut waits = None;
        for run in plan.due(now) {
            let name = run.schedule.name.as_str();
            match self.submit(&run).await {
                Ok(job) => {
                    info!(schedule = name, %job, "scheduled job");
                    metrics::counter!("sovereign_schedule_runs_total").increment(1);
                    plan.done(&run);
                }
                // it would be refused for ever
                Err(problem) if matches!(problem.code.exit_code(), 2 | 4) => {
                    warn!(schedule = name, code = %problem.code, message = %problem.message,
                          "scheduled job refused");
                    metrics::counter!("sovereign_schedule_refusals_total").increment(1);
                    plan.done(&run);
                }
                Err(problem) => waits = Some(problem),
            }
        }
        waits.map_or(Ok(()), Err)
    }

    /// Submits the job of one run; its id.
    async fn submit(&self, run: &Run) -> Result<AggregateId, Problem> {
        let (name, job) = (&run.schedule.name, &run.schedule.job);
        let (_, planned) = crate::arguments(job.kind.as_str(), &job.arguments)?;
        if self.ledger.scrub(&job.arguments) != job.arguments {
            let message = "the arguments hold what looks like a secret or personal data";
            return Err(Problem::new(ErrorCode::SensitiveIdentifier, message).field("arguments"));
        }
        let department = match &job.department {
            Some(name) => self.departments.find(name.as_str())?.id,
            None => DepartmentId::ORCHESTRATOR,
        };
        let base = name_of(name.as_str(), run.due_at);
        for number in 1..=NUMBERS_MAX {
            let Some(id) = numbered(&base, number) else {
                return Err(Problem::new(ErrorCode::InvalidId, "is no part of an id").field("name"));
            };
            let seed = format!("schedule/{name}/{}/{number}", run.due_at);
            let command_id = Uuid::new_v5(&TYPES_NAMESPACE, seed.as_bytes());
            let command = JobCommand::Submit(Submit {
                kind: job.kind.clone(),
                queue: job.queue,
                arguments: RawText::new(job.arguments.as_str()),
                planned,
                run_at: Some(run.due_at),
                after: Vec::new(),
                unique_key: None,
                attempts_max: job.attempts_max,
                backoff_ms: job.backoff_ms,
                amount: None,
                currency: None,
                schedule: Some(name.clone()),
            });
            let context = CommandContext {
                command_id,
                actor: self.actor.clone(),
                department,
                correlation_id: command_id,
                causation_id: Some(run.cause),
                traceparent: None,
            };
            let outcome = self.ledger.submit(JobRequest {
                job: id.clone(),
                command,
                context,
                subject: None,
            });
            let outcome = outcome.await;
            match (outcome.status, outcome.error) {
                (Status::Accepted | Status::Duplicate, _) => return Ok(id),
                // somebody's own job has this id: whoever asks, finds it there and takes the next
                (_, Some(problem)) if problem.code == ErrorCode::AlreadyExists => {}
                (_, Some(problem)) => return Err(problem),
                (_, None) => {
                    let message = "the ledger gave no reason";
                    return Err(Problem::new(ErrorCode::Internal, message));
                }
            }
        }
        Err(Problem::new(ErrorCode::AlreadyExists, "all ids of this run are taken").found(base))
    }
}
