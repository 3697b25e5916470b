//! A request to people: waits, and is granted, denied or expires. A yes is a signature by a passkey
//! over exactly this action, and enough different people have to give one.

mod command;
mod give;

use cqrs_es::Aggregate;
use cqrs_es::event_sink::EventSink;
use serde::{Deserialize, Serialize};
use sovereign_schemas::borrowed::{ToBorrowed as _, Utf8};
use sovereign_schemas::events::{
    ApprovalAttemptRefused, ApprovalDenied, ApprovalEvent, ApprovalEventRef, ApprovalExpired,
    ApprovalGiven, ApprovalGivenRef, ApprovalGranted, ApprovalRequested, ApprovalRequestedRef,
};
use sovereign_schemas::{AggregateId, Decimal, Digest, ErrorCode, Problem, Timestamp};

use crate::policy::Action;
use crate::{Decision, Refusal};

pub use command::{ApprovalCommand, Deny, Expire, Give, Request};
pub(crate) use give::told;
pub use give::{Attempt, assertion_digest};

/// Attempts that are recorded for one approval. Further ones are refused without an event, so that
/// nobody can fill the ledger with them.
pub const REFUSALS_RECORDED_MAX: u32 = 16;

/// Where an approval stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Not requested yet.
    #[default]
    None,
    /// Waits for people until then.
    Waiting {
        /// Last moment for an answer.
        expires_at: Timestamp,
    },
    /// Enough people said yes.
    Granted,
    /// Somebody said no.
    Denied,
    /// Not enough people answered.
    Expired,
}

/// What was asked for; it never changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requested {
    /// What would be done.
    pub action: String,
    /// To what.
    pub target_id: String,
    /// SHA-256 of the exact action.
    pub action_digest: Digest,
    /// Its amount.
    pub amount: Decimal,
    /// Currency of the amount.
    pub currency: String,
    /// The policy that asked.
    pub policy_version: i32,
    /// Who asked.
    pub requested_by: String,
    /// Who wants it.
    pub on_behalf_of: Option<String>,
    /// So many different people must approve.
    pub people_needed: i32,
    /// Last moment for an answer.
    pub expires_at: Timestamp,
}

impl From<&ApprovalRequestedRef<'_>> for Requested {
    fn from(event: &ApprovalRequestedRef<'_>) -> Self {
        let owned = |text: Utf8<'_>| text.as_str().to_owned();
        Self {
            action: owned(event.action),
            target_id: owned(event.target_id),
            action_digest: event.action_digest,
            amount: event.amount,
            currency: owned(event.currency),
            policy_version: event.policy_version,
            requested_by: owned(event.requested_by),
            on_behalf_of: event.on_behalf_of.map(owned),
            people_needed: event.people_needed,
            expires_at: event.expires_at,
        }
    }
}

/// One yes that counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Giver {
    /// Who.
    pub approver: String,
    /// SHA-256 of the public key that signed.
    pub passkey: Digest,
    /// See [`assertion_digest`].
    pub assertion: Digest,
}

impl From<&ApprovalGivenRef<'_>> for Giver {
    fn from(event: &ApprovalGivenRef<'_>) -> Self {
        Self {
            approver: event.approver.as_str().to_owned(),
            passkey: event.public_key_digest,
            assertion: give::digest_of_parts([
                event.credential_id,
                event.authenticator_data,
                event.client_data,
                event.signature,
            ]),
        }
    }
}

/// State of one approval.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(from = "Canonical", into = "Canonical")]
pub struct Approval {
    /// Where it stands.
    pub stage: Stage,
    /// What was asked for. Not part of the canonical state, whose digests were noted without it.
    pub requested: Option<Box<Requested>>,
    /// Who has approved, in order.
    pub given: Vec<Giver>,
    /// Attempts that were refused and recorded.
    pub refused: u32,
}

/// The canonical state: the stage alone, as before approvals could be given, until somebody tries.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Canonical {
    Untouched(Stage),
    Touched {
        stage: Stage,
        given: Vec<Giver>,
        refused: u32,
    },
}

