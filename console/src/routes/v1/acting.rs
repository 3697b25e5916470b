//! What an agent does by HTTP, `/api/v1/agents/{id}/…`, and what it is told of that. Its token names
//! the agents that it may act as; docs/AGENTS.md is the description for those who write one.

use axum::Json;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Extension, Path, Query, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use sovereign_schemas::{Digest, ErrorCode, Outcome, Problem, Status, Uuid};

use super::commands::told;
use super::gate::{self, CallerGate, Key};
use super::{events, stream};
use crate::Texts;
use crate::access::{ActsAs, Caller, May, needs};
use crate::feed::{Wanted, Which};
use crate::http::body;
use crate::http::cut::Cut;
use crate::http::problem::HttpProblem;
use crate::http::state::Shared;

type Body = Result<Bytes, BytesRejection>;

/// One command of an agent that is on its way in.
struct Act {
    shared: Shared,
    caller: Caller,
    agent: ActsAs,
    key: Option<Key>,
}

impl Act {
    fn of(
        shared: Shared,
        may: May<needs::Act>,
        id: &str,
        headers: &HeaderMap,
    ) -> Result<Self, HttpProblem> {
        Ok(Self {
            agent: may.caller.acts_as(id)?,
            caller: may.caller,
            key: gate::key(headers)?,
            shared,
        })
    }

    /// A command on the agent itself.
    async fn own(self, command: &str, data: Map<String, Value>) -> Result<Response, HttpProblem> {
        let id = self.agent.agent().to_string();
        let outcome = self.submit("agent", &id, command, data).await?;
        told(outcome)
    }

    async fn submit(
        self,
        aggregate: &str,
        id: &str,
        command: &str,
        data: Map<String, Value>,
    ) -> Result<Outcome, HttpProblem> {
        let line = json!({ "aggregate": aggregate, "id": id, "command": command, "data": data,
            "actor": self.agent.agent() });
        let gate = CallerGate::of_agent(self.shared.clone(), self.caller, self.agent, self.key);
        let outcome = gate::within(&self.shared, gate, line.to_string().into()).await?;
        Ok(Outcome {
            error: outcome.error.map(in_body),
            ..outcome
        })
    }
}

/// Fields are those of the body, which is the data of the command.
fn in_body(mut problem: Problem) -> Problem {
    if let Some(field) = problem.field.as_mut().filter(|f| f.starts_with("data.")) {
        field.drain(.."data.".len());
    }
    problem
}

pub(crate) async fn think(
    may: May<needs::Act>,
    State(shared): State<Shared>,
    Path(id): Path<String>,
    headers: HeaderMap,
    input: Body,
) -> Result<Response, HttpProblem> {
    let act = Act::of(shared, may, &id, &headers)?;
    act.own("record_thought", body::json(&headers, input)?)
        .await
}

pub(crate) async fn transition(
    may: May<needs::Act>,
    State(shared): State<Shared>,
    Path(id): Path<String>,
    headers: HeaderMap,
    input: Body,
) -> Result<Response, HttpProblem> {
    let act = Act::of(shared, may, &id, &headers)?;
    act.own("transition", body::json(&headers, input)?).await
}

pub(crate) async fn observe(
    may: May<needs::Act>,
    State(shared): State<Shared>,
    Path(id): Path<String>,
    headers: HeaderMap,
    input: Body,
) -> Result<Response, HttpProblem> {
    let act = Act::of(shared, may, &id, &headers)?;
    act.own("observe_market", body::json(&headers, input)?)
        .await
}

pub(crate) async fn start_task(
    may: May<needs::Act>,
    State(shared): State<Shared>,
    Path(id): Path<String>,
    headers: HeaderMap,
    input: Body,
) -> Result<Response, HttpProblem> {
    let act = Act::of(shared, may, &id, &headers)?;
    act.own("start_task", body::json(&headers, input)?).await
}

pub(crate) async fn finish_task(
    may: May<needs::Act>,
    State(shared): State<Shared>,
    Path((id, task)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, HttpProblem> {
    let act = Act::of(shared, may, &id, &headers)?;
    let data = Map::from_iter([("task".to_owned(), task.into())]);
    act.own("finish_task", data).await
}

pub(crate) async fn propose(
    may: May<needs::Act>,
    State(shared): State<Shared>,
    Path(id): Path<String>,
    headers: HeaderMap,
    input: Body,
) -> Result<Response, HttpProblem> {
    let act = Act::of(shared, may, &id, &headers)?;
    let mut data: Map<String, Value> = body::json(&headers, input)?;
    let agent = act.agent.agent().clone();
    let trade_id = match data.remove("trade_id") {
        Some(Value::String(id)) => id,
        None | Some(Value::Null) => named(agent.as_str(), act.key.as_ref()),
        Some(_) => {
            let problem = Problem::new(ErrorCode::WrongType, "field has the wrong type");
            return Err(problem.field("trade_id").expected("a string").into());
        }
    };
    // somebody who names another is refused by the agents' door, not corrected
    data.entry("agent_id").or_insert_with(|| json!(agent));
    let outcome = act.submit("trade", &trade_id, "propose", data).await?;
    if !matches!(outcome.status, Status::Accepted | Status::Duplicate) {
        return told(outcome);
    }
    let mut answer = json!(outcome);
    answer["trade_id"] = trade_id.into();
    Ok(Json(answer).into_response())
}

/// An id for an intent whose sender gave none: the same for the same key.
fn named(agent: &str, key: Option<&Key>) -> String {
    let Some(key) = key else {
        return format!("trade_{}", Uuid::now_v7());
    };
    let name = [agent.as_bytes(), b"\0", key.as_bytes()];
    let name = Digest::of(&[&b"sovereign intent v1\0"[..], &name.concat()]);
    format!(
        "trade_{}",
        Uuid::new_v5(&sovereign_schemas::TYPES_NAMESPACE, &name.0)
    )
}

pub(crate) async fn cancel(
    may: May<needs::Act>,
    State(shared): State<Shared>,
    Path((id, trade)): Path<(String, String)>,
    headers: HeaderMap,
    input: Body,
) -> Result<Response, HttpProblem> {
    let act = Act::of(shared, may, &id, &headers)?;
    let data = body::json(&headers, input)?;
    told(act.submit("trade", &trade, "cancel", data).await?)
}

/// Which decisions.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Asked {
    after: Option<u64>,
    limit: Option<usize>,
}

pub(crate) async fn decisions(
    may: May<needs::Act>,
    State(shared): State<Shared>,
    Path(id): Path<String>,
    Query(asked): Query<Asked>,
) -> Result<Response, HttpProblem> {
    let which = Which::Decisions(may.caller.acts_as(&id)?);
    events::page(&shared, &which, asked.after, asked.limit, Texts::Sealed).await
}

/// From where on.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Followed {
    after: Option<u64>,
}

pub(crate) async fn follow(
    may: May<needs::Act>,
    State(shared): State<Shared>,
    Path(id): Path<String>,
    Query(asked): Query<Followed>,
    cut: Option<Extension<Cut>>,
    headers: HeaderMap,
) -> Result<Response, HttpProblem> {
    let agent = may.caller.acts_as(&id)?;
    let read = stream::last_seen(&headers)?.or(asked.after);
    let wanted = Wanted {
        after: stream::begin(&shared, read).await?,
        caller: may.caller,
        which: Which::Decisions(agent),
        texts: Texts::Sealed,
    };
    stream::respond(&shared, wanted, cut)
}
