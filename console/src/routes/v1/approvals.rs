use axum::Json;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use axum::response::Response;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

use super::agents::{after, limit};
use super::commands::answer;
use super::gate::{self, CallerGate};
use crate::Rows;
use crate::access::{May, needs};
use crate::http::body;
use crate::http::problem::HttpProblem;
use crate::http::state::Shared;

/// Which approvals.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Asked {
    after: Option<String>,
    limit: Option<u32>,
    #[serde(default)]
    all: bool,
}

/// Why somebody says no.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Denial {
    /// In words; scrubbed and sealed before it is kept. At most 256 KiB.
    #[schema(value_type = String)]
    reason: Value,
}

pub(crate) async fn list(
    _: May<needs::Read>,
    State(shared): State<Shared>,
    Query(asked): Query<Asked>,
) -> Result<Json<Rows>, HttpProblem> {
    let (after, limit) = (after(asked.after)?, limit(asked.limit)?);
    let rows = shared.services.rows.approvals(asked.all, after, limit);
    Ok(Json(rows.await?))
}

pub(crate) async fn show(
    _: May<needs::Read>,
    State(shared): State<Shared>,
    Path(id): Path<String>,
) -> Result<Json<Value>, HttpProblem> {
    Ok(Json(shared.services.rows.approval(&id).await?))
}

pub(crate) async fn deny(
    may: May<needs::Decide>,
    State(shared): State<Shared>,
    Path(id): Path<String>,
    headers: HeaderMap,
    input: Result<Bytes, BytesRejection>,
) -> Result<Response, HttpProblem> {
    let Denial { reason } = body::json(&headers, input)?;
    let actor = may.caller.actor.as_ref().map_or("operator", |a| a.as_str());
    let command = json!({ "aggregate": "approval", "id": id, "command": "deny",
        "data": { "reason": reason }, "actor": actor });
    let gate = CallerGate::new(shared.clone(), may.caller, gate::key(&headers)?);
    answer(&shared, gate, command.to_string().into()).await
}
