//! One text sealed with its own key.

use aes_gcm::{
    Aes256Gcm, KeyInit,
    aead::{Aead, Payload},
};
use zeroize::Zeroize;

use super::SealError;

/// Bytes that sealing adds: the tag of AES-GCM.
pub const SEAL_OVERHEAD_BYTES: usize = 16;

/// Longest plaintext in bytes. It is the bound of an event's payload.
pub const TEXT_BYTES_MAX: usize = 1 << 20;

/// What the additional data of a sealed text begins with; it keeps a text from being taken for a
/// wrapped key and the other way round.
const CONTEXT: &[u8; 17] = b"sovereign.Text.v1";

/// The AES-256 key of one text. Printing it shows a mask; dropping it overwrites it.
#[derive(Clone)]
pub struct TextKey([u8; 32]);

impl TextKey {
    /// Takes the 32 bytes of a key that was derived elsewhere.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes themselves; every use is a place where the key can leak.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl std::fmt::Debug for TextKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TextKey(****)")
    }
}

impl Drop for TextKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

fn associated(key_id: [u8; 16], index: u64) -> [u8; 41] {
    let mut data = [0; 41];
    data[..17].copy_from_slice(CONTEXT);
    data[17..33].copy_from_slice(&key_id);
    data[33..].copy_from_slice(&index.to_be_bytes());
    data
}

/// Seals `plaintext` with AES-256-GCM: ciphertext, then the 16-byte tag.
///
/// The additional data is `"sovereign.Text.v1" ‖ key_id ‖ index` (8 bytes, big-endian), so a sealed
/// text cannot be moved to another place. A nonce must never be used twice with one key; each text
/// has its own key, so twelve random bytes are enough.
///
/// # Errors
/// [`SealError::TooLong`] above [`TEXT_BYTES_MAX`].
pub fn seal(
    key: &TextKey,
    nonce: [u8; 12],
    key_id: [u8; 16],
    index: u64,
    plaintext: &[u8],
) -> Result<Vec<u8>, SealError> {
    if plaintext.len() > TEXT_BYTES_MAX {
        return Err(SealError::TooLong {
            bytes: plaintext.len(),
            limit: TEXT_BYTES_MAX,
        });
    }
    encrypt(&key.0, nonce, plaintext, &associated(key_id, index))
}

/// Opens what [`seal`] gave.
///
/// # Errors
/// [`SealError::Truncated`] below 16 bytes, [`SealError::NotAuthentic`] when any of key, nonce, key
/// id, index and bytes differs from what was sealed.
pub fn open(
    key: &TextKey,
    nonce: [u8; 12],
    key_id: [u8; 16],
    index: u64,
    sealed: &[u8],
) -> Result<Vec<u8>, SealError> {
    decrypt(&key.0, nonce, sealed, &associated(key_id, index))
}

/// What the message of a likeness begins with.
const LIKENESS: &[u8] = b"sovereign likeness v1\0";

/// The first 8 bytes of HMAC-SHA-256 under `key`, the key of the subject's text
/// [`super::LIKENESS_INDEX`], over `"sovereign likeness v1" ‖ 0 ‖ text`. Two texts of one subject have
/// the same if they are the same, and else with probability 2^-64; without the key nobody can try
/// whether a text is the one that was said, so that destroying the key erases this as well.
#[must_use]
pub fn likeness(key: &TextKey, text: &[u8]) -> [u8; 8] {
    let mut message = Vec::with_capacity(LIKENESS.len() + text.len());
    message.extend_from_slice(LIKENESS);
    message.extend_from_slice(text);
    let whole = super::tree::hmac(key.expose(), &message);
    message.zeroize();
    let mut short = [0; 8];
    short.copy_from_slice(&whole[..8]);
    short
}

pub(super) fn encrypt(
    key: &[u8; 32],
    nonce: [u8; 12],
    plaintext: &[u8],
    associated: &[u8],
) -> Result<Vec<u8>, SealError> {
    Aes256Gcm::new(key.into())
        .encrypt(
            &nonce.into(),
            Payload {
                msg: plaintext,
                aad: associated,
            },
        )
        .map_err(|_| SealError::Cipher {
            bytes: plaintext.len(),
        })
}

pub(super) fn decrypt(
    key: &[u8; 32],
    nonce: [u8; 12],
    sealed: &[u8],
    associated: &[u8],
) -> Result<Vec<u8>, SealError> {
    if sealed.len() < SEAL_OVERHEAD_BYTES {
        return Err(SealError::Truncated {
            bytes: sealed.len(),
            at_least: SEAL_OVERHEAD_BYTES,
        });
    }
    Aes256Gcm::new(key.into())
        .decrypt(
            &nonce.into(),
            Payload {
                msg: sealed,
                aad: associated,
            },
        )
        .map_err(|_| SealError::NotAuthentic)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn opens_what_was_sealed_and_nothing_else(
            key: [u8; 32], nonce: [u8; 12], key_id: [u8; 16], index: u64,
            plaintext in prop::collection::vec(any::<u8>(), 0..200), at: prop::sample::Index,
        ) {
            let key = TextKey::from_bytes(key);
            let sealed = seal(&key, nonce, key_id, index, &plaintext).unwrap();
            prop_assert_eq!(sealed.len(), plaintext.len() + SEAL_OVERHEAD_BYTES);
            prop_assert_eq!(&open(&key, nonce, key_id, index, &sealed).unwrap(), &plaintext);

            let refused = Err(SealError::NotAuthentic);
            let other = index.wrapping_add(1);
            prop_assert_eq!(&open(&key, nonce, key_id, other, &sealed), &refused);
            let mut changed = key_id;
            changed[at.index(16)] ^= 1;
            prop_assert_eq!(&open(&key, nonce, changed, index, &sealed), &refused);
            let mut changed = nonce;
            changed[at.index(12)] ^= 1;
            prop_assert_eq!(&open(&key, changed, key_id, index, &sealed), &refused);
            let mut changed = *key.expose();
            changed[at.index(32)] ^= 1;
            let changed = TextKey::from_bytes(changed);
            prop_assert_eq!(&open(&changed, nonce, key_id, index, &sealed), &refused);
            let mut changed = sealed.clone();
            changed[at.index(sealed.len())] ^= 1;
            prop_assert_eq!(&open(&key, nonce, key_id, index, &changed), &refused);
        }
    }

    #[test]
    fn refuses_sealed_bytes_without_room_for_the_tag() {
        let refused = Err(SealError::Truncated {
            bytes: 15,
            at_least: 16,
        });
        assert_eq!(
            open(&TextKey::from_bytes([0; 32]), [0; 12], [0; 16], 0, &[0; 15]),
            refused
        );
    }

    #[test]
    fn refuses_a_text_above_the_limit() {
        let text = vec![0; TEXT_BYTES_MAX + 1];
        let refused = Err(SealError::TooLong {
            bytes: text.len(),
            limit: TEXT_BYTES_MAX,
        });
        assert_eq!(
            seal(&TextKey::from_bytes([0; 32]), [0; 12], [0; 16], 0, &text),
            refused
        );
    }
}
