//! HTTP: health, metrics, commands, approvals with their pages, the schema registry API.
//!
//! The console knows no ledger, broker or view: [`Services`] holds what it calls, as traits that
//! the binary wires. Every failure is `application/problem+json` with a stable code, except under
//! the schema registry's paths, where it has Confluent's form.
//!
//! The module `api` has the table of all routes: which right each needs, what it takes and what it gives. The
//! router and the OpenAPI document (`GET /api/openapi.json`) are made from it. Not in it: the schema
//! registry's `/subjects`, `/schemas`, `/compatibility`, `/config` and `/mode`.
//!
//! On a loopback address the registry is open, for reading and for writing: stock serializers
//! register their schemas themselves. [`ConsoleOptions::registry_writes_need_token`] closes
//! writing. On any other address all of it needs the token.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod access;
mod api;
mod error;
mod feed;
mod http;
mod in_process;
mod metrics;
mod options;
mod pages;
mod registry;
mod router;
mod routes;
mod services;
mod token;

pub use access::{Role, TokenBook, TokenRecord, TokenStore};
pub use error::ConsoleError;
pub use http::server::Console;
pub use in_process::{InProcess, InProcessAnswer};
pub use metrics::{MetricsHandle, metrics_recorder};
pub use options::ConsoleOptions;
pub use registry::store::{Mode, SchemaStore, SchemaStoreError, SchemaVersion};
pub use services::{
    AgentSource, ApprovalSource, ApprovalTerms, CommandGate, DigestSource, EventFilter,
    EventSource, Health, HealthSource, JobService, PartHealth, PasskeyRow, RowSource, Rows,
    Services, ShutdownTrigger, StatusSource, TaskStarter, Texts, ViewAdmin,
};
pub use token::{TOKEN_BYTES_MIN, Token};

use router::router;
