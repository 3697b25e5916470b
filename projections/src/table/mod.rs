//! How rows stand in Postgres. A row struct is declared once, by `table!`; its columns, the SQL
//! and both directions of the conversion come from that, so they cannot drift apart.

mod cell;

use sqlx::postgres::{PgArguments, PgRow, Postgres};
use sqlx::query::Query;

pub(crate) use cell::by_symbol;
pub use cell::{Cell, Field, storable};

/// A statement to which arrays are being bound.
pub type Statement<'q> = Query<'q, Postgres, PgArguments>;
/// A row of a result.
pub type Found = PgRow;
/// Why a row cannot be read.
pub type Unreadable = sqlx::Error;

/// One column.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    /// Its name.
    pub name: &'static str,
    /// Its type in Postgres.
    sql_type: &'static str,
    /// The type its values are sent as.
    sent_as: &'static str,
    nullable: bool,
}

impl Column {
    /// The column that holds such values.
    #[must_use]
    pub const fn of<F: Field>(name: &'static str) -> Self {
        let sent_as = F::Cell::SENT_AS;
        Self {
            name,
            sql_type: F::Cell::SQL_TYPE,
            sent_as,
            nullable: F::NULLABLE,
        }
    }

    /// As a result column of a table; what is sent as text comes back as text. A column that the
    /// table does not have is null.
    fn selected(&self, is_there: bool) -> String {
        if !is_there {
            format!("NULL::{} AS {}", self.sent_as, self.name)
        } else if self.sql_type == self.sent_as {
            self.name.to_owned()
        } else {
            format!("{0}::{1} AS {0}", self.name, self.sent_as)
        }
    }
}

/// A row with a table of its own.
pub trait Stored: Sized + Send + Sync {
    /// Type of the key column.
    type Key;
    /// Name of the view.
    const NAME: &'static str;
    /// Version of the view.
    const VERSION: u32;
    /// The key column.
    const KEY: &'static str;
    /// All columns.
    const COLUMNS: &'static [Column];
    /// Indexes besides the key's: what each is called, and its columns.
    const INDEXES: &'static [(&'static str, &'static [&'static str])];

    /// Binds one array a column.
    fn bind<'q>(query: Statement<'q>, rows: &[Self]) -> Statement<'q>;

    /// Binds an array of keys.
    fn bind_keys<'q>(query: Statement<'q>, keys: &[Self::Key]) -> Statement<'q>;

    /// Reads a row of a result that has all columns.
    ///
    /// # Errors
    /// If a value is none of its column.
    fn read(row: &Found) -> Result<Self, Unreadable>;
}

/// All columns, as [`Stored::read`] wants them.
pub(crate) fn select_list<R: Stored>() -> String {
    let columns: Vec<String> = R::COLUMNS.iter().map(|c| c.selected(true)).collect();
    columns.join(", ")
}

/// As [`select_list`], from a table of another version that has only the columns of `found`. The
/// name of the first column that is missing and may not be null, if there is one.
pub(crate) fn select_list_of<R: Stored>(found: &[String]) -> Result<String, &'static str> {
    let columns = R::COLUMNS.iter().map(|c| {
        let is_there = found.iter().any(|name| name == c.name);
        if is_there || c.nullable {
            Ok(c.selected(is_there))
        } else {
            Err(c.name)
        }
    });
    let columns: Result<Vec<String>, &'static str> = columns.collect();
    Ok(columns?.join(", "))
}

/// The rows of a table with the keys of `$1`.
pub(crate) fn select_by_keys<R: Stored>(table: &str) -> String {
    format!(
        "SELECT {} FROM {table} WHERE {} = ANY($1)",
        select_list::<R>(),
        R::KEY
    )
}

