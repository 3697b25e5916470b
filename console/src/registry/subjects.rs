use axum::Router;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, Query as UrlQuery, State};
use axum::http::HeaderMap;
use axum::routing::{get, post};
use bytes::Bytes;
use serde_json::{Value, json};

use super::error::RegistryError;
use super::params::{self, Query};
use super::service::{self, SchemaBody};
use super::store::SchemaVersion;
use super::{Answer, Answered, Text};
use crate::http::state::Shared;

type Body = Result<Bytes, BytesRejection>;

pub(super) fn router() -> Router<Shared> {
    Router::new()
        .route("/subjects", get(list))
        .route("/subjects/{subject}", post(look_up).delete(delete))
        .route("/subjects/{subject}/versions", get(versions).post(register))
        .route(
            "/subjects/{subject}/versions/{version}",
            get(version).delete(delete_version),
        )
        .route("/subjects/{subject}/versions/{version}/schema", get(schema))
        .route(
            "/subjects/{subject}/versions/{version}/referencedby",
            get(referenced_by),
        )
}

/// A version as clients read it. The schema's type is left out, which means Avro.
pub(super) fn describe(version: &SchemaVersion) -> Value {
    json!({
        "subject": version.subject,
        "version": version.version,
        "id": version.id,
        "schema": version.schema,
    })
}

async fn list(
    State(shared): State<Shared>,
    UrlQuery(query): UrlQuery<Query>,
) -> Answered<Vec<String>> {
    let all = shared.services.schemas.all().await?;
    // a subject counts as deleted when nothing of it is left
    let mut subjects: Vec<(String, bool)> = Vec::new();
    for version in all {
        match subjects.last_mut() {
            Some((name, deleted)) if *name == version.subject => *deleted &= version.deleted,
            _ => subjects.push((version.subject, version.deleted)),
        }
    }
    let wanted = subjects
        .into_iter()
        .filter(|(name, deleted)| query.wants(*deleted) && query.wants_subject(name))
        .map(|(name, _)| name);
    Ok(Answer(query.page(wanted)))
}

async fn versions(
    State(shared): State<Shared>,
    Path(subject): Path<String>,
    UrlQuery(query): UrlQuery<Query>,
) -> Answered<Vec<u32>> {
    let subject = params::subject(&subject)?;
    let mut versions = shared.services.schemas.versions(subject).await?;
    versions.retain(|v| query.wants(v.deleted));
    if versions.is_empty() {
        return Err(RegistryError::no_subject(subject));
    }
    Ok(Answer(query.page(versions.iter().map(|v| v.version))))
}

async fn register(
    State(shared): State<Shared>,
    Path(subject): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Answered<Value> {
    let subject = params::subject(&subject)?;
    let body: SchemaBody = params::json(&headers, body)?;
    let registered = service::register(&*shared.services.schemas, subject, &body).await?;
    Ok(Answer(json!({ "id": registered.id })))
}

async fn look_up(
    State(shared): State<Shared>,
    Path(subject): Path<String>,
    UrlQuery(query): UrlQuery<Query>,
    headers: HeaderMap,
    body: Body,
) -> Answered<Value> {
    let subject = params::subject(&subject)?;
    let body: SchemaBody = params::json(&headers, body)?;
    let store = &*shared.services.schemas;
    let found = service::look_up(store, subject, &body, query.deleted).await?;
    Ok(Answer(describe(&found)))
}

async fn delete(
    State(shared): State<Shared>,
    Path(subject): Path<String>,
    UrlQuery(query): UrlQuery<Query>,
) -> Answered<Vec<u32>> {
    let subject = params::subject(&subject)?;
    let store = &*shared.services.schemas;
    Ok(Answer(
        service::delete_subject(store, subject, query.permanent).await?,
    ))
}

async fn delete_version(
    State(shared): State<Shared>,
    Path((subject, version)): Path<(String, String)>,
    UrlQuery(query): UrlQuery<Query>,
) -> Answered<u32> {
    let (subject, version) = (params::subject(&subject)?, params::version(&version)?);
    let store = &*shared.services.schemas;
    Ok(Answer(
        service::delete_version(store, subject, version, query.permanent).await?,
    ))
}

async fn find(
    shared: &Shared,
    subject: &str,
    version: &str,
    query: &Query,
) -> Result<SchemaVersion, RegistryError> {
    let (subject, version) = (params::subject(subject)?, params::version(version)?);
    service::find(&*shared.services.schemas, subject, version, query.deleted).await
}

async fn version(
    State(shared): State<Shared>,
    Path((subject, version)): Path<(String, String)>,
    UrlQuery(query): UrlQuery<Query>,
) -> Answered<Value> {
    Ok(Answer(describe(
        &find(&shared, &subject, &version, &query).await?,
    )))
}

async fn schema(
    State(shared): State<Shared>,
    Path((subject, version)): Path<(String, String)>,
    UrlQuery(query): UrlQuery<Query>,
) -> Result<Text, RegistryError> {
    Ok(Text(
        find(&shared, &subject, &version, &query).await?.schema,
    ))
}

/// Nothing is: schemas with references are refused.
async fn referenced_by(
    State(shared): State<Shared>,
    Path((subject, version)): Path<(String, String)>,
    UrlQuery(query): UrlQuery<Query>,
) -> Answered<[u32; 0]> {
    find(&shared, &subject, &version, &query).await?;
    Ok(Answer([]))
}
