use cqrs_es::Aggregate;
use sovereign_schemas::DepartmentId;
use sovereign_schemas::avro::EventGroup;
use sovereign_schemas::events::{
    AgentEvent, ApprovalEvent, ApproverEvent, ImportedEvent, JobEvent, PolicyEvent, SchedulesEvent,
    TradeEvent,
};

use crate::agent::{Agent, AgentCommand};
use crate::approval::{Approval, ApprovalCommand};
use crate::approver::{Approver, ApproverCommand};
use crate::imported::{Imported, ImportedCommand};
use crate::job::{Job, JobCommand};
use crate::policy::{Adopted, PolicyCommand};
use crate::schedules::{SchedulesCommand, Timetable};
use crate::trade::{Trade, TradeCommand};
use crate::{AnyCommand, AnyEvent};

/// An aggregate that the ledger keeps.
pub trait LedgerAggregate: Aggregate<Event: EventGroup> {
    /// A command that records events which were decided already, as they are. No caller outside of
    /// this process can send one: it has no form in JSON.
    fn recorded(events: Vec<Self::Event>) -> AnyCommand;
}

impl LedgerAggregate for Agent {
    fn recorded(events: Vec<AgentEvent>) -> AnyCommand {
        AnyCommand::Agent(AgentCommand::Recorded(events))
    }
}

impl LedgerAggregate for Trade {
    fn recorded(events: Vec<TradeEvent>) -> AnyCommand {
        AnyCommand::Trade(TradeCommand::Recorded(events))
    }
}

impl LedgerAggregate for Approval {
    fn recorded(events: Vec<ApprovalEvent>) -> AnyCommand {
        AnyCommand::Approval(ApprovalCommand::Recorded(events))
    }
}

impl LedgerAggregate for Imported {
    fn recorded(events: Vec<ImportedEvent>) -> AnyCommand {
        AnyCommand::Imported(ImportedCommand::Recorded(events))
    }
}

impl LedgerAggregate for Adopted {
    fn recorded(events: Vec<PolicyEvent>) -> AnyCommand {
        AnyCommand::Policy(PolicyCommand::Recorded(events))
    }
}

impl LedgerAggregate for Approver {
    fn recorded(events: Vec<ApproverEvent>) -> AnyCommand {
        AnyCommand::Approver(ApproverCommand::Recorded(events))
    }
}
impl LedgerAggregate for Job {
    fn recorded(events: Vec<JobEvent>) -> AnyCommand {
        AnyCommand::Job(JobCommand::Recorded(events))
    }
}

impl LedgerAggregate for Timetable {
    fn recorded(events: Vec<SchedulesEvent>) -> AnyCommand {
        AnyCommand::Schedules(SchedulesCommand::Recorded(events))
    }
}

impl AnyCommand {
    /// A command that records these events as they are; `None` if there are none, or they are of
    /// several aggregate types.
    #[must_use]
    pub fn recorded(events: Vec<AnyEvent>) -> Option<Self> {
        macro_rules! all {
            ($variant:ident, $aggregate:ty) => {
                events
                    .into_iter()
                    .map(|event| match event {
                        AnyEvent::$variant(event) => Some(event),
                        _ => None,
                    })
                    .collect::<Option<Vec<_>>>()
                    .map(<$aggregate>::recorded)
            };
        }
        match events.first()? {
            AnyEvent::Agent(_) => all!(Agent, Agent),
            AnyEvent::Trade(_) => all!(Trade, Trade),
            AnyEvent::Approval(_) => all!(Approval, Approval),
            AnyEvent::Imported(_) => all!(Imported, Imported),
            AnyEvent::Policy(_) => all!(Policy, Adopted),
            AnyEvent::Approver(_) => all!(Approver, Approver),
            AnyEvent::Job(_) => all!(Job, Job),
            AnyEvent::Schedules(_) => all!(Schedules, Timetable),
        }
    }
}

impl AnyEvent {
    /// The department whose topic carries it when nobody names one: that of the command which
    /// usually causes it.
    #[must_use]
    pub const fn default_department(&self) -> DepartmentId {
        match self {
            Self::Agent(AgentEvent::MarketObserved(_)) => DepartmentId::HUNTER,
            Self::Agent(_) | Self::Job(_) | Self::Schedules(_) => DepartmentId::ORCHESTRATOR,
            Self::Trade(TradeEvent::VerdictGiven(_)) => DepartmentId::AUDITOR,
            Self::Trade(TradeEvent::TradeConcluded(_)) | Self::Imported(_) => {
                DepartmentId::HISTORIAN
            }
            Self::Trade(_) => DepartmentId::TRADER,
            Self::Approval(_) | Self::Policy(_) | Self::Approver(_) => DepartmentId::GUARDIAN,
        }
    }

    /// Whether it is the event that an aggregate of its type starts with. Views rest on it: nothing
    /// can happen to what was not created, and nothing is created twice.
    #[must_use]
    pub const fn creates(&self) -> bool {
        matches!(
            self,
            Self::Agent(AgentEvent::AgentRegistered(_))
                | Self::Trade(TradeEvent::TradeProposed(_))
                | Self::Approval(ApprovalEvent::ApprovalRequested(_))
                | Self::Job(JobEvent::JobSubmitted(_))
        )
    }
}

#[cfg(test)]
mod tests {
    use sovereign_schemas::Timestamp;
    use sovereign_schemas::events::{AgentRegistered, TradeAuthorized};

    use super::*;
    use crate::{AnyState, Decision};

    #[test]
    fn what_was_decided_elsewhere_is_taken_as_it_is_and_has_no_form_in_json() {
        let registered = || {
            AnyEvent::Agent(AgentEvent::from(AgentRegistered {
                role: "trader".into(),
            }))
        };
        // twice the same: no command of ours would give that
        let events = vec![registered(), registered()];
        let command = AnyCommand::recorded(events.clone()).unwrap();
        let decision = Decision::new("a".parse().unwrap(), Timestamp(0), "a".parse().unwrap());
        let mut state = AnyState::new(sovereign_schemas::AggregateType::Agent);
        assert_eq!(state.handle(command, &decision).unwrap(), events);
        let authorized = TradeAuthorized {
            authority: "policy:1".into(),
        };
        let mixed = vec![registered(), AnyEvent::Trade(authorized.into())];
        assert_eq!(AnyCommand::recorded(mixed), None);
        assert_eq!(AnyCommand::recorded(vec![]), None);
        for kind in sovereign_schemas::AggregateType::ALL {
            let data = serde_json::json!([]);
            assert!(AnyCommand::parse(kind.as_str(), "recorded", data).is_err());
        }
    }
}
