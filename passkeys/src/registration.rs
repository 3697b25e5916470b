use ciborium::Value;
use serde::{Deserialize, Serialize};

use crate::authenticator::{
    AUTHENTICATOR_DATA_BYTES_MAX, AuthenticatorData, AuthenticatorDataError, CBOR_DEPTH_MAX,
};
use crate::client::{self, ClientDataError};
use crate::{Base64Url, Challenge, KeyError, PublicKey, RelyingParty};

/// Attestation statements hold certificates; ours are not asked for, but may come.
const ATTESTATION_BYTES_MAX: usize = AUTHENTICATOR_DATA_BYTES_MAX + (32 << 10);

/// What a browser gives for a new passkey.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registration {
    /// `clientDataJSON`.
    pub client_data: Base64Url,
    /// `attestationObject`.
    pub attestation: Base64Url,
}

/// A passkey, as far as a relying party knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// Its id, 1 to 1,023 bytes.
    pub id: Vec<u8>,
    /// Its key.
    pub key: PublicKey,
    /// The counter at its last use; authenticators that keep none say 0.
    pub sign_count: u32,
    /// Whether it may be copied to other devices.
    pub backup_eligible: bool,
    /// Which make the authenticator says it is; nothing proves it.
    pub aaguid: [u8; 16],
}

/// Why a registration cannot be accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistrationError {
    /// What the browser says.
    #[error(transparent)]
    ClientData(#[from] ClientDataError),
    /// The envelope.
    #[error(
        "the attestation object is not the CBOR map of fmt, attStmt and authData that it must be"
    )]
    Attestation,
    /// What the authenticator says.
    #[error(transparent)]
    AuthenticatorData(#[from] AuthenticatorDataError),
    /// The key.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// The authenticator data in an attestation object.
fn authenticator_data(mut bytes: &[u8]) -> Option<Vec<u8>> {
    if bytes.len() > ATTESTATION_BYTES_MAX {
        return None;
    }
    let value: Value =
        ciborium::de::from_reader_with_recursion_limit(&mut bytes, CBOR_DEPTH_MAX).ok()?;
    if !bytes.is_empty() {
        return None;
    }
    let (mut format, mut statement, mut data) = (None, None, None);
    for (key, value) in value.into_map().ok()? {
        let known = match key.as_text()? {
            "fmt" => format.replace(value.into_text().ok()?).is_none(),
            "attStmt" => statement.replace(value.into_map().ok()?).is_none(),
            "authData" => data.replace(value.into_bytes().ok()?).is_none(),
            _ => true,
        };
        if !known {
            return None;
        }
    }
    // "none" with a statement contradicts itself (section 8.7)
    let statement = statement?;
    if format? == "none" && !statement.is_empty() {
        return None;
    }
    data
}

impl Registration {
    /// The passkey that was made for this relying party and challenge, by a user whom the
    /// authenticator verified (section 7.1). Attestation statements are not relied upon: whatever
    /// authenticator a user brings is his choice.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn verify(
        &self,
        party: &RelyingParty,
        challenge: &Challenge,
    ) -> Result<Credential, RegistrationError> {
        client::check(&self.client_data, "webauthn.create", challenge, party)?;
        let data = authenticator_data(&self.attestation).ok_or(RegistrationError::Attestation)?;
        let data = AuthenticatorData::check(&data, party)?;
        let attested = data.attested.ok_or(AuthenticatorDataError::NoCredential)?;
        Ok(Credential {
            id: attested.id,
            key: PublicKey::from_cose(&attested.key)?,
            sign_count: data.sign_count,
            backup_eligible: data.backup_eligible,
            aaguid: attested.aaguid,
        })
    }
}
