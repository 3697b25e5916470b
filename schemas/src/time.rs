use std::fmt;
use std::str::FromStr;

/// A moment: microseconds since 1970-01-01T00:00:00Z. Printed as RFC 3339 in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Timestamp(pub i64);

/// A text that is no RFC 3339 moment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected a moment such as 2026-02-04T12:01:00Z or 2026-02-04")]
pub struct TimestampError;

impl Timestamp {
    /// Now plus so many seconds, without overflow.
    #[must_use]
    pub const fn plus_s(self, seconds: i64) -> Self {
        Self(self.0.saturating_add(seconds.saturating_mul(1_000_000)))
    }

    /// The system's clock. Not for aggregates, operators, projectors or agent logic (I6).
    #[must_use]
    pub fn now() -> Self {
        Self(jiff::Timestamp::now().as_microsecond())
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_microsecond(self.0) {
            Ok(moment) => write!(f, "{moment:.6}"),
            Err(_) => write!(f, "{} us", self.0),
        }
    }
}

impl FromStr for Timestamp {
    type Err = TimestampError;

    /// Accepts RFC 3339, or a date alone (midnight UTC).
    fn from_str(text: &str) -> Result<Self, TimestampError> {
        if let Ok(moment) = text.parse::<jiff::Timestamp>() {
            return Ok(Self(moment.as_microsecond()));
        }
        let date: Date = text.parse()?;
        Ok(date.midnight())
    }
}

/// A day: days since 1970-01-01.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Date(pub i32);

impl Date {
    /// Midnight UTC of the day; the first or last moment that there is for a day more than
    /// 106,751,991 days (292,271 years) away: events are never refused, so this must not overflow.
    #[must_use]
    pub fn midnight(self) -> Timestamp {
        Timestamp(i64::from(self.0).saturating_mul(86_400_000_000))
    }
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let moment = self.midnight().to_string();
        f.write_str(moment.split('T').next().unwrap_or_default())
    }
}

impl FromStr for Date {
    type Err = TimestampError;

    fn from_str(text: &str) -> Result<Self, TimestampError> {
        let date: jiff::civil::Date = text.parse().map_err(|_| TimestampError)?;
        let days = (date - jiff::civil::date(1970, 1, 1)).get_days();
        Ok(Self(days))
    }
}

macro_rules! serde_as_text {
    ($($type:ty),*) => {$(
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(d)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}
serde_as_text!(Timestamp, Date);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_round_trip_as_rfc_3339() {
        let moment: Timestamp = "2026-02-04T12:01:00.000001Z".parse().unwrap();
        assert_eq!(moment.to_string(), "2026-02-04T12:01:00.000001Z");
        assert_eq!(
            "2000-03-01".parse::<Date>().unwrap().to_string(),
            "2000-03-01"
        );
        assert_eq!("1969-12-31".parse::<Date>().unwrap(), Date(-1));
        assert!("yesterday".parse::<Timestamp>().is_err());
    }

    #[test]
    fn days_beyond_all_moments_have_a_midnight_and_a_text() {
        assert_eq!(Date(i32::MAX).midnight(), Timestamp(i64::MAX));
        assert_eq!(Date(i32::MIN).midnight(), Timestamp(i64::MIN));
        assert_eq!(Date(106_751_991).midnight().0, 106_751_991 * 86_400_000_000);
        for day in [i32::MIN, i32::MAX] {
            assert!(!Date(day).to_string().is_empty());
        }
    }
}
