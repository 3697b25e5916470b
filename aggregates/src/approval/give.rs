//! Whether somebody's yes counts: who he is, what he may approve, and what his passkey signed.

use sovereign_passkeys::{
    Assertion, AssertionError, AuthenticatorDataError, ClientDataError, Terms,
};
use sovereign_schemas::{AggregateId, Digest, ErrorCode, Timestamp};

use super::{Giver, Requested};
use crate::approver::Approver;
use crate::policy::Policy;

/// SHA-256 of what was shown: credential id, authenticator data, client data and signature, each
/// with its length before it, eight bytes big-endian.
#[must_use]
pub fn assertion_digest(assertion: &Assertion) -> Digest {
    digest_of_parts([
        &assertion.credential_id,
        &assertion.authenticator_data,
        &assertion.client_data,
        &assertion.signature,
    ])
}

pub(super) fn digest_of_parts(parts: [&[u8]; 4]) -> Digest {
    let lengths = parts.map(|part| (part.len() as u64).to_be_bytes());
    let mut all: Vec<&[u8]> = Vec::with_capacity(2 * parts.len());
    for (length, part) in lengths.iter().zip(parts) {
        all.extend([length.as_slice(), part]);
    }
    Digest::of(&all)
}

impl Requested {
    /// What a passkey has to sign for this approval.
    #[must_use]
    pub fn terms<'a>(&self, approval_id: &'a AggregateId) -> Terms<'a> {
        Terms {
            approval_id: approval_id.as_str(),
            action_digest: self.action_digest.0,
            policy_version: self.policy_version,
            expires_at_us: self.expires_at.0,
        }
    }

    /// Whether the action is this person's own wish.
    fn is_wanted_by(&self, who: &str) -> bool {
        self.requested_by == who || self.on_behalf_of.as_deref() == Some(who)
    }
}

/// Everything that decides on one yes, all of it at one position.
#[derive(Debug)]
pub struct Attempt<'a> {
    /// The approval.
    pub approval_id: &'a AggregateId,
    /// What was asked for.
    pub requested: &'a Requested,
    /// Who has approved before.
    pub given: &'a [Giver],
    /// Who approves now.
    pub approver: &'a str,
    /// His passkeys.
    pub passkeys: &'a Approver,
    /// The policy that holds now.
    pub policy: &'a Policy,
    /// The moment of the decision.
    pub at: Timestamp,
    /// What he shows.
    pub assertion: &'a Assertion,
}

impl Attempt<'_> {
    /// The yes, if it counts.
    ///
    /// # Errors
    /// Why it does not.
    pub fn judge(&self) -> Result<Giver, ErrorCode> {
        if self.at > self.requested.expires_at {
            return Err(ErrorCode::ApprovalExpired);
        }
        // a request of version 1 does not say how many people it takes
        let answerable = self.requested.people_needed > 0;
        if !answerable || self.policy.version != self.requested.policy_version {
            return Err(ErrorCode::PolicyChanged);
        }
        if self.requested.is_wanted_by(self.approver) {
            return Err(ErrorCode::SelfApproval);
        }
        if !self.policy.names(self.approver) {
            return Err(ErrorCode::NotApprover);
        }
        let amount = self.requested.amount;
        if !self.policy.may_approve(self.approver, amount) {
            return Err(ErrorCode::ApproverLimit);
        }
        if self.given.iter().any(|g| g.approver == self.approver) {
            return Err(ErrorCode::AlreadyApproved);
        }
        let passkey = self.verify()?;
        // one authenticator under two names is one person
        if self.given.iter().any(|giver| giver.passkey == passkey) {
            return Err(ErrorCode::AlreadyApproved);
        }
        Ok(Giver {
            approver: self.approver.to_owned(),
            passkey,
            assertion: assertion_digest(self.assertion),
        })
    }

    /// The digest of the public key that signed.
    fn verify(&self) -> Result<Digest, ErrorCode> {
        let passkey = self.passkeys.passkey(&self.assertion.credential_id);
        let passkey = passkey.ok_or(ErrorCode::PasskeyUnknown)?;
        if passkey.revoked {
            return Err(ErrorCode::PasskeyRevoked);
        }
        let (party, credential) = passkey.verifiable().ok_or(ErrorCode::PasskeyUnknown)?;
        let challenge = self.requested.terms(self.approval_id).challenge();
        let verified = self.assertion.verify(&party, &challenge, &credential);
        verified.map_err(|error| code(&error))?;
        Ok(Digest::of(&[&passkey.public_key]))
    }
}

/// The code of what is wrong with an assertion.
const fn code(error: &AssertionError) -> ErrorCode {
    match error {
        AssertionError::Credential => ErrorCode::PasskeyUnknown,
        AssertionError::ClientData(ClientDataError::Challenge { .. }) => {
            ErrorCode::ApprovalTermsMismatch
        }
        AssertionError::ClientData(
            ClientDataError::Origin { .. } | ClientDataError::CrossOrigin,
        ) => ErrorCode::WrongOrigin,
        AssertionError::AuthenticatorData(AuthenticatorDataError::RelyingParty(_)) => {
            ErrorCode::WrongRelyingParty
        }
        AssertionError::AuthenticatorData(
            AuthenticatorDataError::NotPresent | AuthenticatorDataError::NotVerified,
        ) => ErrorCode::UserNotVerified,
        AssertionError::Signature => ErrorCode::InvalidSignature,
        AssertionError::SignCount { .. } => ErrorCode::PasskeyCloned,
        AssertionError::ClientData(_)
        | AssertionError::AuthenticatorData(_)
        | AssertionError::BackupEligible { .. } => ErrorCode::InvalidAssertion,
    }
}

/// What whoever tried is told; it follows from the code alone, so that a repeat is told the same.
#[must_use]
pub(crate) const fn told(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::ApprovalTermsMismatch => {
            "the passkey signed other terms: another action, amount, approval, policy or expiry"
        }
        ErrorCode::ApprovalReplayed => "this assertion was used before",
        ErrorCode::ApprovalExpired => "the approval has expired",
        ErrorCode::PolicyChanged => "another policy holds now than the one that asked",
        ErrorCode::SelfApproval => "who asks for an action, or wants it, cannot approve it",
        ErrorCode::NotApprover => "the policy does not name this person as an approver",
        ErrorCode::ApproverLimit => "the amount is beyond what this person may approve",
        ErrorCode::AlreadyApproved => "this person, or this passkey, has approved already",
        ErrorCode::PasskeyUnknown => "the passkey is none of this person's",
        ErrorCode::PasskeyRevoked => "the passkey was revoked",
        ErrorCode::PasskeyCloned => "the passkey's counter went back: it may have been cloned",
        ErrorCode::WrongOrigin => "the passkey signed on another page than that of its enrolment",
        ErrorCode::WrongRelyingParty => "the passkey signed for another relying party",
        ErrorCode::UserNotVerified => "the authenticator did not verify who was there",
        ErrorCode::InvalidSignature => "the signature is not the passkey's over these bytes",
        ErrorCode::InvalidAssertion => "the assertion is not what a browser gives",
        _ => "the approval has ended",
    }
}
