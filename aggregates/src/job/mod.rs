//! A job: work that a worker process does, effect by effect.
//!
//! What makes it safe stands here and nowhere else. Each command of a worker names its attempt,
//! and only the newest attempt may write, so a worker that was paused and revived changes nothing.
//! An effect is recorded as started before it runs; when its worker is lost, one that may be
//! repeated is run again under the same id, and any other is in doubt until a human has looked.
//! The queue's tables only say which job a worker might try next.

mod approved;
mod command;
mod decide;
#[cfg(test)]
mod tests;

use std::fmt::Write as _;

use cqrs_es::Aggregate;
use cqrs_es::event_sink::EventSink;
use serde::{Deserialize, Serialize};
use sovereign_effects::EffectId;
use sovereign_schemas::borrowed::ToBorrowed as _;
use sovereign_schemas::events::{EffectEnd, JobEvent, JobEventRef, Verdict};
use sovereign_schemas::{AggregateId, Timestamp, Uuid};

use crate::{Decision, Refusal};

pub(crate) use approved::run_approval;
pub use approved::{ABORT, FORCE_START, RUN, Stake, submission_digest};
pub use command::{
    Abort, Authorize, Cancel, Ended, ForceStart, How, JobCommand, Lose, Resolve, Start, Step,
    Submit, Then,
};

/// Most effects of one job, compensations included.
pub const EFFECTS_MAX: u32 = 256;
/// Most jobs that one job may wait for.
pub const AFTER_MAX: usize = 64;
/// Most failures of effects that are worth a retry.
pub const ATTEMPTS_MAX: u32 = 100;
/// Longest pause before a retry: one hour, in milliseconds.
pub const BACKOFF_MS_MAX: u32 = 3_600_000;

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobStatus {
    /// Not submitted yet.
    #[default]
    None,
    /// Waits for people.
    Held,
    /// Waits for other jobs.
    Blocked,
    /// Waits for a worker.
    Queued,
    /// A worker has it.
    Running,
    /// A human has to say whether an effect happened.
    InDoubt,
    /// Ended Green.
    Green,
    /// Ended Red.
    Red,
    /// Could not be done; ended.
    Failed,
    /// Given up; ended.
    Aborted,
    /// Never started, because of another job; ended.
    Cancelled,
}

impl JobStatus {
    /// As callers see it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Held => "held",
            Self::Blocked => "blocked",
            Self::Queued => "queued",
            Self::Running => "running",
            Self::InDoubt => "in_doubt",
            Self::Green => "green",
            Self::Red => "red",
            Self::Failed => "failed",
            Self::Aborted => "aborted",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether nothing happens to it any more.
    #[must_use]
    pub const fn ended(self) -> bool {
        use JobStatus::{Aborted, Cancelled, Failed, Green, Red};
        matches!(self, Green | Red | Failed | Aborted | Cancelled)
    }
}

/// Where an effect stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EffectStatus {
    /// It has not been started.
    Intended,
    /// It may have happened.
    Started,
    /// It happened.
    Done,
    /// It certainly did not happen.
    NotDone,
    /// Nobody knows whether it happened.
    InDoubt,
    /// It happened and was undone.
    Compensated,
}

impl EffectStatus {
    /// As a report spells it: what was only intended is not done, and of what was started nobody
    /// knows.
    #[must_use]
    pub const fn reported(self) -> &'static str {
        match self {
            Self::Intended | Self::NotDone => "not_done",
            Self::Started | Self::InDoubt => "in_doubt",
            Self::Done => "done",
            Self::Compensated => "compensated",
        }
    }
}

/// One effect of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobEffect {
    /// Where it stands.
    pub status: EffectStatus,
    /// Whether it may have happened in an attempt of which nothing was heard: what a later one
    /// says of itself does not tell that.
    pub unsure: bool,
    /// Whether running it again under its id is safe.
    pub repeatable: bool,
    /// The effect that it undoes.
    pub compensates: Option<u32>,
}

/// State of one job.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Job {
    /// Where it stands.
    pub status: JobStatus,
    /// The newest attempt; 0 before the first.
    pub attempt: u32,
    /// How often an effect failed and was to be tried again.
    pub tries: u32,
    /// How often that may be.
    pub attempts_max: u32,
    /// Pause before the first retry.
    pub backoff_ms: u32,
    /// How many effects it will have, where that is known.
    pub planned: Option<u32>,
    /// Not to be started before.
    pub due_at: Option<Timestamp>,
    /// Why it is to be given up.
    pub abort: Option<Box<str>>,
    /// Its effects, by number.
    pub effects: Vec<JobEffect>,
    /// What people judge, of a job with an amount. It follows from the submission, with its header:
    /// it is not part of the canonical state.
    #[serde(skip)]
    pub stake: Option<Box<Stake>>,
}

