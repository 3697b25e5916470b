//! `POST /api/commands`: NDJSON in, NDJSON out, both streaming.

mod lines;
mod pipeline;

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use futures::stream;
use sovereign_schemas::{ErrorCode, Problem};
use tokio::sync::mpsc;

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
    State(shared): State<Shared>,
    headers: HeaderMap,
    input: Body,
) -> Result<Response, HttpProblem> {
    if !body::is_plain(&headers) {
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
    // a task of its own: what was accepted is brought to its end also when the client has gone
    tokio::spawn(async move {
        Pipeline::new(&shared)
            .run(input.into_data_stream(), sender)
            .await;
        drop(permit);
    });
    let output = Body::from_stream(stream::poll_fn(move |cx| receiver.poll_recv(cx)));
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], output).into_response())
}
