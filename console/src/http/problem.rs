use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use sovereign_schemas::{ErrorCode, Outcome, Position, Problem, Status};

use crate::access::{Right, Role};

/// A failure on its way out, as `application/problem+json` (RFC 9457).
#[derive(Debug, Clone)]
pub(crate) struct HttpProblem {
    status: StatusCode,
    problem: Problem,
    /// Of the command that the request was, as far as it is no problem.
    outcome: Option<Fate>,
}

/// What became of a command that did not take effect.
#[derive(Debug, Clone, serde::Serialize)]
struct Fate {
    command_id: Option<String>,
    status: Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    positions: Option<(Position, Position)>,
}

#[derive(serde::Serialize)]
struct Body<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    title: String,
    status: u16,
    detail: String,
    #[serde(flatten)]
    problem: &'a Problem,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<Fate>,
}

impl HttpProblem {
    /// A problem of HTTP itself, with the status that HTTP has for it.
    pub(crate) fn new(status: StatusCode, problem: Problem) -> Self {
        Self {
            status,
            problem,
            outcome: None,
        }
    }

    /// A command that did not take effect.
    pub(crate) fn of_command(outcome: Outcome) -> Self {
        let silent = || Problem::new(ErrorCode::Internal, "the engine gave no reason");
        let problem = outcome.error.unwrap_or_else(silent);
        let status = match status_of(problem.code) {
            // the caller is known: it is the command that may not be
            StatusCode::UNAUTHORIZED => StatusCode::FORBIDDEN,
            status => status,
        };
        Self {
            status,
            problem,
            outcome: Some(Fate {
                command_id: outcome.command_id,
                status: outcome.status,
                positions: outcome.positions,
            }),
        }
    }

    pub(crate) fn unauthenticated() -> Self {
        Self::unauthenticated_because("the token is missing or wrong")
    }

    pub(crate) fn unauthenticated_because(why: &str) -> Self {
        let problem = Problem::new(ErrorCode::Unauthorized, why)
            .field("authorization")
            .expected("Bearer and a token, or the cookie of a session");
        Self::new(StatusCode::UNAUTHORIZED, problem)
    }

    pub(crate) fn forbidden(role: Role, right: Right) -> Self {
        let message = format!("the role lacks the right {}", right.as_str());
        let problem = Problem::new(ErrorCode::Forbidden, message)
            .field("role")
            .found(role.as_str())
            .expected(right.roles());
        problem.into()
    }

    pub(crate) fn no_such_route() -> Self {
        let problem = Problem::new(ErrorCode::NotFound, "no such route")
            .remedy("correct the path; docs/API.md lists the routes");
        Self::new(StatusCode::NOT_FOUND, problem)
    }

    pub(crate) fn wrong_method() -> Self {
        let problem = Problem::new(ErrorCode::InvalidUsage, "the route has no such method")
            .remedy("use a method that the Allow header names");
        Self::new(StatusCode::METHOD_NOT_ALLOWED, problem)
    }

    pub(crate) fn internal() -> Self {
        let problem = Problem::new(ErrorCode::Internal, "the request failed inside the engine");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, problem)
    }

    pub(crate) fn timed_out(after_ms: u64) -> Self {
        let problem = Problem::new(ErrorCode::TimedOut, "the request took too long")
            .expected(format!("an answer within {after_ms} ms"));
        Self::new(StatusCode::GATEWAY_TIMEOUT, problem)
    }

    pub(crate) fn unsupported(field: &str, expected: &str) -> Self {
        let problem = Problem::new(ErrorCode::InvalidUsage, "the body is in another form")
            .field(field)
            .expected(expected)
            .remedy("send the body in the expected form");
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, problem)
    }
}

impl From<Problem> for HttpProblem {
    fn from(problem: Problem) -> Self {
        Self::new(status_of(problem.code), problem)
    }
}

impl IntoResponse for HttpProblem {
    fn into_response(self) -> Response {
        let Self {
            status,
            problem,
            outcome,
        } = self;
        let body = Body {
            kind: &problem.help,
            title: problem.code.as_str().replace('-', " "),
            status: status.as_u16(),
            detail: problem.to_string(),
            problem: &problem,
            outcome,
        };
        let mut response = (status, Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if let Some(after_ms) = problem.retry_after_ms {
            // the header counts whole seconds; never less than was asked for
            headers.insert(
                header::RETRY_AFTER,
                HeaderValue::from(after_ms.div_ceil(1000).max(1)),
            );
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// The status that tells a client which kind of failure it is without our codes.
fn status_of(code: ErrorCode) -> StatusCode {
    use ErrorCode as C;
    match code {
        C::Unauthorized => StatusCode::UNAUTHORIZED,
        C::NotFound => StatusCode::NOT_FOUND,
        C::ViewNotReady | C::VersionConflict => StatusCode::CONFLICT,
        C::StaleAttempt | C::JobAborting => StatusCode::CONFLICT,
        C::Forbidden | C::CsrfFailed => StatusCode::FORBIDDEN,
        C::IdempotencyKeyReused | C::InvalidRegistration => StatusCode::UNPROCESSABLE_ENTITY,
        C::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        C::TooSlow => StatusCode::REQUEST_TIMEOUT,
        C::LineTooLong | C::TextTooLong | C::PayloadTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        C::Busy
        | C::DatabaseUnreachable
        | C::DatabaseAuth
        | C::BrokerUnreachable
        | C::BrokerAuth
        | C::TlsFailed
        | C::MissingRights
        | C::RegistryUnreachable
        | C::EngineNotRunning
        | C::DiskFull
        | C::ServerFailed
        | C::ProjectionFailed => StatusCode::SERVICE_UNAVAILABLE,
        C::TimedOut => StatusCode::GATEWAY_TIMEOUT,
        C::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        _ => match code.exit_code() {
            2 => StatusCode::BAD_REQUEST,
            4 => StatusCode::CONFLICT,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_an_error_status() {
        for code in ErrorCode::ALL {
            let status = status_of(*code);
            assert!(
                status.is_client_error() || status.is_server_error(),
                "{code}"
            );
        }
        assert_eq!(status_of(ErrorCode::Unauthorized), StatusCode::UNAUTHORIZED);
        assert_eq!(status_of(ErrorCode::InvalidId), StatusCode::BAD_REQUEST);
        assert_eq!(status_of(ErrorCode::WrongState), StatusCode::CONFLICT);
    }

    #[test]
    fn retry_after_is_rounded_up_to_seconds() {
        let problem = Problem::new(ErrorCode::Busy, "queue full").retry_after_ms(1200);
        let response = HttpProblem::from(problem).into_response();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[header::RETRY_AFTER], "2");
    }
}
