use std::fmt::Write as _;
use std::path::Path;

/// Owns both databases: the engine.
pub(super) const OWNER: &str = "sovereign";
/// Reads ledger and views for HTTP; cannot connect to the keys.
pub(super) const API: &str = "sovereign_api";
/// Runs jobs.
pub(super) const WORKER: &str = "sovereign_worker";

/// One for each role.
pub(crate) struct Passwords {
    pub(super) owner: String,
    pub(super) api: String,
    pub(super) worker: String,
}

/// Settings that depend on nothing. Durability is stock (fsync, full page writes, synchronous
/// commit); the pinned build has no lz4, and pglz costs more CPU than the log it saves.
const FIXED: &str = "\
listen_addresses = '127.0.0.1'
unix_socket_permissions = 0700
password_encryption = 'scram-sha-256'
max_connections = 200
shared_buffers = '256MB'
fsync = on
full_page_writes = on
synchronous_commit = on
wal_level = replica
wal_buffers = '16MB'
max_wal_size = '4GB'
min_wal_size = '256MB'
jit = off
timezone = 'UTC'
log_timezone = 'UTC'
lc_messages = 'C'
default_text_search_config = 'pg_catalog.english'
# the log never holds a payload: no statement, no row in a detail line
log_destination = 'stderr'
logging_collector = off
log_line_prefix = '%m [%p] %q%u@%d '
log_statement = 'none'
log_min_error_statement = 'panic'
log_error_verbosity = 'terse'
";

/// Over the socket, which only the servers' account and root can reach, everything; over TCP only
/// with a password.
pub(super) const HBA: &str = "\
# written at each start
local all all trust
local replication all trust
host all all 127.0.0.1/32 scram-sha-256
";

/// The whole configuration; `local` says whether the user has a file of settings, which wins.
pub(super) fn configuration(socket_folder: &Path, port: u16, local: bool) -> String {
    let include = if local {
        "include = 'local.conf'\n"
    } else {
        ""
    };
    let socket_folder = socket_folder.to_string_lossy().replace('\'', "''");
    format!(
        "# written at each start; put settings of your own into local.conf beside this file\n\
         {FIXED}\
         port = {port}\n\
         unix_socket_directories = '{socket_folder}'\n\
         {include}"
    )
}

/// SQL for psql as superuser. Passwords are hex, the names are plain identifiers. What the roles may
/// do with tables is granted by the owner of the tables, once it has made them.
pub(super) fn bootstrap_sql(passwords: &Passwords, database: &str, keys_database: &str) -> String {
    let mut sql = String::from("set log_min_error_statement = 'panic';\n");
    for (role, password) in [
        (OWNER, &passwords.owner),
        (API, &passwords.api),
        (WORKER, &passwords.worker),
    ] {
        let _ = write!(
            sql,
            "select 'create role {role} login' \
             where not exists (select from pg_roles where rolname = '{role}') \\gexec\n\
             alter role {role} login nosuperuser nocreatedb nocreaterole password '{password}';\n"
        );
    }
    let _ = write!(
        sql,
        "select format('create database %I owner {OWNER}', name) \
         from unnest(array['{database}', '{keys_database}']) as wanted (name) \
         where not exists (select from pg_database where datname = name) \\gexec\n\
         revoke all on database {database} from public;\n\
         revoke all on database {keys_database} from public;\n\
         grant connect on database {database} to {API}, {WORKER};\n\
         grant connect on database {keys_database} to {WORKER};\n\
         \\connect {database}\n\
         set client_min_messages = 'warning';\n\
         create extension if not exists vector;\n"
    );
    sql
}
