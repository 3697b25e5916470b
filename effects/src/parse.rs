use serde::de::DeserializeOwned;
use serde_json::Value;
use sovereign_schemas::{ErrorCode, Problem};

/// Reads the fields of an effect; complaints name the field and never repeat a value, which may be
/// private.
pub(crate) fn fields<T: DeserializeOwned>(fields: Value) -> Result<T, Problem> {
    serde_path_to_error::deserialize(fields).map_err(|error| {
        let path = error.path().to_string();
        problem(path.trim_matches('.'), &error.inner().to_string())
    })
}

/// What is wrong with a JSON text, without its content.
pub(crate) fn kind(error: &serde_json::Error) -> &'static str {
    match error.classify() {
        serde_json::error::Category::Eof => "the text ends too early",
        serde_json::error::Category::Syntax => "a syntax error",
        serde_json::error::Category::Data => "data of another form",
        serde_json::error::Category::Io => "a failure to read",
    }
}

fn problem(path: &str, message: &str) -> Problem {
    let named = message.split('`').nth(1);
    let at = |name: Option<&str>| match (path, name) {
        ("", name) => name.unwrap_or("effect").to_owned(),
        (path, None) => path.to_owned(),
        (path, Some(name)) if path.rsplit('.').next() == Some(name) => path.to_owned(),
        (path, Some(name)) => format!("{path}.{name}"),
    };
    let expected = message
        .rsplit_once(", expected ")
        .map(|(_, e)| e.replace('`', ""));
    let problem = if message.starts_with("unknown field") {
        Problem::new(ErrorCode::UnknownField, "no such field").field(at(named))
    } else if message.starts_with("missing field") {
        return Problem::new(ErrorCode::MissingField, "field is missing").field(at(named));
    } else if message.starts_with("invalid type") {
        Problem::new(ErrorCode::WrongType, "field has the wrong type").field(at(None))
    } else if message.starts_with("unknown variant") {
        Problem::new(ErrorCode::WrongType, "no such choice").field(at(None))
    } else if message.starts_with("invalid ") {
        Problem::new(ErrorCode::WrongType, "field has an invalid value").field(at(None))
    } else {
        // the rest are our own messages (ids, amounts, moments), which repeat no value
        Problem::new(ErrorCode::InvalidEffect, message).field(at(None))
    };
    match expected {
        Some(expected) => problem.expected(expected),
        None => problem,
    }
}
