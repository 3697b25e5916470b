use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use crate::http::state::Shared;
use crate::metrics::record_health;

pub(crate) async fn get(State(shared): State<Shared>) -> Response {
    record_health(&shared.services.health.health().await);
    let text = shared.services.metrics.render();
    (
        [(
            header::CONTENT_TYPE,
            "text/plain; version=0.0.4; charset=utf-8",
        )],
        text,
    )
        .into_response()
}
