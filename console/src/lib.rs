//! HTTP: health, metrics, commands, the schema registry API.
//!
//! The console knows no ledger, broker or view: [`Services`] holds what it calls, as traits that
//! the binary wires. Every failure is `application/problem+json` with a stable code, except under
//! the schema registry's paths, where it has Confluent's form.
//!
//! | route | needs the token | |
//! |---|---|---|
//! | `GET /health` | no | 200 or 503, by part |
//! | `GET /metrics` | no | Prometheus text |
//! | `POST /api/commands` | yes | NDJSON in, one outcome line per line out, both streaming |
//! | `GET /api/status` | yes | what `sovereign status` prints |
//! | `POST /api/tasks` | yes | starts the main job |
//! | `GET /api/digest` | yes | digests of the live state |
//! | `POST /api/views/{name}/rebuild` | yes | builds a view again from zero, beside its rows |
//! | `POST /api/shutdown` | yes | stops the engine |
//! | `/subjects`, `/schemas`, `/compatibility`, `/config`, `/mode` | see below | Confluent Schema Registry |
//!
//! On a loopback address the registry is open, for reading and for writing: stock serializers
//! register their schemas themselves. [`ConsoleOptions::registry_writes_need_token`] closes
//! writing. On any other address all of it needs the token.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod error;
mod http;
mod in_process;
mod metrics;
mod options;
mod registry;
mod router;
mod routes;
mod services;
mod token;

pub use error::ConsoleError;
pub use http::server::Console;
pub use in_process::{InProcess, InProcessAnswer};
pub use metrics::{MetricsHandle, metrics_recorder};
pub use options::ConsoleOptions;
pub use registry::store::{Mode, SchemaStore, SchemaStoreError, SchemaVersion};
pub use services::{
    CommandGate, DigestSource, Health, HealthSource, PartHealth, Services, ShutdownTrigger,
    StatusSource, TaskStarter, ViewAdmin,
};
pub use token::{TOKEN_BYTES_MIN, Token};

use router::router;
