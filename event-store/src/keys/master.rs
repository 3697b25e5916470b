//! One key database has one master key: an engine with another one must not start, or it would
//! wrap keys that the others cannot open.

use sovereign_guard::seal::MasterKey;
use sovereign_schemas::Uuid;
use sqlx::{PgConnection, Row as _};

use crate::StoreError;

/// Compares the check value; the first engine ever writes it.
pub(super) async fn check(
    connection: &mut PgConnection,
    master: &MasterKey,
) -> Result<(), StoreError> {
    let own = master.check_value();
    if let Some(found) = stored(connection).await? {
        return same(found == own);
    }
    // subjects may be older than check values
    same(opens_any(connection, master).await?)?;
    sqlx::query("insert into keys.master (check_value) values ($1) on conflict do nothing")
        .bind(&own[..])
        .execute(&mut *connection)
        .await?;
    // another engine may have been first
    same(stored(connection).await?.is_some_and(|found| found == own))
}

fn same(same: bool) -> Result<(), StoreError> {
    if same {
        Ok(())
    } else {
        Err(StoreError::MasterKey)
    }
}

async fn stored(connection: &mut PgConnection) -> Result<Option<Vec<u8>>, StoreError> {
    Ok(sqlx::query_scalar("select check_value from keys.master")
        .fetch_optional(connection)
        .await?)
}

/// Whether the master key opens a subject key that is there; true if there is none.
async fn opens_any(connection: &mut PgConnection, master: &MasterKey) -> Result<bool, StoreError> {
    let row = sqlx::query("select key_id, wrapped, nonce from keys.subjects limit 1")
        .fetch_optional(connection)
        .await?;
    let Some(row) = row else { return Ok(true) };
    let key_id: Uuid = row.try_get("key_id")?;
    let (wrapped, nonce): (Vec<u8>, Vec<u8>) = (row.try_get("wrapped")?, row.try_get("nonce")?);
    let Ok(nonce) = nonce.try_into() else {
        return Ok(false);
    };
    Ok(master.unwrap(&wrapped, nonce, key_id.into_bytes()).is_ok())
}
