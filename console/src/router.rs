use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};

use crate::access::identify;
use crate::api::table;
use crate::http::problem::HttpProblem;
use crate::http::state::Shared;
use crate::http::{headers, host, shield, uniform};
use crate::pages;
use crate::registry;

/// All routes under all their guards, from the outside in: headers, panics, host, then by route
/// who calls and time. They are few functions, since each layer of a router costs every request
/// some allocations.
pub(crate) fn router(shared: &Shared) -> Router {
    let state = || shared.clone();
    let timed = from_fn_with_state(state(), in_time);
    let mut routes = Router::new();
    for endpoint in table() {
        let (is_timed, needs_token) = (endpoint.is_timed(), endpoint.needs_token());
        let (path, mut service) = endpoint.into_service();
        service = match (needs_token, is_timed) {
            (true, true) => service.route_layer(from_fn_with_state(state(), identified_in_time)),
            (true, false) => service.route_layer(from_fn_with_state(state(), identified)),
            (false, true) => service.route_layer(timed.clone()),
            (false, false) => service,
        };
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
        .layer(from_fn_with_state(state(), guarded))
        .with_state(state())
}

/// What every request passes.
async fn guarded(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    let method = request.method().clone();
    let answer = async {
        if let Err(refused) = host::check(&shared, &request) {
            return refused.into_response();
        }
        let of_registry = registry::owns(request.uri().path());
        uniform::reword(of_registry, next.run(request).await)
    };
    let mut response = shield::catch_panic(&method, answer).await;
    headers::add(&mut response);
    response
}

async fn in_time(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    shield::limit_time(&shared, next.run(request)).await
}

async fn identified(State(shared): State<Shared>, mut request: Request, next: Next) -> Response {
    match identify(&shared, &mut request) {
        Ok(()) => next.run(request).await,
        Err(refused) => refused.into_response(),
    }
}

async fn identified_in_time(
    State(shared): State<Shared>,
    mut request: Request,
    next: Next,
) -> Response {
    match identify(&shared, &mut request) {
        Ok(()) => shield::limit_time(&shared, next.run(request)).await,
        Err(refused) => refused.into_response(),
    }
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
