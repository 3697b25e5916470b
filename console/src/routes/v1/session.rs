//! Sessions of browsers: a token is shown once, a cookie that no script can read stands for it.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use sovereign_schemas::{ErrorCode, Problem};

use crate::access::{COOKIE, Caller, May, Role, Session, cookie_of, needs};
use crate::http::problem::HttpProblem;
use crate::http::state::Shared;

/// Who is logged in.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct SessionView {
    role: Role,
    /// In whose name commands are sent; null for the owner of the data folder.
    actor: Option<String>,
    /// Goes as header `x-csrf-token` with every request that is no GET.
    csrf_token: String,
    /// The origin at which passkeys can be used.
    page: String,
    /// Seconds until the session ends at the latest.
    expires_in_s: u64,
}

impl std::fmt::Debug for SessionView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionView")
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}

fn view(shared: &Shared, caller: &Caller, session: &Session) -> SessionView {
    SessionView {
        role: caller.role,
        actor: caller.actor.as_ref().map(ToString::to_string),
        csrf_token: session.csrf.clone(),
        page: shared.place.origin().to_owned(),
        expires_in_s: shared.sessions.remaining_s(session),
    }
}

/// Off loopback there must be a proxy with TLS in front, which `Secure` then insists on.
fn cookie(shared: &Shared, value: &str, max_age_s: u64) -> String {
    let plain = shared.loopback && !shared.place.is_secure();
    let secure = if plain { "" } else { "; Secure" };
    format!("{COOKIE}={value}; Path=/; HttpOnly; SameSite=Strict; Max-Age={max_age_s}{secure}")
}

pub(crate) async fn open(
    may: May<needs::Read>,
    State(shared): State<Shared>,
) -> Result<Response, HttpProblem> {
    if may.caller.session.is_some() {
        let problem = Problem::new(ErrorCode::InvalidUsage, "a session opens no other")
            .field("authorization")
            .expected("Bearer and a token");
        return Err(problem.into());
    }
    let (secret, session) = shared.sessions.open(may.caller.token)?;
    let view = view(&shared, &may.caller, &session);
    let cookie = cookie(&shared, &secret, view.expires_in_s);
    Ok((
        StatusCode::CREATED,
        [(header::SET_COOKIE, cookie)],
        Json(view),
    )
        .into_response())
}

pub(crate) async fn show(
    may: May<needs::Read>,
    State(shared): State<Shared>,
    headers: HeaderMap,
) -> Result<Json<SessionView>, HttpProblem> {
    let found = may.caller.session.and(cookie_of(&headers));
    let found = found.and_then(|secret| shared.sessions.find(secret));
    let Some((_, session)) = found else {
        let problem = Problem::new(ErrorCode::NotFound, "the request belongs to no session")
            .remedy("open one with POST and a token");
        return Err(problem.into());
    };
    Ok(Json(view(&shared, &may.caller, &session)))
}

pub(crate) async fn close(may: May<needs::Read>, State(shared): State<Shared>) -> Response {
    if let Some(session) = may.caller.session {
        shared.sessions.close(session);
    }
    let gone = [(header::SET_COOKIE, cookie(&shared, "", 0))];
    (StatusCode::NO_CONTENT, gone).into_response()
}
