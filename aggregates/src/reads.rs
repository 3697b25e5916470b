use sovereign_schemas::{AggregateId, AggregateType, Identifier};

use crate::approval::{self, ApprovalCommand};
use crate::job::{Abort, ForceStart, JobCommand, run_approval};
use crate::policy::POLICY_ID;
use crate::trade::{Authorize, TradeCommand};
use crate::{AnyCommand, AnyState, Decision};

/// Another aggregate whose state decides on a command, at the same position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// Its type.
    pub aggregate_type: AggregateType,
    /// Its id.
    pub id: String,
}

impl AnyCommand {
    /// Most aggregates that one command reads besides its own.
    pub const READS_MAX: usize = 2;

    /// The aggregates that it reads besides its own. They follow from the command alone, so that
    /// whoever decides can have all of them at hand, as they are at that position.
    pub fn reads(
        &self,
        aggregate_id: &AggregateId,
        actor: &Identifier,
    ) -> impl Iterator<Item = Read> + use<> {
        let read = |aggregate_type, id: &str| {
            Some(Read {
                aggregate_type,
                id: id.to_owned(),
            })
        };
        let policy = || read(AggregateType::Policy, POLICY_ID);
        let reads: [Option<Read>; Self::READS_MAX] = match self {
            Self::Trade(TradeCommand::ApplyPolicy(_))
            | Self::Approval(ApprovalCommand::Request(_)) => [policy(), None],
            Self::Trade(TradeCommand::Authorize(Authorize { approval_id })) => {
                let own = approval_id.clone();
                let id = own.unwrap_or_else(|| approval::id_for(aggregate_id));
                [policy(), read(AggregateType::Approval, id.as_str())]
            }
            Self::Approval(ApprovalCommand::Give(_)) => {
                [policy(), read(AggregateType::Approver, actor.as_str())]
            }
            Self::Job(JobCommand::Submit(submit)) if submit.amount.is_some() => [policy(), None],
            Self::Job(JobCommand::Authorize(_)) => {
                let id = run_approval(aggregate_id);
                [policy(), read(AggregateType::Approval, &id)]
            }
            Self::Job(
                JobCommand::ForceStart(ForceStart { approval_id })
                | JobCommand::Abort(Abort { approval_id, .. }),
            ) => {
                let id = approval_id.as_ref();
                let id = id.and_then(|id| read(AggregateType::Approval, id.as_str()));
                [policy(), id]
            }
            _ => [None, None],
        };
        reads.into_iter().flatten()
    }
}

impl Decision {
    /// Takes in what a command reads; what no command reads is left alone.
    pub fn know(&mut self, id: &str, state: &AnyState) {
        match state {
            AnyState::Policy(adopted) => self.policy = adopted.policy().clone(),
            AnyState::Approver(approver) => self.approver = approver.clone().into(),
            AnyState::Approval(approval) => {
                self.approval = approval.clone().into();
                self.approval_id = Some(id.to_owned());
            }
            AnyState::Agent(_)
            | AnyState::Trade(_)
            | AnyState::Imported(_)
            | AnyState::Job(_)
            | AnyState::Schedules(_) => {}
        }
    }
}
