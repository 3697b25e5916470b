//! The local servers' failures, as problems with stable codes.

use sovereign_schemas::{ErrorCode, Problem};
use sovereign_servers::Error;

pub(super) fn problem(error: &Error) -> Problem {
    let code = match error {
        Error::Prerequisites { .. } => ErrorCode::MissingPrerequisite,
        Error::DataFolderHeld { .. } => ErrorCode::DataFolderLocked,
        Error::DataFolderUnusable { .. } | Error::Unreachable { .. } | Error::NoAccount => {
            ErrorCode::DataFolderUnusable
        }
        Error::DiskFull { .. } => ErrorCode::DiskFull,
        Error::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => {
            ErrorCode::DiskFull
        }
        Error::Io { .. } => ErrorCode::DataFolderUnusable,
        _ => ErrorCode::ServerFailed,
    };
    Problem::new(code, error.to_string())
}
