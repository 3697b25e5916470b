use axum::Router;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, Query as UrlQuery, State};
use axum::http::HeaderMap;
use axum::routing::post;
use bytes::Bytes;
use serde_json::{Value, json};

use super::error::RegistryError;
use super::params::{self, Query, VersionName};
use super::service::{self, SchemaBody};
use super::store::SchemaVersion;
use super::{Answer, Answered};
use crate::http::state::Shared;

pub(super) fn router() -> Router<Shared> {
    Router::new()
        .route("/compatibility/subjects/{subject}/versions", post(with_all))
        .route(
            "/compatibility/subjects/{subject}/versions/{version}",
            post(with_one),
        )
}

async fn live(shared: &Shared, subject: &str) -> Result<Vec<SchemaVersion>, RegistryError> {
    let mut versions = shared.services.schemas.versions(subject).await?;
    versions.retain(|v| !v.deleted);
    Ok(versions)
}

/// Whether the schema could be registered, as far as the level goes.
async fn with_all(
    State(shared): State<Shared>,
    Path(subject): Path<String>,
    UrlQuery(query): UrlQuery<Query>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Answered<Value> {
    let subject = params::subject(&subject)?;
    let body: SchemaBody = params::json(&headers, body)?;
    let versions = live(&shared, subject).await?;
    let against: Vec<&SchemaVersion> = versions.iter().collect();
    test(&shared, subject, &body, &against, &query).await
}

/// Whether the schema could follow one version. One that would be the first fits.
async fn with_one(
    State(shared): State<Shared>,
    Path((subject, version)): Path<(String, String)>,
    UrlQuery(query): UrlQuery<Query>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Answered<Value> {
    let (subject, version) = (params::subject(&subject)?, params::version(&version)?);
    let body: SchemaBody = params::json(&headers, body)?;
    let versions = live(&shared, subject).await?;
    let against: Vec<&SchemaVersion> = match version {
        VersionName::Latest => versions.last().into_iter().collect(),
        VersionName::Number(number) => {
            let found = versions.iter().find(|v| v.version == number);
            vec![found.ok_or_else(|| RegistryError::no_version(number))?]
        }
    };
    test(&shared, subject, &body, &against, &query).await
}

async fn test(
    shared: &Shared,
    subject: &str,
    body: &SchemaBody,
    against: &[&SchemaVersion],
    query: &Query,
) -> Answered<Value> {
    let schema = body.parse()?;
    let level = service::effective_level(&*shared.services.schemas, subject).await?;
    let messages = service::incompatibilities(level, &schema, against);
    let mut answer = json!({ "is_compatible": messages.is_empty() });
    if query.verbose {
        answer["messages"] = json!(messages);
    }
    Ok(Answer(answer))
}
