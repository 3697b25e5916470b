use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sovereign_schemas::{ErrorCode, Problem};

use super::problem::HttpProblem;
use super::state::Shared;
use crate::Token;

/// Lets only requests with the token pass.
pub(crate) async fn require(
    State(shared): State<Shared>,
    request: Request,
    next: Next,
) -> Response {
    if holds_token(&shared.options.token, request.headers()) {
        return next.run(request).await;
    }
    let problem = Problem::new(ErrorCode::Unauthorized, "the token is missing or wrong")
        .field("authorization")
        .expected("Bearer and the token");
    HttpProblem::new(StatusCode::UNAUTHORIZED, problem).into_response()
}

/// Whether the request carries the token as `Authorization: Bearer …`.
pub(crate) fn holds_token(token: &Token, headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(header::AUTHORIZATION) else {
        return false;
    };
    let Some((scheme, offered)) = split_once_blank(value.as_bytes()) else {
        return false;
    };
    scheme.eq_ignore_ascii_case(b"bearer") && token.matches(offered.trim_ascii())
}

fn split_once_blank(value: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = value.iter().position(|b| *b == b' ')?;
    Some((&value[..at], &value[at + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_the_bearer_token_only() {
        let token = Token::new("0123456789abcdef").unwrap();
        let with = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
            holds_token(&token, &headers)
        };
        assert!(with("Bearer 0123456789abcdef"));
        assert!(with("bearer  0123456789abcdef"));
        assert!(!with("Basic 0123456789abcdef"));
        assert!(!with("Bearer 0123456789abcde0"));
        assert!(!with("Bearer"));
        assert!(!with("0123456789abcdef"));
        assert!(!holds_token(&token, &HeaderMap::new()));
    }
}
