use std::collections::BTreeMap;

use sovereign_schemas::events::{AgentState, Side, Verdict};
use sovereign_schemas::{Decimal, DepartmentId, Position, Text, Timestamp, avro};
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgArgumentBuffer, PgHasArrayType, PgRow, PgTypeInfo, PgValueRef};
use sqlx::{Decode, Encode, Postgres, Row as _, Type, encode::IsNull, error::BoxDynError};

/// A value that a column can hold.
pub trait Cell: Sized {
    /// What it is sent and received as.
    type Sent: for<'r> Decode<'r, Postgres> + Type<Postgres>;
    /// Type of the column.
    const SQL_TYPE: &'static str;
    /// Type that is sent; cast to and from the column's if it differs.
    const SENT_AS: &'static str = Self::SQL_TYPE;
    /// To Postgres.
    fn to_sent(&self) -> Self::Sent;
    /// From Postgres.
    ///
    /// # Errors
    /// If it is no such value.
    fn from_sent(sent: Self::Sent) -> Result<Self, BoxDynError>;
}

/// A column of a row: a [`Cell`], or an optional one.
pub trait Field: Sized {
    /// What it holds.
    type Cell: Cell;
    /// Whether it may hold nothing.
    const NULLABLE: bool;
    /// To Postgres.
    fn sent(&self) -> Option<<Self::Cell as Cell>::Sent>;
    /// From a column of a result.
    ///
    /// # Errors
    /// If it is not there, or holds something else.
    fn read(row: &PgRow, column: &str) -> Result<Self, sqlx::Error>;
}

fn read_cell<C: Cell>(row: &PgRow, column: &str) -> Result<Option<C>, sqlx::Error> {
    let sent: Option<C::Sent> = row.try_get(column)?;
    let wrong = |source| sqlx::Error::ColumnDecode {
        index: column.to_owned(),
        source,
    };
    sent.map(|s| C::from_sent(s).map_err(wrong)).transpose()
}

impl<C: Cell> Field for C {
    type Cell = C;
    const NULLABLE: bool = false;

    fn sent(&self) -> Option<C::Sent> {
        Some(self.to_sent())
    }

    fn read(row: &PgRow, column: &str) -> Result<Self, sqlx::Error> {
        read_cell(row, column)?.ok_or_else(|| sqlx::Error::ColumnDecode {
            index: column.to_owned(),
            source: "is null".into(),
        })
    }
}

impl<C: Cell> Field for Option<C> {
    type Cell = C;
    const NULLABLE: bool = true;

    fn sent(&self) -> Option<C::Sent> {
        self.as_ref().map(Cell::to_sent)
    }

    fn read(row: &PgRow, column: &str) -> Result<Self, sqlx::Error> {
        read_cell(row, column)
    }
}

/// Microseconds since 2000-01-01, Postgres' own form of `timestamptz`. Not through text or
/// floats, which would cost exactness or time.
#[derive(Debug, Clone, Copy)]
pub struct PostgresMicros(i64);

/// From 1970-01-01 to 2000-01-01.
const EPOCH_US: i64 = 946_684_800_000_000;
/// Oids of `timestamptz` and `timestamptz[]` (PostgreSQL's `pg_type.dat`).
const TIMESTAMPTZ: Oid = Oid(1184);
const TIMESTAMPTZ_ARRAY: Oid = Oid(1185);
/// The first finite `timestamptz`, in 4714 BC, from 2000-01-01 (PostgreSQL's `timestamp.h`). The
/// last one lies beyond what 64 bits of microseconds from 1970 reach.
const FINITE_MIN_US: i64 = -211_813_488_000_000_000;

/// The moment as a column can hold it: one before the first finite `timestamptz` becomes the
/// smallest of all, which Postgres calls `-infinity`. Such moments come from callers, and no
/// caller may stop a view.
#[must_use]
pub fn storable(moment: Timestamp) -> Timestamp {
    if moment.0 < FINITE_MIN_US + EPOCH_US {
        Timestamp(i64::MIN)
    } else {
        moment
    }
}

impl Type<Postgres> for PostgresMicros {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(TIMESTAMPTZ)
    }
}

impl PgHasArrayType for PostgresMicros {
    fn array_type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(TIMESTAMPTZ_ARRAY)
    }
}

impl Encode<'_, Postgres> for PostgresMicros {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        buffer.extend_from_slice(&self.0.to_be_bytes());
        Ok(IsNull::No)
    }
}

impl<'r> Decode<'r, Postgres> for PostgresMicros {
    fn decode(value: PgValueRef<'r>) -> Result<Self, BoxDynError> {
        let bytes: [u8; 8] = value.as_bytes()?.try_into()?;
        Ok(Self(i64::from_be_bytes(bytes)))
    }
}

impl Cell for Timestamp {
    type Sent = PostgresMicros;
    const SQL_TYPE: &'static str = "timestamptz";

    fn to_sent(&self) -> PostgresMicros {
        PostgresMicros(match storable(*self).0 {
            infinite @ (i64::MIN | i64::MAX) => infinite,
            us => us - EPOCH_US,
        })
    }

    fn from_sent(PostgresMicros(us): PostgresMicros) -> Result<Self, BoxDynError> {
        Ok(Self(match us {
            i64::MIN | i64::MAX => us,
            us => us.checked_add(EPOCH_US).ok_or("is beyond 64 bits")?,
        }))
    }
}

impl Cell for String {
    type Sent = Self;
    const SQL_TYPE: &'static str = "text";

    fn to_sent(&self) -> Self {
        self.clone()
    }

