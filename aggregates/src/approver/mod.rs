//! A person who approves, with the passkeys that sign for him. The aggregate's id is the person's
//! name, which is the actor of his tokens.
//!
//! A passkey is enrolled with its whole registration, which is verified here and can be verified
//! again by anybody. That the challenge was fresh, and that the person was invited, is the door's:
//! only he himself can enrol, and only under his own name.

mod command;

use cqrs_es::Aggregate;
use cqrs_es::event_sink::EventSink;
use serde::{Deserialize, Serialize};
use sovereign_passkeys::{Base64Url, Challenge, Credential, PublicKey, RelyingParty};
use sovereign_schemas::borrowed::ToBorrowed as _;
use sovereign_schemas::events::{
    ApproverEvent, ApproverEventRef, PasskeyEnrolled, PasskeyEnrolledRef, PasskeyRevoked,
};
use sovereign_schemas::{ErrorCode, Problem};

use crate::{Decision, Refusal};

pub use command::{ApproverCommand, Enrol, Revoke};

/// Passkeys of one person, the revoked ones among them.
pub const PASSKEYS_MAX: usize = 64;

/// A passkey as it was enrolled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passkey {
    /// Its id.
    pub credential_id: Base64Url,
    /// Its public key, a `COSE_Key`.
    pub public_key: Base64Url,
    /// For whom it signs.
    pub rp_id: String,
    /// The page on which it has to sign.
    pub origin: String,
    /// Whether it may be copied to other devices.
    pub backup_eligible: bool,
    /// Its counter when it was made; 0 if it keeps none.
    pub sign_count: u32,
    /// It signs no more.
    pub revoked: bool,
}

impl Passkey {
    fn enrolled(event: &PasskeyEnrolledRef<'_>) -> Self {
        Self {
            credential_id: event.credential_id.to_vec().into(),
            public_key: event.public_key.to_vec().into(),
            rp_id: event.rp_id.as_str().to_owned(),
            origin: event.origin.as_str().to_owned(),
            backup_eligible: event.backup_eligible,
            // a counter has 32 bits
            sign_count: u32::try_from(event.sign_count).unwrap_or(u32::MAX),
            revoked: false,
        }
    }

    /// What an assertion is verified against; `None` if this build cannot read the key.
    #[must_use]
    pub fn verifiable(&self) -> Option<(RelyingParty, Credential)> {
        let party = RelyingParty::new(&self.rp_id, &[&self.origin]).ok()?;
        let credential = Credential {
            id: self.credential_id.to_vec(),
            key: PublicKey::from_cose(&self.public_key).ok()?,
            sign_count: self.sign_count,
            backup_eligible: self.backup_eligible,
            aaguid: [0; 16],
        };
        Some((party, credential))
    }
}

/// State of one approver.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Approver {
    /// In the order in which they were enrolled.
    pub passkeys: Vec<Passkey>,
}

fn invalid(field: &str, message: impl Into<String>) -> Refusal {
    Problem::new(ErrorCode::InvalidRegistration, message)
        .field(field)
        .into()
}

/// Verifies the ceremony behind an enrolment, with nothing but what is given here.
///
/// # Errors
/// [`ErrorCode::InvalidRegistration`] with the field: the relying party and origin do not belong
/// together, the registration does not answer the challenge, or the passkey is another one than
/// the registration's.
pub fn verify(enrol: &Enrol) -> Result<(), Refusal> {
    let party = RelyingParty::new(&enrol.rp_id, &[&enrol.origin])
        .map_err(|error| invalid("data.rp_id", error.to_string()))?;
    let challenge: [u8; 32] = enrol.challenge.0.as_slice().try_into().map_err(|_| {
        let problem = Problem::new(ErrorCode::InvalidRegistration, "the challenge is too short");
        Refusal::from(problem.field("data.challenge").expected("32 bytes"))
    })?;
    let found = enrol
        .registration
        .verify(&party, &Challenge(challenge))
        .map_err(|error| invalid("data.registration", error.to_string()))?;
    let same = [
        ("data.credential_id", enrol.credential_id.0 == found.id),
        ("data.public_key", enrol.public_key.0 == found.key.cose()),
        ("data.aaguid", enrol.aaguid.0 == found.aaguid),
        ("data.sign_count", enrol.sign_count == found.sign_count),
        (
            "data.backup_eligible",
            enrol.backup_eligible == found.backup_eligible,
        ),
    ];
    match same.iter().find(|(_, same)| !same) {
        Some((field, _)) => Err(invalid(field, "the registration says otherwise")),
        None => Ok(()),
    }
}

