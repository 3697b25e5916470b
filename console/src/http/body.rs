use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderMap, StatusCode, header};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use sovereign_schemas::{ErrorCode, Problem};

use super::problem::HttpProblem;

/// The media type without parameters, in lower case; empty if there is none.
pub(crate) fn media_type(headers: &HeaderMap) -> String {
    let value = headers
        .get(header::CONTENT_TYPE)
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default();
    value
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase()
}

/// Whether the body is as it was written, not compressed.
pub(crate) fn is_plain(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_ENCODING)
        .is_none_or(|v| v.as_bytes() == b"identity")
}

/// Decodes a JSON body; an empty one is the empty object.
pub(crate) fn json<T: DeserializeOwned>(
    headers: &HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<T, HttpProblem> {
    let kind = media_type(headers);
    if !(kind.is_empty() || kind == "application/json") {
        return Err(HttpProblem::unsupported("content-type", "application/json"));
    }
    if !is_plain(headers) {
        return Err(HttpProblem::unsupported(
            "content-encoding",
            "no compression",
        ));
    }
    let body = body.map_err(|rejection| rejected(&rejection))?;
    let text: &[u8] = if body.trim_ascii().is_empty() {
        b"{}"
    } else {
        &body
    };
    serde_json::from_slice(text).map_err(|e| {
        // the parser's own words may repeat input
        let at = format!("line {} column {}", e.line(), e.column());
        if e.is_data() {
            let message = format!("the body lacks a field, or one is wrong, at {at}");
            let problem = Problem::new(ErrorCode::WrongType, message)
                .field("body")
                .expected("the fields that /api/openapi.json lists");
            return HttpProblem::from(problem);
        }
        let problem = Problem::new(ErrorCode::MalformedJson, format!("no valid JSON at {at}"))
            .field("body")
            .expected("one JSON object")
            .remedy("send one JSON object in UTF-8");
        HttpProblem::from(problem)
    })
}

fn rejected(rejection: &BytesRejection) -> HttpProblem {
    let status = rejection.status();
    let problem = if status == StatusCode::PAYLOAD_TOO_LARGE {
        Problem::new(ErrorCode::PayloadTooLarge, "the body is too large")
            .remedy("keep the body below 2 MiB")
    } else {
        Problem::new(ErrorCode::InvalidUsage, "the body could not be read")
            .remedy("send the whole body")
    };
    HttpProblem::new(status, problem.field("body"))
}
