use ciborium::Value;
use proptest::prelude::*;

use crate::soft::{Soft, cbor};
use crate::*;

const CHALLENGE: Challenge = Challenge([3; 32]);
const OTHER: Challenge = Challenge([4; 32]);

fn party() -> RelyingParty {
    RelyingParty::new("localhost", &["http://localhost:4000"]).unwrap()
}

fn registered(soft: &Soft) -> Credential {
    soft.register(&CHALLENGE)
        .verify(&party(), &CHALLENGE)
        .unwrap()
}

fn judge(soft: &Soft, credential: &Credential) -> Result<Verified, AssertionError> {
    soft.assert(&CHALLENGE)
        .verify(&party(), &CHALLENGE, credential)
}

#[test]
fn accepts_its_own_passkey() {
    for algorithm in [Algorithm::Es256, Algorithm::EdDsa] {
        let soft = Soft::new(algorithm);
        let credential = registered(&soft);
        assert_eq!(credential.key.algorithm(), algorithm);
        assert_eq!(credential.id, soft.id);
        assert_eq!(credential.key.cose(), soft.cose());
        let verified = judge(&soft, &credential).unwrap();
        assert_eq!((verified.sign_count, verified.backed_up), (0, false));
    }
}

#[test]
fn assertion_survives_json() {
    let soft = Soft::new(Algorithm::Es256);
    let assertion = soft.assert(&CHALLENGE);
    let text = serde_json::to_string(&assertion).unwrap();
    assert_eq!(serde_json::from_str::<Assertion>(&text).unwrap(), assertion);
    let padded = text.replace("\"}", "=\"}");
    assert!(serde_json::from_str::<Assertion>(&padded).is_err());
}

#[test]
fn refuses_another_challenge() {
    let soft = Soft::new(Algorithm::Es256);
    let credential = registered(&soft);
    let error = soft
        .assert(&OTHER)
        .verify(&party(), &CHALLENGE, &credential);
    let error = error.unwrap_err();
    assert!(matches!(
        error,
        AssertionError::ClientData(ClientDataError::Challenge { .. })
    ));
    let error = soft
        .register(&OTHER)
        .verify(&party(), &CHALLENGE)
        .unwrap_err();
    assert!(matches!(
        error,
        RegistrationError::ClientData(ClientDataError::Challenge { .. })
    ));
}

#[test]
fn refuses_pages_of_others() {
    let mut soft = Soft::new(Algorithm::Es256);
    let credential = registered(&soft);
    for origin in [
        "http://localhost:4001",
        "https://evil.example",
        "http://localhost:4000/",
    ] {
        origin.clone_into(&mut soft.origin);
        let error = judge(&soft, &credential).unwrap_err();
        assert!(
            matches!(
                error,
                AssertionError::ClientData(ClientDataError::Origin { .. })
            ),
            "{error}"
        );
    }
    "http://localhost:4000".clone_into(&mut soft.origin);
    soft.client_data_more = r#","topOrigin":"https://evil.example""#.to_owned();
    let error = judge(&soft, &credential).unwrap_err();
    assert_eq!(
        error,
        AssertionError::ClientData(ClientDataError::CrossOrigin)
    );
    // a field twice: which one counts would be anybody's guess
    soft.client_data_more = r#","challenge":"x""#.to_owned();
    let error = judge(&soft, &credential).unwrap_err();
    assert!(
        matches!(
            error,
            AssertionError::ClientData(ClientDataError::Malformed(_))
        ),
        "{error}"
    );
    soft.client_data_more = r#","what browsers may add later":[1]"#.to_owned();
    judge(&soft, &credential).unwrap();
}

#[test]
fn refuses_another_ceremony() {
    let soft = Soft::new(Algorithm::Es256);
    let credential = registered(&soft);
    for kind in ["webauthn.create", "payment.get", ""] {
        let error = soft
            .assert_as(kind, &CHALLENGE)
            .verify(&party(), &CHALLENGE, &credential);
        let error = error.unwrap_err();
        assert!(
            matches!(
                error,
                AssertionError::ClientData(ClientDataError::Type { .. })
            ),
            "{error}"
        );
    }
}

