use std::str::FromStr as _;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
use sqlx::{ConnectOptions as _, Connection as _, Executor as _};

use crate::StoreError;

/// A server that does not answer within this time counts as unreachable.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Every read of the ledger has its index; a plan made while the table was small would otherwise
/// stay with a scan of the whole.
pub(crate) const READING: &str = "set enable_seqscan = off; set jit = off";

/// Reads a `postgres://` URL; `name` is what the server shows as `application_name`.
pub(crate) fn options(url: &str, name: &str) -> Result<PgConnectOptions, StoreError> {
    let options = PgConnectOptions::from_str(url)?;
    // statements are never logged: they could hold what callers sent
    Ok(options.application_name(name).disable_statement_logging())
}

/// One connection, for a part that keeps state in its session.
pub(crate) async fn connect(options: &PgConnectOptions) -> Result<PgConnection, StoreError> {
    in_time(options, async { Ok(options.connect().await?) }).await
}

/// Gives up on a connection that takes too long.
pub(crate) async fn in_time<C>(
    options: &PgConnectOptions,
    connecting: impl Future<Output = Result<C, StoreError>>,
) -> Result<C, StoreError> {
    let result = match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
        Ok(connected) => connected,
        Err(_) => Err(StoreError::Unreachable(format!(
            "no answer within {} s",
            CONNECT_TIMEOUT.as_secs()
        ))),
    };
    result.map_err(|error| error.at(&address(options)))
}

/// `host:port/database`, for messages.
pub(crate) fn address(options: &PgConnectOptions) -> String {
    let database = options.get_database().unwrap_or_default();
    format!("{}:{}/{database}", options.get_host(), options.get_port())
}

/// `host:port/database` of a URL, for messages: without user and password.
#[must_use]
pub fn address_of(url: &str) -> String {
    options(url, "sovereign").map_or_else(|_| "the database".to_owned(), |found| address(&found))
}

/// Connects once and says exactly what is in the way: a pool, which connects when it is first
/// used, only says that it took too long.
///
/// # Errors
/// [`StoreError::Unreachable`], [`StoreError::Tls`], [`StoreError::Auth`] or
/// [`StoreError::Config`], with the address.
pub async fn reach(url: &str) -> Result<(), StoreError> {
    let connection = connect(&options(url, "sovereign")?).await?;
    // it has answered; how it takes the good-bye does not matter
    let _ = connection.close().await;
    Ok(())
}

/// At most `connections_max` connections, opened when they are first needed.
pub(crate) fn pool(url: &str, name: &str, connections_max: u32) -> Result<PgPool, StoreError> {
    Ok(PgPoolOptions::new()
        .max_connections(connections_max.max(1))
        .acquire_timeout(CONNECT_TIMEOUT)
        .after_connect(|connection, _| {
            Box::pin(async move {
                connection.execute(READING).await?;
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
