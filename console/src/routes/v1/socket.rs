//! `GET /api/v1/events/ws`: the subscription of [`super::stream`] over a WebSocket, one JSON
//! object a message.

use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;
use sovereign_schemas::{ErrorCode, Problem};
use tokio::sync::mpsc;

use super::events::Asked;
use super::stream::{last_words, wanted};
use crate::access::{May, needs};
use crate::feed::{self, Item};
use crate::http::cut::Cut;
use crate::http::problem::HttpProblem;
use crate::http::state::Shared;

/// Clients have nothing to say here.
const MESSAGE_BYTES_MAX: usize = 4 << 10;
/// Bytes that may wait for the socket; the rest waits in the subscription's own queue.
const WRITE_BYTES_MAX: usize = 8 << 20;
/// Status codes of RFC 6455 and its registry.
const GOING_AWAY: u16 = 1001;
const POLICY: u16 = 1008;
const INTERNAL: u16 = 1011;
const TRY_AGAIN_LATER: u16 = 1013;

pub(crate) async fn get(
    may: May<needs::Read>,
    State(shared): State<Shared>,
    Query(asked): Query<Asked>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, HttpProblem> {
    let upgrade = upgrade.map_err(|rejection| {
        let status = rejection.into_response().status();
        let status = if status.is_client_error() {
            status
        } else {
            StatusCode::BAD_REQUEST
        };
        let problem = Problem::new(ErrorCode::InvalidUsage, "the request opens no WebSocket")
            .remedy("open it with a WebSocket client, or use /api/v1/events/stream");
        HttpProblem::new(status, problem)
    })?;
    let wanted = wanted(&shared, &asked, None, may.caller).await?;
    let cut = Cut::default();
    let items = feed::subscribe(&shared, wanted, cut.clone())?;
    Ok(upgrade
        .max_message_size(MESSAGE_BYTES_MAX)
        .max_frame_size(MESSAGE_BYTES_MAX)
        .max_write_buffer_size(WRITE_BYTES_MAX)
        .on_upgrade(move |socket| async move {
            tokio::select! {
                () = serve(socket, items) => {}
                () = cut.made() => {}
            }
        }))
}

async fn serve(mut socket: WebSocket, mut items: mpsc::Receiver<Item>) {
    loop {
        let item = tokio::select! {
            item = items.recv() => item,
            heard = socket.recv() => match heard {
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                // pings are answered by the library, anything else means nothing here
                Some(Ok(_)) => continue,
            },
        };
        let Some(item) = item else { return };
        for message in messages(item) {
            if socket.send(message).await.is_err() {
                return;
            }
        }
    }
}

fn messages(item: Item) -> Vec<Message> {
    match item {
        Item::Events(chunk) => chunk
            .events
            .into_iter()
            .map(|event| Message::text(format!("{{\"type\":\"event\",\"event\":{}}}", event.json)))
            .collect(),
        Item::Beat(position) => {
            let beat = json!({ "type": "heartbeat", "position": position });
            vec![Message::text(beat.to_string())]
        }
        Item::End(problem, position) => {
            let mut words = last_words(&problem, position);
            words["type"] = json!("end");
            let code = match problem.code {
                ErrorCode::EngineNotRunning => GOING_AWAY,
                ErrorCode::TooSlow | ErrorCode::DatabaseUnreachable => TRY_AGAIN_LATER,
                ErrorCode::Unauthorized => POLICY,
                _ => INTERNAL,
            };
            let close = CloseFrame {
                code,
                reason: problem.code.as_str().into(),
            };
            vec![
                Message::text(words.to_string()),
                Message::Close(Some(close)),
            ]
        }
    }
}
