use axum::http::StatusCode;

use super::acting;
use super::endpoint::Verb::{Delete, Get, Post};
use super::endpoint::{Endpoint, Kind, Parameter, Place, guarded, open};
use crate::routes::{
    commands, digest, health, metrics, openapi, shutdown, status, tasks, v1, views,
};

pub(super) const JSON: &str = "application/json";
pub(super) const NDJSON: &str = "application/x-ndjson";

pub(super) const fn path(name: &'static str, about: &'static str) -> Parameter {
    Parameter {
        place: Place::Path,
        name,
        kind: Kind::Text,
        about,
    }
}

pub(super) const fn query(name: &'static str, kind: Kind, about: &'static str) -> Parameter {
    Parameter {
        place: Place::Query,
        name,
        kind,
        about,
    }
}

pub(super) const IDEMPOTENCY_KEY: Parameter = Parameter {
    place: Place::Header,
    name: "Idempotency-Key",
    kind: Kind::Form("^[!-~]([ -~]{0,198}[!-~])?$"),
    about: "Takes effect once for each actor: a repeat gets the first outcome. 1 to 200 visible \
            ASCII characters.",
};
pub(super) const LAST_EVENT_ID: Parameter = Parameter {
    place: Place::Header,
    name: "Last-Event-ID",
    kind: Kind::Number(0, POSITION_MAX),
    about: "The position that was read last; goes before `after`.",
};
const DEPARTMENT: Parameter = query(
    "department",
    Kind::Text,
    "Only events of this department, by name or number.",
);
const AGGREGATE: Parameter = query(
    "aggregate",
    Kind::Text,
    "Only events of this aggregate, as TYPE/ID, or of all of this TYPE.",
);
const SEALED: Parameter = query(
    "sealed",
    Kind::Flag,
    "Leave texts sealed, also for a role that may read them.",
);
pub(super) const AFTER: Parameter = query(
    "after",
    Kind::Number(0, POSITION_MAX),
    "Events behind this position.",
);
const ROWS_AFTER: Parameter = query(
    "after",
    Kind::Form("^[^\\u0000]{0,128}$"),
    "`next` of the page before.",
);
const ROWS_LIMIT: Parameter = query(
    "limit",
    Kind::Number(1, v1::agents::LIMIT_MAX as u64),
    "Rows of one page; 100 if not given.",
);
/// Positions are signed 64-bit numbers in the database.
pub(super) const POSITION_MAX: u64 = i64::MAX as u64;

/// All routes but those of the schema registry, which has a document of its own: Confluent's.
pub(crate) fn table() -> Vec<Endpoint> {
    let mut all = operations();
    all.extend(acting::routes());
    all.extend(events());
    all.extend(approvals());
    all.extend(passkeys());
    all.extend(jobs());
    all.extend(queues());
    all.extend(access());
    all.extend(engine());
    all
}

fn operations() -> Vec<Endpoint> {
    vec![
        open(Get, "/health", "health", health::get)
            .about("How the engine is, by part.")
            .json("Health")
            .answers(
                StatusCode::SERVICE_UNAVAILABLE,
                "A part does not do its work.",
                JSON,
                "Health",
            ),
        open(Get, "/metrics", "metrics", metrics::get)
            .about("All metrics, for Prometheus.")
            .answers(StatusCode::OK, "As asked.", "text/plain", "Text"),
        open(Get, "/api/openapi.json", "openapi", openapi::get)
            .about("This document.")
            .json("Any"),
        guarded(Get, "/api/v1/status", "status", status::get)
            .about("What `sovereign status --json` prints.")
            .json("Any"),
        guarded(Post, "/api/v1/commands", "sendCommands", v1::commands::post)
            .about(
                "One command as JSON, or many as NDJSON. One that takes effect, now or earlier, is \
                 answered with 200; NDJSON with one outcome for each line, whatever it is.",
            )
            .parameters(&[IDEMPOTENCY_KEY])
            .body(JSON, "Command")
            .body(NDJSON, "Text")
            .json("Outcome")
            .answers(StatusCode::OK, "As asked.", NDJSON, "Text")
            .streams(),
        guarded(Get, "/api/v1/agents", "listAgents", v1::agents::list)
            .about("Agents with the state of their machines, by id.")
            .parameters(&[ROWS_AFTER, ROWS_LIMIT])
            .json("Rows"),
    ]
}

