//! `POST /api/v1/commands`: one command as JSON, or many as NDJSON.

use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use sovereign_schemas::{ErrorCode, Outcome, Problem, Status};

use super::gate::{self, CallerGate};
use crate::access::{May, needs};
use crate::http::body::{self, media_type};
use crate::http::problem::HttpProblem;
use crate::http::state::Shared;
use crate::routes::commands::stream;

pub(crate) async fn post(
    may: May<needs::Command>,
    State(shared): State<Shared>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, HttpProblem> {
    let key = gate::key(&headers)?;
    let gate = CallerGate::new(shared.clone(), may.caller, key);
    match media_type(&headers).as_str() {
        "" | "application/json" => {}
        "application/x-ndjson" => return stream(&shared, &headers, request.into_body(), gate),
        _ => {
            let expected = "application/json or application/x-ndjson";
            return Err(HttpProblem::unsupported("content-type", expected));
        }
    }
    if !body::is_plain(&headers) {
        return Err(HttpProblem::unsupported(
            "content-encoding",
            "no compression",
        ));
    }
    let line = collect(&shared, request.into_body()).await?;
    answer(&shared, gate, line).await
}

async fn collect(shared: &Shared, body: Body) -> Result<Bytes, HttpProblem> {
    let bytes_max = shared
        .options
        .body_bytes_max
        .min(shared.options.line_bytes_max);
    let limit_ms = shared.options.request_timeout_ms;
    let collected = collect_up_to(body, bytes_max);
    let Ok(collected) = tokio::time::timeout(Duration::from_millis(limit_ms), collected).await
    else {
        return Err(HttpProblem::timed_out(limit_ms));
    };
    let body = collected.map_err(|problem| problem.field("body"))?;
    if std::str::from_utf8(&body).is_err() {
        return Err(Problem::new(ErrorCode::MalformedJson, "the body is not UTF-8").into());
    }
    Ok(body)
}

async fn collect_up_to(body: Body, bytes_max: usize) -> Result<Bytes, Problem> {
    let mut chunks = body.into_data_stream();
    let mut whole = BytesMut::new();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| {
            Problem::new(ErrorCode::InvalidUsage, "the body could not be read")
                .remedy("send the whole body")
        })?;
        if whole.len() + chunk.len() > bytes_max {
            return Err(
                Problem::new(ErrorCode::PayloadTooLarge, "the body is too large")
                    .expected(format!("at most {bytes_max} bytes"))
                    .remedy("keep the body below 2 MiB"),
            );
        }
        whole.extend_from_slice(&chunk);
    }
    Ok(whole.freeze())
}

/// Submits one command; its outcome is the answer.
pub(crate) async fn answer(
    shared: &Shared,
    gate: CallerGate,
    line: Bytes,
) -> Result<Response, HttpProblem> {
    told(gate::within(shared, gate, line).await?)
}

/// The outcome as the answer.
pub(crate) fn told(outcome: Outcome) -> Result<Response, HttpProblem> {
    match outcome.status {
        Status::Accepted | Status::Duplicate => Ok(Json(outcome).into_response()),
        _ => Err(HttpProblem::of_command(outcome)),
    }
}
