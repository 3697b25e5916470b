//! One attempt at one job.

use std::time::Duration;

use serde_json::Value;
use sovereign_aggregates::job::{
    EffectStatus, Ended, JobCommand, JobEffect, JobStatus, Lose, Start, Step, Then, effect_id,
};
use sovereign_effects::{Effect, EffectId, Outcome as EffectOutcome, Request};
use sovereign_schemas::{
    AggregateId, CommandContext, ErrorCode, Outcome, Problem, RawText, Status, Timestamp, Uuid,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::Worker;
use super::leases::Lease;
use crate::history::EffectHistory;
use crate::next::{Proposal, Reach, Told, code, filled};
use crate::{Handler, History, JobRequest, handler};

/// A claim that the ledger does not confirm yet: the queue's tables are a little behind.
const BEHIND: Duration = Duration::from_millis(200);
/// Pause before a command is sent again that was not taken.
const AGAIN: Duration = Duration::from_millis(100);
/// Most proposals of one attempt: each effect and its undoing, with room for refusals.
const PROPOSALS_MAX: usize = 4 * sovereign_aggregates::job::EFFECTS_MAX as usize;

pub(super) struct Attempt<'a> {
    pub(super) worker: &'a Worker,
    pub(super) job: &'a AggregateId,
    pub(super) lease: Lease,
    pub(super) stop: &'a CancellationToken,
    pub(super) call_off: &'a CancellationToken,
}

/// Why the work on a job ends here.
enum Dropped {
    /// Another has it, or it has ended: the tables will say so, or the lease ends.
    Lost,
    /// It may be claimed again after this pause.
    Later(Duration),
}

/// An effect that the ledger has as started.
struct Running {
    index: u32,
    effect: Effect,
    /// Whether it is called off when somebody gives the job up: it changes nothing, and takes long.
    ends_early: bool,
}

impl Running {
    fn new(history: &History, index: u32, effect: Effect) -> Self {
        let undoes = |e: &JobEffect| e.compensates.is_some();
        let own = !history.job.effects.get(index as usize).is_some_and(undoes);
        Self {
            index,
            ends_early: own && history.job.abort.is_none() && matches!(effect, Effect::Timer(_)),
            effect,
        }
    }
}

impl From<Problem> for Dropped {
    fn from(problem: Problem) -> Self {
        warn!(code = %problem.code, message = %problem.message, "job put off");
        Self::Later(super::PAUSE)
    }
}

