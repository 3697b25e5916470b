//! How rows stand in Postgres. A row struct is declared once, by `table!`; its columns, the SQL
//! and both directions of the conversion come from that, so they cannot drift apart.

mod cell;

use sqlx::postgres::{PgArguments, PgRow, Postgres};
use sqlx::query::Query;

pub(crate) use cell::{Cell, Field, by_symbol, storable};

/// One column.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Column {
    /// Its name.
    pub(crate) name: &'static str,
    /// Its type in Postgres.
    sql_type: &'static str,
    /// The type its values are sent as.
    sent_as: &'static str,
    /// Read by the test that holds the migrations to the rows.
    #[cfg_attr(not(test), expect(dead_code, reason = "see above"))]
    nullable: bool,
}

impl Column {
    pub(crate) const fn of<F: Field>(name: &'static str) -> Self {
        let sent_as = F::Cell::SENT_AS;
        Self {
            name,
            sql_type: F::Cell::SQL_TYPE,
            sent_as,
            nullable: F::NULLABLE,
        }
    }

    /// As a result column; what is sent as text comes back as text.
    fn selected(&self) -> String {
        if self.sql_type == self.sent_as {
            self.name.to_owned()
        } else {
            format!("{0}::{1} AS {0}", self.name, self.sent_as)
        }
    }
}

/// A row with a table of its own.
pub(crate) trait Stored: Sized + Send + Sync {
    /// Type of the key column.
    type Key;
    /// Name of the view.
    const NAME: &'static str;
    /// Version of the view.
    const VERSION: u32;
    /// The table of this version.
    const TABLE: &'static str;
    /// The key column.
    const KEY: &'static str;
    /// All columns.
    const COLUMNS: &'static [Column];

    /// Binds one array a column.
    fn bind<'q>(
        query: Query<'q, Postgres, PgArguments>,
        rows: &[Self],
    ) -> Query<'q, Postgres, PgArguments>;

    /// Binds an array of keys.
    fn bind_keys<'q>(
        query: Query<'q, Postgres, PgArguments>,
        keys: &[Self::Key],
    ) -> Query<'q, Postgres, PgArguments>;

    /// Reads a row of [`select_list`].
    fn read(row: &PgRow) -> Result<Self, sqlx::Error>;
}

/// All columns, as [`Stored::read`] wants them.
pub(crate) fn select_list<R: Stored>() -> String {
    let columns: Vec<String> = R::COLUMNS.iter().map(Column::selected).collect();
    columns.join(", ")
}

/// The rows with the keys of `$1`.
pub(crate) fn select_by_keys<R: Stored>() -> String {
    format!(
        "SELECT {} FROM {} WHERE {} = ANY($1)",
        select_list::<R>(),
        R::TABLE,
        R::KEY
    )
}

/// Inserts rows or replaces them, from one array a column.
pub(crate) fn upsert<R: Stored>() -> String {
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
        "INSERT INTO {} ({}) SELECT * FROM UNNEST({}) ON CONFLICT ({}) DO UPDATE SET {}",
        R::TABLE,
        names.join(", "),
        arrays.join(", "),
        R::KEY,
        updates.join(", "),
    )
}

/// The table's definition; `migrations/` must hold exactly this text.
#[cfg(test)]
pub(crate) fn ddl<R: Stored>() -> String {
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
    format!(
        "CREATE TABLE {} (\n{}\n) WITH (fillfactor = 80);\n",
        R::TABLE,
        columns.join(",\n")
    )
}

/// Declares a row struct and its table.
macro_rules! table {
    (
        $(#[$doc:meta])*
        $row:ident = $name:literal version $version:literal key $key:ident: $key_type:ty;
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
            const TABLE: &'static str = concat!("views.", $name, "_v", $version);
            const KEY: &'static str = stringify!($key);
            const COLUMNS: &'static [$crate::table::Column] =
                &[$($crate::table::Column::of::<$type>(stringify!($field))),*];

            fn bind<'q>(
                query: sqlx::query::Query<'q, sqlx::Postgres, sqlx::postgres::PgArguments>,
                rows: &[Self],
            ) -> sqlx::query::Query<'q, sqlx::Postgres, sqlx::postgres::PgArguments> {
                use $crate::table::Field as _;
                $(let query =
                    query.bind(rows.iter().map(|row| row.$field.sent()).collect::<Vec<_>>());)*
                query
            }

            fn bind_keys<'q>(
                query: sqlx::query::Query<'q, sqlx::Postgres, sqlx::postgres::PgArguments>,
                keys: &[Self::Key],
            ) -> sqlx::query::Query<'q, sqlx::Postgres, sqlx::postgres::PgArguments> {
                use $crate::table::Field as _;
                query.bind(keys.iter().map(|key| key.sent()).collect::<Vec<_>>())
            }

            fn read(row: &sqlx::postgres::PgRow) -> Result<Self, sqlx::Error> {
                Ok(Self {
                    $($field: <$type as $crate::table::Field>::read(row, stringify!($field))?,)*
                })
            }
        }
    };
}
pub(crate) use table;
