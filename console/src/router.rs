use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};

use crate::access::identify;
use crate::api::table;
use crate::http::problem::HttpProblem;
use crate::http::state::Shared;
use crate::http::{headers, host, shield, uniform};
use crate::pages;
use crate::registry;

/// All routes under all their guards, from the outside in: headers, panics, host, then by route
/// who calls and time.
pub(crate) fn router(shared: &Shared) -> Router {
    let state = || shared.clone();
    let timed = from_fn_with_state(state(), shield::limit_time);
    let identified = from_fn_with_state(state(), identify);
    let mut routes = Router::new();
    for endpoint in table() {
        let (is_timed, needs_token) = (endpoint.is_timed(), endpoint.needs_token());
        let (path, mut service) = endpoint.into_service();
        if is_timed {
            service = service.route_layer(timed.clone());
        }
        if needs_token {
            service = service.route_layer(identified.clone());
        }
        routes = routes.route(path, service);
    }
    let registry = registry::router()
        .layer(from_fn_with_state(state(), registry::guard::check))
        .layer(timed);
    routes
        .merge(registry)
        .merge(pages::router())
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
