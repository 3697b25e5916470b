//! `POST /api/commands`: NDJSON in, NDJSON out, both streaming.

mod lines;
mod pipeline;

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use futures::stream;
use sovereign_schemas::{ErrorCode, Problem};
use tokio::sync::mpsc;

use super::v1::gate::{self, CallerGate};
use crate::access::{May, needs};
use crate::http::body;
use crate::http::problem::HttpProblem;
use crate::http::state::Shared;
use pipeline::Pipeline;

/// Chunks of outcomes between pipeline and socket; with the socket's buffers this is all that a
/// client can leave unread before its input is no longer read.
const CHUNKS_MAX: usize = 4;
/// Milliseconds after which a refused stream may come again.
const STREAM_RETRY_MS: u64 = 1_000;

pub(crate) async fn post(
    may: May<needs::Command>,
    State(shared): State<Shared>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, HttpProblem> {
    let gate = CallerGate::new(shared.clone(), may.caller, gate::key(&headers)?);
    stream(&shared, &headers, request.into_body(), gate)
}

/// Answers a stream of commands with a stream of outcomes.
pub(crate) fn stream(
    shared: &Shared,
    headers: &HeaderMap,
    input: Body,
    gate: CallerGate,
) -> Result<Response, HttpProblem> {
    if !body::is_plain(headers) {
        return Err(HttpProblem::unsupported(
            "content-encoding",
            "no compression",
        ));
    }
    let Ok(permit) = Arc::clone(&shared.streams).try_acquire_owned() else {
        let problem = Problem::new(ErrorCode::Busy, "too many command streams are open")
            .retry_after_ms(STREAM_RETRY_MS);
        return Err(problem.into());
    };
    let (sender, mut receiver) = mpsc::channel(CHUNKS_MAX);
    let pipeline = Pipeline::new(shared, Arc::new(gate));
    // a task of its own: what was accepted is brought to its end also when the client has gone
    tokio::spawn(async move {
        pipeline.run(input.into_data_stream(), sender).await;
        drop(permit);
    });
    let output = Body::from_stream(stream::poll_fn(move |cx| receiver.poll_recv(cx)));
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], output).into_response())
}