/// The id of an effect: what its target is given as idempotency key.
///
/// # Examples
/// ```
/// use sovereign_aggregates::job::effect_id;
/// let job = "trade_eth_040226_1201".parse().unwrap();
/// assert_eq!(effect_id(&job, 0), effect_id(&job, 0));
/// assert_ne!(effect_id(&job, 0), effect_id(&job, 1));
/// ```
#[must_use]
pub fn effect_id(job: &AggregateId, index: u32) -> Uuid {
    EffectId::of(job.as_str(), index).0
}

fn number(n: i32) -> u32 {
    // numbers below zero are never written
    u32::try_from(n).unwrap_or(0)
}

impl Job {
    /// The effect that was begun and whose end is not known, if there is one.
    #[must_use]
    pub fn open(&self) -> Option<u32> {
        use EffectStatus::{Intended, Started};
        self.find(|e| matches!(e.status, Intended | Started))
    }

    /// The effect of which nobody knows, if there is one.
    #[must_use]
    pub fn in_doubt(&self) -> Option<u32> {
        self.find(|e| e.status == EffectStatus::InDoubt)
    }

    /// Whether a worker may not take it over before a human has looked: an effect was started, and
    /// is not safe to repeat.
    #[must_use]
    pub fn doubtful(&self) -> bool {
        let doubtful = |e: &JobEffect| e.status == EffectStatus::Started && !e.repeatable;
        self.abort.is_none() && self.effects.iter().any(doubtful)
    }

    /// Whether it undoes what it did: an effect was begun that undoes another.
    #[must_use]
    pub fn undoes(&self) -> bool {
        self.effects.iter().any(|e| e.compensates.is_some())
    }

    /// How often its effects may fail before that is final; while it undoes what was done, as
    /// often again.
    #[must_use]
    pub fn tries_max(&self) -> u32 {
        self.attempts_max * if self.undoes() { 2 } else { 1 }
    }

    fn find(&self, wanted: impl Fn(&JobEffect) -> bool) -> Option<u32> {
        let at = self.effects.iter().position(wanted)?;
        u32::try_from(at).ok()
    }

    /// What became of each effect, those that were never begun included, compensations not:
    /// `0:done 1:compensated 2:in_doubt 3:not_done`.
    #[must_use]
    pub fn report(&self) -> String {
        let mut report = String::new();
        let begun = self.effects.iter().filter(|e| e.compensates.is_none());
        let begun = begun.count() as u32;
        let known = self.effects.iter().enumerate();
        let known = known.filter(|(_, e)| e.compensates.is_none());
        for (index, effect) in known {
            let gap = if report.is_empty() { "" } else { " " };
            // writing into a string cannot fail
            let _ = write!(report, "{gap}{index}:{}", self.reported(index, effect));
        }
        for index in begun..self.planned.unwrap_or(0).min(EFFECTS_MAX) {
            let gap = if report.is_empty() { "" } else { " " };
            let _ = write!(report, "{gap}{index}:not_done");
        }
        report
    }