impl Approver {
    /// The passkey with this id, revoked or not.
    #[must_use]
    pub fn passkey(&self, credential_id: &[u8]) -> Option<&Passkey> {
        let own = |passkey: &&Passkey| *passkey.credential_id == *credential_id;
        self.passkeys.iter().find(own)
    }

    /// Which events follow from `command`, if it may happen.
    ///
    /// # Errors
    /// Why it may not.
    pub fn decide(
        &self,
        command: ApproverCommand,
        decision: &Decision,
    ) -> Result<Vec<ApproverEvent>, Refusal> {
        let event: ApproverEvent = match command {
            ApproverCommand::Recorded(events) => return Ok(events),
            ApproverCommand::Enrol(enrol) => self.enrol(*enrol, decision)?.into(),
            ApproverCommand::Revoke(Revoke {
                credential_id,
                reason,
            }) => {
                let passkey = self.passkey(&credential_id).ok_or_else(|| {
                    let problem = Problem::new(ErrorCode::NotFound, "no such passkey");
                    Refusal::from(problem.field("data.credential_id"))
                })?;
                if passkey.revoked {
                    let message = "the passkey was revoked before";
                    return Err(Refusal::new(ErrorCode::WrongState, message));
                }
                PasskeyRevoked {
                    credential_id: credential_id.0,
                    revoked_by: decision.actor.to_string(),
                    reason,
                }
                .into()
            }
        };
        Ok(vec![event])
    }

    fn enrol(&self, enrol: Enrol, decision: &Decision) -> Result<PasskeyEnrolled, Refusal> {
        if decision.actor.as_str() != decision.aggregate_id.as_str() {
            let problem = Problem::new(
                ErrorCode::Forbidden,
                "a person enrols his own passkeys, and nobody else's",
            );
            let problem = problem.field("id").found(decision.aggregate_id.as_str());
            return Err(problem.expected(decision.actor.as_str()).into());
        }
        if self.passkey(&enrol.credential_id).is_some() {
            let message = "the passkey was enrolled before";
            return Err(Refusal::new(ErrorCode::AlreadyExists, message));
        }
        if self.passkeys.len() >= PASSKEYS_MAX {
            let message = format!("there are {PASSKEYS_MAX} passkeys, and no more are kept");
            return Err(Refusal::new(ErrorCode::WrongState, message));
        }
        verify(&enrol)?;
        Ok(PasskeyEnrolled {
            credential_id: enrol.credential_id.0,
            public_key: enrol.public_key.0,
            rp_id: enrol.rp_id,
            origin: enrol.origin,
            aaguid: enrol.aaguid.0,
            backup_eligible: enrol.backup_eligible,
            sign_count: enrol.sign_count.into(),
            label: enrol.label.map(Into::into),
            challenge: enrol.challenge.0,
            client_data: enrol.registration.client_data.0,
            attestation: enrol.registration.attestation.0,
        })
    }

    /// Takes one recorded event. Total: never fails, whatever came before.
    pub fn evolve(&mut self, event: &ApproverEvent) {
        self.evolve_borrowed(&event.borrowed());
    }

    /// As [`Self::evolve`], from an event that was not copied out of its datum.
    pub fn evolve_borrowed(&mut self, event: &ApproverEventRef<'_>) {
        match event {
            ApproverEventRef::PasskeyEnrolled(e) => self.passkeys.push(Passkey::enrolled(e)),
            ApproverEventRef::PasskeyRevoked(e) => {
                for passkey in &mut self.passkeys {
                    passkey.revoked |= *passkey.credential_id == *e.credential_id;
                }
            }
        }
    }
}

impl Aggregate for Approver {
    const TYPE: &'static str = "approver";
    type Command = ApproverCommand;
    type Event = ApproverEvent;
    type Error = Refusal;
    type Services = Decision;

    async fn handle(
        &mut self,
        command: ApproverCommand,
        decision: &Decision,
        sink: &EventSink<Self>,
    ) -> Result<(), Refusal> {
        for event in self.decide(command, decision)? {
            sink.write(event, self).await;
        }
        Ok(())
    }

    fn apply(&mut self, event: ApproverEvent) {
        self.evolve(&event);
    }
}