impl Attempt<'_> {
    /// Works on the job; answers after which pause others may claim it, if that is not to wait
    /// until the lease has ended.
    pub(super) async fn run(&self) -> Option<Duration> {
        match self.work().await {
            Ok(()) | Err(Dropped::Lost) => None,
            Err(Dropped::Later(pause)) => Some(pause),
        }
    }

    async fn work(&self) -> Result<(), Dropped> {
        let events = self.worker.ledger.events(self.job).await?;
        let history = History::read(self.worker.ledger.as_ref(), events).await?;
        let Some(mut history) = history else {
            return Err(Dropped::Later(BEHIND));
        };
        let takes_over = match history.job.status {
            JobStatus::Queued => false,
            JobStatus::Running => true,
            // the tables are behind; their feeder will say so
            _ => return Err(Dropped::Lost),
        };
        if takes_over && history.job.doubtful() {
            return self.lose(&history).await;
        }
        if let Some(due) = history.job.due_at {
            let ahead_us = due.0.saturating_sub(Timestamp::now().0);
            if ahead_us > 0 {
                let ahead = Duration::from_micros(ahead_us.unsigned_abs());
                return Err(Dropped::Later(ahead));
            }
        }
        let Some(handler) = handler(&history.kind) else {
            return self.unknown_kind(&history, takes_over).await;
        };
        history.taken_over();
        self.attempt(handler, history, takes_over).await
    }

    async fn lose(&self, history: &History) -> Result<(), Dropped> {
        let attempt = history.job.attempt;
        warn!(job = %self.job, attempt, "effect of a lost attempt is in doubt");
        self.send(history, JobCommand::Lose(Lose { attempt }))
            .await?;
        Ok(())
    }

    async fn unknown_kind(&self, history: &History, takes_over: bool) -> Result<(), Dropped> {
        // whoever reads this build's handlers knows which there are; another build may have more
        let then = if history.job.abort.is_some() {
            Then::Abort
        } else {
            Then::Fail(code("unknown-kind"))
        };
        let start = self.start(history, takes_over, then);
        self.send(history, start).await?;
        Ok(())
    }

    fn start(
        &self,
        history: &History,
        takes_over: bool,
        then: Then<RawText>,
    ) -> JobCommand<RawText> {
        JobCommand::Start(Start {
            attempt: history.job.attempt + 1,
            takes_over,
            worker: self.worker.options.name.clone(),
            lease_ms: u32::try_from(self.worker.options.lease.as_millis()).unwrap_or(u32::MAX),
            then,
        })
    }

    async fn attempt(
        &self,
        handler: &dyn Handler,
        mut history: History,
        takes_over: bool,
    ) -> Result<(), Dropped> {
        let number = history.job.attempt + 1;
        let mut told: Option<Told> = None;
        let mut proposal = history.propose(handler, &self.reach());
        let mut begun = false;
        for _ in 0..PROPOSALS_MAX {
            proposal = self.checked(proposal, &history);
            let then = written(&proposal);
            let command = if begun {
                JobCommand::Step(Step {
                    attempt: number,
                    ended: told.as_ref().map(ended),
                    then,
                })
            } else {
                self.start(&history, takes_over, then)
            };
            match self.send(&history, command).await {
                Ok(()) => {}
                Err(Refused::Aborting) => {
                    // the refusal is how a worker learns of it
                    self.aborting(&mut history, begun).await?;
                    if told.is_none() && begun {
                        told = history.left_open();
                    }
                    proposal = history.propose(handler, &self.reach());
                    continue;
                }
                Err(Refused::Dropped(dropped)) => return Err(dropped),
            }
            if !begun {
                history.job.attempt = number;
            }
            begun = true;
            let Some(running) = self.took(&mut history, &proposal)? else {
                return Ok(());
            };
            let Some(outcome) = self.carry_out(&running).await else {
                return Err(Dropped::Lost);
            };
            let (outcome, fill) = filled(&running.effect, self.clean(outcome));
            let (mut tells, then) = history.judge(running.index, outcome);
            if let Some(tells) = &mut tells {
                tells.fill = fill;
                history.ended(tells);
            }
            told = tells;
            proposal = match then {
                Some(then) => then,
                None if self.stop.is_cancelled() => {
                    let next = history.propose(handler, &self.reach());
                    // what needs no further effect is finished
                    match next {
                        Proposal::Effect { .. } | Proposal::Again(_) => Proposal::Release,
                        other => other,
                    }
                }
                None => history.propose(handler, &self.reach()),
            };
        }
        Err(Dropped::Later(super::PAUSE))
    }

    fn reach(&self) -> std::sync::Arc<Reach> {
        std::sync::Arc::clone(&self.worker.reach.borrow())
    }

    /// Somebody gave the job up: takes over why, from the ledger.
    async fn aborting(&self, history: &mut History, begun: bool) -> Result<(), Dropped> {
        let events = self.worker.ledger.events(self.job).await?;
        let newer = History::read(self.worker.ledger.as_ref(), events).await?;
        let newer = newer.ok_or(Dropped::Lost)?;
        let Some(reason) = newer.job.abort else {
            return Err(Dropped::Later(BEHIND));
        };
        history.job.abort = Some(reason);
        if !begun {
            history.taken_over();
        }
        Ok(())
    }

    /// An effect that the guard would change is another effect: it is not run.
    fn checked(&self, proposal: Proposal, history: &History) -> Proposal {
        let Proposal::Effect { effect, .. } = &proposal else {
            return proposal;
        };
        let text = text_of(effect);
        if self.worker.ledger.scrub(&text) == text {
            return proposal;
        }
        if history.job.abort.is_some() {
            return Proposal::Abort;
        }
        Proposal::Fail(code(ErrorCode::SensitiveIdentifier.as_str()))
    }

    /// What the ledger has accepted, taken into what is known here; the effect that is started.
    fn took(&self, history: &mut History, proposal: &Proposal) -> Result<Option<Running>, Dropped> {
        match proposal {
            Proposal::Effect {
                effect,
                repeatable,
                compensates,
            } => {
                let index = u32::try_from(history.effects.len()).unwrap_or(u32::MAX);
                let known = EffectHistory {
                    id: effect_id(self.job, index),
                    effect: serde_json::to_value(effect.as_ref()).unwrap_or_default(),
                    seen: None,
                };
                let state = JobEffect {
                    status: EffectStatus::Intended,
                    unsure: false,
                    repeatable: *repeatable,
                    compensates: *compensates,
                };
                history.started(Some((known, state)), index);
                let effect = effect.as_ref().clone();
                Ok(Some(Running::new(history, index, effect)))
            }
            Proposal::Again(index) => {
                history.started(None, *index);
                let known = history.effects.get(*index as usize).ok_or(Dropped::Lost)?;
                let effect = Effect::from_value(known.effect.clone())?;
                Ok(Some(Running::new(history, *index, effect)))
            }
            _ => Ok(None),
        }
    }

    /// Runs an effect that the ledger has as started; `None` if the lease has ended before it was
    /// sent, so that another may have it in hand.
    async fn carry_out(&self, running: &Running) -> Option<EffectOutcome> {
        if !self.lease.holds() {
            warn!(job = %self.job, "lease ended before the effect was sent");
            return None;
        }
        let id = effect_id(self.job, running.index);
        let request = Request::new(EffectId(id), running.effect.clone());
        let call_off = self.call_off.child_token();
        let given_up = async {
            if !running.ends_early {
                std::future::pending::<()>().await;
            }
            self.lease.given_up().await;
            call_off.cancel();
            std::future::pending().await
        };
        let outcome = tokio::select! {
            outcome = self.worker.sink.run(&request, &call_off) => outcome,
            never = given_up => never,
        };
        let kind = running.effect.kind();
        metrics::counter!("sovereign_job_effects_total", "kind" => kind, "outcome" => outcome.name())
            .increment(1);
        debug!(job = %self.job, index = running.index, kind, outcome = outcome.name(), "effect");
        Some(outcome)
    }

    /// A result as it will be recorded: what comes next is decided on that, here as in a replay.
    fn clean(&self, outcome: EffectOutcome) -> EffectOutcome {
        match outcome {
            EffectOutcome::Done { result } => {
                let text = result.to_string();
                let clean = self.worker.ledger.scrub(&text);
                let result = if clean == text {
                    result
                } else {
                    serde_json::from_str(&clean).unwrap_or(Value::String(clean))
                };
                EffectOutcome::Done { result }
            }
            other => other,
        }
    }

    async fn send(&self, history: &History, command: JobCommand<RawText>) -> Result<(), Refused> {
        let header = &history.submission.header;
        let actor = self.worker.options.name.clone();
        let context = CommandContext {
            command_id: Uuid::now_v7(),
            actor,
            department: header.department,
            correlation_id: header.correlation_id,
            causation_id: Some(header.event_id),
            traceparent: history.submission.traceparent.clone(),
        };
        let request = JobRequest {
            job: self.job.clone(),
            command,
            context,
            subject: header.actor.parse().ok(),
        };
        loop {
            let outcome = self.worker.ledger.submit(request.clone()).await;
            match outcome {
                Outcome {
                    status: Status::Accepted | Status::Duplicate,
                    ..
                } => return Ok(()),
                Outcome { error, .. } => {
                    let problem = error.unwrap_or_else(|| {
                        Problem::new(ErrorCode::Internal, "the ledger gave no reason")
                    });
                    // what was not taken is sent again, under its id, while nobody else can have it
                    let later = matches!(problem.code.exit_code(), 5 | 6);
                    if later && self.lease.holds() {
                        tokio::time::sleep(AGAIN).await;
                        continue;
                    }
                    return Err(refused(self.job, &problem));
                }
            }
        }
    }
}

