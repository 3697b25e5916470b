//! Requests to tools. One connection for each request: nothing is sent to a peer that was not
//! checked for this very request, and no pool sends a request a second time by itself.

mod answer;
mod connect;
mod redirect;
mod send;

use hyper::StatusCode;
use sovereign_effects::tools::{ServerErrors, Tool};
use sovereign_effects::{HttpCall, Outcome, Path, Request, Tools};
use sovereign_schemas::{ErrorCode, Identifier, Problem};
use url::form_urlencoded;

use super::Live;
use super::run::{Run, Stage};
use crate::secret::Secret;
use answer::{Answer, Broken};
use redirect::Next;

pub(super) use connect::Tls;
pub use connect::{Resolve, SystemResolver};

/// Longest query, bytes, as it is sent.
const QUERY_BYTES_MAX: usize = 8 << 10;

/// One request as it is sent; a redirect changes path and query.
#[derive(Debug)]
struct Hop<'a> {
    name: &'a Identifier,
    tool: &'a Tool,
    call: &'a HttpCall,
    id: String,
    path: Path,
    query: String,
    body: Vec<u8>,
    secret: Option<Secret>,
}

pub(super) fn unknown_tool(name: &Identifier, tools: &Tools) -> Problem {
    Problem::new(ErrorCode::EffectRefused, "the policy has no such tool")
        .field("tool")
        .found(name.as_str())
        .expected(tools.names())
}

impl Live {
    pub(super) async fn http(
        &self,
        tools: &Tools,
        request: &Request,
        call: &HttpCall,
        run: &Run,
    ) -> Outcome {
        if call.method.is_safe() {
            run.is_harmless();
        }
        let Some(tool) = tools.tool(&call.tool) else {
            return Outcome::refused(unknown_tool(&call.tool, tools));
        };
        let mut hop = match self.first_hop(tool, request, call).await {
            Ok(hop) => hop,
            Err(problem) => return Outcome::refused(problem),
        };
        let target = format!("tool:{}", call.tool);
        let place = self
            .gates
            .pass(&target, tool.concurrent_max, tool.rate)
            .await;
        let mut redirects = 0;
        let outcome = loop {
            let answer = match self.once(&hop, run).await {
                Ok(answer) => answer,
                Err(outcome) => break outcome,
            };
            if !answer.status.is_redirection() {
                break judge(&hop, answer, redirects, run);
            }
            match redirect::next(&hop, &answer) {
                Next::Follow { path, query } if redirects < tool.redirects_max => {
                    redirects += 1;
                    // this server says that it did nothing; the next one knows of nothing yet
                    run.reach(Stage::Waiting);
                    (hop.path, hop.query) = (path, query);
                }
                Next::Follow { .. } => {
                    break refused_redirect("more redirects than the tool allows", true, run);
                }
                Next::Refuse { message, acted } => break refused_redirect(message, !acted, run),
            }
        };
        drop(place);
        outcome
    }

