use sovereign_schemas::{Digest, ErrorCode, LogError, Position, Problem};

use crate::FoldError;

/// What kind of trouble Postgres is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DatabaseFault {
    /// It does not answer, or ended the connection: external, worth another try.
    Unreachable,
    /// It refuses the login: the user must correct it.
    Auth,
    /// The role may not do this, or the database takes no writes: the operator must grant it.
    Rights,
    /// No room on its disk: the operator must free some.
    DiskFull,
    /// It took too long.
    TimedOut,
    /// It refuses a value: the event that the value came from is at fault.
    Data,
    /// Anything else.
    Other,
}

/// A failure of Postgres, without any value of a row in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct DatabaseError {
    /// What kind.
    pub fault: DatabaseFault,
    /// What Postgres or the connection said.
    pub message: String,
}

impl DatabaseError {
    pub(crate) fn timed_out(what: &str, after_s: f64) -> Self {
        let message = format!("{what} took more than {after_s} s");
        Self {
            fault: DatabaseFault::TimedOut,
            message,
        }
    }

    /// The stable name.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        match self.fault {
            DatabaseFault::Unreachable => ErrorCode::DatabaseUnreachable,
            DatabaseFault::Auth => ErrorCode::DatabaseAuth,
            DatabaseFault::Rights => ErrorCode::MissingRights,
            DatabaseFault::DiskFull => ErrorCode::DiskFull,
            DatabaseFault::TimedOut => ErrorCode::TimedOut,
            DatabaseFault::Data | DatabaseFault::Other => ErrorCode::ProjectionFailed,
        }
    }
}

impl From<sqlx::Error> for DatabaseError {
    fn from(error: sqlx::Error) -> Self {
        use sqlx::Error as E;
        let (fault, message) = match &error {
            E::Database(refused) => {
                let state = refused.code().unwrap_or_default();
                let fault = fault_of(&state);
                let message = if fault == DatabaseFault::Data {
                    // its message quotes the value
                    format!("postgres refuses a value (sqlstate {state})")
                } else {
                    format!("{} (sqlstate {state})", refused.message())
                };
                (fault, message)
            }
            E::Io(_) | E::Tls(_) | E::PoolTimedOut | E::PoolClosed | E::WorkerCrashed => {
                (DatabaseFault::Unreachable, error.to_string())
            }
            E::Protocol(_) => (DatabaseFault::Unreachable, error.to_string()),
            E::Encode(_) => (DatabaseFault::Data, "a value cannot be encoded".to_owned()),
            E::ColumnDecode { index, .. } => (
                DatabaseFault::Other,
                format!("column {index} of a stored row cannot be read"),
            ),
            _ => (DatabaseFault::Other, error.to_string()),
        };
        Self { fault, message }
    }
}

/// By SQLSTATE class (PostgreSQL manual, appendix A).
fn fault_of(state: &str) -> DatabaseFault {
    match (state, state.get(..2).unwrap_or_default()) {
        ("53100", _) => DatabaseFault::DiskFull,
        ("42501" | "25006", _) => DatabaseFault::Rights,
        ("57014" | "55P03" | "25P03", _) => DatabaseFault::TimedOut,
        (_, "28") => DatabaseFault::Auth,
        (_, "08" | "53" | "57" | "40" | "3D") => DatabaseFault::Unreachable,
        (_, "22" | "23" | "54") => DatabaseFault::Data,
        _ => DatabaseFault::Other,
    }
}

