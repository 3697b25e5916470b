use axum::Json;
use axum::extract::State;
use serde_json::Value;

use crate::http::problem::HttpProblem;
use crate::http::state::Shared;

pub(crate) async fn get(State(shared): State<Shared>) -> Result<Json<Value>, HttpProblem> {
    Ok(Json(shared.services.digest.digest().await?))
}