    fn reported(&self, index: usize, effect: &JobEffect) -> &'static str {
        use EffectStatus::{Done, InDoubt, Started};
        let undoing = self
            .effects
            .iter()
            .any(|e| e.compensates == Some(index as u32) && matches!(e.status, Started | InDoubt));
        if undoing && effect.status == Done {
            return InDoubt.reported();
        }
        effect.status.reported()
    }

    /// Takes one recorded event. Total: never fails, whatever came before.
    pub fn evolve(&mut self, event: &JobEvent) {
        self.evolve_borrowed(&event.borrowed());
    }

    /// As [`Self::evolve`], from an event that was not copied out of its datum.
    pub fn evolve_borrowed(&mut self, event: &JobEventRef<'_>) {
        match event {
            JobEventRef::JobSubmitted(e) => {
                let blocked = !e.after.as_str().is_empty();
                self.status = if blocked {
                    JobStatus::Blocked
                } else {
                    JobStatus::Queued
                };
                self.attempts_max = number(e.attempts_max);
                self.backoff_ms = number(e.backoff_ms);
                self.planned = e.planned.map(number);
                self.due_at = e.run_at;
                self.stake = e.amount.map(|amount| Stake::of(e, amount).into());
            }
            JobEventRef::JobHeld(_) => self.status = JobStatus::Held,
            JobEventRef::JobAuthorized(e) => {
                self.status = if e.blocked {
                    JobStatus::Blocked
                } else {
                    JobStatus::Queued
                };
            }
            JobEventRef::JobForced(e) => {
                self.status = JobStatus::Queued;
                self.due_at = None;
                if let Some(stake) = &mut self.stake {
                    stake.forced = Some(e.authority.as_str().into());
                }
            }
            JobEventRef::JobUnblocked(_) => self.status = JobStatus::Queued,
            JobEventRef::JobStarted(e) => {
                self.status = JobStatus::Running;
                self.attempt = number(e.attempt);
                self.due_at = None;
            }
            JobEventRef::EffectIntended(e) => self.effects.push(JobEffect {
                status: EffectStatus::Intended,
                unsure: false,
                repeatable: e.repeatable,
                compensates: e.compensates.map(number),
            }),
            JobEventRef::EffectStarted(e) => {
                self.restart(e.index);
                // a worker goes on past an effect in doubt when it undoes others
                self.status = JobStatus::Running;
            }
            JobEventRef::EffectFinished(e) => self.set(
                e.index,
                match e.end {
                    EffectEnd::Done => EffectStatus::Done,
                    EffectEnd::Failed | EffectEnd::Cancelled => EffectStatus::NotDone,
                },
            ),
            JobEventRef::EffectInDoubt(e) => {
                self.set(e.index, EffectStatus::InDoubt);
                self.status = JobStatus::InDoubt;
            }
            JobEventRef::EffectResolved(e) => {
                let status = if e.done {
                    EffectStatus::Done
                } else {
                    EffectStatus::NotDone
                };
                self.set(e.index, status);
                if self.in_doubt().is_none() {
                    self.status = JobStatus::Queued;
                }
            }
            JobEventRef::EffectCompensated(e) => self.set(e.index, EffectStatus::Compensated),
            JobEventRef::JobRetryScheduled(e) => {
                self.status = JobStatus::Queued;
                self.tries = number(e.tries);
                self.due_at = Some(e.due_at);
            }
            JobEventRef::JobLost(_) => {
                let waits = self.abort.is_none() && self.in_doubt().is_some();
                self.status = if waits {
                    JobStatus::InDoubt
                } else {
                    JobStatus::Queued
                };
            }
            JobEventRef::JobAbortRequested(e) => {
                self.abort = Some(e.reason.as_str().into());
                self.due_at = None;
                if self.status != JobStatus::Running {
                    self.status = JobStatus::Queued;
                }
            }
            JobEventRef::JobFinished(e) => {
                self.status = match e.verdict {
                    Verdict::Green => JobStatus::Green,
                    Verdict::Red => JobStatus::Red,
                };
            }
            // the same as EffectFinished, as numbers
            JobEventRef::OrderFilled(_) => {}
            JobEventRef::JobFailed(_) => self.status = JobStatus::Failed,
            JobEventRef::JobAborted(_) => self.status = JobStatus::Aborted,
            JobEventRef::JobCancelled(_) => self.status = JobStatus::Cancelled,
        }
    }

    fn restart(&mut self, index: i32) {
        let found = usize::try_from(index).ok();
        if let Some(effect) = found.and_then(|index| self.effects.get_mut(index)) {
            effect.unsure |= effect.status == EffectStatus::Started;
            effect.status = EffectStatus::Started;
        }
    }

    fn set(&mut self, index: i32, status: EffectStatus) {
        let found = usize::try_from(index).ok();
        if let Some(effect) = found.and_then(|index| self.effects.get_mut(index)) {
            effect.status = status;
            effect.unsure = false;
        }
    }
}

impl Aggregate for Job {
    const TYPE: &'static str = "job";
    type Command = JobCommand;
    type Event = JobEvent;
    type Error = Refusal;
    type Services = Decision;

    async fn handle(
        &mut self,
        command: JobCommand,
        decision: &Decision,
        sink: &EventSink<Self>,
    ) -> Result<(), Refusal> {
        for event in self.decide(command, decision)? {
            let submitted = matches!(event, JobEvent::JobSubmitted(_));
            sink.write(event, self).await;
            if submitted {
                self.submitted_by(decision.department, decision.actor.as_str());
            }
        }
        Ok(())
    }

    fn apply(&mut self, event: JobEvent) {
        self.evolve(&event);
    }
}
