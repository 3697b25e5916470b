use axum::Json;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderMap, StatusCode};
use bytes::Bytes;
use serde_json::Value;
use sovereign_schemas::{ErrorCode, Problem};

use crate::access::{May, needs};
use crate::http::body;
use crate::http::problem::HttpProblem;
use crate::http::state::Shared;

pub(crate) async fn post(
    _: May<needs::Operate>,
    State(shared): State<Shared>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<(StatusCode, Json<Value>), HttpProblem> {
    let request: Value = body::json(&headers, body)?;
    if !request.is_object() {
        let problem = Problem::new(ErrorCode::WrongType, "the body is no object")
            .field("body")
            .expected("one JSON object");
        return Err(problem.into());
    }
    let started = shared.services.tasks.start(request).await?;
    Ok((StatusCode::ACCEPTED, Json(started)))
}
