//! An authenticator and a browser in software, for tests.

use ciborium::Value;
use ring::digest::{SHA256, digest};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};

use crate::{Algorithm, Assertion, Challenge, Registration};

#[derive(Debug)]
enum Keys {
    P256(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

/// A passkey, with the browser in front of it. Whatever a field says is what it claims, true or
/// not.
#[derive(Debug)]
pub struct Soft {
    keys: Keys,
    /// Id of the credential.
    pub id: Vec<u8>,
    /// For whom it signs.
    pub party_id: String,
    /// The page that asks.
    pub origin: String,
    /// User present 1, user verified 4, backup eligible 8, backed up 16.
    pub flags: u8,
    /// Counter.
    pub sign_count: u32,
    /// Put behind the other fields of client data.
    pub client_data_more: String,
}

/// Encodes CBOR.
pub fn cbor(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    ciborium::into_writer(value, &mut out).unwrap();
    out
}

impl Soft {
    /// A passkey on `http://localhost:4000`, with a new key.
    #[must_use]
    pub fn new(algorithm: Algorithm) -> Self {
        let random = SystemRandom::new();
        let keys = match algorithm {
            Algorithm::Es256 => {
                let suite = &ECDSA_P256_SHA256_ASN1_SIGNING;
                let document = EcdsaKeyPair::generate_pkcs8(suite, &random).unwrap();
                Keys::P256(EcdsaKeyPair::from_pkcs8(suite, document.as_ref(), &random).unwrap())
            }
            Algorithm::EdDsa => {
                let document = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
                Keys::Ed25519(Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap())
            }
            Algorithm::Rs256 => panic!("ring makes no RSA keys"),
        };
        Self {
            keys,
            id: vec![0xa5; 32],
            party_id: "localhost".to_owned(),
            origin: "http://localhost:4000".to_owned(),
            flags: 1 | 4,
            sign_count: 0,
            client_data_more: String::new(),
        }
    }

    /// Its public key.
    #[must_use]
    pub fn cose(&self) -> Vec<u8> {
        let entry = |label: i64, value: Value| (Value::from(label), value);
        let entries = match &self.keys {
            Keys::P256(pair) => {
                let point = pair.public_key().as_ref();
                vec![
                    entry(1, 2.into()),
                    entry(3, (-7).into()),
                    entry(-1, 1.into()),
                    entry(-2, Value::Bytes(point[1..33].to_vec())),
                    entry(-3, Value::Bytes(point[33..].to_vec())),
                ]
            }
            Keys::Ed25519(pair) => vec![
                entry(1, 1.into()),
                entry(3, (-8).into()),
                entry(-1, 6.into()),
                entry(-2, Value::Bytes(pair.public_key().as_ref().to_vec())),
            ],
        };
        cbor(&Value::Map(entries))
    }

    fn client_data(&self, kind: &str, challenge: &Challenge) -> Vec<u8> {
        let (origin, more) = (&self.origin, &self.client_data_more);
        format!(
            r#"{{"type":"{kind}","challenge":"{challenge}","origin":"{origin}","crossOrigin":false{more}}}"#
        )
        .into_bytes()
    }

    /// What it would sign.
    #[must_use]
    pub fn authenticator_data(&self, with_key: bool) -> Vec<u8> {
        let mut data = digest(&SHA256, self.party_id.as_bytes()).as_ref().to_vec();
        data.push(self.flags | if with_key { 1 << 6 } else { 0 });
        data.extend_from_slice(&self.sign_count.to_be_bytes());
        if with_key {
            data.extend_from_slice(&[9; 16]);
            data.extend_from_slice(&u16::try_from(self.id.len()).unwrap().to_be_bytes());
            data.extend_from_slice(&self.id);
            data.extend_from_slice(&self.cose());
        }
        data
    }

    /// An attestation object.
    #[must_use]
    pub fn attestation(format: &str, statement: Vec<(Value, Value)>, data: Vec<u8>) -> Vec<u8> {
        cbor(&Value::Map(vec![
            ("fmt".into(), format.into()),
            ("attStmt".into(), Value::Map(statement)),
            ("authData".into(), Value::Bytes(data)),
        ]))
    }

    /// A new passkey, as a browser gives it.
    #[must_use]
    pub fn register(&self, challenge: &Challenge) -> Registration {
        let data = self.authenticator_data(true);
        Registration {
            client_data: self.client_data("webauthn.create", challenge).into(),
            attestation: Self::attestation("none", vec![], data).into(),
        }
    }

    /// Signs anything.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        match &self.keys {
            Keys::P256(pair) => {
                let signature = pair.sign(&SystemRandom::new(), message).unwrap();
                signature.as_ref().to_vec()
            }
            Keys::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
        }
    }

    /// An assertion over these parts, whatever they are.
    #[must_use]
    pub fn assert_with(&self, client_data: Vec<u8>, data: Vec<u8>) -> Assertion {
        let mut message = data.clone();
        message.extend_from_slice(digest(&SHA256, &client_data).as_ref());
        Assertion {
            credential_id: self.id.clone().into(),
            authenticator_data: data.into(),
            signature: self.sign(&message).into(),
            client_data: client_data.into(),
        }
    }

    /// An assertion over this challenge.
    #[must_use]
    pub fn assert(&self, challenge: &Challenge) -> Assertion {
        let client_data = self.client_data("webauthn.get", challenge);
        self.assert_with(client_data, self.authenticator_data(false))
    }

    /// The same of another type of ceremony.
    #[must_use]
    pub fn assert_as(&self, kind: &str, challenge: &Challenge) -> Assertion {
        let client_data = self.client_data(kind, challenge);
        self.assert_with(client_data, self.authenticator_data(false))
    }
}
