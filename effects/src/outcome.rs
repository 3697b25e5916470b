use serde::{Deserialize, Serialize};
use serde_json::Value;
use sovereign_schemas::{ErrorCode, Problem};

/// Longest result, bytes of JSON: so that it fits into one sealed text with room to spare.
pub const RESULT_BYTES_MAX: usize = 192 << 10;

/// What became of an effect. It is recorded before anybody uses it.
///
/// # Examples
/// ```
/// use sovereign_effects::Outcome;
/// let outcome: Outcome = serde_json::from_str(r#"{"outcome":"done","result":{"status":201}}"#)?;
/// assert!(outcome.is_final());
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case", deny_unknown_fields)]
pub enum Outcome {
    /// It happened.
    Done {
        /// What the target answered, at most [`RESULT_BYTES_MAX`].
        result: Value,
    },
    /// It certainly did not happen at the target.
    Failed {
        /// Why.
        problem: Problem,
        /// Whether another try may do better; `problem.retry_after_ms` says when.
        retry: bool,
    },
    /// It may have happened: sent, and no complete answer came. Where the effect is repeatable, it
    /// may be run again under the same id; else a human decides.
    InDoubt {
        /// Why.
        problem: Problem,
    },
    /// It was called off before anything was sent: it certainly did not happen.
    Cancelled,
}

impl Outcome {
    /// It happened.
    #[must_use]
    pub const fn done(result: Value) -> Self {
        Self::Done { result }
    }

    /// It did not happen, and trying again makes no sense.
    #[must_use]
    pub const fn refused(problem: Problem) -> Self {
        let retry = false;
        Self::Failed { problem, retry }
    }

    /// It did not happen, and another try may do better.
    #[must_use]
    pub const fn try_again(problem: Problem) -> Self {
        let retry = true;
        Self::Failed { problem, retry }
    }

    /// It may have happened.
    #[must_use]
    pub const fn in_doubt(problem: Problem) -> Self {
        Self::InDoubt { problem }
    }

    /// Whether nothing more can come of it without a new try or a human.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        !matches!(
            self,
            Self::Failed { retry: true, .. } | Self::InDoubt { .. }
        )
    }

    /// A word for metrics and logs.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Done { .. } => "done",
            Self::Failed { .. } => "failed",
            Self::InDoubt { .. } => "in_doubt",
            Self::Cancelled => "cancelled",
        }
    }

    /// Why it is not done, if anything is to be said.
    #[must_use]
    pub const fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Failed { problem, .. } | Self::InDoubt { problem } => Some(problem),
            Self::Done { .. } | Self::Cancelled => None,
        }
    }

    /// The same, unless its result is too large to be recorded: then `otherwise` says what it is.
    #[must_use]
    pub fn within_limit(self, otherwise: impl FnOnce(Problem) -> Self) -> Self {
        let Self::Done { result } = &self else {
            return self;
        };
        let found = serde_json::to_vec(result).map_or(usize::MAX, |bytes| bytes.len());
        if found <= RESULT_BYTES_MAX {
            return self;
        }
        otherwise(
            Problem::new(
                ErrorCode::AnswerTooLarge,
                "the result is too large to be recorded",
            )
            .found(format!("{found} bytes"))
            .expected(format!("at most {RESULT_BYTES_MAX} bytes")),
        )
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn outcomes_survive_json_and_unknown_fields_are_refused() {
        let problem = Problem::new(ErrorCode::TimedOut, "no answer").retry_after_ms(5);
        for outcome in [
            Outcome::done(json!({"status": 200})),
            Outcome::refused(problem.clone()),
            Outcome::try_again(problem.clone()),
            Outcome::in_doubt(problem),
            Outcome::Cancelled,
        ] {
            let text = serde_json::to_string(&outcome).unwrap();
            assert_eq!(serde_json::from_str::<Outcome>(&text).unwrap(), outcome);
        }
        let more = r#"{"outcome":"done","result":1,"more":2}"#;
        assert!(serde_json::from_str::<Outcome>(more).is_err());
    }

    #[test]
    fn a_result_that_is_too_large_is_not_done() {
        let large = Outcome::done(json!("x".repeat(RESULT_BYTES_MAX)));
        let outcome = large.within_limit(Outcome::in_doubt);
        assert_eq!(outcome.problem().unwrap().code, ErrorCode::AnswerTooLarge);
        let small = Outcome::done(json!("x".repeat(RESULT_BYTES_MAX - 2)));
        assert_eq!(small.clone().within_limit(Outcome::in_doubt), small);
    }
}
