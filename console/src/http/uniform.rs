use axum::http::header;
use axum::response::{IntoResponse, Response};
use sovereign_schemas::{ErrorCode, Problem};

use super::problem::HttpProblem;
use crate::registry;

/// Gives failures that the framework words itself, such as a path that is not UTF-8, the form that
/// all failures have.
pub(crate) fn reword(of_registry: bool, response: Response) -> Response {
    let status = response.status();
    let kind = response.headers().get(header::CONTENT_TYPE);
    let plain = kind.is_none_or(|kind| kind.as_bytes().starts_with(b"text/plain"));
    if !(status.is_client_error() || status.is_server_error()) || !plain {
        return response;
    }
    if of_registry {
        return registry::plain_error(status);
    }
    let problem = Problem::new(ErrorCode::InvalidUsage, "the path or query cannot be read")
        .remedy("write path and query in percent-encoded UTF-8, each parameter once");
    HttpProblem::new(status, problem).into_response()
}
