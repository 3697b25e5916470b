use serde::de::DeserializeOwned;
use serde_json::Value;
use sovereign_schemas::{ErrorCode, Problem};

/// Reads a command's `data`, and turns serde's errors into problems that name the field but never
/// repeat a value (it might be a secret).
pub(crate) fn data<T: DeserializeOwned>(data: Value) -> Result<T, Problem> {
    serde_path_to_error::deserialize(data).map_err(|e| {
        let path = e.path().to_string();
        problem(&path, &e.inner().to_string())
    })
}

fn problem(path: &str, message: &str) -> Problem {
    let at = |name: Option<&str>| match (path, name) {
        ("." | "", None) => "data".to_owned(),
        ("." | "", Some(name)) => format!("data.{name}"),
        (path, None) => format!("data.{path}"),
        (path, Some(name)) if path.ends_with(name) => format!("data.{path}"),
        (path, Some(name)) => format!("data.{path}.{name}"),
    };
    let quoted = message.split('`').nth(1);
    let expected = message.rsplit_once(", expected ").map(|(_, e)| e);
    if message.starts_with("unknown field") {
        let problem = Problem::new(ErrorCode::UnknownField, "no such field").field(at(quoted));
        return with_expected(problem, expected);
    }
    if message.starts_with("missing field") {
        return Problem::new(ErrorCode::MissingField, "field is missing").field(at(quoted));
    }
    if let Some(rest) = message.strip_prefix("invalid type: ") {
        let kind: String = rest.chars().take_while(|c| !"\"`,".contains(*c)).collect();
        let problem = Problem::new(ErrorCode::WrongType, "field has the wrong type")
            .field(at(None))
            .found(kind.trim());
        return with_expected(problem, expected);
    }
    if message.starts_with("unknown variant") {
        let problem = Problem::new(ErrorCode::WrongType, "no such choice").field(at(None));
        return with_expected(problem, expected);
    }
    let code = if message.contains("decimal") || message.contains("digits") {
        ErrorCode::InvalidAmount
    } else if message.contains("allowed") || message.starts_with("is empty") {
        ErrorCode::InvalidId
    } else {
        ErrorCode::WrongType
    };
    // the remaining messages are ours (ids, amounts, moments) and hold no value
    let safe = if message.starts_with("invalid ") {
        "field has an invalid value"
    } else {
        message
    };
    Problem::new(code, safe).field(at(None))
}

fn with_expected(problem: Problem, expected: Option<&str>) -> Problem {
    match expected {
        Some(expected) => problem.expected(expected.replace('`', "")),
        None => problem,
    }
}