/// What can go wrong with views.
#[derive(Debug, thiserror::Error)]
pub enum ProjectionError {
    /// User: no such view.
    #[error("no view is called {0:?}")]
    UnknownView(String),
    /// User: the URL of the database cannot be read. The URL is not repeated: it may hold a
    /// password.
    #[error("database url cannot be read; expected postgres://user:password@host:port/database")]
    DatabaseUrl,
    /// User: the tables were made by a newer build.
    #[error("views have schema version {found}; this build knows up to {known}")]
    SchemaTooNew {
        /// In the database.
        found: i32,
        /// In this build.
        known: i32,
    },
    /// Operator: the tables of a view are not there.
    #[error("view {view} version {version} has no checkpoint; run the migrations")]
    NotMigrated {
        /// The view.
        view: &'static str,
        /// Its version.
        version: u32,
    },
    /// Operator: a version of a view is not there, or not far enough, to be switched to or read.
    #[error("view {view} is not ready: {reason}")]
    NotReady {
        /// The view.
        view: String,
        /// What is in the way.
        reason: String,
    },
    /// External or operator: Postgres.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// External: the log.
    #[error("view {view} cannot read on after position {after}: {cause}")]
    Log {
        /// The view.
        view: &'static str,
        /// Last position folded.
        after: Position,
        /// What the log said.
        cause: LogError,
    },
    /// Internal: an event that the fold cannot take.
    #[error("view {view} stops at position {position}: {cause}")]
    Fold {
        /// The view.
        view: &'static str,
        /// Of the event.
        position: Position,
        /// Why.
        cause: FoldError,
    },
    /// Internal: an event whose row Postgres cannot take.
    #[error("view {view} stops at position {position}: {cause}")]
    Store {
        /// The view.
        view: &'static str,
        /// Of the event.
        position: Position,
        /// Why.
        cause: DatabaseError,
    },
    /// Operator: the view was built from a ledger that is not this one.
    #[error(
        "view {view} stops at position {position}: the event has hash {found}; after what the \
         view was built from it must be {expected}"
    )]
    Diverged {
        /// The view.
        view: &'static str,
        /// The first position after the checkpoint.
        position: Position,
        /// Computed from the checkpoint's hash.
        expected: Digest,
        /// As the log has it.
        found: Digest,
    },
}

impl From<sqlx::Error> for ProjectionError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error.into())
    }
}

impl ProjectionError {
    pub(crate) fn not_ready(view: &str, reason: impl Into<String>) -> Self {
        Self::NotReady {
            view: view.to_owned(),
            reason: reason.into(),
        }
    }

    /// The stable name.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::UnknownView(_) => ErrorCode::InvalidUsage,
            Self::DatabaseUrl => ErrorCode::InvalidConfig,
            Self::SchemaTooNew { .. } => ErrorCode::SchemaTooNew,
            Self::NotReady { .. } => ErrorCode::ViewNotReady,
            Self::Database(cause) => cause.code(),
            Self::Log {
                cause: LogError::Unreachable(_),
                ..
            } => ErrorCode::DatabaseUnreachable,
            Self::Log {
                cause: LogError::Malformed { .. },
                ..
            } => ErrorCode::DecodeFailed,
            Self::Log {
                cause: LogError::Gap { .. } | LogError::Hash { .. },
                ..
            } => ErrorCode::VerificationDifference,
            Self::Diverged { .. } => ErrorCode::LedgerDiverged,
            Self::NotMigrated { .. }
            | Self::Log { .. }
            | Self::Fold { .. }
            | Self::Store { .. } => ErrorCode::ProjectionFailed,
        }
    }

    /// Where it stopped, if an event is at fault.
    #[must_use]
    pub const fn position(&self) -> Option<Position> {
        match self {
            Self::Fold { position, .. }
            | Self::Store { position, .. }
            | Self::Diverged { position, .. } => Some(*position),
            _ => None,
        }
    }

    /// As callers see it.
    #[must_use]
    pub fn problem(&self) -> Problem {
        let problem = Problem::new(self.code(), self.to_string());
        match self {
            Self::UnknownView(name) => problem
                .field("view")
                .found(name)
                .expected(crate::VIEW_NAMES.join(", ")),
            Self::Diverged { .. } => problem
                .remedy("restore the ledger that the view was built from, or rebuild the view"),
            _ => problem,
        }
    }
}
