//! The table of another store: what it must look like, and its rows in a stated order.

use sha2::{Digest as _, Sha256};
use sovereign_schemas::{ErrorCode, Problem};
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{Executor as _, Row as _};

use crate::{StoreError, connect};

/// Longest JSON that is fetched: a text of the greatest length, written in hexadecimal digits, fits.
const JSON_BYTES_MAX: i64 = 600 << 10;
/// Rows of one fetch, so that a window of large rows stays small.
const FETCH_ROWS: usize = 100;
/// A window ends at so many bytes, whatever its number of rows.
const WINDOW_BYTES_MAX: usize = 16 << 20;

const COLUMNS: [&str; 7] = [
    "aggregate_type",
    "aggregate_id",
    "sequence",
    "event_type",
    "event_version",
    "payload",
    "metadata",
];

/// An open table, read in one snapshot.
pub(super) struct Source {
    connection: PgConnection,
    /// `schema.table`, quoted.
    quoted: String,
    /// `schema.table`, for people and for the ids of commands.
    pub(super) name: String,
    /// Columns that the import has no place for.
    pub(super) columns_left_out: Vec<String>,
    pub(super) rows: u64,
}

/// One row.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) aggregate_type: String,
    pub(super) aggregate_id: String,
    pub(super) sequence: i64,
    pub(super) event_type: String,
    pub(super) event_version: String,
    pub(super) payload: String,
    pub(super) metadata: String,
    /// What made the row unusable before anybody looked at its content.
    pub(super) unusable: Option<Problem>,
    /// SHA-256 over its content.
    pub(super) digest: [u8; 32],
}

impl Row {
    pub(super) fn bytes(&self) -> usize {
        self.payload.len() + self.metadata.len() + self.aggregate_id.len() + 64
    }
}

/// Puts a part behind its length, so that no two lists of parts look alike.
pub(super) fn put(hasher: &mut Sha256, part: &[u8]) {
    hasher.update((part.len() as u64).to_be_bytes());
    hasher.update(part);
}

/// As the user must see it: it is not the ledger that fails.
fn told(error: impl Into<StoreError>) -> Problem {
    let error: StoreError = error.into();
    Problem::new(error.code(), format!("source of the import: {error}"))
}

fn sql(error: sqlx::Error) -> Problem {
    let code = match &error {
        sqlx::Error::Database(e) => e.code().unwrap_or_default().into_owned(),
        _ => String::new(),
    };
    match code.as_str() {
        "42501" => Problem::new(
            ErrorCode::DatabaseAuth,
            "source of the import: the role may not read the table",
        )
        .remedy("grant select on the table to the role of --database"),
        _ => told(error),
    }
}

fn wrong(message: impl Into<String>) -> Problem {
    Problem::new(ErrorCode::InvalidSource, message)
}

impl Source {
    pub(super) async fn open(url: &str, table: &str) -> Result<Self, Problem> {
        let options = connect::options(url, "sovereign import").map_err(told)?;
        let mut connection = connect::connect(&options).await.map_err(told)?;
        // one snapshot for both passes; a cursor that will be read to its end
        connection
            .execute(
                "begin isolation level repeatable read, read only; \
                 set local cursor_tuple_fraction = 1; set local statement_timeout = 0; \
                 set local idle_in_transaction_session_timeout = 0",
            )
            .await
            .map_err(sql)?;
        let found = sqlx::query(
            "select quote_ident(n.nspname) || '.' || quote_ident(c.relname), \
             n.nspname || '.' || c.relname, c.oid::bigint from pg_class c \
             join pg_namespace n on n.oid = c.relnamespace \
             where c.oid = to_regclass($1) and c.relkind in ('r', 'p', 'v', 'm', 'f')",
        )
        .bind(table)
        .fetch_optional(&mut connection)
        .await;
        let found = match found {
            Ok(found) => found,
            // a name that cannot be one
            Err(sqlx::Error::Database(e)) if e.code().is_some_and(|c| c.starts_with("42")) => None,
            Err(error) => return Err(sql(error)),
        };
        let found = found.ok_or_else(|| {
            wrong("no such table")
                .field("--table")
                .found(table)
                .expected("the table of a postgres-es repository, as name or schema.name")
        })?;
        let get = |e: sqlx::Error| sql(e);
        let mut source = Self {
            connection,
            quoted: found.try_get(0).map_err(get)?,
            name: found.try_get(1).map_err(get)?,
            columns_left_out: Vec::new(),
            rows: 0,
        };
        source.check_columns(found.try_get(2).map_err(get)?).await?;
        let count = format!("select count(*) from {}", source.quoted);
        let rows: i64 = sqlx::query_scalar(&count)
            .fetch_one(&mut source.connection)
            .await
            .map_err(sql)?;
        source.rows = rows.cast_unsigned();
        Ok(source)
    }