/// Inserts rows into a table or replaces them, from one array a column.
pub(crate) fn upsert<R: Stored>(table: &str) -> String {
    let names: Vec<&str> = R::COLUMNS.iter().map(|c| c.name).collect();
    let arrays = R::COLUMNS.iter().enumerate().map(|(index, c)| {
        if c.sql_type == c.sent_as {
            format!("${}::{}[]", index + 1, c.sent_as)
        } else {
            format!("${}::{}[]::{}[]", index + 1, c.sent_as, c.sql_type)
        }
    });
    let arrays: Vec<String> = arrays.collect();
    let others = names.iter().filter(|&&n| n != R::KEY);
    let updates: Vec<String> = others.map(|n| format!("{n} = EXCLUDED.{n}")).collect();
    format!(
        "INSERT INTO {table} ({}) SELECT * FROM UNNEST({}) ON CONFLICT ({}) DO UPDATE SET {}",
        names.join(", "),
        arrays.join(", "),
        R::KEY,
        updates.join(", "),
    )
}

/// Statements that make a table, which carries its schema, and its indexes.
pub(crate) fn ddl<R: Stored>(table: &str) -> String {
    let columns = R::COLUMNS.iter().map(|c| {
        let key = c.name == R::KEY;
        let collation = if key && c.sql_type == "text" {
            " COLLATE \"C\""
        } else {
            ""
        };
        let rest = match (key, c.nullable) {
            (true, _) => " PRIMARY KEY",
            (false, true) => "",
            (false, false) => " NOT NULL",
        };
        format!("    {} {}{collation}{rest}", c.name, c.sql_type)
    });
    let columns: Vec<String> = columns.collect();
    let mut ddl = format!(
        "CREATE TABLE {table} (\n{}\n) WITH (fillfactor = 80);\n",
        columns.join(",\n")
    );
    let name = table.rsplit('.').next().unwrap_or(table);
    for (suffix, columns) in R::INDEXES {
        let columns = columns.join(", ");
        ddl.push_str(&format!(
            "CREATE INDEX {name}_{suffix} ON {table} ({columns});\n"
        ));
    }
    ddl
}

/// Declares a row struct and its table: name and version of the view, the key column, and indexes
/// besides the key's.
#[doc(hidden)]
#[macro_export]
macro_rules! table {
    (
        $(#[$doc:meta])*
        $row:ident = $name:literal version $version:literal key $key:ident: $key_type:ty
        $(, index $suffix:ident ($($indexed:ident),+))*;
        $($(#[$field_doc:meta])* $field:ident: $type:ty,)*
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, serde::Serialize)]
        pub struct $row {
            $($(#[$field_doc])* pub $field: $type,)*
        }

        impl $crate::table::Stored for $row {
            type Key = $key_type;
            const NAME: &'static str = $name;
            const VERSION: u32 = $version;
            const KEY: &'static str = stringify!($key);
            const COLUMNS: &'static [$crate::table::Column] =
                &[$($crate::table::Column::of::<$type>(stringify!($field))),*];
            const INDEXES: &'static [(&'static str, &'static [&'static str])] =
                &[$((stringify!($suffix), &[$(stringify!($indexed)),+])),*];

            fn bind<'q>(
                query: $crate::table::Statement<'q>,
                rows: &[Self],
            ) -> $crate::table::Statement<'q> {
                use $crate::table::Field as _;
                $(let query =
                    query.bind(rows.iter().map(|row| row.$field.sent()).collect::<Vec<_>>());)*
                query
            }

            fn bind_keys<'q>(
                query: $crate::table::Statement<'q>,
                keys: &[Self::Key],
            ) -> $crate::table::Statement<'q> {
                use $crate::table::Field as _;
                query.bind(keys.iter().map(|key| key.sent()).collect::<Vec<_>>())
            }

            fn read(row: &$crate::table::Found) -> Result<Self, $crate::table::Unreadable> {
                Ok(Self {
                    $($field: <$type as $crate::table::Field>::read(row, stringify!($field))?,)*
                })
            }
        }
    };
}
