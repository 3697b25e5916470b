//! An admin invites: only who holds an invitation can make himself a passkey.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Serialize;
use sovereign_schemas::{ErrorCode, Identifier, Problem, Timestamp};

use crate::access::{IssueToken, May, Role, needs};
use crate::http::problem::HttpProblem;
use crate::http::state::Shared;

/// Before the person's name, among the names of tokens.
const NAME_PREFIX: &str = "invite:";
/// How long an invitation lasts: a day.
const LIFETIME_US: i64 = 24 * 3_600 * 1_000_000;

/// An invitation with its link, which is shown this once.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct Invitation {
    /// Whose passkey it will be.
    approver: String,
    /// To be opened in the browser that has, or reaches, the authenticator. What is behind `#` is
    /// the secret; browsers send it to nobody.
    link: String,
    #[schema(format = DateTime)]
    expires_at: String,
}

impl std::fmt::Debug for Invitation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Invitation")
            .field("approver", &self.approver)
            .finish_non_exhaustive()
    }
}

/// The name of a person, who is the actor of his tokens as well.
pub(super) fn person(name: &str) -> Result<Identifier, Problem> {
    if name == sovereign_schemas::IMPORT_ACTOR {
        return Err(Problem::new(ErrorCode::InvalidId, "is reserved").field("name"));
    }
    name.parse().map_err(|e: sovereign_schemas::IdError| {
        Problem::new(ErrorCode::InvalidId, e.to_string()).field("name")
    })
}

pub(crate) async fn create(
    _: May<needs::Administer>,
    State(shared): State<Shared>,
    Path(name): Path<String>,
) -> Result<(StatusCode, Json<Invitation>), HttpProblem> {
    let actor = person(&name)?;
    let as_token = format!("{NAME_PREFIX}{name}");
    let as_token: Identifier = as_token.parse().map_err(|_| {
        Problem::new(
            ErrorCode::InvalidId,
            "the name is too long for an invitation",
        )
        .field("name")
        .expected(format!("at most {} characters", 64 - NAME_PREFIX.len()))
    })?;
    let now = Timestamp::now();
    let tokens = &shared.services.tokens;
    // a new one takes the place of one that was not used
    match tokens.revoke(as_token.as_str(), now).await {
        Ok(_) => {}
        Err(problem) if problem.code == ErrorCode::NotFound => {}
        Err(problem) => return Err(problem.into()),
    }
    let wanted = IssueToken {
        name: as_token,
        role: Role::Invited,
        actor,
        agents: Vec::new(),
        expires_at: Timestamp(now.0.saturating_add(LIFETIME_US)),
    };
    let (record, secret) = tokens.issue(wanted, now).await?;
    let origin = shared.place.origin();
    let invitation = Invitation {
        approver: name,
        link: format!("{origin}/approvals/enrol#{secret}"),
        expires_at: record.expires_at.to_string(),
    };
    Ok((StatusCode::CREATED, Json(invitation)))
}
