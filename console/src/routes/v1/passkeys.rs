//! Passkeys of a person.

use axum::Json;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::Response;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::commands::answer;
use super::gate::{self, CallerGate};
use super::invitations::person;
use crate::PasskeyRow;
use crate::access::{May, needs};
use crate::http::body;
use crate::http::problem::HttpProblem;
use crate::http::state::Shared;

/// Why a passkey is of no use any more.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Revocation {
    /// In words; scrubbed and sealed before it is kept. At most 256 KiB.
    #[schema(value_type = String)]
    reason: Value,
}

/// All passkeys of a person, revoked ones included.
#[derive(Debug, Serialize)]
pub(crate) struct Passkeys {
    passkeys: Vec<PasskeyRow>,
}

pub(crate) async fn list(
    _: May<needs::Read>,
    State(shared): State<Shared>,
    Path(name): Path<String>,
) -> Result<Json<Passkeys>, HttpProblem> {
    let name = person(&name)?;
    let passkeys = shared.services.approvals.passkeys(name.as_str()).await?;
    Ok(Json(Passkeys { passkeys }))
}

/// His own, or anybody's for an admin: the gate looks at whose it is.
pub(crate) async fn revoke(
    may: May<needs::Decide>,
    State(shared): State<Shared>,
    Path((name, id)): Path<(String, String)>,
    headers: HeaderMap,
    input: Result<Bytes, BytesRejection>,
) -> Result<Response, HttpProblem> {
    let Revocation { reason } = body::json(&headers, input)?;
    let name = person(&name)?;
    let actor = may.caller.actor.as_ref().map_or("operator", |a| a.as_str());
    let command = json!({ "aggregate": "approver", "id": name.as_str(), "command": "revoke",
        "data": { "credential_id": id, "reason": reason }, "actor": actor });
    let gate = CallerGate::new(shared.clone(), may.caller, gate::key(&headers)?);
    answer(&shared, gate, command.to_string().into()).await
}
