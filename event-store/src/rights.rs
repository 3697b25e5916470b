//! What those may do who use the ledger's database under a role of their own: the API reads, a
//! worker appends and takes work. Granted by the owner of the tables, at each start of an engine.

use sqlx::{Connection as _, Executor as _, PgConnection};

use crate::{StoreError, connect};

/// Who uses the database besides its owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Reads events, and is the store of the schema registry. It cannot append, take work or
    /// connect to the keys.
    Api,
    /// Reads events and appends them. It cannot change what is recorded, nor the registry.
    Worker,
}

/// What became of [`grant`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Granted {
    /// The role has its rights, and no other by us.
    Rights,
    /// It is the owner's own role: nothing can be kept from it.
    OwnRole,
}

/// Tables of the registry.
const REGISTRY: [&str; 4] = [
    "ledger.registry_schemas",
    "ledger.registry_versions",
    "ledger.registry_config",
    "ledger.registry_mode",
];

impl Part {
    fn statements(self, role: &str) -> Vec<String> {
        let mut all = vec![
            // what an earlier build granted, too
            format!("revoke all on all tables in schema ledger from {role}"),
            format!("grant usage on schema ledger to {role}"),
            format!("grant select on all tables in schema ledger to {role}"),
        ];
        match self {
            Self::Api => all.push(format!(
                "grant insert, update, delete on {} to {role}",
                REGISTRY.join(", ")
            )),
            Self::Worker => all.extend([
                format!("grant insert on ledger.events, ledger.refusals to {role}"),
                format!("grant update on ledger.head, ledger.jobs to {role}"),
                // of the agents: how far they are, and the market files of their tasks
                format!("grant insert, update on ledger.checkpoints to {role}"),
                format!("grant insert on ledger.artifacts to {role}"),
            ]),
        }
        all
    }
}

/// Gives the role of the second URL what this part needs of the ledger's tables, and takes away
/// what else it had. Both URLs name the same database, which is migrated.
///
/// # Errors
/// If a URL is none, or the database refuses: granting is the owner's right.
pub async fn grant(owner: &str, role: &str, part: Part) -> Result<Granted, StoreError> {
    run(owner, role, |role| part.statements(role)).await
}

/// Lets the role of the second URL read and make subject keys.
///
/// # Errors
/// As [`grant`].
pub async fn grant_keys(owner: &str, role: &str) -> Result<Granted, StoreError> {
    let statements = |role: &str| {
        vec![
            format!("revoke all on all tables in schema keys from {role}"),
            format!("grant usage on schema keys to {role}"),
            format!("grant select on all tables in schema keys to {role}"),
            format!("grant insert, update on keys.subjects to {role}"),
        ]
    };
    run(owner, role, statements).await
}

async fn run(
    owner: &str,
    role: &str,
    statements: impl Fn(&str) -> Vec<String>,
) -> Result<Granted, StoreError> {
    let server = connect::options(owner, "sovereign migration")?;
    let role = connect::options(role, "sovereign")?
        .get_username()
        .to_owned();
    if role == server.get_username() {
        return Ok(Granted::OwnRole);
    }
    let mut connection = connect::connect(&server).await?;
    let granted = in_turn(&mut connection, &statements(&quoted(&role))).await;
    granted.map_err(|error| error.at(&connect::address(&server)))?;
    Ok(Granted::Rights)
}

/// Engines that start at once take turns: the server fails grants that meet.
async fn in_turn(connection: &mut PgConnection, statements: &[String]) -> Result<(), StoreError> {
    let mut transaction = connection.begin().await?;
    transaction
        .execute("select pg_advisory_xact_lock(hashtextextended('sovereign rights', 5894))")
        .await?;
    for statement in statements {
        transaction.execute(statement.as_str()).await?;
    }
    transaction.commit().await?;
    Ok(())
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_one_name_whatever_is_in_it() {
        assert_eq!(quoted("api"), "\"api\"");
        assert_eq!(quoted("a\"; drop role b; --"), "\"a\"\"; drop role b; --\"");
    }

    #[tokio::test]
    async fn the_owner_is_granted_nothing() {
        let owner = "postgres://sovereign:a@127.0.0.1:1/one";
        let same = "postgres://sovereign:b@127.0.0.1:1/one";
        let granted = grant(owner, same, Part::Api).await.unwrap();
        assert_eq!(granted, Granted::OwnRole);
    }
}
