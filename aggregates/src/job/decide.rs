//! Which events follow from a command to a job, if it may happen.

use sovereign_schemas::events::{
    EffectCompensated, EffectEnd, EffectFinished, EffectInDoubt, EffectIntended, EffectResolved,
    EffectStarted, JobAbortRequested, JobAborted, JobAuthorized, JobCancelled, JobEvent, JobFailed,
    JobFinished, JobForced, JobHeld, JobLost, JobRetryScheduled, JobStarted, JobSubmitted,
    JobUnblocked, OrderFilled,
};
use sovereign_schemas::{AggregateId, ErrorCode, Problem, Text, Timestamp, Uuid};

use super::approved::{run_approval, submission_digest};
use super::{
    ABORT, AFTER_MAX, ATTEMPTS_MAX, BACKOFF_MS_MAX, EFFECTS_MAX, EffectStatus, Ended, FORCE_START,
    ForceStart, How, Job, JobCommand, JobStatus, RUN, Resolve, Start, Step, Submit, Then,
    effect_id,
};
use crate::{Decision, Refusal};

/// Why an effect is in doubt whose worker is gone.
const WORKER_LOST: &str = "worker-lost";

/// Events in the order in which they happen, and the state behind the last of them.
struct Next<'a> {
    job: Job,
    events: Vec<JobEvent>,
    decision: &'a Decision,
}

fn wrong_state(job: &Job, needs: &str) -> Refusal {
    Problem::new(
        ErrorCode::WrongState,
        format!("the job is {}", job.status.as_str()),
    )
    .expected(needs)
    .into()
}

fn signed(n: u32) -> i32 {
    // all that is counted here has a limit far below
    i32::try_from(n).unwrap_or(i32::MAX)
}

impl Job {
    /// Which events follow from `command`, if it may happen.
    ///
    /// # Errors
    /// Why it may not.
    pub fn decide(
        &self,
        command: JobCommand,
        decision: &Decision,
    ) -> Result<Vec<JobEvent>, Refusal> {
        let exists = self.status != JobStatus::None;
        match command {
            JobCommand::Recorded(events) => return Ok(events),
            JobCommand::Submit(_) if exists => {
                return Err(Refusal::new(
                    ErrorCode::AlreadyExists,
                    "the job was submitted before",
                ));
            }
            JobCommand::Submit(submit) => return submitted_or_held(submit, decision),
            _ if !exists => return Err(Refusal::new(ErrorCode::NotFound, "no such job")),
            _ if self.status.ended() => {
                return Err(wrong_state(self, "a job that has not ended"));
            }
            _ => {}
        }
        let mut next = Next {
            job: self.clone(),
            events: Vec::new(),
            decision,
        };
        match command {
            JobCommand::Unblock => {
                next.must_be(JobStatus::Blocked)?;
                next.push(JobUnblocked {});
            }
            JobCommand::Cancel(cancel) => {
                next.must_be(JobStatus::Blocked)?;
                next.push(JobCancelled {
                    because: cancel.because.into(),
                    reason: cancel.reason.into(),
                });
            }
            JobCommand::Authorize(_) => {
                next.must_be(JobStatus::Held)?;
                let named = run_approval(&decision.aggregate_id);
                let authority = self.authority(RUN, Some(&named), decision)?;
                let blocked = self.stake.as_ref().is_some_and(|stake| stake.waits);
                next.push(JobAuthorized { authority, blocked });
            }
            JobCommand::ForceStart(ForceStart { approval_id }) => {
                let waits = matches!(self.status, JobStatus::Blocked | JobStatus::Queued);
                if !waits || self.abort.is_some() {
                    return Err(wrong_state(self, "a job that waits for others or its time"));
                }
                let named = approval_id.as_ref().map(AggregateId::as_str);
                let authority = self.authority(FORCE_START, named, decision)?;
                next.push(JobForced { authority });
            }
            JobCommand::Abort(abort) => {
                let named = abort.approval_id.as_ref().map(AggregateId::as_str);
                self.authority(ABORT, named, decision)?;
                next.abort(abort.reason.into())?;
            }
            JobCommand::Resolve(resolve) => next.resolve(resolve)?,
            JobCommand::Start(start) => next.start(start)?,
            JobCommand::Step(step) => next.step(step)?,
            JobCommand::Lose(lose) => next.lose(lose.attempt)?,
            JobCommand::Submit(_) | JobCommand::Recorded(_) => {}
        }
        Ok(next.events)
    }
}

