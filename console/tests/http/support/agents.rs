use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use sovereign_console::{AgentSource, CommandGate as _, EventFilter, EventSource as _};
use sovereign_schemas::{Identifier, Outcome, Position, Problem, RecordedEvent};

use crate::support::{Gate, Journal};

/// Agents whose commands are allowed, and of interest to whom is what bears their id.
pub(crate) struct FixedAgents {
    gate: Arc<Gate>,
    pub(crate) journal: Journal,
    /// In whose name commands came in.
    pub(crate) acted: Mutex<Vec<String>>,
}

impl FixedAgents {
    pub(crate) fn over(gate: &Arc<Gate>, journal: &Journal) -> Arc<Self> {
        Arc::new(Self {
            gate: gate.clone(),
            journal: journal.clone(),
            acted: Mutex::default(),
        })
    }
}

#[async_trait]
impl AgentSource for FixedAgents {
    async fn submit(&self, agent: &Identifier, line: Bytes) -> Outcome {
        self.acted.lock().unwrap().push(agent.to_string());
        self.gate.submit(line).await
    }

    async fn decisions(
        &self,
        agent: &Identifier,
        after: Position,
        limit: usize,
    ) -> Result<(Vec<RecordedEvent>, Position), Problem> {
        let own = EventFilter {
            aggregate_id: Some(agent.to_string()),
            ..EventFilter::default()
        };
        self.journal.page(after, limit, &own).await
    }

    async fn of_interest(
        &self,
        agent: &Identifier,
        mut events: Vec<Arc<RecordedEvent>>,
    ) -> Result<Vec<Arc<RecordedEvent>>, Problem> {
        events.retain(|event| event.header.aggregate_id == agent.as_str());
        Ok(events)
    }
}
