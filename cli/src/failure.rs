//! How a command fails: one problem, one exit code.

use std::process::ExitCode;

use sovereign_schemas::{ErrorCode, Problem};

/// Why a command ended early.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Something with a stable code.
    Problem(Box<Problem>),
    /// Printed already; only the exit code is left.
    Exit(u8),
    /// Ctrl-C.
    Interrupted,
}

pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

impl Failure {
    pub(crate) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Problem::new(code, message).into()
    }

    /// Names the line of the input.
    pub(crate) fn at_line(self, line: u64) -> Self {
        match self {
            Self::Problem(problem) => problem.line(line).into(),
            other => other,
        }
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Problem(problem) => problem.code.exit_code(),
            Self::Exit(code) => *code,
            Self::Interrupted => 130,
        })
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self::Problem(Box::new(problem))
    }
}

/// For errors that have no code of their own.
pub(crate) fn internal(error: impl std::fmt::Display) -> Failure {
    Failure::new(ErrorCode::Internal, error.to_string())
}

/// For files that the user named.
pub(crate) fn file(path: &std::path::Path, error: &std::io::Error) -> Failure {
    Problem::new(
        ErrorCode::InvalidUsage,
        format!("file cannot be used: {error}"),
    )
    .found(path.display().to_string())
    .into()
}