    /// Checks everything that can be checked without the network.
    async fn first_hop<'a>(
        &self,
        tool: &'a Tool,
        request: &Request,
        call: &'a HttpCall,
    ) -> Result<Hop<'a>, Problem> {
        let refused = |field: &str, message: &str| {
            Problem::new(ErrorCode::EffectRefused, message).field(field)
        };
        if !tool.methods.contains(&call.method) {
            let methods: Vec<&str> = tool.methods.iter().map(|m| m.as_str()).collect();
            return Err(refused("method", "the tool does not allow this method")
                .found(call.method.as_str())
                .expected(methods.join(", ")));
        }
        if !tool.allows(call.method, &call.path) {
            let paths: Vec<&str> = tool.paths.iter().map(Path::as_str).collect();
            return Err(refused("path", "the tool does not allow this path")
                .found(call.path.as_str())
                .expected(paths.join(", ")));
        }
        let query = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(&call.query)
            .finish();
        if query.len() > QUERY_BYTES_MAX {
            return Err(refused("query", "is too long")
                .found(format!("{} bytes", query.len()))
                .expected(format!("at most {QUERY_BYTES_MAX} bytes")));
        }
        let body = match &call.body {
            Some(body) => serde_json::to_vec(body).map_err(|_| refused("body", "is no JSON"))?,
            None => Vec::new(),
        };
        if body.len() > tool.request_bytes_max {
            return Err(refused("body", "is larger than the tool allows")
                .found(format!("{} bytes", body.len()))
                .expected(format!("at most {} bytes", tool.request_bytes_max)));
        }
        let secret = match &tool.secret {
            Some(wanted) => Some(self.secrets.get(&call.tool, &wanted.name).await?),
            None => None,
        };
        Ok(Hop {
            name: &call.tool,
            tool,
            call,
            id: request.id.to_string(),
            path: call.path.clone(),
            query,
            body,
            secret,
        })
    }

    /// One request and its whole answer.
    async fn once(&self, hop: &Hop<'_>, run: &Run) -> Result<Answer, Outcome> {
        run.reach(Stage::Connecting);
        let stream = self.connect(hop).await.map_err(|problem| {
            let retry = problem.code == ErrorCode::TargetUnreachable;
            Outcome::Failed { problem, retry }
        })?;
        send::send(stream, hop, run)
            .await
            .map_err(|broken| match broken {
                Broken::Unsent => {
                    let message = "the connection ended before the request was sent";
                    Outcome::try_again(Problem::new(ErrorCode::TargetUnreachable, message))
                }
                Broken::Unsendable => {
                    let message = "the request cannot be written";
                    Outcome::refused(Problem::new(ErrorCode::InvalidEffect, message))
                }
                Broken::Incomplete(message) => {
                    run.unsure(Problem::new(ErrorCode::AnswerIncomplete, message), true)
                }
                Broken::TooLarge(bytes) => run.unsure(
                    Problem::new(ErrorCode::AnswerTooLarge, "the answer is too large")
                        .expected(format!("at most {bytes} bytes")),
                    false,
                ),
            })
    }
}

/// `not_done`: the server's answer says that it did nothing.
fn refused_redirect(message: &str, not_done: bool, run: &Run) -> Outcome {
    let problem = Problem::new(ErrorCode::RedirectRefused, message);
    if not_done {
        Outcome::refused(problem)
    } else {
        run.unsure(problem, false)
    }
}

/// What a complete answer, which is no redirect, says about the effect.
fn judge(hop: &Hop<'_>, answer: Answer, redirects: u32, run: &Run) -> Outcome {
    let status = answer.status;
    if status.is_success() {
        return Outcome::done(answer.result(redirects));
    }
    let found = status.as_u16().to_string();
    let with = |code: ErrorCode, message: &str| {
        let problem = Problem::new(code, message).found(&found);
        match answer.retry_after_ms {
            Some(after) => problem.retry_after_ms(after),
            None => problem,
        }
    };
    if status.is_client_error() {
        let keyed = hop.tool.idempotency_header.is_some() && !hop.call.method.is_safe();
        if status == StatusCode::CONFLICT && keyed {
            // an earlier try under this key may be under way there
            let message = "the tool's server is in conflict about this effect";
            return run.unsure(with(ErrorCode::TargetFailed, message), true);
        }
        let message = "the tool's server answered with a status that refuses";
        let passing = [
            StatusCode::REQUEST_TIMEOUT,
            StatusCode::TOO_EARLY,
            StatusCode::TOO_MANY_REQUESTS,
        ];
        return Outcome::Failed {
            problem: with(ErrorCode::TargetRefused, message),
            retry: passing.contains(&status),
        };
    }
    if status.is_server_error() {
        let problem = with(ErrorCode::TargetFailed, "the tool's server failed");
        return match hop.tool.on_5xx {
            ServerErrors::Failed => Outcome::try_again(problem),
            ServerErrors::InDoubt => run.unsure(problem, true),
        };
    }
    let message = "the tool's server answered with a status that says nothing";
    run.unsure(with(ErrorCode::TargetFailed, message), false)
}
