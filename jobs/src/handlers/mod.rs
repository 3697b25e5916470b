//! Handlers: arguments and outcomes in, the next effect out. Pure.

mod plan;

use serde_json::Value;
use sovereign_effects::Effect;
use sovereign_schemas::events::Verdict;
use sovereign_schemas::{ErrorCode, Problem};

use plan::Plan;

/// What became of an effect, as its handler sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// It happened; what the target said.
    Done(Value),
    /// It did not, for good; the code of the failure.
    Failed(String),
}

/// What a handler wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// This effect.
    Effect(Box<Effect>),
    /// Nothing more.
    Done {
        /// Green or Red.
        verdict: Verdict,
        /// What it came to.
        result: Value,
    },
    /// It cannot go on after the failure of its last effect.
    Failed(String),
}

/// How one kind of job is done.
pub trait Handler: std::fmt::Debug + Send + Sync {
    /// Checks arguments before a job is submitted; answers with the number of effects, where that
    /// is known.
    ///
    /// # Errors
    /// Which field is wrong.
    fn check(&self, arguments: &Value) -> Result<Option<u32>, Problem>;

    /// What comes after these outcomes, in the order of its effects.
    ///
    /// # Errors
    /// If the arguments are not those that [`Self::check`] let through.
    fn next(&self, arguments: &Value, seen: &[Seen]) -> Result<Wanted, Problem>;

    /// The effect that undoes the `index`-th, if one does.
    fn undo(&self, arguments: &Value, index: usize) -> Option<Effect>;
}

/// The handler of a kind.
#[must_use]
pub fn handler(kind: &str) -> Option<&'static dyn Handler> {
    match kind {
        "plan" => Some(&Plan),
        _ => None,
    }
}

/// Reads and checks the arguments of a job.
///
/// # Errors
/// If there is no such kind, or the arguments are too long, no JSON, or not as its handler wants
/// them.
pub fn arguments(kind: &str, text: &str) -> Result<(Value, Option<u32>), Problem> {
    let handler = handler(kind).ok_or_else(|| {
        Problem::new(ErrorCode::WrongType, "no such kind of job")
            .field("kind")
            .found(kind)
            .expected("plan")
    })?;
    if text.len() > crate::ARGUMENTS_BYTES_MAX {
        return Err(
            Problem::new(ErrorCode::TextTooLong, "the arguments are too long")
                .field("arguments")
                .found(format!("{} bytes", text.len()))
                .expected(format!("at most {} bytes", crate::ARGUMENTS_BYTES_MAX)),
        );
    }
    let value: Value = serde_json::from_str(text).map_err(|e| {
        Problem::new(
            ErrorCode::MalformedJson,
            format!("not JSON at column {}", e.column()),
        )
        .field("arguments")
    })?;
    let planned = handler.check(&value)?;
    Ok((value, planned))
}
