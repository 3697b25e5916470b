use std::str::FromStr as _;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
use sqlx::{ConnectOptions as _, Executor as _};

use crate::StoreError;

/// A server that does not answer within this time counts as unreachable.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Reads a `postgres://` URL; `name` is what the server shows as `application_name`.
pub(crate) fn options(url: &str, name: &str) -> Result<PgConnectOptions, StoreError> {
    let options = PgConnectOptions::from_str(url)?;
    // statements are never logged: they could hold what callers sent
    Ok(options.application_name(name).disable_statement_logging())
}

/// One connection, for a part that keeps state in its session.
pub(crate) async fn connect(options: &PgConnectOptions) -> Result<PgConnection, StoreError> {
    match tokio::time::timeout(CONNECT_TIMEOUT, options.connect()).await {
        Ok(connected) => Ok(connected?),
        Err(_) => Err(StoreError::Unreachable(format!(
            "no answer from {}:{} within {} s",
            options.get_host(),
            options.get_port(),
            CONNECT_TIMEOUT.as_secs()
        ))),
    }
}

/// At most `connections_max` connections, opened when they are first needed.
pub(crate) fn pool(url: &str, name: &str, connections_max: u32) -> Result<PgPool, StoreError> {
    Ok(PgPoolOptions::new()
        .max_connections(connections_max.max(1))
        .acquire_timeout(CONNECT_TIMEOUT)
        // every read of the ledger has its index; a plan made while the table was small would
        // otherwise stay with a scan of the whole
        .after_connect(|connection, _| {
            Box::pin(async move {
                connection
                    .execute("set enable_seqscan = off; set jit = off")
                    .await?;
                Ok(())
            })
        })
        .connect_lazy_with(options(url, name)?))
}

/// The server's version as in `server_version_num`, such as 180006.
pub(crate) async fn server_version(connection: &mut PgConnection) -> Result<i32, StoreError> {
    let version: String = sqlx::query_scalar("show server_version_num")
        .fetch_one(connection)
        .await?;
    version
        .parse()
        .map_err(|_| StoreError::Internal(format!("server version {version:?}")))
}
