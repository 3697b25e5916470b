use ciborium::Value;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ED25519, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents,
    UnparsedPublicKey,
};
use serde::{Deserialize, Serialize};

use crate::authenticator::CBOR_DEPTH_MAX;

/// How a passkey signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Algorithm {
    /// ECDSA over P-256 with SHA-256; COSE -7.
    #[serde(rename = "ES256")]
    Es256,
    /// Ed25519; COSE -8.
    #[serde(rename = "EdDSA")]
    EdDsa,
    /// RSA PKCS #1 v1.5 with SHA-256, 2,048 to 8,192 bits; COSE -257.
    #[serde(rename = "RS256")]
    Rs256,
}

impl Algorithm {
    /// All, the preferred first, as options for the browser list them.
    pub const ALL: [Self; 3] = [Self::Es256, Self::EdDsa, Self::Rs256];

    /// The number that COSE gives it.
    #[must_use]
    pub const fn cose(self) -> i32 {
        match self {
            Self::Es256 => -7,
            Self::EdDsa => -8,
            Self::Rs256 => -257,
        }
    }
}

/// Why bytes are no key that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not a `COSE_Key`.
    #[error("the public key is no COSE key: a CBOR map with distinct whole numbers as labels")]
    Malformed,
    /// Another algorithm.
    #[error("the public key is for algorithm {0}; expected -7 (ES256), -8 (EdDSA) or -257 (RS256)")]
    Algorithm(String),
    /// A parameter that does not fit the algorithm.
    #[error("the public key's {0} is missing or does not fit its algorithm")]
    Parameter(&'static str),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Material {
    /// Uncompressed point: 4, x, y.
    P256([u8; 65]),
    Ed25519([u8; 32]),
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
}

/// A public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    cose: Vec<u8>,
    material: Material,
}

/// Labels of RFC 9052 and 9053.
mod label {
    pub(super) const KEY_TYPE: i64 = 1;
    pub(super) const ALGORITHM: i64 = 3;
    pub(super) const CURVE: i64 = -1;
    pub(super) const X: i64 = -2;
    pub(super) const Y: i64 = -3;
    pub(super) const RSA_N: i64 = -1;
    pub(super) const RSA_E: i64 = -2;
}

struct Map(Vec<(i64, Value)>);

impl Map {
    fn read(mut bytes: &[u8]) -> Option<Self> {
        let value: Value =
            ciborium::de::from_reader_with_recursion_limit(&mut bytes, CBOR_DEPTH_MAX).ok()?;
        if !bytes.is_empty() {
            return None;
        }
        let mut entries: Vec<(i64, Value)> = Vec::new();
        for (key, value) in value.into_map().ok()? {
            let label = i64::try_from(key.as_integer()?).ok()?;
            if entries.iter().any(|(known, _)| *known == label) {
                return None;
            }
            entries.push((label, value));
        }
        Some(Self(entries))
    }

    fn get(&self, label: i64) -> Option<&Value> {
        let found = self.0.iter().find(|(known, _)| *known == label);
        found.map(|(_, value)| value)
    }

    fn integer(&self, label: i64) -> Option<i64> {
        i64::try_from(self.get(label)?.as_integer()?).ok()
    }

    fn must_be(&self, label: i64, expected: i64, name: &'static str) -> Result<(), KeyError> {
        if self.integer(label) == Some(expected) {
            return Ok(());
        }
        Err(KeyError::Parameter(name))
    }

    fn bytes<const N: usize>(&self, label: i64, name: &'static str) -> Result<[u8; N], KeyError> {
        let found = self.get(label).and_then(Value::as_bytes);
        let found = found.and_then(|bytes| bytes.as_slice().try_into().ok());
        found.ok_or(KeyError::Parameter(name))
    }
}

impl PublicKey {
    /// Reads a `COSE_Key`, as authenticators give it.
    ///
    /// # Errors
    /// It is none, or not one that can be used here.
    pub fn from_cose(cose: &[u8]) -> Result<Self, KeyError> {
        let map = Map::read(cose).ok_or(KeyError::Malformed)?;
        let material = match map.integer(label::ALGORITHM) {
            Some(-7) => {
                map.must_be(label::KEY_TYPE, 2, "key type")?;
                map.must_be(label::CURVE, 1, "curve")?;
                let mut point = [4; 65];
                point[1..33].copy_from_slice(&map.bytes::<32>(label::X, "x")?);
                point[33..].copy_from_slice(&map.bytes::<32>(label::Y, "y")?);
                Material::P256(point)
            }
            Some(-8) => {
                map.must_be(label::KEY_TYPE, 1, "key type")?;
                map.must_be(label::CURVE, 6, "curve")?;
                Material::Ed25519(map.bytes(label::X, "x")?)
            }
            Some(-257) => {
                map.must_be(label::KEY_TYPE, 3, "key type")?;
                let part = |label, name, range: std::ops::RangeInclusive<usize>| {
                    let bytes = map.get(label).and_then(Value::as_bytes);
                    let bytes = bytes.filter(|b| range.contains(&b.len()) && b[0] != 0);
                    bytes.cloned().ok_or(KeyError::Parameter(name))
                };
                Material::Rsa {
                    n: part(label::RSA_N, "modulus", 256..=1_024)?,
                    e: part(label::RSA_E, "exponent", 1..=4)?,
                }
            }
            other => {
                let found = other.map_or_else(|| "none".to_owned(), |number| number.to_string());
                return Err(KeyError::Algorithm(found));
            }
        };
        Ok(Self {
            cose: cose.to_vec(),
            material,
        })
    }

    /// The `COSE_Key`, byte for byte as it was read.
    #[must_use]
    pub fn cose(&self) -> &[u8] {
        &self.cose
    }

    /// How it signs.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        match self.material {
            Material::P256(_) => Algorithm::Es256,
            Material::Ed25519(_) => Algorithm::EdDsa,
            Material::Rsa { .. } => Algorithm::Rs256,
        }
    }

    /// Whether this key signed the message.
    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let verified = match &self.material {
            Material::P256(point) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point).verify(message, signature)
            }
            Material::Ed25519(key) => {
                UnparsedPublicKey::new(&ED25519, key).verify(message, signature)
            }
            Material::Rsa { n, e } => RsaPublicKeyComponents { n, e }.verify(
                &RSA_PKCS1_2048_8192_SHA256,
                message,
                signature,
            ),
        };
        verified.is_ok()
    }
}
