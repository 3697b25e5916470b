//! What the API offers besides commands, health and the registry.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use serde::Deserialize;
use serde_json::{Value, json};
use sovereign_agents::CheckpointStore;
use sovereign_console::{DigestSource, ShutdownTrigger, TaskStarter, ViewAdmin};
use sovereign_event_store::{Checkpoints, LedgerReader};
use sovereign_kafka::LedgerProbe;
use sovereign_replay::digest_of_states;
use sovereign_schemas::chain::Head;
use sovereign_schemas::{Digest, ErrorCode, EventLog as _, LogError, Position, Problem};

use super::parts::Parts;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TaskRequest {
    file: PathBuf,
}

#[async_trait]
impl TaskStarter for Parts {
    async fn start(&self, request: Value) -> Result<Value, Problem> {
        let request: TaskRequest = serde_json::from_value(request).map_err(|e| {
            Problem::new(ErrorCode::WrongType, e.to_string()).expected("{\"file\":…}")
        })?;
        let Some(agents) = self.agents.get() else {
            return Err(
                Problem::new(ErrorCode::Busy, "agents have not started yet").retry_after_ms(500)
            );
        };
        let file = self.market.keep(request.file).await?;
        let digest = file.digest();
        let bars = file.bars();
        let outcome = agents.start_task(Arc::clone(&file)).await?;
        Ok(json!({ "outcome": outcome, "input_digest": digest, "bars": bars }))
    }
}

#[async_trait]
impl DigestSource for Parts {
    async fn digest(&self) -> Result<Value, Problem> {
        let (head, states) = self.ledger.live_states().await.map_err(|e| e.problem())?;
        let count = states.len();
        let digests = digest_of_states(states);
        Ok(
            json!({ "position": head.position, "head_hash": head.hash, "aggregates": count,
            "digests": digests }),
        )
    }
}

#[async_trait]
impl ViewAdmin for Parts {
    async fn rebuild(&self, view: &str) -> Result<Value, Problem> {
        self.views.rebuild(view).await.map_err(|e| e.problem())?;
        Ok(json!({ "view": view, "rebuilding": true }))
    }
}

impl ShutdownTrigger for Parts {
    fn request(&self) {
        self.stop.send_replace(true);
    }
}

/// The ledger, as far as the relay asks it.
pub(super) struct Probe(pub(super) LedgerReader);

#[async_trait]
impl LedgerProbe for Probe {
    async fn head(&self) -> Result<Head, LogError> {
        Ok(self.0.head().await?)
    }

    async fn hash_at(&self, position: Position) -> Result<Option<Digest>, LogError> {
        if position == Position::START {
            return Ok(Some(Digest::ZERO));
        }
        let (events, _) = self
            .0
            .log()
            .read(Position(position.0 - 1).into(), 1)
            .await?;
        Ok(events
            .first()
            .filter(|e| e.position() == position)
            .map(|e| e.hash))
    }
}

/// Checkpoints of the agents, in the ledger's database.
pub(super) struct AgentCheckpoints(pub(super) Checkpoints);

#[async_trait]
impl CheckpointStore for AgentCheckpoints {
    async fn load(&self, name: &str) -> Result<Position, Problem> {
        self.0.load(name).await.map_err(|e| e.problem())
    }

    async fn save(&self, positions: &[(String, Position)]) -> Result<(), Problem> {
        self.0.save(positions).await.map_err(|e| e.problem())
    }
}