#[test]
fn refuses_another_relying_party() {
    let mut soft = Soft::new(Algorithm::Es256);
    let credential = registered(&soft);
    "example.com".clone_into(&mut soft.party_id);
    let error = judge(&soft, &credential).unwrap_err();
    let expected = AuthenticatorDataError::RelyingParty("localhost".to_owned());
    assert_eq!(error, expected.into());
}

#[test]
fn demands_a_user_who_is_there_and_verified() {
    let mut soft = Soft::new(Algorithm::Es256);
    let credential = registered(&soft);
    for (flags, expected) in [
        (4, AuthenticatorDataError::NotPresent),
        (1, AuthenticatorDataError::NotVerified),
        (0, AuthenticatorDataError::NotPresent),
        (1 | 4 | 16, AuthenticatorDataError::BackupFlags),
    ] {
        soft.flags = flags;
        assert_eq!(
            judge(&soft, &credential).unwrap_err(),
            expected.clone().into()
        );
        let error = soft
            .register(&CHALLENGE)
            .verify(&party(), &CHALLENGE)
            .unwrap_err();
        assert_eq!(error, expected.into());
    }
    soft.flags = 1 | 4 | 8;
    let error = judge(&soft, &credential).unwrap_err();
    assert_eq!(error, AssertionError::BackupEligible { registered: false });
}

#[test]
fn counter_only_grows() {
    let mut soft = Soft::new(Algorithm::EdDsa);
    soft.sign_count = 7;
    let credential = registered(&soft);
    for found in [0, 6, 7] {
        soft.sign_count = found;
        let error = judge(&soft, &credential).unwrap_err();
        assert_eq!(error, AssertionError::SignCount { before: 7, found });
    }
    soft.sign_count = 8;
    assert_eq!(judge(&soft, &credential).unwrap().sign_count, 8);
}

#[test]
fn refuses_another_passkey() {
    let (soft, other) = (Soft::new(Algorithm::Es256), Soft::new(Algorithm::Es256));
    let mut credential = registered(&soft);
    assert_eq!(
        judge(&other, &credential).unwrap_err(),
        AssertionError::Signature
    );
    credential.id = vec![1];
    assert_eq!(
        judge(&soft, &credential).unwrap_err(),
        AssertionError::Credential
    );
    // a key of another kind than the signature's
    let mut credential = registered(&soft);
    credential.key = registered(&Soft::new(Algorithm::EdDsa)).key;
    assert_eq!(
        judge(&soft, &credential).unwrap_err(),
        AssertionError::Signature
    );
}

#[test]
fn assertion_and_registration_are_not_exchanged() {
    let soft = Soft::new(Algorithm::Es256);
    let credential = registered(&soft);
    let get = soft.assert(&CHALLENGE).client_data;
    let error = soft.assert_with(get.0, soft.authenticator_data(true));
    let error = error.verify(&party(), &CHALLENGE, &credential).unwrap_err();
    assert_eq!(error, AuthenticatorDataError::UnexpectedCredential.into());
    let mut registration = soft.register(&CHALLENGE);
    let bare = soft.authenticator_data(false);
    registration.attestation = Soft::attestation("none", vec![], bare).into();
    let error = registration.verify(&party(), &CHALLENGE).unwrap_err();
    assert_eq!(error, AuthenticatorDataError::NoCredential.into());
}

#[test]
fn attestation_is_one_map_that_does_not_contradict_itself() {
    let soft = Soft::new(Algorithm::Es256);
    let verify = |attestation: Vec<u8>| {
        let mut registration = soft.register(&CHALLENGE);
        registration.attestation = attestation.into();
        registration.verify(&party(), &CHALLENGE)
    };
    let data = || soft.authenticator_data(true);
    let statement = || vec![("alg".into(), Value::from(-7))];
    assert!(verify(Soft::attestation("packed", statement(), data())).is_ok());
    let error = verify(Soft::attestation("none", statement(), data())).unwrap_err();
    assert_eq!(error, RegistrationError::Attestation);
    let mut trailing = Soft::attestation("none", vec![], data());
    trailing.push(0);
    assert_eq!(
        verify(trailing).unwrap_err(),
        RegistrationError::Attestation
    );
    let twice = Value::Map(vec![
        ("fmt".into(), "none".into()),
        ("fmt".into(), "none".into()),
        ("attStmt".into(), Value::Map(vec![])),
        ("authData".into(), Value::Bytes(data())),
    ]);
    assert_eq!(
        verify(cbor(&twice)).unwrap_err(),
        RegistrationError::Attestation
    );
    let mut behind = data();
    behind.push(0xa0);
    let error = verify(Soft::attestation("none", vec![], behind)).unwrap_err();
    assert_eq!(error, AuthenticatorDataError::Trailing(1).into());
    // nested deeper than anything that is meant
    let mut deep = Value::Null;
    for _ in 0..64 {
        deep = Value::Array(vec![deep]);
    }
    assert_eq!(
        verify(cbor(&deep)).unwrap_err(),
        RegistrationError::Attestation
    );
}

