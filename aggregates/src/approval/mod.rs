//! A request to a human: waits, and is denied or expires. Granting needs a signature over the
//! exact action; until that exists here, nothing can grant.

mod command;

use cqrs_es::Aggregate;
use cqrs_es::event_sink::EventSink;
use serde::{Deserialize, Serialize};
use sovereign_schemas::borrowed::ToBorrowed as _;
use sovereign_schemas::events::{
    ApprovalDenied, ApprovalEvent, ApprovalEventRef, ApprovalExpired, ApprovalRequested,
};
use sovereign_schemas::{AggregateId, Digest, ErrorCode, Problem, Timestamp};

use crate::{Decision, Refusal};

pub use command::{ApprovalCommand, Deny, Expire, Request};

/// State of one approval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Approval {
    /// Not requested yet.
    #[default]
    None,
    /// Waits for a human until then.
    Waiting {
        /// Last moment for an answer.
        expires_at: Timestamp,
    },
    /// A human said no.
    Denied,
    /// Nobody answered.
    Expired,
}

/// The approval that belongs to what it is for.
///
/// # Panics
/// Never: a prefix and 64 hexadecimal digits are an id.
#[must_use]
pub fn id_for(target: &AggregateId) -> AggregateId {
    let plain = format!("approval_{target}").parse();
    plain.unwrap_or_else(|_| {
        let digest = Digest::of(&[target.as_str().as_bytes()]);
        #[allow(clippy::expect_used)]
        let id = format!("approval_{digest}")
            .parse()
            .expect("letters, digits and _");
        id
    })
}

impl Approval {
    /// Which events follow from `command`, if it may happen.
    ///
    /// # Errors
    /// Why it may not.
    pub fn decide(
        &self,
        command: ApprovalCommand,
        decision: &Decision,
    ) -> Result<Vec<ApprovalEvent>, Refusal> {
        let event: ApprovalEvent = match (self, command) {
            (_, ApprovalCommand::Recorded(events)) => return Ok(events),
            (Self::None, ApprovalCommand::Request(request)) => {
                Self::request(request, decision)?.into()
            }
            (_, ApprovalCommand::Request(_)) => {
                return Err(Refusal::new(
                    ErrorCode::AlreadyExists,
                    "the approval was requested before",
                ));
            }
            (Self::None, _) => return Err(Refusal::new(ErrorCode::NotFound, "no such approval")),
            (Self::Denied | Self::Expired, _) => {
                let how = if *self == Self::Denied {
                    "denied"
                } else {
                    "expired"
                };
                return Err(Refusal::new(
                    ErrorCode::WrongState,
                    format!("the approval is {how}"),
                ));
            }
            (Self::Waiting { expires_at }, ApprovalCommand::Deny(Deny { reason })) => {
                if decision.at > *expires_at {
                    return Err(Refusal::new(
                        ErrorCode::WrongState,
                        format!("the approval ended at {expires_at}"),
                    ));
                }
                ApprovalDenied {
                    denied_by: decision.actor.to_string(),
                    reason,
                }
                .into()
            }
            (Self::Waiting { expires_at }, ApprovalCommand::Expire(Expire {})) => {
                if decision.at <= *expires_at {
                    return Err(Refusal::new(
                        ErrorCode::NotDue,
                        format!("the approval waits until {expires_at}"),
                    ));
                }
                ApprovalExpired {
                    expired_at: *expires_at,
                }
                .into()
            }
        };
        Ok(vec![event])
    }

    fn request(request: Request, decision: &Decision) -> Result<ApprovalRequested, Refusal> {
        let Request {
            action,
            target_id,
            action_digest,
            amount,
            currency,
        } = request;
        if !amount.is_positive() {
            return Err(Problem::new(ErrorCode::InvalidAmount, "must be above zero")
                .field("data.amount")
                .into());
        }
        let policy = &decision.policy;
        Ok(ApprovalRequested {
            action: action.into(),
            target_id: target_id.into(),
            action_digest,
            amount,
            currency: currency.into(),
            policy_version: policy.version,
            requested_by: decision.actor.to_string(),
            expires_at: decision.at.plus_s(policy.approval_ttl_s),
        })
    }

    /// Takes one recorded event. Total: never fails, whatever came before.
    pub fn evolve(&mut self, event: &ApprovalEvent) {
        self.evolve_borrowed(&event.borrowed());
    }

    /// As [`Self::evolve`], from an event that was not copied out of its datum.
    pub fn evolve_borrowed(&mut self, event: &ApprovalEventRef<'_>) {
        *self = match event {
            ApprovalEventRef::ApprovalRequested(e) => Self::Waiting {
                expires_at: e.expires_at,
            },
            ApprovalEventRef::ApprovalDenied(_) => Self::Denied,
            ApprovalEventRef::ApprovalExpired(_) => Self::Expired,
        };
    }
}

impl Aggregate for Approval {
    const TYPE: &'static str = "approval";
    type Command = ApprovalCommand;
    type Event = ApprovalEvent;
    type Error = Refusal;
    type Services = Decision;

    async fn handle(
        &mut self,
        command: ApprovalCommand,
        decision: &Decision,
        sink: &EventSink<Self>,
    ) -> Result<(), Refusal> {
        for event in self.decide(command, decision)? {
            sink.write(event, self).await;
        }
        Ok(())
    }

    fn apply(&mut self, event: ApprovalEvent) {
        self.evolve(&event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(us: i64) -> Decision {
        Decision::new(
            "approval_1".parse().unwrap(),
            Timestamp(us),
            "guardian".parse().unwrap(),
        )
    }

    fn waiting() -> Approval {
        let request = Request {
            action: "trade.execute".parse().unwrap(),
            target_id: "trade_1".parse().unwrap(),
            action_digest: sovereign_schemas::Digest::ZERO,
            amount: "1000.01".parse().unwrap(),
            currency: "USD".parse().unwrap(),
        };
        let mut approval = Approval::None;
        let events = approval
            .decide(ApprovalCommand::Request(request), &at(0))
            .unwrap();
        events.iter().for_each(|e| approval.evolve(e));
        approval
    }

    #[test]
    fn expires_after_3600_seconds_and_not_before() {
        let approval = waiting();
        let expire = || ApprovalCommand::Expire(Expire {});
        let early = approval.decide(expire(), &at(3_600_000_000)).unwrap_err();
        assert_eq!(early.problem.code, ErrorCode::NotDue);
        assert_eq!(
            approval.decide(expire(), &at(3_600_000_001)).unwrap().len(),
            1
        );
    }

    #[test]
    fn ends_only_once() {
        let mut approval = waiting();
        let expired = approval
            .decide(ApprovalCommand::Expire(Expire {}), &at(i64::MAX))
            .unwrap();
        expired.iter().for_each(|e| approval.evolve(e));
        let again = approval
            .decide(ApprovalCommand::Expire(Expire {}), &at(i64::MAX))
            .unwrap_err();
        assert_eq!(again.problem.code, ErrorCode::WrongState);
    }
}
