use axum::Json;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sovereign_schemas::{ErrorCode, Identifier, Problem, Timestamp};

use crate::TokenRecord;
use crate::access::{IssueToken, May, Role, needs};
use crate::http::body;
use crate::http::problem::HttpProblem;
use crate::http::state::Shared;

/// How long a token lasts, if nobody says: 90 days.
const LIFETIME_S: u64 = 90 * 24 * 3_600;
/// The longest: about ten years.
const LIFETIME_S_MAX: u64 = 3_660 * 24 * 3_600;

/// Agents of one token.
const AGENTS_MAX: usize = 64;

/// A token to be made.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewToken {
    /// How people call it: 1 to 64 letters, digits and `. _ : / @ + -`.
    #[schema(min_length = 1, max_length = 64, pattern = r"^[A-Za-z0-9._:/@+\-]+$")]
    name: String,
    /// What its bearer may do.
    #[schema(value_type = Role)]
    role: String,
    /// In whose name its bearer acts; the token's name if not given.
    #[schema(min_length = 1, max_length = 64, pattern = r"^[A-Za-z0-9._:/@+\-]+$")]
    actor: Option<String>,
    /// As which agents its bearer acts, for role `agent`: 1 to 64 ids as in names. Such a token has
    /// no actor: what it sends is sent by the agent.
    #[serde(default)]
    #[schema(max_items = 64)]
    agents: Vec<String>,
    /// Seconds until it ends; 90 days if not given.
    #[schema(minimum = 1, maximum = 316_224_000_u64)]
    expires_in_s: Option<u64>,
}

/// A token, without its secret.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct TokenView {
    id: String,
    name: String,
    role: Role,
    actor: String,
    /// As which agents its bearer acts; only for role `agent`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    agents: Vec<String>,
    #[schema(format = DateTime)]
    created_at: String,
    #[schema(format = DateTime)]
    expires_at: String,
    /// When it was revoked, if it was.
    #[schema(format = DateTime)]
    revoked_at: Option<String>,
    /// `valid`, `expired` or `revoked`.
    state: &'static str,
}

impl TokenView {
    fn of(record: &TokenRecord, now: Timestamp) -> Self {
        Self {
            id: record.id.to_string(),
            name: record.name.to_string(),
            role: record.role,
            actor: record.actor.to_string(),
            agents: record.agents.iter().map(ToString::to_string).collect(),
            created_at: record.created_at.to_string(),
            expires_at: record.expires_at.to_string(),
            revoked_at: record.revoked_at.map(|at| at.to_string()),
            state: match (record.revoked_at, record.ended(now)) {
                (Some(_), _) => "revoked",
                (None, Some(_)) => "expired",
                (None, None) => "valid",
            },
        }
    }
}

/// A new token with its secret, which is shown this once.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct IssuedToken {
    /// Goes as `Authorization: Bearer …`.
    token: String,
    #[serde(flatten)]
    view: TokenView,
}

impl std::fmt::Debug for IssuedToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IssuedToken")
            .field("view", &self.view)
            .finish_non_exhaustive()
    }
}

/// All tokens, ended ones of the last 30 days included.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct TokenList {
    tokens: Vec<TokenView>,
}

fn identifier(field: &str, text: &str) -> Result<Identifier, Problem> {
    text.parse().map_err(|e: sovereign_schemas::IdError| {
        Problem::new(ErrorCode::InvalidId, e.to_string()).field(field)
    })
}

/// Whom a token of this role acts as.
fn agents(role: Role, has_actor: bool, wanted: &[String]) -> Result<Vec<Identifier>, Problem> {
    let wrong = |field: &str, message: &str, expected: &str| {
        let problem = Problem::new(ErrorCode::InvalidUsage, message);
        Err(problem.field(field).expected(expected))
    };
    if role != Role::Agent {
        return match wanted {
            [] => Ok(Vec::new()),
            _ => wrong("agents", "only the role agent acts as agents", "none"),
        };
    }
    if has_actor {
        let message = "what an agent sends is sent by itself";
        return wrong("actor", message, "agents, and no actor");
    }
    if !(1..=AGENTS_MAX).contains(&wanted.len()) {
        return wrong(
            "agents",
            "the role agent acts as somebody",
            "1 to 64 agents",
        );
    }
    let mut agents: Vec<Identifier> = Vec::with_capacity(wanted.len());
    for id in wanted {
        let id = identifier("agents", id)?;
        if id.as_str() == sovereign_schemas::IMPORT_ACTOR {
            return Err(Problem::new(ErrorCode::InvalidId, "is reserved").field("agents"));
        }
        agents.push(id);
    }
    agents.sort();
    agents.dedup();
    Ok(agents)
}

fn understood(wanted: NewToken, now: Timestamp) -> Result<IssueToken, Problem> {
    let name = identifier("name", &wanted.name)?;
    let told = wanted.actor.is_some();
    let actor = match wanted.actor {
        Some(actor) if actor == sovereign_schemas::IMPORT_ACTOR => {
            return Err(Problem::new(ErrorCode::InvalidId, "is reserved").field("actor"));
        }
        Some(actor) => identifier("actor", &actor)?,
        None => name.clone(),
    };
    let role = wanted.role.parse::<Role>()?;
    let agents = agents(role, told, &wanted.agents)?;
    let lifetime_s = wanted.expires_in_s.unwrap_or(LIFETIME_S);
    if !(1..=LIFETIME_S_MAX).contains(&lifetime_s) {
        return Err(
            Problem::new(ErrorCode::InvalidUsage, "a token cannot last so long")
                .field("expires_in_s")
                .found(lifetime_s.to_string())
                .expected(format!("1 to {LIFETIME_S_MAX}")),
        );
    }
    let lifetime_us = i64::try_from(lifetime_s * 1_000_000).unwrap_or(i64::MAX);
    Ok(IssueToken {
        name,
        role,
        actor,
        agents,
        expires_at: Timestamp(now.0.saturating_add(lifetime_us)),
    })
}

pub(crate) async fn create(
    _: May<needs::Administer>,
    State(shared): State<Shared>,
    headers: HeaderMap,
    input: Result<Bytes, BytesRejection>,
) -> Result<(StatusCode, Json<IssuedToken>), HttpProblem> {
    let now = Timestamp::now();
    let wanted = understood(body::json(&headers, input)?, now)?;
    let (record, token) = shared.services.tokens.issue(wanted, now).await?;
    let view = TokenView::of(&record, now);
    Ok((StatusCode::CREATED, Json(IssuedToken { token, view })))
}

pub(crate) async fn list(
    _: May<needs::Administer>,
    State(shared): State<Shared>,
) -> Json<TokenList> {
    let now = Timestamp::now();
    let all = shared.services.tokens.list();
    let tokens = all.iter().map(|r| TokenView::of(r, now)).collect();
    Json(TokenList { tokens })
}

pub(crate) async fn revoke(
    _: May<needs::Administer>,
    State(shared): State<Shared>,
    Path(name): Path<String>,
) -> Result<Json<TokenView>, HttpProblem> {
    let now = Timestamp::now();
    let record = shared.services.tokens.revoke(&name, now).await?;
    Ok(Json(TokenView::of(&record, now)))
}
