use sovereign_aggregates::job::{FORCE_START, RUN, submission_digest};
use sovereign_schemas::events::{JobEvent, JobSubmitted};
use sovereign_schemas::{Decimal, Digest, IMPORT_ACTOR, Position, RecordedEvent};

use crate::report::Use;
use crate::verifier::{Reason, Verifier, decode};

/// A job with an amount, as far as an approval may rest on it.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) position: Position,
    pub(crate) department: u16,
    /// What its submission commits to, computed again.
    pub(crate) digest: Digest,
    pub(crate) kind: String,
    pub(crate) submitted_by: String,
    pub(crate) amount: Decimal,
    pub(crate) currency: String,
    /// The approval that it waits for, from the moment on at which it is held.
    held: Option<String>,
    authorized: bool,
}

impl Verifier {
    pub(crate) fn job_event(&mut self, event: &RecordedEvent) -> Result<(), Reason> {
        let header = &event.header;
        if header.actor == IMPORT_ACTOR {
            return Ok(());
        }
        let id = &header.aggregate_id;
        let change: JobEvent = decode(event)?;
        match change {
            JobEvent::JobSubmitted(e) => self.job_submitted(event, e),
            JobEvent::JobHeld(e) => {
                let job = self
                    .jobs
                    .get_mut(id)
                    .ok_or("a job without an amount is held")?;
                job.held = Some(e.approval_id);
                Ok(())
            }
            JobEvent::JobAuthorized(e) => {
                let job = self.jobs.get_mut(id);
                let job = job.filter(|job| job.held.is_some() && !job.authorized);
                let job = job.ok_or("a job was authorized that did not wait for it")?;
                job.authorized = true;
                let wanted = job.held.clone().unwrap_or_default();
                if e.authority.strip_prefix("approval:") != Some(wanted.as_str()) {
                    let by = &e.authority;
                    return Err(format!(
                        "the job waits for {wanted}, and was authorized by {by}"
                    ));
                }
                self.job_approved(event, &wanted, RUN)
            }
            JobEvent::JobForced(e) => match e.authority.strip_prefix("approval:") {
                Some(named) => self.job_approved(event, named, FORCE_START),
                None => Ok(()),
            },
            JobEvent::JobStarted(_) => match self.jobs.get(id) {
                Some(job) if job.held.is_some() && !job.authorized => {
                    Err("the job was started and never authorized".to_owned())
                }
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }

    fn job_submitted(&mut self, event: &RecordedEvent, e: JobSubmitted) -> Result<(), Reason> {
        let header = &event.header;
        let digest = submission_digest(&header.aggregate_id, &e.kind, &e.arguments);
        if digest != e.action_digest {
            return Err("the digest is not that of the submission".to_owned());
        }
        let Some(amount) = e.amount else {
            return Ok(());
        };
        let job = Job {
            position: header.position,
            department: header.department.0,
            digest,
            kind: e.kind,
            submitted_by: header.actor.to_string(),
            amount,
            currency: e.currency.unwrap_or_else(|| "USD".to_owned()),
            held: None,
            authorized: false,
        };
        match self.jobs.insert(header.aggregate_id.clone(), job) {
            Some(_) => Err("the job was submitted before".to_owned()),
            None => Ok(()),
        }
    }

    /// Single use: a granted approval allows its own action on its own job, under the policy that
    /// asked.
    fn job_approved(
        &mut self,
        event: &RecordedEvent,
        wanted: &str,
        action: &str,
    ) -> Result<(), Reason> {
        let header = &event.header;
        let policy = self.policy.policy().version;
        let approval = self.approvals.get_mut(wanted);
        let approval = approval.filter(|a| a.granted_at.is_some() && !a.imported);
        let approval = approval.ok_or_else(|| format!("{wanted} is not granted"))?;
        let requested = &approval.requested;
        if requested.target_id != header.aggregate_id || requested.action != action {
            return Err(format!("{wanted} was granted for another action"));
        }
        if requested.policy_version != policy {
            return Err(format!("policy {policy} holds, and {wanted} is of another"));
        }
        let used = Use {
            target_id: header.aggregate_id.clone(),
            position: header.position,
        };
        match approval.used.replace(used) {
            Some(_) => Err(format!("{wanted} was used before")),
            None => Ok(()),
        }
    }
}
