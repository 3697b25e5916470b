//! What people approve of a job with an amount: that it runs, that it is forced to start, and that
//! it is given up. Each is an action that the policy may have rules for.

use sovereign_schemas::events::JobSubmittedRef;
use sovereign_schemas::{AggregateId, Decimal, DepartmentId, Digest, ErrorCode, Problem, Text};

use super::{Job, JobStatus};
use crate::approval::Stage;
use crate::policy::Action;
use crate::{Decision, Refusal};

/// The action of running a job.
pub const RUN: &str = "job.run";
/// The action of starting one at once, whatever it waits for.
pub const FORCE_START: &str = "job.force_start";
/// The action of giving one up.
pub const ABORT: &str = "job.abort";

/// What people judge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stake {
    /// What the policy judges.
    pub amount: Decimal,
    /// Currency of the amount; USD if none was given.
    pub currency: Box<str>,
    /// Its kind: what policies name as asset.
    pub kind: Box<str>,
    /// What the submission commits to.
    pub digest: Digest,
    /// Whose topic carries it.
    pub department: DepartmentId,
    /// Who submitted it, and so may not approve that it runs.
    pub submitted_by: Box<str>,
    /// Whether it waits for other jobs.
    pub waits: bool,
    /// By what it was forced to start last.
    pub forced: Option<Box<str>>,
}

impl Stake {
    pub(super) fn of(event: &JobSubmittedRef<'_>, amount: Decimal) -> Self {
        Self {
            amount,
            currency: event.currency.as_ref().map_or("USD", |c| c.as_str()).into(),
            kind: event.kind.as_str().into(),
            digest: event.action_digest,
            department: DepartmentId::ORCHESTRATOR,
            submitted_by: Box::default(),
            waits: !event.after.as_str().is_empty(),
            forced: None,
        }
    }

    /// How many people must approve the action; 0 if it is automatic.
    pub(super) fn people(&self, action: &str, decision: &Decision) -> u8 {
        decision.policy.people_for(&Action {
            department: decision.department_name(self.department),
            action,
            asset: &self.kind,
            amount: self.amount,
        })
    }
}

/// What a submission commits to: the exact action that people approve. It is over the sealed bytes,
/// so it gives nothing away about the arguments, even after their key was destroyed.
#[must_use]
pub fn submission_digest(job: &str, kind: &str, arguments: &Text) -> Digest {
    Digest::of(&[
        job.as_bytes(),
        b" ",
        kind.as_bytes(),
        b" ",
        arguments.key_id().as_bytes(),
        &arguments.index().to_be_bytes(),
        arguments.nonce(),
        arguments.bytes(),
    ])
}

/// The request that a job which is held waits for.
pub(crate) fn run_approval(job: &AggregateId) -> String {
    format!("run_{job}")
}

impl Job {
    /// Takes what only the header of the submission says.
    pub(crate) fn submitted_by(&mut self, department: DepartmentId, actor: &str) {
        if let Some(stake) = &mut self.stake {
            stake.department = department;
            stake.submitted_by = actor.into();
        }
    }

