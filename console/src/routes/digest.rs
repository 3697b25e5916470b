use axum::Json;
use axum::extract::State;
use serde_json::Value;

use crate::access::{May, needs};
use crate::http::problem::HttpProblem;
use crate::http::state::Shared;

pub(crate) async fn get(
    _: May<needs::Audit>,
    State(shared): State<Shared>,
) -> Result<Json<Value>, HttpProblem> {
    Ok(Json(shared.services.digest.digest().await?))
}
