//! What a program says, line by line. docs/AGENTS.md is the description.

use serde::Deserialize;
use serde_json::Value;
use sovereign_aggregates::AnyCommand;
use sovereign_schemas::{AggregateId, ErrorCode, Position, Problem, RawText, Uuid};

/// Namespace of the ids of programs' commands.
const COMMANDS_NAMESPACE: Uuid = Uuid::from_u128(0x5e0f_e1a5_7c3b_4d0a_9b1e_0b5f_2d6c_a003);

/// One line of a program.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
enum Line {
    Command {
        id: String,
        position: u64,
        agent: String,
        aggregate: String,
        aggregate_id: String,
        command: String,
        #[serde(default)]
        data: Value,
    },
    Done {
        position: u64,
    },
}

/// What a line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Said {
    /// Do this.
    Command(Box<Asked>),
    /// All events up to and including this one are dealt with.
    Done(Position),
}

/// A command of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    /// What the program calls it.
    pub(super) id: String,
    /// The event that it answers.
    pub(super) position: Position,
    /// As which agent.
    pub(super) agent: AggregateId,
    /// Upon what.
    pub(super) aggregate_id: AggregateId,
    /// What.
    pub(super) command: AnyCommand<RawText>,
}

/// Why a line is none, with the id that its outcome bears, if it could be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Garbage {
    /// What the program calls the command.
    pub(super) id: Option<String>,
    /// What is wrong with it.
    pub(super) problem: Problem,
}

/// Reads one line.
///
/// # Errors
/// What is wrong with it; never a value.
pub(super) fn read(line: &[u8]) -> Result<Said, Garbage> {
    let nameless = |problem| Garbage { id: None, problem };
    let line: Line = serde_json::from_slice(line).map_err(|e| {
        // the message of an unknown field holds its name, and no more
        let message = match e.classify() {
            serde_json::error::Category::Data => "is no line of the protocol",
            _ => "is not JSON",
        };
        let problem = Problem::new(ErrorCode::MalformedJson, message);
        nameless(problem.expected("an object with type command or done, and no other fields"))
    })?;
    match line {
        Line::Done { position } => Ok(Said::Done(Position(position))),
        Line::Command {
            id,
            position,
            agent,
            aggregate,
            aggregate_id,
            command,
            data,
        } => {
            if !(1..=200).contains(&id.len()) {
                let problem = Problem::new(ErrorCode::InvalidId, "is empty or too long");
                return Err(nameless(problem.field("id").expected("1 to 200 bytes")));
            }
            let own = |problem| Garbage {
                id: Some(id.clone()),
                problem,
            };
            let parse = |field: &str, text: &str| {
                let parsed: Result<AggregateId, _> = text.parse();
                parsed.map_err(|e| {
                    own(Problem::new(ErrorCode::InvalidId, e.to_string()).field(field))
                })
            };
            let asked = Asked {
                position: Position(position),
                agent: parse("agent", &agent)?,
                aggregate_id: parse("aggregate_id", &aggregate_id)?,
                command: AnyCommand::parse(&aggregate, &command, data).map_err(own)?,
                id: id.clone(),
            };
            Ok(Said::Command(Box::new(asked)))
        }
    }
}

/// The id of a command: the same whenever the program is given the event again and calls its
/// answer the same.
#[must_use]
pub fn command_id(program: &str, event_id: Uuid, id: &str) -> Uuid {
    Uuid::new_v5(
        &COMMANDS_NAMESPACE,
        format!("{program}/{event_id}/{id}").as_bytes(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_command_or_the_word_done() {
        assert_eq!(
            read(br#"{"type":"done","position":7}"#),
            Ok(Said::Done(Position(7)))
        );
        let line = br#"{"type":"command","id":"t","position":7,"agent":"m","aggregate":"agent",
            "aggregate_id":"m","command":"record_thought","data":{"text":"up"}}"#;
        let Ok(Said::Command(asked)) = read(line) else {
            panic!("no command")
        };
        assert_eq!((asked.id.as_str(), asked.position), ("t", Position(7)));
        assert_eq!(asked.command.name(), "record_thought");
    }

    #[test]
    fn everything_else_is_garbage_and_is_not_repeated() {
        for line in [
            &b"hunter2"[..],
            b"[]",
            b"{}",
            b"\xff\xfe",
            br#"{"type":"done"}"#,
            br#"{"type":"done","position":-1}"#,
            br#"{"type":"done","position":1,"hunter2":1}"#,
            br#"{"type":"hunter2","position":1}"#,
            br#"{"type":"command","id":"x","position":1,"agent":"m","actor":"hunter2","aggregate":"agent","aggregate_id":"m","command":"register"}"#,
            br#"{"type":"command","id":"","position":1,"agent":"m","aggregate":"agent","aggregate_id":"m","command":"register"}"#,
            br#"{"type":"command","id":"x","position":1,"agent":"m","aggregate":"agent","aggregate_id":"m","command":"record_thought","data":{"text":["hunter2"]}}"#,
        ] {
            let garbage = read(line).unwrap_err();
            assert!(!garbage.problem.to_string().contains("hunter2"), "{garbage:?}");
        }
    }

    #[test]
    fn ids_follow_from_program_event_and_its_own_name() {
        let event = Uuid::from_u128(5);
        let id = command_id("momentum", event, "buy");
        assert_eq!(id, command_id("momentum", event, "buy"));
        assert_ne!(id, command_id("momentum", event, "sell"));
        assert_ne!(id, command_id("other", event, "buy"));
        assert_ne!(id, command_id("momentum", Uuid::from_u128(6), "buy"));
    }
}
