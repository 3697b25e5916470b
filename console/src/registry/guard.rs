use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::error::RegistryError;
use crate::http::auth::holds_token;
use crate::http::state::Shared;

/// Lets requests without a token pass only where the options and the address allow it.
pub(crate) async fn check(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    let writes = writes(request.method(), request.uri().path());
    let open = shared.loopback && !(writes && shared.options.registry_writes_need_token);
    if open || holds_token(&shared.options.token, request.headers()) {
        return next.run(request).await;
    }
    let mut response =
        RegistryError::new(StatusCode::UNAUTHORIZED, 40101, "Unauthorized").into_response();
    let scheme = axum::http::HeaderValue::from_static("Bearer");
    response
        .headers_mut()
        .insert(axum::http::header::WWW_AUTHENTICATE, scheme);
    response
}

/// Registering, deleting and setting; a look-up and a test of compatibility are posted as well.
fn writes(method: &Method, path: &str) -> bool {
    match *method {
        Method::GET | Method::HEAD | Method::OPTIONS => false,
        Method::POST => path.starts_with("/subjects/") && path.ends_with("/versions"),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_writing_from_reading() {
        assert!(writes(&Method::POST, "/subjects/a/versions"));
        assert!(writes(&Method::PUT, "/config"));
        assert!(writes(&Method::DELETE, "/subjects/a"));
        assert!(!writes(&Method::POST, "/subjects/a"));
        assert!(!writes(&Method::POST, "/compatibility/subjects/a/versions"));
        assert!(!writes(&Method::GET, "/subjects/a/versions"));
    }
}