impl From<Approval> for Canonical {
    fn from(approval: Approval) -> Self {
        let Approval {
            stage,
            given,
            refused,
            requested: _,
        } = approval;
        if given.is_empty() && refused == 0 {
            return Self::Untouched(stage);
        }
        Self::Touched {
            stage,
            given,
            refused,
        }
    }
}

impl From<Canonical> for Approval {
    fn from(canonical: Canonical) -> Self {
        let (stage, given, refused) = match canonical {
            Canonical::Untouched(stage) => (stage, Vec::new(), 0),
            Canonical::Touched {
                stage,
                given,
                refused,
            } => (stage, given, refused),
        };
        Self {
            stage,
            requested: None,
            given,
            refused,
        }
    }
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

/// Whether nothing more can be answered after this event.
#[must_use]
pub const fn has_ended(event: &ApprovalEvent) -> bool {
    match event {
        ApprovalEvent::ApprovalGranted(_)
        | ApprovalEvent::ApprovalDenied(_)
        | ApprovalEvent::ApprovalExpired(_) => true,
        ApprovalEvent::ApprovalRequested(_)
        | ApprovalEvent::ApprovalGiven(_)
        | ApprovalEvent::ApprovalAttemptRefused(_) => false,
    }
}

impl Approval {
    /// Which events follow from `command`, if it may happen.
    ///
    /// # Errors
    /// Why it may not. A yes that counts for nothing is an event instead, as long as there are
    /// fewer than [`REFUSALS_RECORDED_MAX`].
    pub fn decide(
        &self,
        command: ApprovalCommand,
        decision: &Decision,
    ) -> Result<Vec<ApprovalEvent>, Refusal> {
        let event: ApprovalEvent = match (self.stage, command) {
            (_, ApprovalCommand::Recorded(events)) => return Ok(events),
            (Stage::None, ApprovalCommand::Request(request)) => {
                Self::request(*request, decision)?.into()
            }
            (_, ApprovalCommand::Request(_)) => {
                return Err(Refusal::new(
                    ErrorCode::AlreadyExists,
                    "the approval was requested before",
                ));
            }
            (Stage::None, _) => return Err(Refusal::new(ErrorCode::NotFound, "no such approval")),
            (_, ApprovalCommand::Give(give)) => return self.give(&give, decision),
            (Stage::Granted | Stage::Denied | Stage::Expired, _) => {
                return Err(Refusal::new(
                    ErrorCode::WrongState,
                    format!("the approval is {}", self.how()),
                ));
            }
            (Stage::Waiting { expires_at }, ApprovalCommand::Deny(Deny { reason })) => {
                if decision.at > expires_at {
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
            (Stage::Waiting { expires_at }, ApprovalCommand::Expire(Expire {})) => {
                if decision.at <= expires_at {
                    return Err(Refusal::new(
                        ErrorCode::NotDue,
                        format!("the approval waits until {expires_at}"),
                    ));
                }
                ApprovalExpired {
                    expired_at: expires_at,
                }
                .into()
            }
        };
        Ok(vec![event])
    }

    const fn how(&self) -> &'static str {
        match self.stage {
            Stage::None => "not requested",
            Stage::Waiting { .. } => "waiting",
            Stage::Granted => "granted",
            Stage::Denied => "denied",
            Stage::Expired => "expired",
        }
    }

    fn request(request: Request, decision: &Decision) -> Result<ApprovalRequested, Refusal> {
        let Request {
            action,
            target_id,
            action_digest,
            amount,
            currency,
            on_behalf_of,
            department,
            asset,
        } = request;
        if !amount.is_positive() {
            return Err(Problem::new(ErrorCode::InvalidAmount, "must be above zero")
                .field("data.amount")
                .into());
        }
        let department = decision.department_name(department.unwrap_or(decision.department));
        let asset: String = asset.map_or_else(String::new, Into::into);
        let policy = &decision.policy;
        let asked = policy.asks(&Action {
            department,
            action: action.as_str(),
            asset: &asset,
            amount,
        });
        Ok(ApprovalRequested {
            action: action.into(),
            target_id: target_id.into(),
            action_digest,
            amount,
            currency: currency.into(),
            policy_version: policy.version,
            requested_by: decision.actor.to_string(),
            expires_at: decision.at.plus_s(policy.approval_ttl_s),
            on_behalf_of: on_behalf_of.map(Into::into),
            department: department.to_owned(),
            asset,
            rule: asked.rule.map_or_else(String::new, ToString::to_string),
            // who asks wants an answer, also where the policy would not have asked
            people_needed: i32::from(asked.people.max(1)),
        })
    }

    fn give(&self, give: &Give, decision: &Decision) -> Result<Vec<ApprovalEvent>, Refusal> {
        let Give { assertion } = give;
        match self.judge(give, decision) {
            Ok(giver) => {
                let people = i32::try_from(self.given.len() + 1).unwrap_or(i32::MAX);
                let given = ApprovalGiven {
                    approver: giver.approver,
                    credential_id: assertion.credential_id.0.clone(),
                    authenticator_data: assertion.authenticator_data.0.clone(),
                    client_data: assertion.client_data.0.clone(),
                    signature: assertion.signature.0.clone(),
                    public_key_digest: giver.passkey,
                };
                let mut events = vec![given.into()];
                if let Some(requested) = &self.requested
                    && people >= requested.people_needed
                {
                    let granted = ApprovalGranted {
                        people,
                        action_digest: requested.action_digest,
                        policy_version: requested.policy_version,
                    };
                    events.push(granted.into());
                }
                Ok(events)
            }
            Err(code) if self.refused < REFUSALS_RECORDED_MAX => {
                let refused = ApprovalAttemptRefused {
                    approver: decision.actor.to_string(),
                    code: code.as_str().to_owned(),
                    assertion_digest: assertion_digest(assertion),
                };
                Ok(vec![refused.into()])
            }
            Err(code) => Err(Refusal::new(code, told(code))),
        }
    }

    fn judge(&self, give: &Give, decision: &Decision) -> Result<Giver, ErrorCode> {
        let used = assertion_digest(&give.assertion);
        if self.given.iter().any(|giver| giver.assertion == used) {
            return Err(ErrorCode::ApprovalReplayed);
        }
        match (self.stage, &self.requested) {
            (Stage::Waiting { .. }, Some(requested)) => Attempt {
                approval_id: &decision.aggregate_id,
                requested,
                given: &self.given,
                approver: decision.actor.as_str(),
                passkeys: &decision.approver,
                policy: &decision.policy,
                at: decision.at,
                assertion: &give.assertion,
            }
            .judge(),
            (Stage::Expired, _) => Err(ErrorCode::ApprovalExpired),
            _ => Err(ErrorCode::WrongState),
        }
    }

    /// Takes one recorded event. Total: never fails, whatever came before.
    pub fn evolve(&mut self, event: &ApprovalEvent) {
        self.evolve_borrowed(&event.borrowed());
    }

    /// As [`Self::evolve`], from an event that was not copied out of its datum.
    pub fn evolve_borrowed(&mut self, event: &ApprovalEventRef<'_>) {
        match event {
            ApprovalEventRef::ApprovalRequested(e) => {
                self.stage = Stage::Waiting {
                    expires_at: e.expires_at,
                };
                self.requested = Some(Box::new(e.into()));
            }
            ApprovalEventRef::ApprovalGiven(e) => self.given.push(Giver::from(e)),
            ApprovalEventRef::ApprovalAttemptRefused(_) => {
                self.refused = self.refused.saturating_add(1);
            }
            ApprovalEventRef::ApprovalGranted(_) => self.stage = Stage::Granted,
            ApprovalEventRef::ApprovalDenied(_) => self.stage = Stage::Denied,
            ApprovalEventRef::ApprovalExpired(_) => self.stage = Stage::Expired,
        }
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
mod tests;
