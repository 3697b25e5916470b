use axum::Router;
use axum::extract::{Path, Query as UrlQuery, State};
use axum::routing::get;
use serde_json::{Value, json};

use super::error::RegistryError;
use super::params::{self, Query};
use super::store::SchemaVersion;
use super::subjects::describe;
use super::{Answer, Answered, Text};
use crate::http::state::Shared;

pub(super) fn router() -> Router<Shared> {
    Router::new()
        .route("/schemas", get(list))
        .route("/schemas/types", get(types))
        .route("/schemas/ids/{id}", get(by_id))
        .route("/schemas/ids/{id}/schema", get(text_by_id))
        .route("/schemas/ids/{id}/subjects", get(subjects_by_id))
        .route("/schemas/ids/{id}/versions", get(versions_by_id))
}

async fn types() -> Answer<[&'static str; 1]> {
    Answer(["AVRO"])
}

async fn list(
    State(shared): State<Shared>,
    UrlQuery(query): UrlQuery<Query>,
) -> Answered<Vec<Value>> {
    let mut all = shared.services.schemas.all().await?;
    all.retain(|v| query.wants(v.deleted) && query.wants_subject(&v.subject));
    if query.latest_only {
        let followed: Vec<bool> = (0..all.len())
            .map(|i| {
                all.get(i + 1)
                    .is_some_and(|next| next.subject == all[i].subject)
            })
            .collect();
        let mut followed = followed.into_iter();
        all.retain(|_| !followed.next().unwrap_or(false));
    }
    Ok(Answer(query.page(all.iter().map(describe))))
}

/// All versions with the id, deleted ones included: whoever holds data must be able to read it.
async fn with_id(shared: &Shared, id: &str) -> Result<Vec<SchemaVersion>, RegistryError> {
    let id = params::id(id)?;
    let versions = shared.services.schemas.with_id(id).await?;
    if versions.is_empty() {
        return Err(RegistryError::no_schema_with_id(id));
    }
    Ok(versions)
}

async fn by_id(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    UrlQuery(query): UrlQuery<Query>,
) -> Answered<Value> {
    let versions = with_id(&shared, &id).await?;
    let mut answer = json!({ "schema": versions[0].schema });
    if query.fetch_max_id {
        let all = shared.services.schemas.all().await?;
        answer["maxId"] = json!(all.iter().map(|v| v.id).max());
    }
    Ok(Answer(answer))
}

async fn text_by_id(
    State(shared): State<Shared>,
    Path(id): Path<String>,
) -> Result<Text, RegistryError> {
    let versions = with_id(&shared, &id).await?;
    Ok(Text(versions[0].schema.clone()))
}

async fn subjects_by_id(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    UrlQuery(query): UrlQuery<Query>,
) -> Answered<Vec<String>> {
    let versions = with_id(&shared, &id).await?;
    let wanted = versions.into_iter().filter(|v| query.wants(v.deleted));
    let mut subjects: Vec<String> = wanted.map(|v| v.subject).collect();
    subjects.dedup();
    Ok(Answer(query.page(subjects.into_iter())))
}

async fn versions_by_id(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    UrlQuery(query): UrlQuery<Query>,
) -> Answered<Vec<Value>> {
    let versions = with_id(&shared, &id).await?;
    let wanted = versions
        .iter()
        .filter(|v| query.wants(v.deleted))
        .map(|v| json!({ "subject": v.subject, "version": v.version }));
    Ok(Answer(query.page(wanted)))
}
