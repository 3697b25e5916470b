//! `GET /api/v1/events`: pages of the ledger, by position.

use axum::extract::{Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use sovereign_schemas::{AggregateType, ErrorCode, Position, Problem};

use crate::access::{Caller, May, Right, needs};
use crate::feed::Which;
use crate::http::problem::HttpProblem;
use crate::http::state::Shared;
use crate::{EventFilter, Texts};

/// Events of one answer, if nobody says how many.
const LIMIT: usize = 100;
/// Most events of one answer.
pub(crate) const LIMIT_MAX: usize = 1_000;
/// Events read from the ledger at once, so that a page of large ones is not held twice.
const READ_MAX: usize = 100;
/// Reads for one answer: where next to nothing passes it ends before the request takes too long.
const READS_MAX: usize = 100;
/// An answer has no further events once it has so many bytes.
const PAGE_BYTES: usize = 4 << 20;

/// Which events, and in what form.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Asked {
    pub(crate) after: Option<u64>,
    pub(crate) limit: Option<usize>,
    pub(crate) department: Option<String>,
    pub(crate) aggregate: Option<String>,
    #[serde(default)]
    pub(crate) sealed: bool,
}

impl Asked {
    pub(crate) fn filter(&self, shared: &Shared) -> Result<EventFilter, Problem> {
        let mut filter = EventFilter::default();
        if let Some(name) = &self.department {
            let departments = shared.services.events.departments();
            filter.department = Some(departments.find(name)?.id);
        }
        if let Some(aggregate) = &self.aggregate {
            let (kind, id) = aggregate
                .split_once('/')
                .map_or((aggregate.as_str(), None), |(kind, id)| (kind, Some(id)));
            let known = kind.parse::<AggregateType>();
            let known = known.map_err(|problem| {
                problem
                    .field("aggregate")
                    .remedy("write TYPE or TYPE/ID, such as agent/trader-aapl")
            })?;
            filter.aggregate_type = Some(known);
            filter.aggregate_id = id.map(str::to_owned);
        }
        Ok(filter)
    }

    /// Opened for those who may, unless they want them sealed.
    pub(crate) fn texts(&self, caller: &Caller) -> Texts {
        if !self.sealed && caller.role.may(Right::ReadTexts) {
            Texts::Revealed
        } else {
            Texts::Sealed
        }
    }
}

/// A position that a client has read up to; one beyond the head is of another ledger.
pub(crate) fn known(after: u64, head: Position) -> Result<Position, Problem> {
    if after > head.0 {
        let message = "the ledger does not go that far";
        return Err(Problem::new(ErrorCode::InvalidRange, message)
            .field("after")
            .found(after.to_string())
            .expected(format!("0 to {head}")));
    }
    Ok(Position(after))
}

pub(crate) async fn get(
    may: May<needs::Read>,
    State(shared): State<Shared>,
    Query(asked): Query<Asked>,
) -> Result<Response, HttpProblem> {
    let which = Which::Passing(asked.filter(&shared)?);
    let texts = asked.texts(&may.caller);
    page(&shared, &which, asked.after, asked.limit, texts).await
}

/// A page of these events.
pub(crate) async fn page(
    shared: &Shared,
    which: &Which,
    after: Option<u64>,
    limit: Option<usize>,
    texts: Texts,
) -> Result<Response, HttpProblem> {
    let limit = limit.unwrap_or(LIMIT);
    if !(1..=LIMIT_MAX).contains(&limit) {
        let problem = Problem::new(ErrorCode::InvalidUsage, "the page has no such size")
            .field("limit")
            .found(limit.to_string())
            .expected(format!("1 to {LIMIT_MAX}"));
        return Err(problem.into());
    }
    let events = &shared.services.events;
    let head = events.head().await?;
    let mut next = known(after.unwrap_or(0), head)?;
    let (mut body, mut count) = (String::from("{\"events\":["), 0);
    let mut reads = 0;
    while next < head && count < limit && body.len() < PAGE_BYTES && reads < READS_MAX {
        reads += 1;
        let (found, reached) = which
            .page(shared, next, READ_MAX.min(limit - count))
            .await?;
        if reached <= next {
            break;
        }
        next = reached;
        for event in &found {
            if count > 0 {
                body.push(',');
            }
            body.push_str(&events.describe(event, texts).await.to_string());
            count += 1;
            if body.len() >= PAGE_BYTES {
                next = event.position();
                break;
            }
        }
    }
    let head = head.max(next);
    body.push_str(&format!("],\"next\":{next},\"head\":{head}}}"));
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}
