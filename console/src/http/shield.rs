//! Bounds on time and on the reach of a panic.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use axum::http::Method;
use axum::response::{IntoResponse, Response};
use futures::FutureExt;

use super::problem::HttpProblem;
use super::state::Shared;

/// Turns a panic into an answer; the panic's own message goes to the process' panic hook only.
pub(crate) async fn catch_panic(
    method: &Method,
    answer: impl Future<Output = Response>,
) -> Response {
    match AssertUnwindSafe(answer).catch_unwind().await {
        Ok(response) => response,
        Err(_) => {
            tracing::error!(%method, "request handler panicked");
            HttpProblem::internal().into_response()
        }
    }
}

/// Ends a request that takes too long, its body's arrival included.
pub(crate) async fn limit_time(
    shared: &Shared,
    answer: impl Future<Output = Response>,
) -> Response {
    let limit_ms = shared.options.request_timeout_ms;
    match tokio::time::timeout(Duration::from_millis(limit_ms), answer).await {
        Ok(response) => response,
        Err(_) => HttpProblem::timed_out(limit_ms).into_response(),
    }
}
