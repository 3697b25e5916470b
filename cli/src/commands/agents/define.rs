//! `sovereign agents define FILE`: what an agent is made of, from a TOML file.

use std::path::Path;

use serde_json::{Map, Value, json};
use sovereign_schemas::{ErrorCode, Outcome, Problem, Status, Uuid};

use crate::client::Client;
use crate::failure::{Failure, Result, file, internal};
use crate::location::Location;
use crate::output::Output;

/// A definition is no larger: its prompt is a text of at most 1 MiB.
const FILE_BYTES_MAX: u64 = 2 << 20;

/// The command that a file asks for: whom it defines, and the data.
fn read(text: &str) -> Result<(String, Value), Problem> {
    let mut fields: Map<String, Value> = toml::from_str(text).map_err(|e| {
        let problem = Problem::new(ErrorCode::InvalidDefinition, e.message().to_owned());
        match e.span() {
            Some(span) => {
                let before = &text.as_bytes()[..span.start.min(text.len())];
                problem.line(before.iter().filter(|b| **b == b'\n').count() as u64 + 1)
            }
            None => problem,
        }
    })?;
    let agent = match fields.remove("agent") {
        Some(Value::String(agent)) => agent,
        _ => {
            return Err(Problem::new(
                ErrorCode::InvalidDefinition,
                "says not which agent it is for",
            )
            .field("agent")
            .expected("the agent's id"));
        }
    };
    let version = fields.remove("version").unwrap_or_default();
    let prompt = fields.remove("prompt").unwrap_or_default();
    // numbers are written as people write them
    if let Some(Value::Object(parameters)) = fields.get_mut("parameters") {
        for value in parameters.values_mut() {
            if value.is_number() || value.is_boolean() {
                *value = value.to_string().into();
            }
        }
    }
    Ok((
        agent,
        json!({ "version": version, "prompt": prompt, "definition": fields }),
    ))
}

pub(super) async fn run(location: &Location, output: Output, path: &Path) -> Result<()> {
    let size = std::fs::metadata(path).map_err(|e| file(path, &e))?.len();
    if size > FILE_BYTES_MAX {
        let problem = Problem::new(ErrorCode::InvalidDefinition, "the file is too large");
        let problem = problem.found(format!("{size} bytes"));
        return Err(problem
            .expected(format!("at most {FILE_BYTES_MAX} bytes"))
            .into());
    }
    let text = std::fs::read_to_string(path).map_err(|e| file(path, &e))?;
    let (agent, data) = read(&text)?;
    let client = Client::connect(location)?;
    let command = json!({ "aggregate": "agent", "id": agent, "command": "define", "data": data,
        "command_id": Uuid::now_v7(), "actor": "operator" });
    let mut body = serde_json::to_vec(&command).map_err(internal)?;
    body.push(b'\n');
    let response = client.commands(body).await?;
    let text = response.bytes().await;
    let text = text.map_err(|e| crate::client::unreachable(&e))?;
    let mut outcome: Outcome = serde_json::from_slice(&text).map_err(internal)?;
    match (outcome.status, outcome.error.take()) {
        (Status::Accepted | Status::Duplicate, _) if output.json => output.object(&outcome),
        (Status::Accepted | Status::Duplicate, _) => {
            output.line(format!("{agent} is made of this from now on"))
        }
        (_, Some(mut error)) => {
            // of the command's line, not of the file
            error.line = None;
            Err(error.into())
        }
        (_, None) => Err(Failure::new(ErrorCode::Internal, "engine gave no reason")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_becomes_a_command() {
        let text = "agent = \"m\"\nprogram = \"program:m\"\nversion = 2\nprompt = \"be calm\"\n\
                    [parameters]\nfast = 10\nbold = false\n[loop_guard]\nrepeats = 4\n";
        let (agent, data) = read(text).unwrap();
        assert_eq!(agent, "m");
        assert_eq!(
            data,
            json!({ "version": 2, "prompt": "be calm", "definition": { "program": "program:m",
                "parameters": { "fast": "10", "bold": "false" }, "loop_guard": { "repeats": 4 } } })
        );
    }

    #[test]
    fn a_bad_file_is_named_with_its_line() {
        let problem = read("agent = \"m\"\nprogram = \n").unwrap_err();
        assert_eq!(problem.code, ErrorCode::InvalidDefinition);
        assert_eq!(problem.line, Some(2));
        let problem = read("program = \"x\"\n").unwrap_err();
        assert_eq!(problem.field.as_deref(), Some("agent"));
    }
}
