use axum::http::StatusCode;

use super::endpoint::Verb::{Get, Post};
use super::endpoint::{Endpoint, Kind, guarded};
use super::table::{AFTER, IDEMPOTENCY_KEY, JSON, LAST_EVENT_ID, path, query};
use crate::routes::v1::{acting, events};

/// What an agent does, and what it is told: for tokens of the role `agent` only.
pub(super) fn routes() -> Vec<Endpoint> {
    let id = path("id", "The agent's id, one that the token names.");
    let commands = [
        guarded(Post, "/api/v1/agents/{id}/thoughts", "think", acting::think)
            .about("Records a thought of the agent.")
            .body(JSON, "Thought")
            .json("Outcome"),
        guarded(
            Post,
            "/api/v1/agents/{id}/transitions",
            "move",
            acting::transition,
        )
        .about("Moves the agent along its state machine. A move that is refused is recorded.")
        .body(JSON, "Move")
        .json("Outcome"),
        guarded(
            Post,
            "/api/v1/agents/{id}/observations",
            "observe",
            acting::observe,
        )
        .about("Records one bar of a market, as the agent saw it.")
        .body(JSON, "Bar")
        .json("Outcome"),
        guarded(
            Post,
            "/api/v1/agents/{id}/tasks",
            "beginWork",
            acting::start_task,
        )
        .about("The agent takes on work with a known input.")
        .body(JSON, "Work")
        .json("Outcome"),
        guarded(
            Post,
            "/api/v1/agents/{id}/tasks/{task}/finish",
            "finishWork",
            acting::finish_task,
        )
        .about("The agent is done with its work.")
        .parameters(&[path("task", "The name of the work.")])
        .json("Outcome"),
        guarded(
            Post,
            "/api/v1/agents/{id}/intents",
            "propose",
            acting::propose,
        )
        .about("States what the agent wants to buy or sell.")
        .body(JSON, "Intent")
        .json("Proposed"),
        guarded(
            Post,
            "/api/v1/agents/{id}/intents/{trade}/cancel",
            "cancelIntent",
            acting::cancel,
        )
        .about("Gives up an intent that the agent proposed.")
        .parameters(&[path("trade", "The intent's id.")])
        .body(JSON, "Cancellation")
        .json("Outcome"),
    ];
    let told = [
        guarded(
            Get,
            "/api/v1/agents/{id}/decisions",
            "listDecisions",
            acting::decisions,
        )
        .about(
            "What became of what the agent asked for: the events of its intents, the answers of \
             people to them, its moves, its clearances. Pages as `/api/v1/events` has them.",
        )
        .parameters(&[query(
            "limit",
            Kind::Number(1, events::LIMIT_MAX as u64),
            "Events of one page; 100 if not given.",
        )])
        .json("EventsPage"),
        guarded(
            Get,
            "/api/v1/agents/{id}/decisions/stream",
            "streamDecisions",
            acting::follow,
        )
        .about("The same as they become durable, as `/api/v1/events/stream` sends them.")
        .parameters(&[LAST_EVENT_ID])
        .answers(StatusCode::OK, "As asked.", "text/event-stream", "Text")
        .streams(),
    ];
    let commands = commands.map(|it| it.parameters(&[id, IDEMPOTENCY_KEY]));
    let told = told.map(|it| it.parameters(&[id, AFTER]));
    commands.into_iter().chain(told).collect()
}
