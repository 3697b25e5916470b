use sovereign_guard::seal::SealError;
use sovereign_schemas::{ErrorCode, LogError, Position, Problem, Uuid};

/// What can go wrong between the ledger and its database, by who must act.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Nobody answers; worth another try.
    #[error("database is unreachable: {0}")]
    Unreachable(String),
    /// The login was refused.
    #[error("database refused the login: {0}")]
    Auth(String),
    /// No TLS connection comes about.
    #[error("no TLS connection to the database: {0}")]
    Tls(String),
    /// The role may not do this, or the database takes no writes.
    #[error("database does not allow it: {0}")]
    Rights(String),
    /// The URL or an option makes no sense, or the database does not exist.
    #[error("database cannot be used: {0}")]
    Config(String),
    /// A newer build has been here.
    #[error(
        "database schema {schema} has version {found}; this build knows versions up to {known}"
    )]
    SchemaTooNew {
        /// Which schema of the database.
        schema: &'static str,
        /// Version in the database.
        found: i64,
        /// Newest version that this build can make.
        known: i64,
    },
    /// No space left where the database lives.
    #[error("database has no disk space: {0}")]
    DiskFull(String),
    /// A stored event does not decode.
    #[error("event at position {position} does not decode: {cause}")]
    Decode {
        /// Where.
        position: Position,
        /// What is wrong.
        cause: String,
    },
    /// The log cannot be read on.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A subject key that is not in this key database.
    #[error("subject key {0} is not here")]
    KeyMissing(Uuid),
    /// A key could not be wrapped, unwrapped or derived; usually another master key.
    #[error("subject key cannot be used: {0}")]
    Key(#[from] SealError),
    /// The keys in the database were wrapped by another master key.
    #[error("master key is not the one of this key database")]
    MasterKey,
    /// The operating system gave no random bytes.
    #[error("no random bytes: {0}")]
    Randomness(String),
    /// The ledger was closed.
    #[error("ledger is closed")]
    Closed,
    /// Anything else: a bug, or a database that was changed by hand.
    #[error("database failed: {0}")]
    Internal(String),
}

impl StoreError {
    /// The stable name of the failure.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Unreachable(_) | Self::Log(LogError::Unreachable(_)) => {
                ErrorCode::DatabaseUnreachable
            }
            Self::Auth(_) => ErrorCode::DatabaseAuth,
            Self::Tls(_) => ErrorCode::TlsFailed,
            Self::Rights(_) => ErrorCode::MissingRights,
            Self::Config(_) => ErrorCode::InvalidConfig,
            Self::SchemaTooNew { .. } => ErrorCode::SchemaTooNew,
            Self::DiskFull(_) => ErrorCode::DiskFull,
            Self::Decode { .. } | Self::Log(LogError::Malformed { .. }) => ErrorCode::DecodeFailed,
            Self::Log(LogError::Gap { .. } | LogError::Hash { .. }) => {
                ErrorCode::VerificationDifference
            }
            Self::KeyMissing(_) | Self::Key(_) => ErrorCode::KeyMissing,
            Self::MasterKey => ErrorCode::WrongMasterKey,
            Self::Closed => ErrorCode::EngineNotRunning,
            Self::Log(LogError::Internal(_)) | Self::Randomness(_) | Self::Internal(_) => {
                ErrorCode::Internal
            }
        }
    }

    /// As a caller of the engine sees it.
    #[must_use]
    pub fn problem(&self) -> Problem {
        Problem::new(self.code(), self.to_string())
    }

    /// Says which server and database.
    pub(crate) fn at(mut self, address: &str) -> Self {
        if let Self::Unreachable(text)
        | Self::Auth(text)
        | Self::Tls(text)
        | Self::Rights(text)
        | Self::Config(text)
        | Self::DiskFull(text) = &mut self
            && !text.contains(address)
        {
            *text = format!("{address}: {text}");
        }
        self
    }

    /// Whether trying again can help.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Unreachable(_) | Self::DiskFull(_) | Self::Log(LogError::Unreachable(_))
        )
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let text = message(&error);
        match &error {
            sqlx::Error::Configuration(_) => Self::Config(text),
            sqlx::Error::Database(database) => {
                by_sqlstate(&database.code().unwrap_or_default(), text)
            }
            sqlx::Error::Tls(_) => Self::Tls(text),
            // a handshake that fails is an error of the socket
            sqlx::Error::Io(cause) if cause.kind() == std::io::ErrorKind::InvalidData => {
                Self::Tls(text)
            }
            sqlx::Error::Io(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => Self::Unreachable(text),
            _ => Self::Internal(text),
        }
    }
}

impl From<StoreError> for LogError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Log(error) => error,
            StoreError::Unreachable(text) => Self::Unreachable(text),
            other => Self::Internal(other.to_string()),
        }
    }
}

/// The message without the server's detail line, which can hold values of a row.
fn message(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Database(database) => {
            format!(
                "{} ({})",
                database.message(),
                database.code().unwrap_or_default()
            )
        }
        // a URL can hold a password, and the parser quotes what it read
        sqlx::Error::Configuration(_) => "the url is not a postgres url".to_owned(),
        other => other.to_string(),
    }
}

/// By what the server says; PostgreSQL's manual, "Error Codes".
pub(crate) fn by_sqlstate(code: &str, text: String) -> StoreError {
    match code {
        "53100" => StoreError::DiskFull(text),
        "3D000" => StoreError::Config(text),
        // insufficient privilege, read-only transaction
        "42501" | "25006" => StoreError::Rights(text),
        // shutdown, crash, start-up, too many connections, lost connection, a session ended for
        // idling in a transaction
        "57P01" | "57P02" | "57P03" | "57P05" | "53300" | "25P03" => StoreError::Unreachable(text),
        _ if code.starts_with("28") => StoreError::Auth(text),
        _ if code.starts_with("08") || code.starts_with("53") || code.starts_with("58") => {
            StoreError::Unreachable(text)
        }
        _ => StoreError::Internal(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_url_is_a_configuration_error_that_does_not_repeat_it() {
        let error = crate::connect::options("postgres://u:secret@[::/x", "t").unwrap_err();
        assert_eq!(error.code(), ErrorCode::InvalidConfig);
        assert!(!error.to_string().contains("secret"));
    }
}
