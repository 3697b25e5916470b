use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde_json::Value;

use crate::access::{May, needs};
use crate::http::problem::HttpProblem;
use crate::http::state::Shared;

pub(crate) async fn rebuild(
    _: May<needs::Operate>,
    State(shared): State<Shared>,
    Path(name): Path<String>,
) -> Result<(StatusCode, Json<Value>), HttpProblem> {
    let started = shared.services.views.rebuild(&name).await?;
    Ok((StatusCode::ACCEPTED, Json(started)))
}
