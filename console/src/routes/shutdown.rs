use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::access::{May, needs};
use crate::http::state::Shared;

pub(crate) async fn post(
    _: May<needs::Administer>,
    State(shared): State<Shared>,
) -> (StatusCode, Json<Value>) {
    tracing::info!("shutdown requested");
    shared.services.shutdown.request();
    (StatusCode::ACCEPTED, Json(json!({ "stopping": true })))
}