    async fn check_columns(&mut self, oid: i64) -> Result<(), Problem> {
        let rows = sqlx::query(
            "select attname::text, format_type(atttypid, null) from pg_attribute \
             where attrelid = $1::bigint::oid and attnum > 0 and not attisdropped order by attnum",
        )
        .bind(oid)
        .fetch_all(&mut self.connection)
        .await
        .map_err(sql)?;
        let mut found: Vec<(String, String)> = Vec::new();
        for row in rows {
            found.push((row.try_get(0).map_err(sql)?, row.try_get(1).map_err(sql)?));
        }
        for column in COLUMNS {
            let Some((_, kind)) = found.iter().find(|(name, _)| name == column) else {
                let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
                return Err(wrong(format!("the table has no column {column}"))
                    .field("--table")
                    .found(names.join(", "))
                    .expected(COLUMNS.join(", ")));
            };
            let expected = match column {
                "sequence" => &["bigint", "integer", "smallint"][..],
                "payload" | "metadata" => &["json", "jsonb"][..],
                _ => continue,
            };
            if !expected.contains(&kind.as_str()) {
                return Err(wrong(format!("column {column} has the wrong type"))
                    .field("--table")
                    .found(kind)
                    .expected(expected.join(" or ")));
            }
        }
        found.retain(|(name, _)| !COLUMNS.contains(&name.as_str()));
        self.columns_left_out = found.into_iter().map(|(name, _)| name).collect();
        Ok(())
    }

    /// Starts reading from the first row: by aggregate type, aggregate id and sequence, names in the
    /// order of their bytes.
    pub(super) async fn rewind(&mut self) -> Result<(), Problem> {
        let json = |column: &str| {
            format!(
                "case when octet_length({column}::text) <= {JSON_BYTES_MAX} then {column}::text end, \
                 octet_length({column}::text)::bigint"
            )
        };
        let declare = format!(
            "declare import_rows no scroll cursor for select aggregate_type::text, \
             aggregate_id::text, sequence::bigint, event_type::text, event_version::text, {}, {} \
             from {} order by aggregate_type::text collate \"C\", aggregate_id::text collate \"C\", \
             sequence",
            json("payload"),
            json("metadata"),
            self.quoted
        );
        // the first time there is none to close
        let close = "select 1 from pg_cursors where name = 'import_rows'";
        let open = sqlx::query(close)
            .fetch_optional(&mut self.connection)
            .await
            .map_err(sql)?;
        if open.is_some() {
            self.connection
                .execute("close import_rows")
                .await
                .map_err(sql)?;
        }
        self.connection
            .execute(declare.as_str())
            .await
            .map_err(sql)?;
        Ok(())
    }

    /// The next rows, at most `limit`; none at the end.
    pub(super) async fn next(&mut self, limit: usize) -> Result<Vec<Row>, Problem> {
        let mut rows: Vec<Row> = Vec::new();
        let mut bytes = 0;
        while rows.len() < limit && bytes < WINDOW_BYTES_MAX {
            let count = FETCH_ROWS.min(limit - rows.len());
            let fetch = format!("fetch forward {count} from import_rows");
            let found = sqlx::query(&fetch)
                .persistent(false)
                .fetch_all(&mut self.connection)
                .await
                .map_err(sql)?;
            let ended = found.len() < count;
            for row in &found {
                let row = read(row).map_err(sql)?;
                bytes += row.bytes();
                rows.push(row);
            }
            if ended {
                break;
            }
        }
        Ok(rows)
    }
}

fn read(row: &PgRow) -> Result<Row, sqlx::Error> {
    let mut unusable = None;
    let mut text = |index: usize, name: &str| -> Result<String, sqlx::Error> {
        let value: Option<String> = row.try_get(index)?;
        if value.is_none() {
            let problem = Problem::new(ErrorCode::MissingField, "column is null").field(name);
            unusable.get_or_insert(problem);
        }
        Ok(value.unwrap_or_default())
    };
    let aggregate_type = text(0, "aggregate_type")?;
    let aggregate_id = text(1, "aggregate_id")?;
    let event_type = text(3, "event_type")?;
    let event_version = text(4, "event_version")?;
    let mut json = |index: usize, name: &str| -> Result<String, sqlx::Error> {
        let value: Option<String> = row.try_get(index)?;
        let length: Option<i64> = row.try_get(index + 1)?;
        if value.is_none() {
            let problem = match length {
                Some(length) => Problem::new(ErrorCode::TextTooLong, "JSON is too long")
                    .found(format!("{length} bytes"))
                    .expected(format!("at most {JSON_BYTES_MAX} bytes")),
                None => Problem::new(ErrorCode::MissingField, "column is null"),
            };
            unusable.get_or_insert(problem.field(name));
        }
        Ok(value.unwrap_or_default())
    };
    let payload = json(5, "payload")?;
    let metadata = json(7, "metadata")?;
    let sequence: Option<i64> = row.try_get(2)?;
    let mut hasher = Sha256::new();
    for part in [&event_type, &event_version, &payload, &metadata] {
        put(&mut hasher, part.as_bytes());
    }
    Ok(Row {
        aggregate_type,
        aggregate_id,
        // a null is no sequence, and shows as one that does not follow
        sequence: sequence.unwrap_or(0),
        event_type,
        event_version,
        payload,
        metadata,
        unusable,
        digest: hasher.finalize().into(),
    })
}
