//! `GET /api/v1/events/stream`: events as they become durable, as server-sent events
//! (<https://html.spec.whatwg.org/multipage/server-sent-events.html>).

use std::convert::Infallible;
use std::fmt::Write as _;

use axum::body::Body;
use axum::extract::{Extension, Query, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::{StreamExt as _, stream};
use serde_json::json;
use sovereign_schemas::{ErrorCode, Position, Problem};
use tokio::sync::mpsc::Receiver;

use super::events::{Asked, known};
use crate::access::{Caller, May, needs};
use crate::feed::{self, Item, Wanted, Which};
use crate::http::cut::Cut;
use crate::http::problem::HttpProblem;
use crate::http::state::Shared;

const RESUME_HEADER: &str = "last-event-id";
/// Milliseconds that browsers wait before they connect again.
const RETRY_MS: u64 = 2_000;

pub(crate) async fn get(
    may: May<needs::Read>,
    State(shared): State<Shared>,
    Query(asked): Query<Asked>,
    cut: Option<Extension<Cut>>,
    headers: HeaderMap,
) -> Result<Response, HttpProblem> {
    let resumed = last_seen(&headers)?;
    let wanted = wanted(&shared, &asked, resumed, may.caller).await?;
    respond(&shared, wanted, cut)
}

/// Answers with a subscription, which goes on until it ends.
pub(crate) fn respond(
    shared: &Shared,
    wanted: Wanted,
    cut: Option<Extension<Cut>>,
) -> Result<Response, HttpProblem> {
    let cut = cut.map(|Extension(cut)| cut).unwrap_or_default();
    let items = feed::subscribe(shared, wanted, cut)?;
    let first = Bytes::from(format!("retry: {RETRY_MS}\n\n"));
    let chunks = stream::once(async move { first })
        .chain(stream::unfold(Some(items), next))
        .map(Ok::<_, Infallible>);
    let kind = [(header::CONTENT_TYPE, "text/event-stream")];
    Ok((kind, Body::from_stream(chunks)).into_response())
}

/// The next chunk; nothing comes behind the last word.
async fn next(items: Option<Receiver<Item>>) -> Option<(Bytes, Option<Receiver<Item>>)> {
    let mut items = items?;
    let item = items.recv().await?;
    let goes_on = !matches!(item, Item::End(..));
    Some((frame(&item), goes_on.then_some(items)))
}

/// The position that a client read last, as browsers say it when they connect again.
pub(crate) fn last_seen(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let Some(value) = headers.get(RESUME_HEADER) else {
        return Ok(None);
    };
    let position = value
        .to_str()
        .ok()
        .and_then(|text| text.trim().parse().ok());
    match position {
        Some(position) => Ok(Some(position)),
        None => Err(Problem::new(ErrorCode::InvalidRange, "is no position")
            .field(RESUME_HEADER)
            .expected("the id of the last event that was read")),
    }
}

/// What a subscription asks for. Without a position it begins with what comes next.
pub(crate) async fn wanted(
    shared: &Shared,
    asked: &Asked,
    resumed: Option<u64>,
    caller: Caller,
) -> Result<Wanted, Problem> {
    if asked.limit.is_some() {
        return Err(
            Problem::new(ErrorCode::InvalidUsage, "a subscription has no limit").field("limit"),
        );
    }
    let which = Which::Passing(asked.filter(shared)?);
    Ok(Wanted {
        texts: asked.texts(&caller),
        caller,
        after: begin(shared, resumed.or(asked.after)).await?,
        which,
    })
}

/// Where a subscription begins: behind what was read, or with what comes next.
pub(crate) async fn begin(shared: &Shared, read: Option<u64>) -> Result<Position, Problem> {
    let head = shared.services.events.head().await?;
    match read {
        Some(after) => known(after, head),
        None => Ok(head),
    }
}

/// The last thing that a subscriber hears.
pub(crate) fn last_words(problem: &Problem, position: Position) -> serde_json::Value {
    let mut words = json!(problem);
    words["position"] = json!(position);
    words
}

fn frame(item: &Item) -> Bytes {
    let mut text = String::new();
    let written = match item {
        Item::Events(chunk) => chunk.events.iter().try_for_each(|event| {
            // JSON on one line holds no line end that would need a prefix of its own
            write!(text, "id: {}\ndata: {}\n\n", event.position, event.json)
        }),
        // an id without data moves the position of a browser and calls nobody
        Item::Beat(position) => write!(text, "id: {position}\n: heartbeat\n\n"),
        Item::End(problem, position) => {
            let words = last_words(problem, *position);
            write!(text, "event: end\ndata: {words}\n\n")
        }
    };
    // writing to a string does not fail
    debug_assert!(written.is_ok());
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feed::Sent;

    #[test]
    fn frames_are_those_of_the_standard() {
        let event = Sent {
            position: Position(7),
            json: "{}".to_owned(),
        };
        assert_eq!(frame(&Item::Events(event.into())), "id: 7\ndata: {}\n\n");
        assert_eq!(frame(&Item::Beat(Position(8))), "id: 8\n: heartbeat\n\n");
        let problem = Problem::new(ErrorCode::TooSlow, "slow");
        let end = frame(&Item::End(Box::new(problem), Position(9)));
        let end = String::from_utf8(end.to_vec()).unwrap();
        assert!(end.starts_with("event: end\ndata: {"), "{end}");
        assert!(end.contains("\"code\":\"too-slow\"") && end.contains("\"position\":9"));
        assert_eq!(end.matches('\n').count(), 3);
    }

    #[test]
    fn a_resume_that_is_no_position_is_refused() {
        let of = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RESUME_HEADER, text.parse().unwrap());
            last_seen(&headers).map_err(|p| p.code)
        };
        assert_eq!(of("7"), Ok(Some(7)));
        assert_eq!(of("-1"), Err(ErrorCode::InvalidRange));
        assert_eq!(of("x"), Err(ErrorCode::InvalidRange));
        assert_eq!(last_seen(&HeaderMap::new()), Ok(None));
    }
}
