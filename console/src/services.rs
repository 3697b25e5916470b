//! What the console needs of the other rooms. `cli` wires it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::Value;
use sovereign_schemas::{Outcome, Position, Problem, Timestamp};

use crate::{MetricsHandle, SchemaStore};

/// How the engine is, as a whole and by part.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Health {
    /// Whether all parts are.
    pub healthy: bool,
    /// The last position of the ledger that is durable; 0 before the first event.
    pub head: Position,
    /// `ledger`, `relay`, `views`, `servers`.
    pub parts: BTreeMap<String, PartHealth>,
}

impl Health {
    /// Healthy if all parts are.
    #[must_use]
    pub fn of(head: Position, parts: BTreeMap<String, PartHealth>) -> Self {
        let healthy = parts.values().all(|p| p.healthy);
        Self {
            healthy,
            head,
            parts,
        }
    }
}

/// How one part is.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct PartHealth {
    /// Whether it does its work.
    pub healthy: bool,
    /// Since when it is as it is, if known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Events between it and the head, for parts that follow the ledger.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag: Option<u64>,
    /// What else there is to say; no payload and no secret.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub detail: Value,
    /// What is wrong, unless it is healthy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}

impl PartHealth {
    /// A part that works.
    #[must_use]
    pub fn healthy(detail: Value) -> Self {
        Self {
            healthy: true,
            since: None,
            lag: None,
            detail,
            problem: None,
        }
    }

    /// A part that does not.
    #[must_use]
    pub fn failed(problem: Problem) -> Self {
        Self {
            healthy: false,
            since: None,
            lag: None,
            detail: Value::Null,
            problem: Some(problem),
        }
    }
}

/// Knows how the parts are. Asked at every `/health` and `/metrics`: keep it cheap.
#[async_trait]
pub trait HealthSource: Send + Sync {
    /// How the engine is now.
    async fn health(&self) -> Health;
}

/// The one way in for command lines: parses, admits and dispatches.
#[async_trait]
pub trait CommandGate: Send + Sync {
    /// Takes one line, valid UTF-8 and not blank, without its end. Never panics on input; a line
    /// that cannot be understood is an outcome with a problem. The console adds the line's number.
    ///
    /// Lines of one stream are first polled in input order: a gate keeps the order of commands on
    /// one aggregate if it takes its place in a first-in-first-out queue before it awaits anything
    /// else. Once polled, it is polled to its end, also when the client has gone.
    async fn submit(&self, line: Bytes) -> Outcome;
}

/// What `sovereign status` prints.
#[async_trait]
pub trait StatusSource: Send + Sync {
    /// One JSON object.
    ///
    /// # Errors
    /// A problem, if the parts cannot be asked.
    async fn status(&self) -> Result<Value, Problem>;
}

/// Starts work that goes on after the answer, such as the main job.
#[async_trait]
pub trait TaskStarter: Send + Sync {
    /// Starts what `request`, a JSON object as the client sent it, asks for, and says what.
    ///
    /// # Errors
    /// A problem, if nothing was started.
    async fn start(&self, request: Value) -> Result<Value, Problem>;
}

/// Digests of the live state.
#[async_trait]
pub trait DigestSource: Send + Sync {
    /// One JSON object: position and digests, all at that position.
    ///
    /// # Errors
    /// A problem, if the state cannot be read.
    async fn digest(&self) -> Result<Value, Problem>;
}

/// Commands on views.
#[async_trait]
pub trait ViewAdmin: Send + Sync {
    /// Starts the rebuild of a view from zero.
    ///
    /// # Errors
    /// `not-found` if there is no such view.
    async fn rebuild(&self, view: &str) -> Result<Value, Problem>;
}

/// Stops the engine.
pub trait ShutdownTrigger: Send + Sync {
    /// Asks for it and returns at once; asking twice is harmless. The console goes on until the
    /// future given to [`crate::Console::run`] is done.
    fn request(&self);
}

/// All that the console calls.
#[derive(Clone)]
pub struct Services {
    /// `/health` and the gauges of `/metrics`.
    pub health: Arc<dyn HealthSource>,
    /// `/metrics`.
    pub metrics: MetricsHandle,
    /// `/api/commands`.
    pub commands: Arc<dyn CommandGate>,
    /// `/api/status`.
    pub status: Arc<dyn StatusSource>,
    /// `/api/tasks`.
    pub tasks: Arc<dyn TaskStarter>,
    /// `/api/digest`.
    pub digest: Arc<dyn DigestSource>,
    /// `/api/views`.
    pub views: Arc<dyn ViewAdmin>,
    /// `/api/shutdown`.
    pub shutdown: Arc<dyn ShutdownTrigger>,
    /// The schema registry.
    pub schemas: Arc<dyn SchemaStore>,
}

impl fmt::Debug for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Services").finish_non_exhaustive()
    }
}
