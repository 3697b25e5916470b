use crate::{DepartmentId, Identifier, Position, Problem, Uuid};

/// Everything about a command but what it asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandContext {
    /// Takes effect once; a repeat gets the first outcome.
    pub command_id: Uuid,
    /// Who asks.
    pub actor: Identifier,
    /// Whose topic carries the events.
    pub department: DepartmentId,
    /// Ties together what one outside stimulus set off.
    pub correlation_id: Uuid,
    /// The event that caused the command, if one did.
    pub causation_id: Option<Uuid>,
    /// W3C trace context.
    pub traceparent: Option<String>,
}

impl CommandContext {
    /// A command with a fresh id that nothing caused but its sender.
    #[must_use]
    pub fn fresh(actor: Identifier, department: DepartmentId) -> Self {
        let command_id = Uuid::now_v7();
        Self {
            command_id,
            actor,
            department,
            correlation_id: command_id,
            causation_id: None,
            traceparent: None,
        }
    }
}

/// What became of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It took effect now.
    Accepted,
    /// It may not happen; nothing changed.
    Refused,
    /// It took effect earlier; these are the first positions.
    Duplicate,
    /// The aggregate has moved on from the version the caller expected.
    Conflict,
    /// It could not be understood, or not be taken.
    Invalid,
}

/// The answer to one command; one line of `sovereign send`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Outcome {
    /// The id as the caller wrote it.
    #[serde(default)]
    pub command_id: Option<String>,
    /// What became of it.
    pub status: Status,
    /// First and last position of its events, both included; none if it caused no event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub positions: Option<(Position, Position)>,
    /// Why, unless it took effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Problem>,
}

impl Outcome {
    /// It took effect, now or earlier.
    #[must_use]
    pub fn effective(status: Status, positions: Option<(Position, Position)>) -> Self {
        Self {
            command_id: None,
            status,
            positions,
            error: None,
        }
    }

    /// It did not.
    #[must_use]
    pub fn failed(status: Status, error: Problem) -> Self {
        Self {
            command_id: None,
            status,
            positions: None,
            error: Some(error),
        }
    }

    /// Names the command.
    #[must_use]
    pub fn of(mut self, command_id: impl Into<String>) -> Self {
        self.command_id = Some(command_id.into());
        self
    }
}