fn submitted_or_held(submit: Submit<Text>, decision: &Decision) -> Result<Vec<JobEvent>, Refusal> {
    let submitted = submitted(submit, decision)?;
    let mut job = Job::default();
    let event = JobEvent::from(submitted);
    job.evolve(&event);
    job.submitted_by(decision.department, decision.actor.as_str());
    let people = job.stake.map_or(0, |stake| stake.people(RUN, decision));
    let mut events = vec![event];
    if people > 0 {
        let approval_id = run_approval(&decision.aggregate_id);
        events.push(JobHeld { approval_id }.into());
    }
    Ok(events)
}

fn submitted(submit: Submit<Text>, decision: &Decision) -> Result<JobSubmitted, Refusal> {
    let out_of_range = |field: &str, expected: String| -> Refusal {
        Problem::new(ErrorCode::WrongType, "is out of range")
            .field(format!("data.{field}"))
            .expected(expected)
            .into()
    };
    if !(1..=ATTEMPTS_MAX).contains(&submit.attempts_max) {
        return Err(out_of_range("attempts_max", format!("1 to {ATTEMPTS_MAX}")));
    }
    if !(1..=BACKOFF_MS_MAX).contains(&submit.backoff_ms) {
        return Err(out_of_range(
            "backoff_ms",
            format!("1 to {BACKOFF_MS_MAX} milliseconds"),
        ));
    }
    if submit.planned.is_some_and(|n| n > EFFECTS_MAX) {
        return Err(out_of_range("planned", format!("at most {EFFECTS_MAX}")));
    }
    if submit.after.len() > AFTER_MAX {
        return Err(out_of_range("after", format!("at most {AFTER_MAX} jobs")));
    }
    if submit.after.contains(&decision.aggregate_id) {
        return Err(
            Problem::new(ErrorCode::JobDependency, "the job waits for itself")
                .field("data.after")
                .found(decision.aggregate_id.as_str())
                .into(),
        );
    }
    if submit.amount.is_some_and(|a| !a.is_positive()) {
        return Err(Problem::new(ErrorCode::InvalidAmount, "must be above zero")
            .field("data.amount")
            .into());
    }
    let mut after: Vec<&str> = submit.after.iter().map(AggregateId::as_str).collect();
    after.sort_unstable();
    after.dedup();
    Ok(JobSubmitted {
        action_digest: submission_digest(
            decision.aggregate_id.as_str(),
            submit.kind.as_str(),
            &submit.arguments,
        ),
        after: after.join(" "),
        kind: submit.kind.into(),
        queue: submit.queue,
        arguments: submit.arguments,
        planned: submit.planned.map(signed),
        run_at: submit.run_at,
        unique_key: submit.unique_key.map(Into::into),
        attempts_max: signed(submit.attempts_max),
        backoff_ms: signed(submit.backoff_ms),
        amount: submit.amount,
        currency: submit.currency.map(Into::into),
        schedule: submit.schedule.map(Into::into),
    })
}

/// Pause before a retry: twice as long each time, then half of it to all of it, so that jobs that
/// failed together do not come back together. Where between follows from job and number, so that a
/// replay says the same.
fn pause_ms(job: &AggregateId, backoff_ms: u32, tries: u32) -> i64 {
    let doubled = u64::from(backoff_ms) << tries.saturating_sub(1).min(20);
    let full = doubled.min(u64::from(BACKOFF_MS_MAX));
    let luck = effect_id(job, u32::MAX - tries).as_u128() as u32;
    let jittered = full / 2 + (full - full / 2) * u64::from(luck) / u64::from(u32::MAX);
    i64::try_from(jittered).unwrap_or(i64::MAX)
}

