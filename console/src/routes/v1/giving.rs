//! Saying yes: the exact action, what a passkey has to sign, and the signature.

use axum::Json;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use axum::response::Response;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};
use sovereign_passkeys::{Assertion, Terms};
use sovereign_schemas::{AggregateId, ErrorCode, Identifier, Problem};

use super::commands::answer;
use super::gate::{self, CallerGate};
use crate::Texts;
use crate::access::{Caller, May, Right, needs};
use crate::http::body;
use crate::http::problem::HttpProblem;
use crate::http::state::Shared;

/// How the details are wanted.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Asked {
    #[serde(default)]
    sealed: bool,
}

/// What a browser gives when a passkey has signed.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Giving {
    /// `credential_id`, `authenticator_data`, `client_data` and `signature`, base64url without
    /// padding.
    #[schema(value_type = Object)]
    assertion: Assertion,
}

fn known(id: &str) -> Result<(), Problem> {
    let unknown = || Problem::new(ErrorCode::NotFound, "no such approval").found(id);
    id.parse::<AggregateId>().map_err(|_| unknown()).map(drop)
}

/// Whose passkey has to sign. The owner of the data folder is nobody in particular.
fn approver(caller: &Caller) -> Result<Identifier, Problem> {
    caller.actor.clone().ok_or_else(|| {
        let message = "the owner of the data folder has no passkeys";
        Problem::new(ErrorCode::InvalidUsage, message)
            .field("authorization")
            .expected("a token whose actor is the approver")
            .remedy(
                "log in with a token of the approver: sovereign tokens create NAME --role approver",
            )
    })
}

pub(crate) async fn details(
    may: May<needs::Read>,
    State(shared): State<Shared>,
    Path(id): Path<String>,
    Query(asked): Query<Asked>,
) -> Result<Json<Value>, HttpProblem> {
    known(&id)?;
    // whoever is asked to approve has to know what
    let reads = [Right::ReadTexts, Right::Decide];
    let opens = !asked.sealed && reads.iter().any(|right| may.caller.role.may(*right));
    let texts = if opens {
        Texts::Revealed
    } else {
        Texts::Sealed
    };
    Ok(Json(shared.services.approvals.details(&id, texts).await?))
}

pub(crate) async fn options(
    may: May<needs::Decide>,
    State(shared): State<Shared>,
    Path(id): Path<String>,
) -> Result<Json<Value>, HttpProblem> {
    known(&id)?;
    let terms = shared.services.approvals.terms(&id).await?;
    let approver = approver(&may.caller)?;
    let party = &shared.place.party;
    let passkeys = shared
        .services
        .approvals
        .passkeys(approver.as_str())
        .await?;
    let allowed: Vec<Value> = passkeys
        .iter()
        .filter(|key| key.revoked_at.is_none() && key.rp_id == party.id())
        .map(|key| json!({ "type": "public-key", "id": key.credential_id }))
        .collect();
    if allowed.is_empty() {
        let problem = Problem::new(
            ErrorCode::NotFound,
            "the approver has no passkey for this page",
        )
        .field("approver")
        .found(approver.as_str())
        .expected(format!("a passkey of {}, not revoked", party.id()))
        .remedy("ask an admin for an invitation: sovereign approvers invite NAME");
        return Err(problem.into());
    }
    let challenge = Terms {
        approval_id: &id,
        action_digest: terms.action_digest.0,
        policy_version: terms.policy_version,
        expires_at_us: terms.expires_at.0,
    }
    .challenge();
    Ok(Json(json!({
        "approver": approver.as_str(),
        "page": shared.place.origin(),
        "publicKey": {
            "rpId": party.id(),
            "challenge": challenge.to_string(),
            "timeout": shared.ceremonies.limit_s() * 1_000,
            "allowCredentials": allowed,
            "userVerification": "required",
        },
    })))
}

pub(crate) async fn give(
    may: May<needs::Decide>,
    State(shared): State<Shared>,
    Path(id): Path<String>,
    headers: HeaderMap,
    input: Result<Bytes, BytesRejection>,
) -> Result<Response, HttpProblem> {
    let Giving { assertion } = body::json(&headers, input)?;
    let approver = approver(&may.caller)?;
    let command = json!({ "aggregate": "approval", "id": id, "command": "give",
        "data": { "assertion": assertion }, "actor": approver.as_str() });
    let gate = CallerGate::new(shared.clone(), may.caller, gate::key(&headers)?);
    answer(&shared, gate, command.to_string().into()).await
}
