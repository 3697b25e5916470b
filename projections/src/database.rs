use std::fmt;
use std::future::Future;
use std::str::FromStr as _;
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, Executor as _, PgConnection};

use crate::{DatabaseError, ProjectionError};

/// Where the views live, and how long one request may take. Prints neither host nor password.
#[derive(Clone)]
pub(crate) struct Database {
    options: PgConnectOptions,
    timeout: Duration,
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database")
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

impl Database {
    pub(crate) fn new(url: &str, timeout: Duration) -> Result<Self, ProjectionError> {
        let options = PgConnectOptions::from_str(url).map_err(|_| ProjectionError::DatabaseUrl)?;
        let options = options
            .application_name("sovereign-views")
            .disable_statement_logging();
        Ok(Self { options, timeout })
    }

    pub(crate) fn options(&self) -> PgConnectOptions {
        self.options.clone()
    }

    pub(crate) const fn timeout(&self) -> Duration {
        self.timeout
    }

    pub(crate) async fn connect(&self) -> Result<PgConnection, DatabaseError> {
        let mut connection = self.within("connecting", self.options.connect()).await?;
        // A server must not go on with what we have given up, nor hold locks for a dead client.
        let limit_ms = self.timeout.as_millis();
        let settings = format!(
            "SET statement_timeout = {limit_ms}; \
             SET idle_in_transaction_session_timeout = {limit_ms}"
        );
        self.within("connecting", connection.execute(sqlx::raw_sql(&settings)))
            .await?;
        Ok(connection)
    }

    /// Awaits an answer of Postgres, but not for ever (I9).
    pub(crate) async fn within<T>(
        &self,
        what: &str,
        request: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, DatabaseError> {
        match tokio::time::timeout(self.timeout, request).await {
            Ok(answer) => answer.map_err(DatabaseError::from),
            Err(_) => Err(DatabaseError::timed_out(what, self.timeout.as_secs_f64())),
        }
    }
}
