//! Making a passkey, by the bearer of an invitation: options first, then what the browser made of
//! them (W3C Web Authentication Level 3, section 7.1).

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::HeaderMap;
use axum::response::Response;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};
use sovereign_passkeys::{Algorithm, Base64Url, Challenge, Credential, Registration};
use sovereign_schemas::{Digest, ErrorCode, Identifier, Problem, Timestamp, Uuid};

use super::commands::answer;
use super::gate::CallerGate;
use crate::access::{Caller, May, needs};
use crate::http::body;
use crate::http::problem::HttpProblem;
use crate::http::state::Shared;

/// What a browser made of the options.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewPasskey {
    /// `clientDataJSON` and `attestationObject`, base64url without padding.
    #[schema(value_type = Object)]
    registration: Registration,
    /// How its owner calls it; in plain words, kept as they are.
    #[schema(max_length = 64)]
    label: Option<String>,
}

/// Who was invited, and by which invitation.
fn invited(caller: &Caller) -> Result<(Identifier, Uuid), Problem> {
    let both = caller.actor.clone().zip(caller.token);
    both.ok_or_else(|| Problem::new(ErrorCode::Internal, "an invitation without a person"))
}

pub(crate) async fn options(
    may: May<needs::Enrol>,
    State(shared): State<Shared>,
) -> Result<Json<Value>, HttpProblem> {
    let (approver, invitation) = invited(&may.caller)?;
    let known = shared
        .services
        .approvals
        .passkeys(approver.as_str())
        .await?;
    let challenge = shared.ceremonies.begin(invitation)?;
    let party = &shared.place.party;
    // the same person always has the same handle, so an authenticator replaces what it has of him
    let handle = Digest::of(&[b"sovereign approver v1\0", approver.as_str().as_bytes()]);
    let algorithms = Algorithm::ALL.map(|a| json!({ "type": "public-key", "alg": a.cose() }));
    let exclude: Vec<Value> = known
        .iter()
        .filter(|key| key.revoked_at.is_none() && key.rp_id == party.id())
        .map(|key| json!({ "type": "public-key", "id": key.credential_id }))
        .collect();
    Ok(Json(json!({
        "approver": approver.as_str(),
        "page": shared.place.origin(),
        "publicKey": {
            "rp": { "id": party.id(), "name": "Sovereign" },
            "user": { "id": Base64Url(handle.0.to_vec()), "name": approver.as_str(),
                "displayName": approver.as_str() },
            "challenge": challenge.to_string(),
            "pubKeyCredParams": algorithms,
            "timeout": shared.ceremonies.limit_s() * 1_000,
            "excludeCredentials": exclude,
            "authenticatorSelection": { "residentKey": "preferred", "userVerification": "required" },
            "attestation": "none",
        },
    })))
}

pub(crate) async fn finish(
    may: May<needs::Enrol>,
    State(shared): State<Shared>,
    headers: HeaderMap,
    input: Result<Bytes, BytesRejection>,
) -> Result<Response, HttpProblem> {
    let NewPasskey {
        registration,
        label,
    } = body::json(&headers, input)?;
    let (approver, invitation) = invited(&may.caller)?;
    let challenge = shared.ceremonies.take(invitation)?;
    let party = &shared.place.party;
    // what is no good does not use the invitation up; the aggregate looks at it once more
    let credential = registration.verify(party, &challenge).map_err(|error| {
        Problem::new(ErrorCode::InvalidRegistration, error.to_string()).field("registration")
    })?;
    let tokens = &shared.services.tokens;
    tokens.use_up(invitation, Timestamp::now()).await?;
    let made = Made {
        registration: &registration,
        credential: &credential,
        challenge: &challenge,
        label,
    };
    let command = made.command(&shared, &approver);
    let gate = CallerGate::new(shared.clone(), may.caller, None);
    answer(&shared, gate, command.to_string().into()).await
}

struct Made<'a> {
    registration: &'a Registration,
    credential: &'a Credential,
    challenge: &'a Challenge,
    label: Option<String>,
}

impl Made<'_> {
    fn command(self, shared: &Shared, approver: &Identifier) -> Value {
        let bytes = |bytes: &[u8]| json!(Base64Url(bytes.to_vec()));
        let credential = self.credential;
        let mut data = json!({
            "credential_id": bytes(&credential.id),
            "public_key": bytes(credential.key.cose()),
            "rp_id": shared.place.party.id(),
            "origin": shared.place.origin(),
            "aaguid": bytes(&credential.aaguid),
            "backup_eligible": credential.backup_eligible,
            "sign_count": credential.sign_count,
            "registration": self.registration,
            "challenge": self.challenge.to_string(),
        });
        if let Some(label) = self.label {
            data["label"] = label.into();
        }
        json!({ "aggregate": "approver", "id": approver.as_str(), "command": "enrol",
            "data": data, "actor": approver.as_str() })
    }
}