fn events() -> Vec<Endpoint> {
    let filters = [AFTER, DEPARTMENT, AGGREGATE, SEALED];
    vec![
        guarded(Get, "/api/v1/events", "listEvents", v1::events::get)
            .about(
                "A page of the ledger. Go on with `after` set to `next`; the end is reached when \
                 `next` is `head`. A page may be empty before the end.",
            )
            .parameters(&filters)
            .parameters(&[query(
                "limit",
                Kind::Number(1, v1::events::LIMIT_MAX as u64),
                "Events of one page; 100 if not given. A page ends early at 4 MiB.",
            )])
            .json("EventsPage"),
        guarded(
            Get,
            "/api/v1/events/stream",
            "streamEvents",
            v1::stream::get,
        )
        .about(
            "Events as they become durable, as server-sent events: `id` is the position, \
                 `data` the event. Begins with what comes next, if no position is given. The last \
                 thing on a stream that the engine ends is an event `end` that says why.",
        )
        .parameters(&filters)
        .parameters(&[LAST_EVENT_ID])
        .answers(StatusCode::OK, "As asked.", "text/event-stream", "Text")
        .streams(),
        guarded(Get, "/api/v1/events/ws", "openEvents", v1::socket::get)
            .about(
                "The same as `/api/v1/events/stream` over a WebSocket: messages with `type` \
                 `event`, `heartbeat` or `end`.",
            )
            .parameters(&filters)
            .answers_nothing(StatusCode::SWITCHING_PROTOCOLS, "A WebSocket.")
            .streams(),
    ]
}

fn approvals() -> Vec<Endpoint> {
    let id = path("id", "The approval's id.");
    vec![
        guarded(
            Get,
            "/api/v1/approvals",
            "listApprovals",
            v1::approvals::list,
        )
        .about("Requests that wait for a human, by id.")
        .parameters(&[
            ROWS_AFTER,
            ROWS_LIMIT,
            query("all", Kind::Flag, "Also those that ended."),
        ])
        .json("Rows"),
        guarded(
            Get,
            "/api/v1/approvals/{id}",
            "showApproval",
            v1::approvals::show,
        )
        .about("One request.")
        .parameters(&[id])
        .json("Any"),
        guarded(
            Post,
            "/api/v1/approvals/{id}/deny",
            "denyApproval",
            v1::approvals::deny,
        )
        .about("Says no.")
        .parameters(&[id, IDEMPOTENCY_KEY])
        .body(JSON, "Denial")
        .json("Outcome")
        .streams(),
        guarded(
            Get,
            "/api/v1/approvals/{id}/details",
            "detailApproval",
            v1::giving::details,
        )
        .about(
            "One request with the exact action behind its digest, the rule that asked, and how what \
             waits stands now. Texts are opened for a role that may read them.",
        )
        .parameters(&[id, SEALED])
        .json("Any"),
        guarded(
            Get,
            "/api/v1/approvals/{id}/options",
            "signApproval",
            v1::giving::options,
        )
        .about(
            "What the caller's passkey has to sign to say yes, as options for \
             `navigator.credentials.get`. The challenge commits to the request and its action.",
        )
        .parameters(&[id])
        .json("Any"),
        guarded(
            Post,
            "/api/v1/approvals/{id}/give",
            "giveApproval",
            v1::giving::give,
        )
        .about("Says yes, with the signature of the caller's passkey.")
        .parameters(&[id, IDEMPOTENCY_KEY])
        .body(JSON, "Giving")
        .json("Outcome")
        .streams(),
    ]
}

