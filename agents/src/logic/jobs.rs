//! The guardian's part in jobs with an amount: asks people where the policy holds one, and carries
//! out what they approved: that it runs, starts at once, or is given up.

use std::collections::{BTreeMap, HashMap};

use sovereign_aggregates::AnyEvent;
use sovereign_aggregates::approval::{self, ApprovalCommand, Request};
use sovereign_aggregates::job::{
    ABORT, Abort, Authorize, FORCE_START, ForceStart, JobCommand, RUN,
};
use sovereign_schemas::events::{ApprovalEvent, JobEvent, JobSubmitted};
use sovereign_schemas::{AggregateId, Identifier};

use super::guardian::ROLE;
use super::{Reaction, Reactions, Seen, code};

/// Jobs whose submission was seen and whose next event was not; one command writes both.
const SUBMITTED_MAX: usize = 64;

/// What the guardian knows of jobs.
#[derive(Debug, Clone, Default)]
pub struct State {
    /// Jobs with an amount that were just submitted.
    submitted: HashMap<String, Request>,
    /// Approvals of actions on jobs that wait for an answer.
    waiting: BTreeMap<String, (AggregateId, Wanted)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Run,
    ForceStart,
    Abort,
}

/// The request that a job would need.
fn request(seen: &Seen, e: &JobSubmitted) -> Option<Request> {
    let currency = e.currency.as_deref().unwrap_or("USD");
    Some(Request {
        action: code(RUN),
        target_id: seen.aggregate_id().parse().ok()?,
        action_digest: e.action_digest,
        amount: e.amount?,
        currency: currency.parse().ok()?,
        on_behalf_of: seen.header().actor.parse().ok(),
        department: Some(seen.header().department),
        asset: e.kind.parse::<Identifier>().ok(),
    })
}

/// Takes an event; answers jobs that are held, and the end of approvals of actions on jobs.
pub fn step(state: &mut State, seen: &Seen) -> Vec<Reaction> {
    let mut out = Reactions::of(code(ROLE.name), ROLE.department, seen.header());
    let id = seen.aggregate_id();
    match &seen.event {
        AnyEvent::Job(JobEvent::JobSubmitted(e)) => {
            if state.submitted.len() >= SUBMITTED_MAX {
                state.submitted.clear();
            }
            if let Some(request) = request(seen, e) {
                state.submitted.insert(id.to_owned(), request);
            }
        }
        AnyEvent::Job(JobEvent::JobHeld(e)) => {
            let request = state.submitted.remove(id);
            if let (Some(request), Ok(approval)) = (request, e.approval_id.parse()) {
                let waiting = (request.target_id.clone(), Wanted::Run);
                state.waiting.insert(e.approval_id.clone(), waiting);
                out.approval(&approval, ApprovalCommand::Request(Box::new(request)));
            }
        }
        AnyEvent::Approval(ApprovalEvent::ApprovalRequested(e)) => {
            let wanted = match e.action.as_str() {
                FORCE_START => Wanted::ForceStart,
                ABORT => Wanted::Abort,
                _ => return vec![],
            };
            if let Ok(job) = e.target_id.parse() {
                state.waiting.insert(id.to_owned(), (job, wanted));
            }
        }
        AnyEvent::Approval(event) if approval::has_ended(event) => {
            if let Some((job, wanted)) = state.waiting.remove(id) {
                answered(&job, wanted, id, event, &mut out);
            }
        }
        _ => {}
    }
    out.done()
}

fn answered(
    job: &AggregateId,
    wanted: Wanted,
    approval: &str,
    event: &ApprovalEvent,
    out: &mut Reactions<'_>,
) {
    let granted = matches!(event, ApprovalEvent::ApprovalGranted(_));
    let approval_id = approval.parse().ok();
    let abort = |reason, approval_id| {
        JobCommand::Abort(Abort {
            reason: code(reason),
            approval_id,
        })
    };
    // the job looks at the approval itself
    let command = match (wanted, granted) {
        (Wanted::Run, true) => JobCommand::Authorize(Authorize {}),
        (Wanted::Run, false) if matches!(event, ApprovalEvent::ApprovalDenied(_)) => {
            abort("approval_denied", None)
        }
        (Wanted::Run, false) => abort("approval_expired", None),
        (Wanted::ForceStart, true) => JobCommand::ForceStart(ForceStart { approval_id }),
        (Wanted::Abort, true) => abort("approved", approval_id),
        (Wanted::ForceStart | Wanted::Abort, false) => return,
    };
    out.job(job, command);
}
