use std::fmt;
use std::io;
use std::path::PathBuf;

use serde::Serialize;
use sovereign_schemas::{ErrorCode, LogError, Position};

/// In what way a log differs from what it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// A position is not there (I1).
    Missing,
    /// A link of the chain does not hold (I3).
    Hash,
    /// A sequence of an aggregate is not dense (I2).
    Sequence,
    /// The last hash is not the one that another source names.
    Head,
    /// Two copies are not equal.
    Copy,
    /// Bytes that are no event.
    Malformed,
    /// A header that is not in its canonical form.
    Form,
    /// The header names a schema that is not the one of its event.
    Schema,
    /// A payload that its schema cannot read.
    Undecodable,
    /// The recorded file as a whole is not what it was when written.
    Content,
    /// An index of the ledger does not have what its rows have.
    Index,
    /// A handler decides otherwise than is recorded.
    Decision,
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "missing",
            Self::Hash => "hash",
            Self::Sequence => "sequence",
            Self::Head => "head",
            Self::Copy => "copy",
            Self::Malformed => "malformed",
            Self::Form => "form",
            Self::Schema => "schema",
            Self::Undecodable => "undecodable",
            Self::Content => "content",
            Self::Index => "index",
            Self::Decision => "decision",
        })
    }
}

/// The first place where a log is not what it should be. Holds numbers, names and hashes, never a
/// payload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("position {position}: {what}: expected {expected}, found {found}")]
pub struct Difference {
    /// Where; 0 for a recorded file's own header and whatever the chain does not cover.
    pub position: Position,
    /// In what way.
    pub what: What,
    /// What should be there.
    pub expected: String,
    /// What is there.
    pub found: String,
}

impl Difference {
    /// One difference.
    pub fn new(
        position: Position,
        what: What,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Self {
        Self {
            position,
            what,
            expected: expected.into(),
            found: found.into(),
        }
    }
}

/// Why a log could not be verified, replayed or written to a file.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The log is damaged; for the user.
    #[error(transparent)]
    Difference(#[from] Difference),
    /// The log cannot be read at all; external, worth another try.
    #[error(transparent)]
    Log(LogError),
    /// The recorded file cannot be read or written; for the user.
    #[error("recorded file {path}: {source}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A range that does not exist; for the user.
    #[error("no positions from {first} to {last}")]
    Range {
        /// First position asked for.
        first: Position,
        /// Last position asked for.
        last: Position,
    },
    /// A bug.
    #[error("replay failed: {0}")]
    Internal(String),
}

impl ReplayError {
    /// The code that callers see. A log that is unreachable is taken for the database; whoever
    /// chose another source knows better.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Difference(_) => ErrorCode::VerificationDifference,
            Self::Log(LogError::Unreachable(_)) => ErrorCode::DatabaseUnreachable,
            Self::Log(LogError::Internal(_)) | Self::Internal(_) => ErrorCode::Internal,
            Self::Log(_) => ErrorCode::VerificationDifference,
            Self::Range { .. } => ErrorCode::InvalidRange,
            Self::File { source, .. } => match source.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::IsADirectory => ErrorCode::InvalidUsage,
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorCode::DiskFull,
                _ => ErrorCode::DataFolderUnusable,
            },
        }
    }
}

/// Damage is a finding with a position; the rest stays an error.
impl From<LogError> for ReplayError {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Gap { expected, found } => Self::Difference(Difference::new(
                expected,
                What::Missing,
                format!("position {expected}"),
                format!("position {found}"),
            )),
            LogError::Malformed { after, cause } => Self::Difference(Difference::new(
                after.next(),
                What::Malformed,
                "an event",
                cause,
            )),
            LogError::Hash {
                position,
                expected,
                found,
            } => Self::Difference(Difference::new(
                position,
                What::Hash,
                expected.to_string(),
                found.to_string(),
            )),
            other => Self::Log(other),
        }
    }
}
