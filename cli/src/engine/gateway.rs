//! Guard and ledger behind one door, for the API, for the agents and for records (`records.rs`).

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::{Map, Value};
use sovereign_agents::{Gateway, RawRequest};
use sovereign_aggregates::CommandPort as _;
use sovereign_console::CommandGate;
use sovereign_event_store::{Gate, Ledger, RawCommand};
use sovereign_schemas::{Outcome, Problem, Status};
use tokio::sync::Mutex;

/// Commands to aggregates that share a stripe are admitted one after the other.
const STRIPES: usize = 64;

/// Admits commands and hands them to the ledger in the order in which they came.
pub(crate) struct Door {
    pub(super) gate: Gate,
    pub(super) ledger: Ledger,
    stripes: Vec<Mutex<()>>,
    hasher: RandomState,
}

impl Door {
    pub(crate) fn new(gate: Gate, ledger: Ledger) -> Arc<Self> {
        let stripes = (0..STRIPES).map(|_| Mutex::new(())).collect();
        Arc::new(Self {
            gate,
            ledger,
            stripes,
            hasher: RandomState::new(),
        })
    }

    /// Sealing may wait for the key database. So that commands to one aggregate keep their order
    /// nevertheless, a place in its stripe is taken first (tokio's mutex is fair) and held until
    /// the ledger's queue has the command.
    pub(super) async fn run(&self, raw: RawCommand) -> Outcome {
        let stripe = self.hasher.hash_one(&raw.aggregate_id) as usize % STRIPES;
        let place = self.stripes[stripe].lock().await;
        let request = match self.gate.admit(raw).await {
            Ok(request) => request,
            Err(problem) => return refused(problem),
        };
        let mut sent = Box::pin(self.ledger.send(request));
        // the first poll puts it into the queue
        if let std::task::Poll::Ready(outcome) = futures::poll!(&mut sent) {
            return outcome;
        }
        drop(place);
        sent.await
    }
}

fn refused(problem: Problem) -> Outcome {
    let policy = problem.code.exit_code() == 4;
    Outcome::failed(
        if policy {
            Status::Refused
        } else {
            Status::Invalid
        },
        problem,
    )
}

#[async_trait]
impl CommandGate for Door {
    async fn submit(&self, line: Bytes) -> Outcome {
        self.run_parsed(self.gate.parse(&line)).await
    }

    async fn submit_object(&self, object: Map<String, Value>) -> Outcome {
        self.run_parsed(self.gate.parse_object(object)).await
    }
}

impl Door {
    async fn run_parsed(
        &self,
        (id, parsed): (Option<String>, Result<RawCommand, Problem>),
    ) -> Outcome {
        let mut outcome = match parsed {
            Ok(raw) => self.run(raw).await,
            Err(problem) => Outcome::failed(Status::Invalid, problem),
        };
        if id.is_some() {
            outcome.command_id = id;
        }
        outcome
    }
}

#[async_trait]
impl Gateway for Door {
    async fn submit(&self, request: RawRequest) -> Outcome {
        let RawRequest {
            aggregate_id,
            command,
            context,
        } = request;
        let raw = RawCommand {
            aggregate_id,
            command,
            context,
            expected_sequence: None,
            subject: None,
            source: None,
        };
        self.run(raw).await
    }
}