    /// What allows the action: the policy by itself, or an approval of exactly this.
    ///
    /// # Errors
    /// [`ErrorCode::ApprovalRequired`] if people have to approve and have not,
    /// [`ErrorCode::ApprovalTermsMismatch`] if the approval is of something else,
    /// [`ErrorCode::PolicyChanged`] if another policy holds than the one that asked.
    pub(super) fn authority(
        &self,
        action: &str,
        named: Option<&str>,
        decision: &Decision,
    ) -> Result<String, Refusal> {
        let policy = &decision.policy;
        // what never ran is given up freely
        let free = action == ABORT && self.status == JobStatus::Held;
        let Some(stake) = self.stake.as_deref().filter(|_| !free) else {
            return Ok(policy.authority());
        };
        let people = usize::from(stake.people(action, decision));
        if people == 0 && action != RUN {
            return Ok(policy.authority());
        }
        let Some(named) = named else {
            let (version, amount) = (policy.version, stake.amount);
            let message = format!(
                "policy {version} lets {action} of an amount of {amount} wait for an approval"
            );
            return Err(Refusal::new(ErrorCode::ApprovalRequired, message));
        };
        let approval = &decision.approval;
        let known = decision.approval_id.as_deref() == Some(named);
        let granted = known && approval.stage == Stage::Granted;
        let Some(requested) = approval.requested.as_ref().filter(|_| granted) else {
            let message = format!("{named} is not granted");
            return Err(Refusal::new(ErrorCode::ApprovalRequired, message));
        };
        let other = |what: &str| -> Refusal {
            let message = format!("{named} was granted for another {what}");
            Problem::new(ErrorCode::ApprovalTermsMismatch, message)
                .field("data.approval_id")
                .into()
        };
        if requested.action != action || requested.target_id != decision.aggregate_id.as_str() {
            return Err(other("action"));
        }
        if requested.action_digest != stake.digest {
            return Err(other("submission"));
        }
        if requested.amount != stake.amount || *requested.currency != *stake.currency {
            return Err(other("amount"));
        }
        // or whoever submitted it could approve that it runs
        if action == RUN && requested.on_behalf_of.as_deref() != Some(&*stake.submitted_by) {
            return Err(other("submitter"));
        }
        if requested.policy_version != policy.version {
            let message = format!(
                "{named} was granted under policy {}, and {} holds now",
                requested.policy_version, policy.version
            );
            return Err(Refusal::new(ErrorCode::PolicyChanged, message));
        }
        if approval.given.len() < people.max(1) {
            let message = format!(
                "policy {} asks {people} people, and {} have approved",
                policy.version,
                approval.given.len()
            );
            return Err(Refusal::new(ErrorCode::ApprovalRequired, message));
        }
        let authority = format!("approval:{named}");
        if action == FORCE_START && stake.forced.as_deref() == Some(&authority) {
            return Err(other("start, which is over"));
        }
        Ok(authority)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use cqrs_es::DomainEvent as _;
    use sovereign_schemas::Timestamp;
    use sovereign_schemas::events::{JobEvent, JobQueue};

    use super::*;
    use crate::approval::{Approval, Giver, Requested};
    use crate::job::{Abort, Authorize, ForceStart, JobCommand, Submit};
    use crate::recorded_text::recorded_text;

    const JOB: &str = "payout_040226_1201";

    fn decision() -> Decision {
        Decision::new(
            JOB.parse().unwrap(),
            Timestamp(1_000_000),
            "anna".parse().unwrap(),
        )
    }

    fn submit(amount: &str, after: &[&str]) -> JobCommand {
        JobCommand::Submit(Submit {
            kind: "plan".parse().unwrap(),
            queue: JobQueue::Default,
            arguments: recorded_text(),
            planned: Some(1),
            run_at: None,
            after: after.iter().map(|id| id.parse().unwrap()).collect(),
            unique_key: None,
            attempts_max: 1,
            backoff_ms: 1_000,
            amount: Some(amount.parse().unwrap()),
            currency: None,
            schedule: None,
        })
    }

    fn submitted(amount: &str, after: &[&str]) -> (Job, Vec<JobEvent>) {
        let (mut job, decision) = (Job::default(), decision());
        let events = job.decide(submit(amount, after), &decision).unwrap();
        for event in &events {
            job.evolve(event);
        }
        job.submitted_by(decision.department, "anna");
        (job, events)
    }

    /// As if `given` had approved the action on this job under the built-in policy.
    fn granted(job: &Job, id: &str, action: &str, given: &[&str]) -> Decision {
        let stake = job.stake.as_deref().unwrap();
        let giver = |name: &&str| Giver {
            approver: (*name).to_owned(),
            passkey: Digest::ZERO,
            assertion: Digest::ZERO,
        };
        let mut decision = decision();
        decision.approval_id = Some(id.to_owned());
        decision.approval = Arc::new(Approval {
            stage: Stage::Granted,
            requested: Some(Box::new(Requested {
                action: action.to_owned(),
                target_id: JOB.to_owned(),
                action_digest: stake.digest,
                amount: stake.amount,
                currency: "USD".to_owned(),
                policy_version: decision.policy.version,
                requested_by: "guardian".to_owned(),
                on_behalf_of: Some("anna".to_owned()),
                people_needed: 1,
                expires_at: Timestamp(2_000_000),
            })),
            given: given.iter().map(giver).collect(),
            refused: 0,
        });
        decision
    }

    /// The same with something else in the request.
    fn but(decision: &Decision, change: impl FnOnce(&mut Requested)) -> Decision {
        let mut approval = (*decision.approval).clone();
        change(approval.requested.as_mut().unwrap());
        let mut decision = decision.clone();
        decision.approval = Arc::new(approval);
        decision
    }

    fn code(job: &Job, command: JobCommand, decision: &Decision) -> ErrorCode {
        job.decide(command, decision).unwrap_err().problem.code
    }

    #[test]
    fn a_job_above_the_policys_amount_is_held_and_one_at_it_is_not() {
        let names = |events: &[JobEvent]| -> Vec<String> {
            events.iter().map(|e| e.event_type()).collect()
        };
        let (job, events) = submitted("1000", &[]);
        assert_eq!(
            (names(&events), job.status),
            (vec!["JobSubmitted".to_owned()], JobStatus::Queued)
        );
        let (job, events) = submitted("1000.01", &[]);
        assert_eq!(names(&events), ["JobSubmitted", "JobHeld"]);
        assert_eq!(job.status, JobStatus::Held);
        let start = JobCommand::ForceStart(ForceStart { approval_id: None });
        assert_eq!(code(&job, start, &decision()), ErrorCode::WrongState);
    }

    #[test]
    fn a_held_job_runs_only_by_an_approval_of_exactly_this_job() {
        let (job, _) = submitted("1500", &["other"]);
        let run = || JobCommand::Authorize(Authorize {});
        let id = run_approval(&JOB.parse().unwrap());
        assert_eq!(code(&job, run(), &decision()), ErrorCode::ApprovalRequired);
        let good = granted(&job, &id, RUN, &["bob"]);
        let nobody = granted(&job, &id, RUN, &[]);
        assert_eq!(code(&job, run(), &nobody), ErrorCode::ApprovalRequired);
        let expires_at = Timestamp(2_000_000);
        let waiting = Stage::Waiting { expires_at };
        for stage in [Stage::None, waiting, Stage::Denied, Stage::Expired] {
            let mut not = good.clone();
            Arc::make_mut(&mut not.approval).stage = stage;
            assert_eq!(
                code(&job, run(), &not),
                ErrorCode::ApprovalRequired,
                "{stage:?}"
            );
        }
        let cent: Decimal = "1500.01".parse().unwrap();
        let mismatches = [
            but(&good, |r| r.action = ABORT.to_owned()),
            but(&good, |r| r.target_id = "another".to_owned()),
            but(&good, |r| r.action_digest = Digest::ZERO),
            but(&good, |r| r.amount = cent),
            but(&good, |r| r.on_behalf_of = None),
        ];
        for (index, changed) in mismatches.iter().enumerate() {
            let found = code(&job, run(), changed);
            assert_eq!(found, ErrorCode::ApprovalTermsMismatch, "{index}");
        }
        let older = but(&good, |r| r.policy_version += 1);
        assert_eq!(code(&job, run(), &older), ErrorCode::PolicyChanged);

        let events = job.decide(run(), &good).unwrap();
        let mut job = job;
        job.evolve(&events[0]);
        assert_eq!(
            job.status,
            JobStatus::Blocked,
            "it waits for the other still"
        );
        assert_eq!(code(&job, run(), &good), ErrorCode::WrongState);
    }

    #[test]
    fn a_held_job_is_given_up_freely_and_a_running_one_by_an_approval() {
        let abort = |approval: Option<&str>| {
            JobCommand::Abort(Abort {
                reason: "operator".parse().unwrap(),
                approval_id: approval.map(|id| id.parse().unwrap()),
            })
        };
        let (mut job, _) = submitted("1500", &[]);
        assert!(job.decide(abort(None), &decision()).is_ok());
        let run = granted(&job, "run_payout_040226_1201", RUN, &["bob"]);
        let events = job
            .decide(JobCommand::Authorize(Authorize {}), &run)
            .unwrap();
        job.evolve(&events[0]);
        assert_eq!(job.status, JobStatus::Queued);
        assert_eq!(
            code(&job, abort(None), &decision()),
            ErrorCode::ApprovalRequired
        );
        // that it runs was approved, not that it is given up
        let id = "run_payout_040226_1201";
        assert_eq!(
            code(&job, abort(Some(id)), &run),
            ErrorCode::ApprovalTermsMismatch
        );
        let good = granted(&job, "abort_x", ABORT, &["bob"]);
        assert_eq!(
            code(&job, abort(Some("abort_y")), &good),
            ErrorCode::ApprovalRequired
        );
        assert!(job.decide(abort(Some("abort_x")), &good).is_ok());
        let (small, _) = submitted("10", &[]);
        assert!(small.decide(abort(None), &decision()).is_ok());
    }

    #[test]
    fn an_approval_forces_one_start() {
        let force = || {
            JobCommand::ForceStart(ForceStart {
                approval_id: Some("start_x".parse().unwrap()),
            })
        };
        let (mut job, _) = submitted("1500", &["other"]);
        let run = granted(&job, "run_payout_040226_1201", RUN, &["bob"]);
        let events = job
            .decide(JobCommand::Authorize(Authorize {}), &run)
            .unwrap();
        job.evolve(&events[0]);
        let good = granted(&job, "start_x", FORCE_START, &["bob"]);
        let events = job.decide(force(), &good).unwrap();
        job.evolve(&events[0]);
        assert_eq!(job.status, JobStatus::Queued);
        assert_eq!(code(&job, force(), &good), ErrorCode::ApprovalTermsMismatch);
        let (small, _) = submitted("10", &["other"]);
        let free = JobCommand::ForceStart(ForceStart { approval_id: None });
        assert!(small.decide(free, &decision()).is_ok());
    }
}