    fn from_sent(sent: Self) -> Result<Self, BoxDynError> {
        Ok(sent)
    }
}

impl Cell for i64 {
    type Sent = Self;
    const SQL_TYPE: &'static str = "bigint";

    fn to_sent(&self) -> Self {
        *self
    }

    fn from_sent(sent: Self) -> Result<Self, BoxDynError> {
        Ok(sent)
    }
}

impl Cell for i32 {
    type Sent = Self;
    const SQL_TYPE: &'static str = "integer";

    fn to_sent(&self) -> Self {
        *self
    }

    fn from_sent(sent: Self) -> Result<Self, BoxDynError> {
        Ok(sent)
    }
}

impl Cell for bool {
    type Sent = Self;
    const SQL_TYPE: &'static str = "boolean";

    fn to_sent(&self) -> Self {
        *self
    }

    fn from_sent(sent: Self) -> Result<Self, BoxDynError> {
        Ok(sent)
    }
}

impl Cell for Position {
    type Sent = i64;
    const SQL_TYPE: &'static str = "bigint";

    fn to_sent(&self) -> i64 {
        self.0.cast_signed()
    }

    fn from_sent(sent: i64) -> Result<Self, BoxDynError> {
        Ok(Self(u64::try_from(sent)?))
    }
}

impl Cell for DepartmentId {
    type Sent = i32;
    const SQL_TYPE: &'static str = "integer";

    fn to_sent(&self) -> i32 {
        i32::from(self.0)
    }

    fn from_sent(sent: i32) -> Result<Self, BoxDynError> {
        Ok(Self(u16::try_from(sent)?))
    }
}

/// Exact in both directions: through text, never through a float.
impl Cell for Decimal {
    type Sent = String;
    const SQL_TYPE: &'static str = "numeric(28,9)";
    const SENT_AS: &'static str = "text";

    fn to_sent(&self) -> String {
        self.to_string()
    }

    fn from_sent(sent: String) -> Result<Self, BoxDynError> {
        Ok(sent.parse()?)
    }
}

/// The Avro datum, as in the event: sealed text stays sealed.
impl Cell for Text {
    type Sent = Vec<u8>;
    const SQL_TYPE: &'static str = "bytea";

    fn to_sent(&self) -> Vec<u8> {
        avro::encode(self)
    }

    fn from_sent(sent: Vec<u8>) -> Result<Self, BoxDynError> {
        Ok(avro::decode(&sent)?)
    }
}

impl Cell for BTreeMap<String, i64> {
    type Sent = String;
    const SQL_TYPE: &'static str = "jsonb";
    const SENT_AS: &'static str = "text";

    fn to_sent(&self) -> String {
        let object: serde_json::Map<String, serde_json::Value> =
            self.iter().map(|(k, &v)| (k.clone(), v.into())).collect();
        serde_json::Value::Object(object).to_string()
    }

    fn from_sent(sent: String) -> Result<Self, BoxDynError> {
        Ok(serde_json::from_str(&sent)?)
    }
}

/// Short lists that are read and written whole.
impl Cell for Vec<String> {
    type Sent = String;
    const SQL_TYPE: &'static str = "jsonb";
    const SENT_AS: &'static str = "text";

    fn to_sent(&self) -> String {
        serde_json::Value::from(self.clone()).to_string()
    }

    fn from_sent(sent: String) -> Result<Self, BoxDynError> {
        Ok(serde_json::from_str(&sent)?)
    }
}

/// Enums are stored as their symbols.
macro_rules! by_symbol {
    ($($type:ty),*) => {$(
        impl $crate::table::Cell for $type {
            type Sent = String;
            const SQL_TYPE: &'static str = "text";

            fn to_sent(&self) -> String {
                self.as_str().to_owned()
            }

            fn from_sent(sent: String) -> Result<Self, sqlx::error::BoxDynError> {
                let known = Self::ALL.iter().copied().find(|s| s.as_str() == sent);
                known.ok_or_else(|| "is no symbol of this build".into())
            }
        }
    )*};
}
pub(crate) use by_symbol;

by_symbol!(AgentState, Side, Verdict);

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip<C: Cell>(value: &C) -> C {
        C::from_sent(value.to_sent()).unwrap()
    }

    #[test]
    fn moments_survive_to_the_microsecond_and_the_impossible_become_infinite() {
        for us in [0, 1, -1, 1_770_206_460_000_001, 253_402_300_799_999_999] {
            assert_eq!(round_trip(&Timestamp(us)), Timestamp(us));
        }
        for us in [i64::MAX, i64::MAX - 1] {
            assert_eq!(round_trip(&Timestamp(us)), Timestamp(us));
        }
        let too_early: Timestamp = "-005000-01-01T00:00:00Z".parse().unwrap();
        for early in [Timestamp(i64::MIN), too_early] {
            assert_eq!(storable(early), Timestamp(i64::MIN));
            assert_eq!(round_trip(&early), Timestamp(i64::MIN));
        }
        assert_eq!(storable(Timestamp(5)), Timestamp(5));
    }

    #[test]
    fn money_and_counts_survive() {
        for text in ["0.000000001", "-9999999999999999999.999999999", "1250.75"] {
            let amount: Decimal = text.parse().unwrap();
            assert_eq!(round_trip(&amount), amount);
        }
        let counts = BTreeMap::from([("A".to_owned(), i64::MAX), ("b".to_owned(), 0)]);
        assert_eq!(round_trip(&counts), counts);
        assert!(Side::from_sent("LEND".to_owned()).is_err());
    }
}
