//! Whether subjects may change, for all and for one.

use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, Query as UrlQuery, State};
use axum::http::HeaderMap;
use bytes::Bytes;
use serde_json::{Value, json};

use super::error::RegistryError;
use super::params::{self, Query};
use super::service;
use super::store::Mode;
use super::{Answer, Answered};
use crate::http::state::Shared;

#[derive(serde::Deserialize)]
struct ModeBody {
    mode: Option<String>,
}

fn told(mode: Mode) -> Answered<Value> {
    Ok(Answer(json!({ "mode": mode })))
}

async fn set(
    shared: &Shared,
    subject: Option<&str>,
    headers: &HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Answered<Value> {
    let body: ModeBody = params::json(headers, body)?;
    let mode = match body.mode.as_deref().map(str::to_uppercase).as_deref() {
        Some("READWRITE") => Mode::ReadWrite,
        Some("READONLY") => Mode::ReadOnly,
        _ => return Err(RegistryError::invalid_mode()),
    };
    shared
        .services
        .schemas
        .set_mode(subject, Some(mode))
        .await?;
    told(mode)
}

pub(super) async fn get(State(shared): State<Shared>) -> Answered<Value> {
    told(
        shared
            .services
            .schemas
            .mode(None)
            .await?
            .unwrap_or(Mode::ReadWrite),
    )
}

pub(super) async fn put(
    State(shared): State<Shared>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Answered<Value> {
    set(&shared, None, &headers, body).await
}

pub(super) async fn get_subject(
    State(shared): State<Shared>,
    Path(subject): Path<String>,
    UrlQuery(query): UrlQuery<Query>,
) -> Answered<Value> {
    let subject = params::subject(&subject)?;
    let store = &*shared.services.schemas;
    if query.default_to_global {
        return told(service::effective_mode(store, subject).await?);
    }
    let mode = store.mode(Some(subject)).await?;
    told(mode.ok_or_else(|| RegistryError::no_mode(subject))?)
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
    let before = store.mode(Some(subject)).await?;
    let before = before.ok_or_else(|| RegistryError::no_subject(subject))?;
    store.set_mode(Some(subject), None).await?;
    told(before)
}
