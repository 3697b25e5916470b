use axum::extract::Request;
use axum::http::{HeaderMap, Method, header};
use sovereign_schemas::{Digest, ErrorCode, Identifier, Problem, Timestamp, Uuid};

use super::{Role, TokenRecord, cookie_of, csrf_matches};
use crate::http::auth::bearer;
use crate::http::problem::HttpProblem;
use crate::http::state::Shared;

/// Carries the proof that a page is ours.
const CSRF_HEADER: &str = "x-csrf-token";

/// Who sent a request.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) role: Role,
    /// In whose name commands are sent; none for the owner of the data folder, who may name
    /// anybody.
    pub(crate) actor: Option<Identifier>,
    /// The agents that it may act as; others than a token of that role have none.
    pub(crate) agents: Vec<Identifier>,
    /// Which token; none for the one of the data folder.
    pub(crate) token: Option<Uuid>,
    /// Which session, for a browser.
    pub(crate) session: Option<Digest>,
}

impl Caller {
    /// The owner of the data folder.
    pub(crate) const fn owner() -> Self {
        Self {
            role: Role::Admin,
            actor: None,
            agents: Vec::new(),
            token: None,
            session: None,
        }
    }

    fn of(token: &TokenRecord) -> Self {
        Self {
            role: token.role,
            actor: Some(token.actor.clone()),
            agents: token.agents.clone(),
            token: Some(token.id),
            session: None,
        }
    }

    /// The agent with this id, as whom the caller may act.
    ///
    /// # Errors
    /// `forbidden` if the token is not one of this agent's.
    pub(crate) fn acts_as(&self, id: &str) -> Result<ActsAs, Problem> {
        let own = self.agents.iter().find(|agent| agent.as_str() == id);
        own.cloned().map(ActsAs).ok_or_else(|| {
            let own: Vec<&str> = self.agents.iter().map(|agent| agent.as_str()).collect();
            Problem::new(ErrorCode::Forbidden, "the token is another agent's")
                .field("id")
                .found(id)
                .expected(own.join(", "))
                .remedy("use the path of an agent that the token names, or a token of this agent")
        })
    }

    /// Whether what lets the caller in still holds: tokens and sessions end while streams go on.
    pub(crate) fn still_holds(&self, shared: &Shared) -> bool {
        let token = self.token.is_none_or(|id| {
            let known = shared.services.tokens.valid(id, Timestamp::now());
            known.is_some_and(|token| token.role == self.role)
        });
        token && self.session.is_none_or(|id| shared.sessions.holds(id))
    }

    /// Takes one unit of what the actor may ask for. The owner of the data folder could stop the
    /// engine anyway, and is not limited.
    pub(crate) fn take(&self, shared: &Shared) -> Result<(), Problem> {
        let Some(actor) = &self.actor else {
            return Ok(());
        };
        let taken = shared
            .limiter
            .take(actor.as_str(), shared.started.elapsed());
        taken.map_err(|wait| {
            metrics::counter!("sovereign_http_rate_limited_total").increment(1);
            let rate = shared.options.actor_rate;
            let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).max(1);
            Problem::new(ErrorCode::RateLimited, "the actor asks for too much")
                .field("actor")
                .found(actor.as_str())
                .expected(format!("at most {} requests a second", rate.per_second))
                .retry_after_ms(wait_ms)
        })
    }
}

/// An agent as whom somebody may act: made by [`Caller::acts_as`] only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ActsAs(Identifier);

impl ActsAs {
    pub(crate) const fn agent(&self) -> &Identifier {
        &self.0
    }
}

/// Finds out who calls, and notes it in the request.
///
/// # Errors
/// If the caller cannot say, or asks for too much.
pub(crate) fn identify(shared: &Shared, request: &mut Request) -> Result<(), HttpProblem> {
    let caller = who(shared, request.method(), request.headers())?;
    caller.take(shared)?;
    request.extensions_mut().insert(caller);
    Ok(())
}

fn who(shared: &Shared, method: &Method, headers: &HeaderMap) -> Result<Caller, HttpProblem> {
    if headers.contains_key(header::AUTHORIZATION) {
        let offered = bearer(headers).ok_or_else(HttpProblem::unauthenticated)?;
        return with_token(shared, offered);
    }
    let offered = cookie_of(headers).ok_or_else(HttpProblem::unauthenticated)?;
    let (id, session) = shared
        .sessions
        .find(offered)
        .ok_or_else(|| HttpProblem::unauthenticated_because("the session has ended"))?;
    let caller = match session.token {
        None => Caller::owner(),
        Some(token) => {
            let known = shared.services.tokens.valid(token, Timestamp::now());
            let token = known.ok_or_else(|| {
                HttpProblem::unauthenticated_because("the session's token has ended")
            })?;
            Caller::of(&token)
        }
    };
    let reads = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
    let shown = headers.get(CSRF_HEADER).map(|value| value.as_bytes());
    if !reads && !shown.is_some_and(|shown| csrf_matches(&session, shown)) {
        let problem = Problem::new(ErrorCode::CsrfFailed, "the page shows no or another token")
            .field(CSRF_HEADER)
            .expected("the csrf_token that came with the session");
        return Err(problem.into());
    }
    Ok(Caller {
        session: Some(id),
        ..caller
    })
}

/// The caller that a bearer token stands for.
pub(crate) fn with_token(shared: &Shared, offered: &[u8]) -> Result<Caller, HttpProblem> {
    if shared.options.token.matches(offered) {
        return Ok(Caller::owner());
    }
    let found = shared.services.tokens.find(offered, Timestamp::now());
    let token = found.map_err(HttpProblem::unauthenticated_because)?;
    Ok(Caller::of(&token))
}
