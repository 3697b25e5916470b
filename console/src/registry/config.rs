//! Compatibility levels, for all subjects and for one.

use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, Query as UrlQuery, State};
use axum::http::HeaderMap;
use bytes::Bytes;
use serde_json::{Value, json};
use sovereign_schemas::compatibility::Compatibility;

use super::error::RegistryError;
use super::params::{self, Query};
use super::service::{self, DEFAULT_LEVEL};
use super::{Answer, Answered};
use crate::http::state::Shared;

#[derive(serde::Deserialize)]
struct LevelBody {
    compatibility: Option<String>,
}

fn told(level: Compatibility) -> Answered<Value> {
    Ok(Answer(json!({ "compatibilityLevel": level })))
}

async fn set(
    shared: &Shared,
    subject: Option<&str>,
    headers: &HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Answered<Value> {
    let body: LevelBody = params::json(headers, body)?;
    let name = body
        .compatibility
        .ok_or_else(RegistryError::invalid_level)?
        .to_uppercase();
    let level: Compatibility =
        serde_json::from_value(Value::String(name)).map_err(|_| RegistryError::invalid_level())?;
    shared
        .services
        .schemas
        .set_compatibility(subject, Some(level))
        .await?;
    Ok(Answer(json!({ "compatibility": level })))
}

pub(super) async fn get(State(shared): State<Shared>) -> Answered<Value> {
    told(
        shared
            .services
            .schemas
            .compatibility(None)
            .await?
            .unwrap_or(DEFAULT_LEVEL),
    )
}

pub(super) async fn put(
    State(shared): State<Shared>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Answered<Value> {
    set(&shared, None, &headers, body).await
}

pub(super) async fn delete(State(shared): State<Shared>) -> Answered<Value> {
    let store = &shared.services.schemas;
    let before = store.compatibility(None).await?.unwrap_or(DEFAULT_LEVEL);
    store.set_compatibility(None, None).await?;
    told(before)
}

pub(super) async fn get_subject(
    State(shared): State<Shared>,
    Path(subject): Path<String>,
    UrlQuery(query): UrlQuery<Query>,
) -> Answered<Value> {
    let subject = params::subject(&subject)?;
    let store = &*shared.services.schemas;
    if query.default_to_global {
        return told(service::effective_level(store, subject).await?);
    }
    let level = store.compatibility(Some(subject)).await?;
    told(level.ok_or_else(|| RegistryError::no_level(subject))?)
}

pub(super) async fn put_subject(
    State(shared): State<Shared>,
    Path(subject): Path<String>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Answered<Value> {
    set(&shared, Some(params::subject(&subject)?), &headers, body).await
}

pub(super) async fn delete_subject(
    State(shared): State<Shared>,
    Path(subject): Path<String>,
) -> Answered<Value> {
    let subject = params::subject(&subject)?;
    let store = &shared.services.schemas;
    let before = store.compatibility(Some(subject)).await?;
    let before = before.ok_or_else(|| RegistryError::no_subject(subject))?;
    store.set_compatibility(Some(subject), None).await?;
    told(before)
}