#[test]
fn keys_fit_their_algorithm() {
    let entry = |label: i64, value: Value| (Value::from(label), value);
    let bytes = |count: usize| Value::Bytes(vec![1; count]);
    let read = |entries: Vec<(Value, Value)>| PublicKey::from_cose(&cbor(&Value::Map(entries)));
    let p256 = |x: usize, y: usize, curve: i64, kind: i64| {
        read(vec![
            entry(1, kind.into()),
            entry(3, (-7).into()),
            entry(-1, curve.into()),
            entry(-2, bytes(x)),
            entry(-3, bytes(y)),
        ])
    };
    assert!(p256(32, 32, 1, 2).is_ok());
    assert_eq!(p256(31, 32, 1, 2).unwrap_err(), KeyError::Parameter("x"));
    assert_eq!(p256(32, 33, 1, 2).unwrap_err(), KeyError::Parameter("y"));
    assert_eq!(
        p256(32, 32, 2, 2).unwrap_err(),
        KeyError::Parameter("curve")
    );
    assert_eq!(
        p256(32, 32, 1, 1).unwrap_err(),
        KeyError::Parameter("key type")
    );
    let ed25519 = vec![
        entry(1, 1.into()),
        entry(3, (-8).into()),
        entry(-1, 6.into()),
    ];
    assert_eq!(read(ed25519).unwrap_err(), KeyError::Parameter("x"));
    let rsa = |n: usize, e: usize| {
        read(vec![
            entry(1, 3.into()),
            entry(3, (-257).into()),
            entry(-1, bytes(n)),
            entry(-2, bytes(e)),
        ])
    };
    assert!(rsa(256, 3).is_ok());
    assert_eq!(rsa(128, 3).unwrap_err(), KeyError::Parameter("modulus"));
    assert_eq!(rsa(4_096, 3).unwrap_err(), KeyError::Parameter("modulus"));
    assert_eq!(rsa(256, 0).unwrap_err(), KeyError::Parameter("exponent"));
    for (algorithm, found) in [(-35, "-35"), (-65_535, "-65535"), (0, "0")] {
        let error = read(vec![entry(3, algorithm.into())]).unwrap_err();
        assert_eq!(error, KeyError::Algorithm(found.to_owned()));
    }
    assert_eq!(
        read(vec![]).unwrap_err(),
        KeyError::Algorithm("none".to_owned())
    );
    let twice = vec![entry(3, (-7).into()), entry(3, (-8).into())];
    assert_eq!(read(twice).unwrap_err(), KeyError::Malformed);
    assert_eq!(
        read(vec![("alg".into(), Value::from(-7))]).unwrap_err(),
        KeyError::Malformed
    );
    for bytes in [
        &[][..],
        &[0xa0, 0],
        &[0xf6],
        &[0xbf, 0x03],
        &[0x5b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    ] {
        assert!(PublicKey::from_cose(bytes).is_err());
    }
}

/// Made by other programs, see `vectors/README.md`: what they signed is accepted, and for no other
/// challenge or origin.
#[test]
fn accepts_what_browsers_signed() {
    #[derive(serde::Deserialize)]
    struct Vector {
        relying_party: String,
        origin: String,
        challenge: Base64Url,
        registration: Registration,
        assertion: Assertion,
        algorithm: Algorithm,
    }
    for text in [
        include_str!("../vectors/chromium-es256.json"),
        include_str!("../vectors/chromium-eddsa.json"),
        include_str!("../vectors/chromium-rs256.json"),
        include_str!("../vectors/rs256.json"),
    ] {
        let vector: Vector = serde_json::from_str(text).unwrap();
        let party = RelyingParty::new(&vector.relying_party, &[&vector.origin]).unwrap();
        let challenge = Challenge(vector.challenge.0.try_into().unwrap());
        let credential = vector.registration.verify(&party, &challenge).unwrap();
        assert_eq!(credential.key.algorithm(), vector.algorithm);
        let assertion = vector.assertion;
        let verified = assertion.verify(&party, &challenge, &credential).unwrap();
        assert!(verified.sign_count > credential.sign_count);
        let error = assertion.verify(&party, &CHALLENGE, &credential);
        assert!(matches!(
            error.unwrap_err(),
            AssertionError::ClientData(ClientDataError::Challenge { .. })
        ));
        let origin = format!("https://another.{}", vector.relying_party);
        let elsewhere = RelyingParty::new(&vector.relying_party, &[&origin]).unwrap();
        let error = assertion.verify(&elsewhere, &challenge, &credential);
        assert!(matches!(
            error.unwrap_err(),
            AssertionError::ClientData(ClientDataError::Origin { .. })
        ));
    }
}

#[test]
fn truncated_material_is_refused_at_each_byte() {
    let soft = Soft::new(Algorithm::Es256);
    let credential = registered(&soft);
    let whole = soft.assert(&CHALLENGE);
    let cut = |f: &dyn Fn(&mut Assertion) -> &mut Base64Url| {
        let length = f(&mut whole.clone()).0.len();
        for length in 0..length {
            let mut assertion = whole.clone();
            f(&mut assertion).0.truncate(length);
            assert!(
                assertion.verify(&party(), &CHALLENGE, &credential).is_err(),
                "{length}"
            );
        }
    };
    cut(&|a| &mut a.credential_id);
    cut(&|a| &mut a.authenticator_data);
    cut(&|a| &mut a.client_data);
    cut(&|a| &mut a.signature);
    let whole = soft.register(&CHALLENGE);
    for length in 0..whole.attestation.0.len() {
        let mut registration = whole.clone();
        registration.attestation.0.truncate(length);
        assert!(
            registration.verify(&party(), &CHALLENGE).is_err(),
            "{length}"
        );
    }
    for (field, bytes) in [("client data", 9_000), ("authenticator data", 9_000)] {
        let mut assertion = soft.assert(&CHALLENGE);
        if field == "client data" {
            assertion.client_data.0.resize(bytes, b' ');
        } else {
            assertion.authenticator_data.0.resize(bytes, 0);
        }
        let error = assertion
            .verify(&party(), &CHALLENGE, &credential)
            .unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with(&format!("{field} has 9000 bytes")),
            "{error}"
        );
    }
}

