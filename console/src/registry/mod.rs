//! The Confluent Schema Registry API for Avro, over a [`store::SchemaStore`].
//!
//! Paths, bodies and error codes are those of Confluent's API, version 1. Not offered: schema
//! types other than `AVRO`, schema references, contexts (their names are plain subjects here) and
//! the `IMPORT` and `READONLY_OVERRIDE` modes; each is refused with Confluent's code.

mod compatibility;
mod config;
mod error;
pub(crate) mod guard;
mod mode;
mod params;
mod schemas;
mod service;
pub(crate) mod store;
mod subjects;

use axum::Router;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Serialize;

use crate::http::state::Shared;
use error::RegistryError;

/// The type of every answer.
const MEDIA_TYPE: &str = "application/vnd.schemaregistry.v1+json";

/// Types of request bodies that clients in use send.
const MEDIA_TYPES: [&str; 4] = [
    MEDIA_TYPE,
    "application/vnd.schemaregistry+json",
    "application/json",
    "application/octet-stream",
];

pub(crate) fn router() -> Router<Shared> {
    Router::new()
        .route("/", get(root))
        .merge(subjects::router())
        .merge(schemas::router())
        .merge(compatibility::router())
        .route(
            "/config",
            get(config::get).put(config::put).delete(config::delete),
        )
        .route(
            "/config/{subject}",
            get(config::get_subject)
                .put(config::put_subject)
                .delete(config::delete_subject),
        )
        .route("/mode", get(mode::get).put(mode::put))
        .route(
            "/mode/{subject}",
            get(mode::get_subject)
                .put(mode::put_subject)
                .delete(mode::delete_subject),
        )
}

/// Whether a path belongs to the registry, so that its failures have Confluent's form.
pub(crate) fn owns(path: &str) -> bool {
    let first = path
        .trim_start_matches('/')
        .split('/')
        .next()
        .unwrap_or_default();
    matches!(
        first,
        "subjects" | "schemas" | "compatibility" | "config" | "mode"
    )
}

/// A failure of HTTP itself under the registry's paths.
pub(crate) fn plain_error(status: StatusCode) -> Response {
    RegistryError::new(status, u32::from(status.as_u16()), format!("HTTP {status}")).into_response()
}

async fn root() -> Response {
    Answer(serde_json::json!({})).into_response()
}

/// JSON with the registry's content type.
struct Answer<T>(T);

impl<T: Serialize> IntoResponse for Answer<T> {
    fn into_response(self) -> Response {
        let mut response = axum::Json(self.0).into_response();
        let kind = HeaderValue::from_static(MEDIA_TYPE);
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        response
    }
}

/// A schema's text as it is, with the registry's content type.
struct Text(String);

impl IntoResponse for Text {
    fn into_response(self) -> Response {
        ([(header::CONTENT_TYPE, MEDIA_TYPE)], self.0).into_response()
    }
}

type Answered<T> = Result<Answer<T>, RegistryError>;
