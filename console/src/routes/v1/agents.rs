use axum::Json;
use axum::extract::{Query, State};
use serde::Deserialize;
use sovereign_schemas::{ErrorCode, Problem};

use crate::Rows;
use crate::access::{May, needs};
use crate::http::problem::HttpProblem;
use crate::http::state::Shared;

/// Rows of one answer, if nobody says how many.
const LIMIT: u32 = 100;
/// Most rows of one answer.
pub(crate) const LIMIT_MAX: u32 = 1_000;

/// Which rows of a view.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Asked {
    after: Option<String>,
    limit: Option<u32>,
}

pub(crate) fn limit(asked: Option<u32>) -> Result<u32, Problem> {
    let limit = asked.unwrap_or(LIMIT);
    if (1..=LIMIT_MAX).contains(&limit) {
        return Ok(limit);
    }
    Err(
        Problem::new(ErrorCode::InvalidUsage, "the page has no such size")
            .field("limit")
            .found(limit.to_string())
            .expected(format!("1 to {LIMIT_MAX}")),
    )
}

/// A key that no row can have is none to go on after: the database takes no NUL in a text.
pub(crate) fn after(asked: Option<String>) -> Result<Option<String>, Problem> {
    match asked {
        Some(key) if key.chars().count() > 128 || key.contains('\0') => {
            Err(Problem::new(ErrorCode::InvalidId, "is no key of a row").field("after"))
        }
        asked => Ok(asked),
    }
}

pub(crate) async fn list(
    _: May<needs::Read>,
    State(shared): State<Shared>,
    Query(asked): Query<Asked>,
) -> Result<Json<Rows>, HttpProblem> {
    let (after, limit) = (after(asked.after)?, limit(asked.limit)?);
    Ok(Json(shared.services.rows.agents(after, limit).await?))
}
