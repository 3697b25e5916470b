use std::collections::{BTreeMap, HashMap};

use sovereign_aggregates::approver::{self, Approver, Enrol};
use sovereign_aggregates::policy::{Adopted, POLICY_ID, Policy};
use sovereign_passkeys::Registration;
use sovereign_schemas::chain::{self, Head};
use sovereign_schemas::events::{ApproverEvent, PasskeyEnrolled, PolicyEvent};
use sovereign_schemas::{AggregateType, ErrorCode, Position, Problem, RecordedEvent};

use crate::approvals::Followed;
use crate::jobs::Job;
use crate::trades::Trade;
use crate::{Difference, Report};

/// A passkey is named by its owner and its id.
type PasskeyKey = (String, Vec<u8>);

/// See the crate.
#[derive(Debug, Default)]
pub struct Verifier {
    head: Option<Head>,
    events: u64,
    sequences: HashMap<String, u64>,
    pub(crate) policy: Adopted,
    pub(crate) policy_adopted_at: Option<Position>,
    pub(crate) approvers: HashMap<String, Approver>,
    pub(crate) enrolled: HashMap<PasskeyKey, Position>,
    pub(crate) trades: HashMap<String, Trade>,
    /// Those with an amount.
    pub(crate) jobs: HashMap<String, Job>,
    pub(crate) approvals: BTreeMap<String, Followed>,
    /// How requests name the department of a proposal, by its number.
    pub(crate) departments: HashMap<u16, String>,
}

/// Why an event cannot be as it says, in words.
pub(crate) type Reason = String;

impl Verifier {
    /// Before the first event.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next event; the first is that of position 1.
    ///
    /// # Errors
    /// What cannot be as the event says. Nothing after it proves anything.
    pub fn take(&mut self, event: &RecordedEvent) -> Result<(), Difference> {
        let header = &event.header;
        self.judge(event).map_err(|reason| Difference {
            position: header.position,
            aggregate: format!("{}/{}", header.aggregate_type, header.aggregate_id),
            reason,
        })
    }

    fn judge(&mut self, event: &RecordedEvent) -> Result<(), Reason> {
        self.follow(event)?;
        let header = &event.header;
        let Ok(kind) = header.aggregate_type.parse::<AggregateType>() else {
            return Ok(());
        };
        match kind {
            AggregateType::Policy => self.policy_event(event),
            AggregateType::Approver => self.approver_event(event),
            AggregateType::Trade => self.trade_event(event),
            AggregateType::Job => self.job_event(event),
            AggregateType::Approval => self.approval_event(event),
            // no approval rests on anything else
            _ => Ok(()),
        }
    }

    /// Density, chain and sequences.
    fn follow(&mut self, event: &RecordedEvent) -> Result<(), Reason> {
        let mut head = self.head.unwrap_or(Head::EMPTY);
        chain::advance(&mut head, event).map_err(|broken| broken.to_string())?;
        let header = &event.header;
        let key = format!("{}/{}", header.aggregate_type, header.aggregate_id);
        let last = self.sequences.entry(key).or_default();
        chain::check_sequence(*last, header).map_err(|broken| broken.to_string())?;
        *last = header.sequence;
        self.head = Some(head);
        self.events += 1;
        Ok(())
    }

    fn policy_event(&mut self, event: &RecordedEvent) -> Result<(), Reason> {
        let adopted: PolicyEvent = decode(event)?;
        let PolicyEvent::PolicyAdopted(e) = &adopted;
        let before = self.policy.policy().version;
        if event.header.aggregate_id != POLICY_ID {
            return Err(format!("the policy is {POLICY_ID}, and there is no other"));
        }
        if e.version != before.saturating_add(1) {
            return Err(format!(
                "policy {} cannot follow policy {before}",
                e.version
            ));
        }
        let read = Policy::parse(&e.text).map_err(|p| format!("the policy cannot be read: {p}"))?;
        if read.version != e.version || read.digest() != e.digest {
            return Err("version or digest is not that of the policy's text".to_owned());
        }
        self.policy.evolve(&adopted);
        self.policy_adopted_at = Some(event.header.position);
        Ok(())
    }

    fn approver_event(&mut self, event: &RecordedEvent) -> Result<(), Reason> {
        let header = &event.header;
        let name = header.aggregate_id.clone();
        let change: ApproverEvent = decode(event)?;
        let approver = self.approvers.entry(name.clone()).or_default();
        match &change {
            ApproverEvent::PasskeyEnrolled(e) => {
                if header.actor != name {
                    return Err(format!("{} enrolled a passkey for {name}", header.actor));
                }
                if approver.passkey(&e.credential_id).is_some() {
                    return Err("the passkey was enrolled before".to_owned());
                }
                let enrol = ceremony(e).ok_or("the sign counter is out of range")?;
                approver::verify(&enrol)
                    .map_err(|refusal| format!("the registration proves nothing: {refusal}"))?;
                let key = (name, e.credential_id.clone());
                self.enrolled.insert(key, header.position);
            }
            ApproverEvent::PasskeyRevoked(e) => {
                let found = approver.passkey(&e.credential_id);
                if found.is_none_or(|passkey| passkey.revoked) {
                    return Err("no such passkey is enrolled and not revoked".to_owned());
                }
            }
        }
        approver.evolve(&change);
        Ok(())
    }

    /// What is proven.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidRange`] if there was no event: an empty file proves nothing.
    pub fn finish(self) -> Result<Report, Problem> {
        let head = self.head.ok_or_else(|| {
            Problem::new(
                ErrorCode::InvalidRange,
                "there is no event to prove anything",
            )
        })?;
        let approvals = self.approvals.into_iter();
        Ok(Report {
            events: self.events,
            head,
            passkeys: self.enrolled.len() as u64,
            approvals: approvals.map(|(id, followed)| followed.proof(id)).collect(),
        })
    }
}

pub(crate) fn decode<T: sovereign_schemas::avro::EventGroup>(
    event: &RecordedEvent,
) -> Result<T, Reason> {
    event
        .decode()
        .map_err(|error| format!("the payload cannot be read: {error}"))
}

/// The enrolment as it was asked for.
fn ceremony(event: &PasskeyEnrolled) -> Option<Enrol> {
    Some(Enrol {
        credential_id: event.credential_id.clone().into(),
        public_key: event.public_key.clone().into(),
        rp_id: event.rp_id.clone(),
        origin: event.origin.clone(),
        aaguid: event.aaguid.clone().into(),
        backup_eligible: event.backup_eligible,
        sign_count: u32::try_from(event.sign_count).ok()?,
        label: None,
        registration: Registration {
            client_data: event.client_data.clone().into(),
            attestation: event.attestation.clone().into(),
        },
        challenge: event.challenge.clone().into(),
    })
}
