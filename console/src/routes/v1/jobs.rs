use axum::Json;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use sovereign_schemas::{ErrorCode, Problem};

use super::agents::limit;
use crate::access::{Caller, May, needs};
use crate::http::body;
use crate::http::problem::HttpProblem;
use crate::http::state::Shared;

/// Which jobs.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Asked {
    after: Option<u64>,
    limit: Option<u32>,
    #[serde(default)]
    all: bool,
}

/// In whose name: the owner of the data folder acts as the operator.
fn actor(caller: &Caller) -> String {
    let own = caller.actor.as_ref();
    own.map_or_else(|| "operator".to_owned(), ToString::to_string)
}

pub(crate) async fn submit(
    may: May<needs::Command>,
    State(shared): State<Shared>,
    headers: HeaderMap,
    input: Result<Bytes, BytesRejection>,
) -> Result<Response, HttpProblem> {
    may.caller.take(&shared)?;
    let wanted: Map<String, Value> = body::json(&headers, input)?;
    let jobs = &shared.services.jobs;
    let answer = jobs.submit(wanted.into(), &actor(&may.caller)).await?;
    let place = answer["job_id"].as_str().unwrap_or_default();
    let place = format!("/api/v1/jobs/{}", place.replace('/', "%2F"));
    let mut response = (StatusCode::ACCEPTED, Json(&answer)).into_response();
    if let Ok(place) = HeaderValue::try_from(place) {
        response.headers_mut().insert(header::LOCATION, place);
    }
    Ok(response)
}

pub(crate) async fn list(
    _: May<needs::Read>,
    State(shared): State<Shared>,
    Query(asked): Query<Asked>,
) -> Result<Json<Value>, HttpProblem> {
    let limit = limit(asked.limit)?;
    let after = asked.after.unwrap_or(0);
    if i64::try_from(after).is_err() {
        return Err(Problem::new(ErrorCode::InvalidUsage, "is no position")
            .field("after")
            .into());
    }
    let page = shared.services.jobs.list(after, limit, asked.all);
    Ok(Json(page.await?))
}

pub(crate) async fn show(
    _: May<needs::Read>,
    State(shared): State<Shared>,
    Path(id): Path<String>,
) -> Result<Json<Value>, HttpProblem> {
    Ok(Json(shared.services.jobs.show(&id).await?))
}

pub(crate) async fn abort(
    may: May<needs::Command>,
    State(shared): State<Shared>,
    Path(id): Path<String>,
    headers: HeaderMap,
    input: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, HttpProblem> {
    act(&may.caller, &shared, &id, "abort", &headers, input).await
}

pub(crate) async fn force_start(
    may: May<needs::Command>,
    State(shared): State<Shared>,
    Path(id): Path<String>,
    headers: HeaderMap,
    input: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, HttpProblem> {
    act(&may.caller, &shared, &id, "force_start", &headers, input).await
}

pub(crate) async fn resolve(
    may: May<needs::Command>,
    State(shared): State<Shared>,
    Path(id): Path<String>,
    headers: HeaderMap,
    input: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, HttpProblem> {
    act(&may.caller, &shared, &id, "resolve", &headers, input).await
}

async fn act(
    caller: &Caller,
    shared: &Shared,
    id: &str,
    command: &str,
    headers: &HeaderMap,
    input: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, HttpProblem> {
    caller.take(shared)?;
    let mut data: Map<String, Value> = body::json(headers, input)?;
    if command == "abort" {
        data.entry("reason").or_insert_with(|| json!("operator"));
    }
    let (jobs, actor) = (&shared.services.jobs, actor(caller));
    Ok(Json(jobs.command(id, command, data.into(), &actor).await?))
}

pub(crate) async fn queues(
    _: May<needs::Read>,
    State(shared): State<Shared>,
) -> Result<Json<Value>, HttpProblem> {
    Ok(Json(shared.services.jobs.queues().await?))
}

pub(crate) async fn schedules(
    _: May<needs::Read>,
    State(shared): State<Shared>,
) -> Result<Json<Value>, HttpProblem> {
    Ok(Json(shared.services.jobs.schedules().await?))
}

pub(crate) async fn pause(
    may: May<needs::Operate>,
    State(shared): State<Shared>,
    Path(queue): Path<String>,
) -> Result<Json<Value>, HttpProblem> {
    let by = actor(&may.caller);
    Ok(Json(shared.services.jobs.pause(&queue, Some(&by)).await?))
}

pub(crate) async fn resume(
    _: May<needs::Operate>,
    State(shared): State<Shared>,
    Path(queue): Path<String>,
) -> Result<Json<Value>, HttpProblem> {
    Ok(Json(shared.services.jobs.pause(&queue, None).await?))
}
