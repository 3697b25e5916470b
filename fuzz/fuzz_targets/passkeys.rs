//! Bytes as each part of a WebAuthn ceremony: nothing panics, and no part can be another than what
//! the passkey signed. The ceremony is Chromium's with an Ed25519 key, whose signatures cannot be
//! written in a second way.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use sovereign_passkeys::{
    Assertion, Base64Url, Challenge, Credential, PublicKey, Registration, RelyingParty,
};

struct Ceremony {
    party: RelyingParty,
    challenge: Challenge,
    registration: Registration,
    assertion: Assertion,
    credential: Credential,
}

static CEREMONY: LazyLock<Ceremony> = LazyLock::new(|| {
    let text = include_str!("../../passkeys/vectors/chromium-eddsa.json");
    let mut vector: serde_json::Value = serde_json::from_str(text).expect("JSON");
    let party = RelyingParty::new("localhost", &["http://localhost:4000"]).expect("a party");
    let challenge: Base64Url = serde_json::from_value(vector["challenge"].take()).expect("bytes");
    let challenge = Challenge(challenge.0.try_into().expect("32 bytes"));
    let registration: Registration =
        serde_json::from_value(vector["registration"].take()).expect("a registration");
    let assertion = serde_json::from_value(vector["assertion"].take()).expect("an assertion");
    let credential = registration
        .verify(&party, &challenge)
        .expect("it is right");
    Ceremony {
        party,
        challenge,
        registration,
        assertion,
        credential,
    }
});

// the first byte chooses the part, so that the seeds of one do not mix with those of another
fuzz_target!(|data: &[u8]| {
    let Some((which, bytes)) = data.split_first() else {
        return;
    };
    let right = &*CEREMONY;
    let mut assertion = right.assertion.clone();
    let mut registration = right.registration.clone();
    match which {
        0 => {
            if let Ok(key) = PublicKey::from_cose(bytes) {
                assert_eq!(key.cose(), bytes);
            }
            return;
        }
        1 | 2 => {
            let part = if *which == 1 {
                &mut registration.attestation
            } else {
                &mut registration.client_data
            };
            part.0 = bytes.to_vec();
            if let Ok(credential) = registration.verify(&right.party, &right.challenge) {
                let key = PublicKey::from_cose(credential.key.cose());
                assert_eq!(key, Ok(credential.key));
            }
            return;
        }
        3 => assertion.authenticator_data.0 = bytes.to_vec(),
        4 => assertion.client_data.0 = bytes.to_vec(),
        5 => assertion.signature.0 = bytes.to_vec(),
        6 => assertion.credential_id.0 = bytes.to_vec(),
        _ => match serde_json::from_slice(bytes) {
            Ok(read) => assertion = read,
            Err(_) => return,
        },
    }
    let verified = assertion.verify(&right.party, &right.challenge, &right.credential);
    assert_eq!(verified.is_ok(), assertion == right.assertion);
});
