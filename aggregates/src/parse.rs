use serde::de::DeserializeOwned;
use serde_json::Value;
use sovereign_schemas::{ErrorCode, Problem};

/// Reads a command's `data`, and turns serde's errors into problems that name the field but never
/// repeat a value (it might be a secret).
pub(crate) fn data<T: DeserializeOwned>(data: Value) -> Result<T, Problem> {
    // a list would be taken for the fields in their order
    if data.is_array() {
        return Err(
            Problem::new(ErrorCode::WrongType, "field has the wrong type")
                .field("data")
                .expected("an object")
                .found("array"),
        );
    }
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

#[cfg(test)]
mod tests {
    use serde_json::json;
    use sovereign_schemas::ErrorCode;

    use crate::AnyCommand;

    #[test]
    fn bad_data_is_named_without_repeating_it() {
        let bar = |field: &str, value: serde_json::Value| {
            let mut bar = json!({"instrument": "AAPL", "opened_at": "2000-03-01", "open": "1",
                "high": "1", "low": "1", "close": "1", "volume": "1"});
            bar[field] = value;
            AnyCommand::parse("agent", "observe_market", bar).unwrap_err()
        };
        let cases = [
            (
                bar("open", json!("NaN")),
                ErrorCode::InvalidAmount,
                "data.open",
            ),
            (
                bar("open", json!("9".repeat(40))),
                ErrorCode::InvalidAmount,
                "data.open",
            ),
            (
                bar("open", json!(["hunter2"])),
                ErrorCode::WrongType,
                "data.open",
            ),
            (
                bar("instrument", json!("x".repeat(10_000))),
                ErrorCode::InvalidId,
                "data.instrument",
            ),
            (
                bar("opened_at", json!("hunter2")),
                ErrorCode::WrongType,
                "data.opened_at",
            ),
            (
                bar("colour", json!("red")),
                ErrorCode::UnknownField,
                "data.colour",
            ),
            (
                AnyCommand::parse("agent", "register", json!({})).unwrap_err(),
                ErrorCode::MissingField,
                "data.role",
            ),
            (
                AnyCommand::parse(
                    "agent",
                    "transition",
                    json!({"to": "hunter2", "reason": "x"}),
                )
                .unwrap_err(),
                ErrorCode::WrongType,
                "data.to",
            ),
            (
                AnyCommand::parse("agent", "register", json!("hunter2")).unwrap_err(),
                ErrorCode::WrongType,
                "data",
            ),
            (
                AnyCommand::parse("agent", "register", json!(["hunter2"])).unwrap_err(),
                ErrorCode::WrongType,
                "data",
            ),
            (
                AnyCommand::parse("agent", "fly", json!({})).unwrap_err(),
                ErrorCode::UnknownCommand,
                "command",
            ),
            (
                AnyCommand::parse("robot", "fly", json!({})).unwrap_err(),
                ErrorCode::UnknownAggregate,
                "aggregate",
            ),
        ];
        for (problem, code, field) in cases {
            assert_eq!(problem.code, code, "{problem}");
            assert_eq!(problem.field.as_deref(), Some(field), "{problem}");
            assert!(!problem.to_string().contains("hunter2"), "{problem}");
        }
    }
}
