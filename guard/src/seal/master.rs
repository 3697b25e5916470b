//! The master key: wraps subject keys, and lives in a file apart from the ledger.

use zeroize::{Zeroize, Zeroizing};

use super::{SealError, SubjectKey, hex, text, tree};

/// What the additional data of a wrapped key begins with.
const CONTEXT: &[u8; 23] = b"sovereign.SubjectKey.v1";
/// What the check value is of.
const CHECK_LABEL: &[u8] = b"sovereign master key check v1";
/// The message that turns the master key into the key of pseudonyms.
const PSEUDONYM: &[u8] = b"sovereign.Pseudonym.v1";

/// 32 bytes that wrap every subject key. Printing it shows a mask; dropping it overwrites it.
#[derive(Clone)]
pub struct MasterKey([u8; 32]);

impl MasterKey {
    /// Takes 32 bytes from the caller's source of randomness.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Reads a key file: 64 hexadecimal characters, with or without an end of line.
    ///
    /// # Errors
    /// [`SealError::KeyFormat`] for anything else.
    pub fn from_hex(text: &str) -> Result<Self, SealError> {
        hex::decode(text).map(Self)
    }

    /// What a key file holds, without the end of line: 64 hexadecimal characters in lower case.
    pub fn to_hex(&self) -> Zeroizing<String> {
        hex::encode(&self.0)
    }

    /// Tells two master keys apart and says nothing about either: HMAC-SHA-256 of
    /// `"sovereign master key check v1"` under the key.
    pub fn check_value(&self) -> [u8; 32] {
        tree::hmac(&self.0, CHECK_LABEL)
    }

    /// A name for `message` that tells nothing about it to whoever has not this key:
    /// `HMAC-SHA-256(HMAC-SHA-256(master key, "sovereign.Pseudonym.v1"), message)`.
    pub fn pseudonym(&self, message: &[u8]) -> [u8; 32] {
        let key = Zeroizing::new(tree::hmac(&self.0, PSEUDONYM));
        tree::hmac(&key, message)
    }

    /// Wraps a subject key: AES-256-GCM with `"sovereign.SubjectKey.v1" ‖ key_id` as additional
    /// data; 48 bytes.
    ///
    /// The nonce must never be used twice with one master key: twelve fresh random bytes each time,
    /// good for 2^32 wraps (NIST SP 800-38D, 8.3).
    ///
    /// # Errors
    /// [`SealError::Cipher`], which 32 bytes do not reach.
    pub fn wrap(
        &self,
        subject_key: &SubjectKey,
        nonce: [u8; 12],
        key_id: [u8; 16],
    ) -> Result<Vec<u8>, SealError> {
        text::encrypt(&self.0, nonce, subject_key.expose(), &associated(key_id))
    }

    /// Unwraps what [`Self::wrap`] gave.
    ///
    /// # Errors
    /// [`SealError::Truncated`], or [`SealError::NotAuthentic`] when master key, nonce, key id or
    /// bytes differ from those of the wrap.
    pub fn unwrap(
        &self,
        wrapped: &[u8],
        nonce: [u8; 12],
        key_id: [u8; 16],
    ) -> Result<SubjectKey, SealError> {
        let plain = Zeroizing::new(text::decrypt(&self.0, nonce, wrapped, &associated(key_id))?);
        let bytes = plain
            .as_slice()
            .try_into()
            .map_err(|_| SealError::NotAuthentic)?;
        Ok(SubjectKey::from_bytes(bytes))
    }
}

fn associated(key_id: [u8; 16]) -> [u8; 39] {
    let mut data = [0; 39];
    data[..23].copy_from_slice(CONTEXT);
    data[23..].copy_from_slice(&key_id);
    data
}

impl std::fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MasterKey(****)")
    }
}

impl Drop for MasterKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn unwraps_what_was_wrapped_under_the_same_id_only() {
        let (master, subject) = (
            MasterKey::from_bytes([7; 32]),
            SubjectKey::from_bytes([9; 32]),
        );
        let wrapped = master.wrap(&subject, [1; 12], [2; 16]).unwrap();
        assert_eq!(wrapped.len(), 48);
        assert_eq!(
            master.unwrap(&wrapped, [1; 12], [2; 16]).unwrap().expose(),
            &[9; 32]
        );
        let refused = SealError::NotAuthentic;
        assert_eq!(
            master.unwrap(&wrapped, [1; 12], [3; 16]).unwrap_err(),
            refused
        );
        assert_eq!(
            master.unwrap(&wrapped, [2; 12], [2; 16]).unwrap_err(),
            refused
        );
        let other = MasterKey::from_bytes([8; 32]);
        assert_eq!(
            other.unwrap(&wrapped, [1; 12], [2; 16]).unwrap_err(),
            refused
        );
    }

    #[test]
    fn the_check_value_is_what_others_compute() {
        // python3: hmac.digest(bytes([7] * 32), b"sovereign master key check v1", "sha256")
        let expected = "8fada2adbaf5bfcfa27e065b80db43804b5c9b1cc57e9ff307249852a0c43782";
        let found = MasterKey::from_bytes([7; 32]).check_value();
        assert_eq!(hex::encode(&found).as_str(), expected);
        assert_ne!(MasterKey::from_bytes([8; 32]).check_value(), found);
    }

    #[test]
    fn a_pseudonym_follows_from_key_and_message() {
        let master = MasterKey::from_bytes([7; 32]);
        assert_eq!(master.pseudonym(b"a"), master.pseudonym(b"a"));
        assert_ne!(master.pseudonym(b"a"), master.pseudonym(b"b"));
        let other = MasterKey::from_bytes([8; 32]);
        assert_ne!(master.pseudonym(b"a"), other.pseudonym(b"a"));
    }

    #[test]
    fn debug_shows_no_key_byte() {
        let master = MasterKey::from_bytes([0xab; 32]);
        let subject = SubjectKey::from_bytes([0xab; 32]);
        let text = subject.derive(0).unwrap();
        let path = crate::seal::KeyPath::new(&subject);
        let shown = format!("{master:?} {subject:?} {text:?} {path:?}");
        assert_eq!(
            shown,
            "MasterKey(****) SubjectKey(****) TextKey(****) KeyPath { last: None, .. }"
        );
    }
}