fn passkeys() -> Vec<Endpoint> {
    let name = path(
        "name",
        "The approver's name, which is the actor of his tokens.",
    );
    vec![
        guarded(
            Post,
            "/api/v1/approvers/{name}/invitation",
            "inviteApprover",
            v1::invitations::create,
        )
        .about(
            "Makes a link for one passkey of this person, which ends after a day and with its first \
             use. It is shown this once; one made before is withdrawn.",
        )
        .parameters(&[name])
        .answers(StatusCode::CREATED, "An invitation.", JSON, "Invitation"),
        guarded(
            Post,
            "/api/v1/enrolment/options",
            "beginEnrolment",
            v1::enrolment::options,
        )
        .about("Options for `navigator.credentials.create`, for the bearer of an invitation.")
        .json("Any"),
        guarded(
            Post,
            "/api/v1/enrolment",
            "finishEnrolment",
            v1::enrolment::finish,
        )
        .about("Enrols the passkey that was made, and uses the invitation up.")
        .body(JSON, "NewPasskey")
        .json("Outcome")
        .streams(),
        guarded(
            Get,
            "/api/v1/approvers/{name}/passkeys",
            "listPasskeys",
            v1::passkeys::list,
        )
        .about("Passkeys of a person, revoked ones included.")
        .parameters(&[name])
        .json("Any"),
        guarded(
            Post,
            "/api/v1/approvers/{name}/passkeys/{id}/revoke",
            "revokePasskey",
            v1::passkeys::revoke,
        )
        .about("Ends a passkey: one's own, or anybody's for an admin.")
        .parameters(&[name, path("id", "The credential's id."), IDEMPOTENCY_KEY])
        .body(JSON, "Revocation")
        .json("Outcome")
        .streams(),
    ]
}

fn jobs() -> Vec<Endpoint> {
    let id = path("id", "The job's id.");
    vec![
        guarded(Post, "/api/v1/jobs", "submitJob", v1::jobs::submit)
            .about(
                "A job for a worker process. `Location` is where to look for it. docs/JOBS.md has \
                 all fields.",
            )
            .body(JSON, "NewJob")
            .answers(StatusCode::ACCEPTED, "It waits.", JSON, "Any"),
        guarded(Get, "/api/v1/jobs", "listJobs", v1::jobs::list)
            .about("Jobs that have not ended, by the position of their submission.")
            .parameters(&[
                query(
                    "after",
                    Kind::Number(0, POSITION_MAX),
                    "`next` of the page before.",
                ),
                ROWS_LIMIT,
                query("all", Kind::Flag, "Also those that ended."),
            ])
            .json("Any"),
        guarded(Get, "/api/v1/jobs/{id}", "showJob", v1::jobs::show)
            .about("One job with what became of each effect.")
            .parameters(&[id])
            .json("Any"),
        guarded(Post, "/api/v1/jobs/{id}/abort", "abortJob", v1::jobs::abort)
            .about("Gives a job up: at once, or before its next effect.")
            .parameters(&[id])
            .body(JSON, "Any")
            .json("Any"),
        guarded(
            Post,
            "/api/v1/jobs/{id}/force-start",
            "forceStartJob",
            v1::jobs::force_start,
        )
        .about("Starts a job now that waits for others, or for its time.")
        .parameters(&[id])
        .body(JSON, "Any")
        .json("Any"),
        guarded(
            Post,
            "/api/v1/jobs/{id}/resolve",
            "resolveEffect",
            v1::jobs::resolve,
        )
        .about("Says whether an effect in doubt happened.")
        .parameters(&[id])
        .body(JSON, "Any")
        .json("Any"),
    ]
}

