use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};

use crate::http::problem::HttpProblem;
use crate::http::state::Shared;
use crate::http::{auth, headers, host, shield, uniform};
use crate::{registry, routes};

/// All routes under all their guards, from the outside in: headers, panics, host, then per family
/// token and time.
pub(crate) fn router(shared: &Shared) -> Router {
    let state = || shared.clone();
    let timed = from_fn_with_state(state(), shield::limit_time);
    let token = from_fn_with_state(state(), auth::require);
    let open = Router::new()
        .route("/health", get(routes::health::get))
        .route("/metrics", get(routes::metrics::get))
        .layer(timed.clone());
    let api = Router::new()
        .route("/api/status", get(routes::status::get))
        .route("/api/tasks", post(routes::tasks::post))
        .route("/api/digest", get(routes::digest::get))
        .route("/api/views/{name}/rebuild", post(routes::views::rebuild))
        .route("/api/shutdown", post(routes::shutdown::post))
        .layer(timed.clone())
        .merge(Router::new().route("/api/commands", post(routes::commands::post)))
        .layer(token);
    let registry = registry::router()
        .layer(from_fn_with_state(state(), registry::guard::check))
        .layer(timed);
    open.merge(api)
        .merge(registry)
        .method_not_allowed_fallback(wrong_method)
        .fallback(no_such_route)
        .layer(DefaultBodyLimit::max(shared.options.body_bytes_max))
        .layer(from_fn(uniform::reword))
        .layer(from_fn_with_state(state(), host::check))
        .layer(from_fn(shield::catch_panic))
        .layer(from_fn(headers::add))
        .with_state(state())
}

async fn wrong_method(request: Request) -> Response {
    if registry::owns(request.uri().path()) {
        return registry::plain_error(StatusCode::METHOD_NOT_ALLOWED);
    }
    HttpProblem::wrong_method().into_response()
}

async fn no_such_route(request: Request) -> Response {
    if registry::owns(request.uri().path()) {
        return registry::plain_error(StatusCode::NOT_FOUND);
    }
    HttpProblem::no_such_route().into_response()
}