fn text_of(effect: &Effect) -> String {
    String::from_utf8_lossy(&effect.canonical()).into_owned()
}

/// A proposal with its texts written down.
fn written(proposal: &Proposal) -> Then<RawText> {
    match proposal {
        Proposal::Effect {
            effect,
            repeatable,
            compensates,
        } => Then::Effect {
            kind: code(effect.kind()),
            effect: RawText::new(text_of(effect)),
            repeatable: *repeatable,
            compensates: *compensates,
        },
        Proposal::Again(index) => Then::Again(*index),
        Proposal::Finish(verdict, result) => Then::Finish {
            verdict: *verdict,
            result: Some(RawText::new(result.to_string())),
        },
        Proposal::Retry => Then::Retry,
        Proposal::Fail(code) => Then::Fail(code.clone()),
        Proposal::Abort => Then::Abort,
        Proposal::Release => Then::Release,
        Proposal::Wait => Then::Wait,
    }
}

/// Why the ledger did not take a command.
enum Refused {
    /// Somebody gave the job up.
    Aborting,
    Dropped(Dropped),
}

impl From<Refused> for Dropped {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Aborting => Self::Later(BEHIND),
            Refused::Dropped(dropped) => dropped,
        }
    }
}

fn refused(job: &AggregateId, problem: &Problem) -> Refused {
    match problem.code {
        ErrorCode::JobAborting => Refused::Aborting,
        ErrorCode::StaleAttempt => {
            info!(%job, "another worker has the job");
            Refused::Dropped(Dropped::Lost)
        }
        ErrorCode::NotDue => Refused::Dropped(Dropped::Later(BEHIND)),
        // the state is another than was thought: somebody aborted it, or ended it
        ErrorCode::WrongState | ErrorCode::EffectInDoubt => {
            debug!(%job, message = %problem.message, "job is elsewhere");
            Refused::Dropped(Dropped::Later(BEHIND))
        }
        _ => {
            warn!(%job, code = %problem.code, message = %problem.message, "job dropped");
            Refused::Dropped(Dropped::Lost)
        }
    }
}

fn ended(told: &Told) -> Ended<RawText> {
    Ended {
        index: told.index,
        how: told.how.clone(),
        result: told.result.as_ref().map(|r| RawText::new(r.to_string())),
        fill: told.fill.clone(),
    }
}