fn queues() -> Vec<Endpoint> {
    let queue = Parameter {
        kind: Kind::Form("^(high|default|low)$"),
        ..path("queue", "The queue.")
    };
    vec![
        guarded(Get, "/api/v1/queues", "listQueues", v1::jobs::queues)
            .about("The queues with what is in them.")
            .json("Any"),
        guarded(
            Get,
            "/api/v1/schedules",
            "listSchedules",
            v1::jobs::schedules,
        )
        .about("The schedules of jobs, with when each is due next and its last job.")
        .json("Any"),
        guarded(
            Post,
            "/api/v1/queues/{queue}/pause",
            "pauseQueue",
            v1::jobs::pause,
        )
        .about("Nothing of the queue is begun any more; what a worker has goes on.")
        .parameters(&[queue])
        .json("Any"),
        guarded(
            Post,
            "/api/v1/queues/{queue}/resume",
            "resumeQueue",
            v1::jobs::resume,
        )
        .about("The queue goes on.")
        .parameters(&[queue])
        .json("Any"),
    ]
}

fn access() -> Vec<Endpoint> {
    vec![
        guarded(Post, "/api/v1/session", "openSession", v1::session::open)
            .about("Opens a session for a browser: a cookie that stands for the token.")
            .answers(StatusCode::CREATED, "A session.", JSON, "SessionView"),
        guarded(Get, "/api/v1/session", "showSession", v1::session::show)
            .about("Who is logged in, and what its pages show with writing requests.")
            .json("SessionView"),
        guarded(
            Delete,
            "/api/v1/session",
            "closeSession",
            v1::session::close,
        )
        .about("Ends the session, if there is one.")
        .answers_nothing(StatusCode::NO_CONTENT, "It has ended."),
        guarded(Get, "/api/v1/tokens", "listTokens", v1::tokens::list)
            .about("Tokens, without their secrets.")
            .json("TokenList"),
        guarded(Post, "/api/v1/tokens", "createToken", v1::tokens::create)
            .about("Makes a token. Its secret is shown this once.")
            .body(JSON, "NewToken")
            .answers(StatusCode::CREATED, "A token.", JSON, "IssuedToken"),
        guarded(
            Delete,
            "/api/v1/tokens/{name}",
            "revokeToken",
            v1::tokens::revoke,
        )
        .about("Ends a token at once, with its sessions.")
        .parameters(&[path("name", "The token's name.")])
        .json("TokenView"),
    ]
}

/// For the command line of the same build.
fn engine() -> Vec<Endpoint> {
    vec![
        guarded(Get, "/api/status", "engineStatus", status::get)
            .about("As `/api/v1/status`.")
            .json("Any"),
        guarded(Post, "/api/commands", "engineCommands", commands::post)
            .about("NDJSON in, one outcome line for each command out, both streaming.")
            .body(NDJSON, "Text")
            .answers(StatusCode::OK, "As asked.", NDJSON, "Text")
            .streams(),
        guarded(Post, "/api/tasks", "startTask", tasks::post)
            .about("The built-in agents work through a market file on the engine's machine.")
            .body(JSON, "Task")
            .answers(StatusCode::ACCEPTED, "It works.", JSON, "Any"),
        guarded(Get, "/api/digest", "digest", digest::get)
            .about("Digests of the live states at one position.")
            .json("Any"),
        guarded(
            Post,
            "/api/views/{name}/rebuild",
            "rebuildView",
            views::rebuild,
        )
        .about("Folds a view again from position 1, beside its rows.")
        .parameters(&[Parameter {
            kind: Kind::Form("^(agents|trades|approvals|departments)$"),
            ..path("name", "The view.")
        }])
        .answers(StatusCode::ACCEPTED, "It is being built.", JSON, "Any"),
        guarded(Post, "/api/shutdown", "shutdown", shutdown::post)
            .about("Stops the engine.")
            .answers(StatusCode::ACCEPTED, "It stops.", JSON, "Any"),
    ]
}
