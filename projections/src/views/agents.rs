use sovereign_schemas::events::{AgentEvent, AgentRegistered, AgentState};
use sovereign_schemas::{
    AggregateType, DepartmentId, EventHeader, Position, RecordedEvent, Text, Timestamp,
};

use crate::table::{Stored, storable};
use crate::view::add;
use crate::{FoldError, View, table};

/// One row an agent: where its state machine stands, and what it has done.
#[derive(Debug)]
pub struct Agents;

table! {
    /// An agent.
    AgentRow = "agents" version 1 key agent_id: String;
    /// Its id.
    agent_id: String,
    /// The department on whose topic it registered.
    department: DepartmentId,
    /// What it does.
    role: String,
    /// Where its state machine stands.
    state: AgentState,
    /// Thoughts recorded.
    thoughts: i64,
    /// Market observations made.
    observations: i64,
    /// Transitions made.
    transitions: i64,
    /// Transitions refused.
    transitions_refused: i64,
    /// The newest thought as it stands in its event: sealed, unless its department does not seal.
    last_thought: Option<Text>,
    /// Current task, or the last one if none is running.
    task: Option<String>,
    /// Whether the task is running.
    task_running: bool,
    /// Items of the task that are done: observations made since it started, all when finished.
    task_items_done: i64,
    /// Items of the task's input.
    task_items_total: i64,
    /// The trade it was cleared for last.
    cleared_trade_id: Option<String>,
    /// Position of its registration.
    first_position: Position,
    /// Position of its newest event.
    last_position: Position,
    /// When the ledger took its newest event.
    updated_at: Timestamp,
}

impl AgentRow {
    fn registered(event: AgentRegistered, header: &EventHeader) -> Self {
        Self {
            agent_id: header.aggregate_id.clone(),
            department: header.department,
            role: event.role,
            state: AgentState::Idle,
            thoughts: 0,
            observations: 0,
            transitions: 0,
            transitions_refused: 0,
            last_thought: None,
            task: None,
            task_running: false,
            task_items_done: 0,
            task_items_total: 0,
            cleared_trade_id: None,
            first_position: header.position,
            last_position: header.position,
            updated_at: storable(header.recorded_at),
        }
    }

    /// Each arm computes what can fail before it changes anything.
    fn take(&mut self, event: AgentEvent) -> Result<(), FoldError> {
        match event {
            AgentEvent::AgentRegistered(_) => {
                return Err(FoldError::RowExists {
                    key: self.agent_id.clone(),
                });
            }
            AgentEvent::ThoughtRecorded(e) => {
                self.thoughts = add(self.thoughts, 1, "thoughts")?;
                self.last_thought = Some(e.text);
            }
            AgentEvent::StateTransitioned(e) => {
                self.transitions = add(self.transitions, 1, "transitions")?;
                self.state = e.to;
            }
            AgentEvent::TransitionRefused(_) => {
                let refused = add(self.transitions_refused, 1, "transitions_refused")?;
                self.transitions_refused = refused;
            }
            AgentEvent::MarketObserved(_) => {
                let observations = add(self.observations, 1, "observations")?;
                if self.task_running {
                    self.task_items_done = add(self.task_items_done, 1, "task_items_done")?;
                }
                self.observations = observations;
            }
            AgentEvent::TaskStarted(e) => {
                self.task = Some(e.task);
                self.task_running = true;
                self.task_items_done = 0;
                self.task_items_total = e.items;
            }
            AgentEvent::TaskFinished(e) => {
                self.task = Some(e.task);
                self.task_running = false;
                self.task_items_done = e.items;
                self.task_items_total = e.items;
            }
            // what follows from these is a transition
            AgentEvent::AgentDefined(_)
            | AgentEvent::LoopDetected(_)
            | AgentEvent::ProgramFaulted(_) => {}
            AgentEvent::ExecutionCleared(e) => self.cleared_trade_id = Some(e.trade_id),
        }
        Ok(())
    }
}

impl View for Agents {
    const NAME: &'static str = AgentRow::NAME;
    const VERSION: u32 = AgentRow::VERSION;
    type Key = String;
    type Row = AgentRow;

    fn key(event: &RecordedEvent) -> Option<String> {
        let header = &event.header;
        let own = header.aggregate_type == AggregateType::Agent.as_str();
        own.then(|| header.aggregate_id.clone())
    }

    fn row_key(row: &AgentRow) -> String {
        row.agent_id.clone()
    }

    fn opens(header: &EventHeader) -> bool {
        header.sequence == 1
    }

    fn fold(row: &mut Option<AgentRow>, event: &RecordedEvent) -> Result<(), FoldError> {
        let header = &event.header;
        match (row.as_mut(), event.decode::<AgentEvent>()?) {
            (None, AgentEvent::AgentRegistered(e)) => {
                *row = Some(AgentRow::registered(e, header));
            }
            (None, _) => {
                return Err(FoldError::RowMissing {
                    key: header.aggregate_id.clone(),
                });
            }
            (Some(row), e) => {
                row.take(e)?;
                row.last_position = header.position;
                row.updated_at = storable(header.recorded_at);
            }
        }
        Ok(())
    }
}
