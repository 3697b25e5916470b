use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use crate::authenticator::{AuthenticatorData, AuthenticatorDataError};
use crate::client::{self, ClientDataError};
use crate::{Base64Url, Challenge, Credential, RelyingParty};

/// What a browser gives when a passkey has signed. With the public key beside it, anybody can
/// verify it at any time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Assertion {
    /// `rawId`.
    pub credential_id: Base64Url,
    /// `authenticatorData`.
    pub authenticator_data: Base64Url,
    /// `clientDataJSON`.
    pub client_data: Base64Url,
    /// `signature`.
    pub signature: Base64Url,
}

/// What an assertion said besides being right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified {
    /// The counter to remember; 0 if the authenticator keeps none.
    pub sign_count: u32,
    /// Whether the passkey has been copied to other devices.
    pub backed_up: bool,
}

/// Why an assertion proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AssertionError {
    /// Of another passkey.
    #[error("the assertion is by another passkey than expected")]
    Credential,
    /// What the browser says.
    #[error(transparent)]
    ClientData(#[from] ClientDataError),
    /// What the authenticator says.
    #[error(transparent)]
    AuthenticatorData(#[from] AuthenticatorDataError),
    /// Whether a passkey may be copied never changes.
    #[error("the passkey was registered as backup eligible = {registered}, and now says otherwise")]
    BackupEligible {
        /// As registered.
        registered: bool,
    },
    /// Not by that key, or of other bytes.
    #[error("the signature is not the passkey's over these bytes")]
    Signature,
    /// A copy of the authenticator may be in use.
    #[error(
        "the sign counter stands at {found}; it stood at {before} before: the passkey may have been cloned"
    )]
    SignCount {
        /// Before.
        before: u32,
        /// Now.
        found: u32,
    },
}

impl Assertion {
    /// That this passkey signed this challenge on a page of this relying party, with its user
    /// present and verified (section 7.2).
    ///
    /// # Errors
    /// What is wrong with it. An authenticator that keeps no counter says 0 always; so a counter
    /// proves no single use, and whoever needs that keeps track himself.
    pub fn verify(
        &self,
        party: &RelyingParty,
        challenge: &Challenge,
        credential: &Credential,
    ) -> Result<Verified, AssertionError> {
        if self.credential_id.0 != credential.id {
            return Err(AssertionError::Credential);
        }
        client::check(&self.client_data, "webauthn.get", challenge, party)?;
        let data = AuthenticatorData::check(&self.authenticator_data, party)?;
        if data.attested.is_some() {
            return Err(AuthenticatorDataError::UnexpectedCredential.into());
        }
        if data.backup_eligible != credential.backup_eligible {
            return Err(AssertionError::BackupEligible {
                registered: credential.backup_eligible,
            });
        }
        let mut message = self.authenticator_data.0.clone();
        message.extend_from_slice(digest(&SHA256, &self.client_data).as_ref());
        if !credential.key.verifies(&message, &self.signature) {
            return Err(AssertionError::Signature);
        }
        let (before, found) = (credential.sign_count, data.sign_count);
        if (before > 0 || found > 0) && found <= before {
            return Err(AssertionError::SignCount { before, found });
        }
        Ok(Verified {
            sign_count: found,
            backed_up: data.backed_up,
        })
    }
}
