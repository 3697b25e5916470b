use std::sync::OnceLock;

use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;

use crate::api::{document, table};
use crate::http::problem::HttpProblem;

/// The document, made once: it is the same for every engine of a build.
pub(crate) async fn get() -> Response {
    static DOCUMENT: OnceLock<Option<Bytes>> = OnceLock::new();
    let made = DOCUMENT.get_or_init(|| Some(document(&table()).to_json().ok()?.into()));
    match made {
        Some(document) => (
            [(header::CONTENT_TYPE, "application/json")],
            document.clone(),
        )
            .into_response(),
        None => HttpProblem::internal().into_response(),
    }
}