proptest! {
    #[test]
    fn every_changed_bit_is_refused(
        ed25519: bool,
        part in 0_usize..4,
        at: prop::sample::Index,
        bit in 0_u8..8,
    ) {
        let soft = Soft::new(if ed25519 { Algorithm::EdDsa } else { Algorithm::Es256 });
        let credential = registered(&soft);
        let mut assertion = soft.assert(&CHALLENGE);
        let bytes = match part {
            0 => &mut assertion.credential_id,
            1 => &mut assertion.authenticator_data,
            2 => &mut assertion.client_data,
            _ => &mut assertion.signature,
        };
        let at = at.index(bytes.0.len());
        bytes.0[at] ^= 1 << bit;
        prop_assert!(assertion.verify(&party(), &CHALLENGE, &credential).is_err());
    }

    #[test]
    fn garbage_is_refused_without_a_panic(
        data in prop::collection::vec(any::<u8>(), 0..300),
        client in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let registration = Registration {
            client_data: client.clone().into(),
            attestation: data.clone().into(),
        };
        prop_assert!(registration.verify(&party(), &CHALLENGE).is_err());
        let soft = Soft::new(Algorithm::EdDsa);
        let mut good = soft.register(&CHALLENGE);
        good.attestation = Soft::attestation("none", vec![], data.clone()).into();
        prop_assert!(good.verify(&party(), &CHALLENGE).is_err());
        let _ = PublicKey::from_cose(&data);
    }
}
