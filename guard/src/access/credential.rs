use std::fmt;

use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use sovereign_schemas::{Digest, DigestError};
use zeroize::Zeroizing;

/// Under which credentials are hashed before they are stored: HMAC-SHA-256.
///
/// Credentials are 256 random bits, so no stretching is needed against guessing (as for passwords);
/// the key keeps a stolen table from being of use to somebody who can also write into it.
#[derive(Clone)]
pub struct CredentialKey(Zeroizing<[u8; 32]>);

impl CredentialKey {
    /// Takes 32 random bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Reads 64 hexadecimal digits.
    ///
    /// # Errors
    /// [`DigestError`] for anything else.
    pub fn from_hex(text: &str) -> Result<Self, DigestError> {
        Ok(Self::from_bytes(text.trim_ascii().parse::<Digest>()?.0))
    }

    /// What is stored of a credential.
    #[must_use]
    pub fn hash(&self, credential: &[u8]) -> Digest {
        let mut block = Zeroizing::new([0_u8; 64]);
        block[..32].copy_from_slice(&self.0[..]);
        // HMAC pads a short key with zeros to the hash's block, so the padded key is the same key
        let mut mac = <Hmac<Sha256> as hmac::digest::KeyInit>::new((&*block).into());
        mac.update(b"sovereign credential v1\0");
        mac.update(credential);
        Digest(mac.finalize().into_bytes().into())
    }
}

impl fmt::Debug for CredentialKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CredentialKey(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_depends_on_key_and_credential() {
        let key = CredentialKey::from_bytes([7; 32]);
        assert_eq!(key.hash(b"a"), key.hash(b"a"));
        assert_ne!(key.hash(b"a"), key.hash(b"b"));
        assert_ne!(
            key.hash(b"a"),
            CredentialKey::from_bytes([8; 32]).hash(b"a")
        );
    }

    #[test]
    fn debug_output_prints_a_mask() {
        let key = CredentialKey::from_hex(&"ab".repeat(32)).unwrap();
        assert_eq!(format!("{key:?}"), "CredentialKey(***)");
        assert!(CredentialKey::from_hex("ab").is_err());
    }
}
