//! Commands that come as records: the same door as all others, and what is particular to records.

use async_trait::async_trait;
use sovereign_aggregates::AnyCommand;
use sovereign_aggregates::agent::AgentCommand;
use sovereign_aggregates::job::JobCommand;
use sovereign_event_store::RawCommand;
use sovereign_kafka::{Answer, CommandHandler, CommandLine};
use sovereign_schemas::{
    ErrorCode, EventLog as _, LogError, Outcome, Position, Problem, Status, Uuid, bears_source,
};

use super::gateway::Door;

#[async_trait]
impl CommandHandler for Door {
    async fn handle(&self, command: &CommandLine) -> Answer {
        let (id, parsed) = self.gate.parse_from(&command.line, command.record);
        let raw = match parsed {
            Ok(raw) => raw,
            Err(problem) => {
                let mut outcome = Outcome::failed(Status::Invalid, problem);
                outcome.command_id = id;
                return Answer::Outcome(outcome);
            }
        };
        // a topic tells who may write to it, and not who did
        let not_here = match raw.command {
            AnyCommand::Policy(_) => Some((
                "the policy is not changed by records",
                "adopt it with sovereign policy adopt",
            )),
            AnyCommand::Schedules(_) => Some((
                "schedules are not changed by records",
                "adopt them with sovereign jobs schedules adopt",
            )),
            AnyCommand::Approver(_) => Some((
                "passkeys are not enrolled or revoked by records",
                "enrol on the page of the engine; revoke with sovereign approvers revoke",
            )),
            AnyCommand::Agent(AgentCommand::Define(_)) => Some((
                "agents are not defined by records",
                "define them with sovereign agents define",
            )),
            AnyCommand::Job(JobCommand::Resolve(_)) => Some((
                "what is in doubt is not resolved by records",
                "resolve it with sovereign jobs resolve",
            )),
            _ => None,
        };
        if let Some((message, remedy)) = not_here {
            let problem = Problem::new(ErrorCode::Forbidden, message)
                .field("aggregate")
                .remedy(remedy);
            let mut outcome = Outcome::failed(Status::Refused, problem);
            outcome.command_id = id;
            return Answer::Outcome(outcome);
        }
        // only a client's own id can be that of another record
        let own_id = raw.context.command_id == command.record;
        let mut outcome = self.run(traced(raw, command.traceparent.as_ref())).await;
        if let Some(answer) = put_off(&outcome) {
            return answer;
        }
        if let (Status::Duplicate, Some((first, _))) = (outcome.status, outcome.positions) {
            match self.was(first, command.record, own_id).await {
                // it came before, and nobody was told
                Ok(true) => outcome.status = Status::Accepted,
                Ok(false) => {}
                Err(problem) => return Answer::NotNow(problem),
            }
        }
        outcome.command_id = id;
        Answer::Outcome(outcome)
    }
}

impl Door {
    /// Whether it was this very record that caused the event.
    async fn was(&self, first: Position, record: Uuid, own_id: bool) -> Result<bool, Problem> {
        if own_id {
            return Ok(true);
        }
        let before = Position(first.0.saturating_sub(1));
        let mut log = self.ledger.reader().log();
        let read = log.read(before.into(), 1).await;
        let (events, _) = read
            .map_err(|e: LogError| Problem::new(ErrorCode::DatabaseUnreachable, e.to_string()))?;
        let event = events.first().filter(|e| e.position() == first);
        let event = event.ok_or_else(|| {
            Problem::new(
                ErrorCode::DatabaseUnreachable,
                "the first event cannot be read yet",
            )
        })?;
        Ok(bears_source(event.header.event_id, record))
    }
}

fn traced(mut raw: RawCommand, traceparent: Option<&String>) -> RawCommand {
    let context = &mut raw.context;
    context.traceparent = context.traceparent.take().or_else(|| traceparent.cloned());
    raw
}

/// What is no outcome for a record, which can wait: somebody is away or has too much to do, or
/// the fault is ours.
fn put_off(outcome: &Outcome) -> Option<Answer> {
    use ErrorCode::{DiskFull, InvalidConfig, MissingRights, SchemaTooNew, WrongMasterKey};
    let problem = outcome.error.as_ref()?;
    if outcome.status != Status::Invalid {
        return None;
    }
    // what only the operator can change is no fault of the command
    let operator = [
        DiskFull,
        InvalidConfig,
        MissingRights,
        SchemaTooNew,
        WrongMasterKey,
    ];
    if operator.contains(&problem.code) {
        return Some(Answer::NotNow(problem.clone()));
    }
    match problem.code.exit_code() {
        5 | 6 => Some(Answer::NotNow(problem.clone())),
        2 | 4 => None,
        _ => Some(Answer::Fault(problem.clone())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(status: Status, code: ErrorCode) -> Option<Answer> {
        put_off(&Outcome::failed(status, Problem::new(code, "x")))
    }

    #[test]
    fn what_can_wait_is_told_from_what_is_final() {
        for code in [
            ErrorCode::Busy,
            ErrorCode::TimedOut,
            ErrorCode::DatabaseUnreachable,
            ErrorCode::EngineNotRunning,
            ErrorCode::DiskFull,
        ] {
            assert!(
                matches!(of(Status::Invalid, code), Some(Answer::NotNow(_))),
                "{code}"
            );
        }
        for code in [ErrorCode::Internal, ErrorCode::DecodeFailed] {
            assert!(
                matches!(of(Status::Invalid, code), Some(Answer::Fault(_))),
                "{code}"
            );
        }
        for (status, code) in [
            (Status::Invalid, ErrorCode::UnknownField),
            (Status::Invalid, ErrorCode::MalformedJson),
            (Status::Refused, ErrorCode::SensitiveIdentifier),
            (Status::Refused, ErrorCode::NotFound),
            (Status::Conflict, ErrorCode::VersionConflict),
        ] {
            assert_eq!(of(status, code), None, "{code}");
        }
        assert_eq!(put_off(&Outcome::effective(Status::Accepted, None)), None);
    }
}