impl Next<'_> {
    fn push(&mut self, event: impl Into<JobEvent>) {
        let event = event.into();
        self.job.evolve(&event);
        self.events.push(event);
    }

    fn must_be(&self, status: JobStatus) -> Result<(), Refusal> {
        if self.job.status == status {
            return Ok(());
        }
        Err(wrong_state(&self.job, status.as_str()))
    }

    /// Of a job that has begun nothing at once; else a worker ends it before its next effect, for
    /// it knows how to undo what was done.
    fn abort(&mut self, reason: String) -> Result<(), Refusal> {
        if self.job.abort.is_some() {
            return Err(wrong_state(
                &self.job,
                "a job that is not to be aborted already",
            ));
        }
        let idle = self.job.status != JobStatus::Running;
        if idle && self.job.effects.is_empty() {
            let report = self.job.report();
            self.push(JobAborted { reason, report });
        } else {
            self.push(JobAbortRequested { reason });
        }
        Ok(())
    }

    fn resolve(&mut self, resolve: Resolve<Text>) -> Result<(), Refusal> {
        let Resolve {
            index,
            done,
            result,
        } = resolve;
        let effect = self.job.effects.get(index as usize);
        if effect.is_none_or(|e| e.status != EffectStatus::InDoubt) {
            let doubtful = self.job.in_doubt();
            return Err(
                Problem::new(ErrorCode::WrongState, "the effect is not in doubt")
                    .field("data.index")
                    .found(index.to_string())
                    .expected(doubtful.map_or_else(|| "none".to_owned(), |n| n.to_string()))
                    .into(),
            );
        }
        // while a worker undoes what else was done, it does not look again
        self.must_be(JobStatus::InDoubt)?;
        self.push(EffectResolved {
            index: signed(index),
            done,
            result,
        });
        Ok(())
    }

    fn start(&mut self, start: Start<Text>) -> Result<(), Refusal> {
        let Start {
            attempt,
            takes_over,
            worker,
            lease_ms,
            then,
        } = start;
        self.fence(attempt, self.job.attempt + 1)?;
        match self.job.status {
            JobStatus::Queued => {}
            JobStatus::Running if takes_over => self.lost()?,
            _ => return Err(wrong_state(&self.job, JobStatus::Queued.as_str())),
        }
        if let Some(due_at) = self.job.due_at.filter(|due| self.decision.at < *due) {
            return Err(Refusal::new(
                ErrorCode::NotDue,
                format!("the job waits until {due_at}"),
            ));
        }
        // a job that is given up repeats nothing but what undoes
        self.doubt_started();
        self.push(JobStarted {
            attempt: signed(attempt),
            worker: worker.into(),
            lease_ms: signed(lease_ms),
        });
        self.then(then)
    }

    fn fence(&self, attempt: u32, newest: u32) -> Result<(), Refusal> {
        if attempt == newest {
            return Ok(());
        }
        Err(
            Problem::new(ErrorCode::StaleAttempt, "another worker has the job")
                .field("data.attempt")
                .found(attempt.to_string())
                .expected(newest.to_string())
                .into(),
        )
    }

    /// The running attempt ended without a word. Of what it had started, and nobody may repeat,
    /// nobody knows.
    fn lost(&mut self) -> Result<(), Refusal> {
        if self.job.doubtful() {
            return Err(Refusal::new(
                ErrorCode::EffectInDoubt,
                "an effect of the lost attempt may have happened, and is not safe to repeat",
            ));
        }
        let attempt = signed(self.job.attempt);
        self.push(JobLost {
            attempt,
            released: false,
        });
        Ok(())
    }

    /// Of what was started and will not be repeated, nobody knows.
    fn doubt_started(&mut self) {
        let attempt = signed(self.job.attempt);
        for index in 0..self.job.effects.len() {
            let effect = self.job.effects[index];
            let repeated =
                effect.repeatable && (self.job.abort.is_none() || effect.compensates.is_some());
            if effect.status == EffectStatus::Started && !repeated {
                self.push(EffectInDoubt {
                    index: index as i32,
                    attempt,
                    code: WORKER_LOST.to_owned(),
                });
            }
        }
    }

    fn lose(&mut self, attempt: u32) -> Result<(), Refusal> {
        self.must_be(JobStatus::Running)?;
        self.fence(attempt, self.job.attempt)?;
        if !self.job.doubtful() {
            return Err(Refusal::new(
                ErrorCode::WrongState,
                "no effect of the attempt is in doubt; take it over",
            ));
        }
        let attempt = signed(attempt);
        self.push(JobLost {
            attempt,
            released: false,
        });
        self.doubt_started();
        Ok(())
    }

    fn step(&mut self, step: Step<Text>) -> Result<(), Refusal> {
        let Step {
            attempt,
            ended,
            then,
        } = step;
        self.fence(attempt, self.job.attempt)?;
        self.must_be(JobStatus::Running)?;
        if let Some(ended) = ended {
            self.ended(attempt, ended)?;
        }
        self.then(then)
    }

    fn ended(&mut self, attempt: u32, ended: Ended<Text>) -> Result<(), Refusal> {
        let Ended {
            index,
            how,
            result,
            fill,
        } = ended;
        let effect = self.job.effects.get(index as usize).copied();
        let Some(effect) = effect.filter(|e| e.status == EffectStatus::Started) else {
            return Err(
                Problem::new(ErrorCode::WrongState, "the effect is not under way")
                    .field("data.ended.index")
                    .found(index.to_string())
                    .into(),
            );
        };
        let (index, attempt) = (signed(index), signed(attempt));
        let finished = |end, code: Option<String>, result| EffectFinished {
            index,
            attempt,
            end,
            code,
            result,
        };
        match how {
            How::Done => {
                self.push(finished(EffectEnd::Done, None, result));
                if let Some(fill) = fill {
                    self.push(OrderFilled {
                        index,
                        order_id: fill.order_id.into(),
                        price: fill.price,
                        quantity: fill.quantity,
                        commission: fill.commission,
                        filled_at: fill.filled_at,
                    });
                }
                if let Some(undone) = effect.compensates {
                    self.push(EffectCompensated {
                        index: signed(undone),
                        by: index,
                    });
                }
            }
            How::Failed(_) | How::Cancelled if effect.unsure => self.push(EffectInDoubt {
                index,
                attempt,
                code: WORKER_LOST.to_owned(),
            }),
            How::Failed(code) => self.push(finished(EffectEnd::Failed, Some(code.into()), result)),
            How::Cancelled => self.push(finished(EffectEnd::Cancelled, None, result)),
            How::InDoubt(code) => {
                self.push(EffectInDoubt {
                    index,
                    attempt,
                    code: code.into(),
                });
            }
        }
        Ok(())
    }

    /// # Errors
    /// `job-aborting` if it goes on although somebody gave the job up.
    fn goes_on(&self) -> Result<(), Refusal> {
        if let Some(reason) = &self.job.abort {
            return Err(Problem::new(
                ErrorCode::JobAborting,
                format!("somebody gave the job up: {reason}"),
            )
            .expected("an effect that undoes another, or the end")
            .into());
        }
        Ok(())
    }

    fn nothing_open(&self) -> Result<(), Refusal> {
        match self.job.open() {
            None => Ok(()),
            Some(index) => Err(Refusal::new(
                ErrorCode::WrongState,
                format!("effect {index} has not ended"),
            )),
        }
    }

    fn then(&mut self, then: Then<Text>) -> Result<(), Refusal> {
        let attempt = signed(self.job.attempt);
        match then {
            Then::Effect {
                kind,
                effect,
                repeatable,
                compensates,
            } => {
                self.may_intend(compensates)?;
                let index = self.job.effects.len() as u32;
                let effect_id: Uuid = effect_id(&self.decision.aggregate_id, index);
                self.push(EffectIntended {
                    index: signed(index),
                    effect_id,
                    kind: kind.into(),
                    effect,
                    repeatable,
                    compensates: compensates.map(signed),
                });
                self.push(EffectStarted {
                    index: signed(index),
                    attempt,
                });
            }
            Then::Again(index) => {
                self.may_start(index)?;
                self.push(EffectStarted {
                    index: signed(index),
                    attempt,
                });
            }
            Then::Finish { verdict, result } => {
                self.goes_on()?;
                self.nothing_open()?;
                self.no_doubt()?;
                self.push(JobFinished {
                    attempt,
                    verdict,
                    result,
                });
            }
            Then::Retry => self.retry()?,
            Then::Fail(code) => {
                self.goes_on()?;
                self.nothing_open()?;
                self.no_doubt()?;
                let report = self.job.report();
                self.push(JobFailed {
                    attempt,
                    code: code.into(),
                    report,
                });
            }
            Then::Abort => {
                self.nothing_open()?;
                let reason = self.job.abort.as_deref().ok_or_else(|| {
                    Refusal::new(ErrorCode::WrongState, "nobody asked to abort the job")
                })?;
                let (reason, report) = (reason.to_owned(), self.job.report());
                self.push(JobAborted { reason, report });
            }
            Then::Release => {
                if self
                    .job
                    .effects
                    .iter()
                    .any(|e| e.status == EffectStatus::Started)
                {
                    return Err(Refusal::new(
                        ErrorCode::WrongState,
                        "an effect is under way",
                    ));
                }
                self.push(JobLost {
                    attempt,
                    released: true,
                });
            }
            Then::Wait => {
                if self.job.in_doubt().is_none() || self.job.open().is_some() {
                    return Err(Refusal::new(ErrorCode::WrongState, "no effect is in doubt"));
                }
            }
        }
        Ok(())
    }

    fn no_doubt(&self) -> Result<(), Refusal> {
        match self.job.in_doubt() {
            None => Ok(()),
            Some(index) => Err(Refusal::new(
                ErrorCode::EffectInDoubt,
                format!("effect {index} is in doubt"),
            )),
        }
    }

    fn may_intend(&self, compensates: Option<u32>) -> Result<(), Refusal> {
        self.nothing_open()?;
        if self.job.effects.len() >= EFFECTS_MAX as usize {
            return Err(
                Problem::new(ErrorCode::WrongState, "the job has too many effects")
                    .expected(format!("at most {EFFECTS_MAX}"))
                    .into(),
            );
        }
        let Some(undone) = compensates else {
            self.no_doubt()?;
            return self.goes_on();
        };
        let done = self.job.effects.get(undone as usize);
        if done.is_none_or(|e| e.status != EffectStatus::Done || e.compensates.is_some()) {
            return Err(Refusal::new(
                ErrorCode::WrongState,
                format!("effect {undone} was not done, so it cannot be undone"),
            ));
        }
        Ok(())
    }

    /// Whether an effect that was intended may be started: it never was, or it certainly did not
    /// happen, or running it again under its id is safe.
    fn may_start(&self, index: u32) -> Result<(), Refusal> {
        let Some(effect) = self.job.effects.get(index as usize) else {
            return Err(Refusal::new(
                ErrorCode::WrongState,
                format!("there is no effect {index}"),
            ));
        };
        if effect.compensates.is_none() {
            self.goes_on()?;
        }
        match effect.status {
            EffectStatus::Intended | EffectStatus::NotDone => Ok(()),
            EffectStatus::Started if effect.repeatable => Ok(()),
            EffectStatus::Started | EffectStatus::InDoubt => Err(Refusal::new(
                ErrorCode::EffectInDoubt,
                format!("effect {index} may have happened, and is not safe to repeat"),
            )),
            EffectStatus::Done | EffectStatus::Compensated => Err(Refusal::new(
                ErrorCode::WrongState,
                format!("effect {index} is done"),
            )),
        }
    }

    fn retry(&mut self) -> Result<(), Refusal> {
        if !self.job.undoes() {
            self.goes_on()?;
            self.no_doubt()?;
        }
        if self.job.doubtful() {
            return Err(Refusal::new(
                ErrorCode::EffectInDoubt,
                "an effect is under way that is not safe to repeat",
            ));
        }
        let (tries, most) = (self.job.tries + 1, self.job.tries_max());
        if tries >= most {
            return Err(
                Problem::new(ErrorCode::WrongState, "the job has failed too often")
                    .found(tries.to_string())
                    .expected(format!("less than {most}"))
                    .into(),
            );
        }
        let pause_ms = pause_ms(&self.decision.aggregate_id, self.job.backoff_ms, tries);
        let due = self.decision.at.0.saturating_add(pause_ms * 1_000);
        self.push(JobRetryScheduled {
            tries: signed(tries),
            due_at: Timestamp(due),
        });
        Ok(())
    }
}
