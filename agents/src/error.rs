use sovereign_schemas::avro::DecodeError;
use sovereign_schemas::{ErrorCode, LogError, Position, Problem};

/// Why the runner stopped. All of these need a person: what can pass by itself is retried.
#[derive(Debug, thiserror::Error)]
pub enum RunnerError {
    /// The ledger's copy is damaged or has a gap.
    #[error("ledger cannot be read on")]
    Log(#[from] LogError),
    /// An event that an agent needs does not decode.
    #[error("event at position {position} does not decode: {cause}")]
    Decode {
        /// Where.
        position: Position,
        /// What is wrong with it.
        cause: DecodeError,
    },
    /// Carrying out a reaction ended in a panic.
    #[error("a reaction could not be carried out: {0}")]
    Panicked(String),
}

impl RunnerError {
    /// The stable name of the failure.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::Log(LogError::Hash { .. } | LogError::Gap { .. }) => {
                ErrorCode::VerificationDifference
            }
            Self::Log(LogError::Malformed { .. }) | Self::Decode { .. } => ErrorCode::DecodeFailed,
            Self::Log(LogError::Unreachable(_)) => ErrorCode::DatabaseUnreachable,
            Self::Log(LogError::Internal(_)) | Self::Panicked(_) => ErrorCode::Internal,
        }
    }

    /// As callers and the health page see it.
    #[must_use]
    pub fn problem(&self) -> Problem {
        let message = match self {
            Self::Log(cause) => cause.to_string(),
            other => other.to_string(),
        };
        Problem::new(self.code(), message)
    }
}
