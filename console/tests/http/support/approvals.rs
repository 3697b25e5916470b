use async_trait::async_trait;
use serde_json::{Value, json};
use sovereign_console::{ApprovalSource, ApprovalTerms, PasskeyRow, Texts};
use sovereign_schemas::{Digest, ErrorCode, Problem, Timestamp};

/// Of the one approval that waits.
pub(crate) const TERMS: ApprovalTerms = ApprovalTerms {
    action_digest: Digest([7; 32]),
    policy_version: 3,
    expires_at: Timestamp(1_700_000_000_123_456),
};

/// One approval, `waits`, and passkeys of `anna`: one that holds, one that was revoked, and one for
/// another host.
pub(crate) struct FixedApprovals;

fn passkey(id: &str, rp_id: &str, revoked: bool) -> PasskeyRow {
    PasskeyRow {
        credential_id: id.to_owned(),
        approver: "anna".to_owned(),
        rp_id: rp_id.to_owned(),
        origin: format!("https://{rp_id}"),
        label: None,
        enrolled_at: Timestamp(1),
        revoked_at: revoked.then_some(Timestamp(2)),
    }
}

#[async_trait]
impl ApprovalSource for FixedApprovals {
    async fn terms(&self, id: &str) -> Result<ApprovalTerms, Problem> {
        match id {
            "waits" => Ok(TERMS),
            _ => Err(Problem::new(ErrorCode::NotFound, "no such approval")),
        }
    }

    async fn details(&self, id: &str, texts: Texts) -> Result<Value, Problem> {
        self.terms(id).await?;
        let text = match texts {
            Texts::Sealed => "sealed",
            Texts::Revealed => "revealed",
        };
        Ok(json!({ "approval": { "id": id }, "action": { "text": text } }))
    }

    async fn passkeys(&self, approver: &str) -> Result<Vec<PasskeyRow>, Problem> {
        Ok(match approver {
            "anna" => vec![
                passkey("b2xk", "localhost", true),
                passkey("bmV3", "localhost", false),
                passkey("b3RoZXI", "example.com", false),
            ],
            _ => Vec::new(),
        })
    }
}

fn base64url(bytes: &[u8]) -> String {
    json!(sovereign_passkeys::Base64Url(bytes.to_vec()))
        .as_str()
        .unwrap()
        .to_owned()
}

/// CBOR of a byte string of up to 65,535 bytes.
fn cbor_bytes(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).unwrap().to_be_bytes();
    [&[0x59], &length[..], bytes].concat()
}

/// What a browser at `origin` makes of options with this challenge. `verified`: whether the
/// authenticator verified its user. With attestation `none` nothing is signed.
pub(crate) fn registration(challenge: &str, origin: &str, verified: bool) -> Value {
    let client_data = json!({ "type": "webauthn.create", "challenge": challenge, "origin": origin,
        "crossOrigin": false });
    // kty OKP, alg EdDSA, crv Ed25519, x
    let key = [
        &[0xa4, 1, 1, 3, 0x27, 0x20, 6, 0x21, 0x58, 32][..],
        &[9; 32],
    ]
    .concat();
    let flags = 0x41 | if verified { 4 } else { 0 };
    let id = [0xa5_u8; 16];
    let data = [
        &Digest::of(&[b"localhost"]).0[..],
        &[flags],
        &[0; 4],
        &[1; 16],
        &[0, 16],
        &id,
        &key,
    ]
    .concat();
    let attestation = [
        &b"\xa3\x63fmt\x64none\x67attStmt\xa0\x68authData"[..],
        &cbor_bytes(&data),
    ]
    .concat();
    json!({ "client_data": base64url(client_data.to_string().as_bytes()),
        "attestation": base64url(&attestation) })
}
