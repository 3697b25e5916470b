//! Actions on jobs that people have to approve first: the request is made for whoever wanted it, and
//! the guardian carries the action out when they have.

use serde_json::json;
use sovereign_aggregates::AnyCommand;
use sovereign_aggregates::job::{ABORT, FORCE_START};
use sovereign_event_store::RawCommand;
use sovereign_jobs::numbered;
use sovereign_schemas::{
    AggregateId, AggregateType, CommandContext, ErrorCode, EventType, Identifier, Problem,
    RecordedEvent, Status,
};

use super::gateway::Door;

/// Most requests for one action on one job that may have ended without it.
const REQUESTS_MAX: u64 = 100;
/// Most events of one approval: refused attempts are bounded, too.
const EVENTS_MAX: usize = 1_000;

/// The policy's action behind a command, and how ids of its requests begin.
fn action_of(command: &str) -> Option<(&'static str, &'static str)> {
    match command {
        "abort" => Some((ABORT, "abort")),
        "force_start" => Some((FORCE_START, "start")),
        _ => None,
    }
}

impl Door {
    /// Asks people to approve a command to a job, once while they have not answered; answers with
    /// what tells the caller for what it waits.
    ///
    /// # Errors
    /// If the request is not taken.
    pub(super) async fn ask(
        &self,
        job: &AggregateId,
        command: &str,
        events: &[RecordedEvent],
        actor: &Identifier,
        refused: Problem,
    ) -> Result<Problem, Problem> {
        let Some((action, prefix)) = action_of(command) else {
            return Ok(refused);
        };
        let submission = events.first().ok_or_else(|| refused.clone())?;
        let found = sovereign_jobs::view(job.as_str(), events)?.unwrap_or_default();
        let currency = found["currency"].as_str().unwrap_or("USD");
        let data = json!({
            "action": action, "target_id": job, "action_digest": found["action_digest"],
            "amount": found["amount"], "currency": currency, "asset": found["kind"],
            "department": submission.header.department,
        });
        for number in 1..=REQUESTS_MAX {
            let too_long = || Problem::new(ErrorCode::InvalidId, "the job's id is too long");
            let id = numbered(&format!("{prefix}_{job}"), number).ok_or_else(too_long)?;
            let command = AnyCommand::parse("approval", "request", data.clone())?;
            let context = CommandContext::fresh(actor.clone(), submission.header.department);
            let outcome = self
                .run(RawCommand {
                    aggregate_id: id.clone(),
                    command,
                    context,
                    expected_sequence: None,
                    subject: None,
                    source: None,
                })
                .await;
            match (outcome.status, outcome.error) {
                (Status::Accepted | Status::Duplicate, _) => return Ok(waits(refused, &id)),
                (_, Some(problem)) if problem.code == ErrorCode::AlreadyExists => {
                    if self.is_waiting(&id).await? {
                        return Ok(waits(refused, &id));
                    }
                }
                (_, problem) => return Err(problem.unwrap_or(refused)),
            }
        }
        Err(refused)
    }

    async fn is_waiting(&self, approval: &AggregateId) -> Result<bool, Problem> {
        let reader = self.ledger.reader();
        let events = reader
            .read_aggregate(AggregateType::Approval, approval.as_str(), 0, EVENTS_MAX)
            .await
            .map_err(|e| e.problem())?;
        let ends = [
            EventType::ApprovalGranted,
            EventType::ApprovalDenied,
            EventType::ApprovalExpired,
        ];
        let ended = |e: &RecordedEvent| ends.iter().any(|t| e.header.event_type == t.as_str());
        Ok(!events.iter().any(ended))
    }
}

fn waits(refused: Problem, approval: &AggregateId) -> Problem {
    refused
        .field("approval_id")
        .expected(format!("{approval}, granted"))
        .remedy("it waits for people: sovereign approvals show; once they have approved it is done by itself")
}
