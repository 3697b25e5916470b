use std::fmt;
use std::str::FromStr;

use rust_decimal::prelude::ToPrimitive as _;

/// An exact amount: at most 28 digits, of which 9 after the point. Never a float.
///
/// Stands for Avro `decimal(28, 9)`. Arithmetic is checked: a result that does not fit is `None`,
/// never rounded in silence.
///
/// # Examples
/// ```
/// use sovereign_schemas::Decimal;
/// let price: Decimal = "12.50".parse()?;
/// assert_eq!(price.checked_mul("3".parse()?).unwrap().to_string(), "37.5");
/// assert!("1e400".parse::<Decimal>().is_err());
/// # Ok::<(), sovereign_schemas::DecimalError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Decimal(rust_decimal::Decimal);

/// Why a text is no [`Decimal`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecimalError {
    /// Not a plain decimal number.
    #[error("not a decimal number; expected digits with an optional point, such as \"1250.75\"")]
    NotANumber,
    /// Too large.
    #[error("more than 19 digits before the point")]
    TooLarge,
    /// Too fine.
    #[error("more than 9 digits after the point")]
    TooFine,
}

impl Decimal {
    /// Digits after the point in the encoding.
    pub const SCALE: u32 = 9;
    /// 0.
    pub const ZERO: Self = Self(rust_decimal::Decimal::ZERO);

    fn checked(value: rust_decimal::Decimal) -> Option<Self> {
        let value = value.normalize();
        (value.scale() <= Self::SCALE && Self::fits(value)).then_some(Self(value))
    }

    fn fits(value: rust_decimal::Decimal) -> bool {
        let limit = 10_i128.pow(28 - Self::SCALE);
        value
            .trunc()
            .to_i128()
            .is_some_and(|whole| whole.abs() < limit)
    }

    /// From a count of billionths; `None` beyond 28 digits.
    #[must_use]
    pub fn from_unscaled(unscaled: i128) -> Option<Self> {
        const LIMIT: u128 = 10_u128.pow(28);
        let magnitude = unscaled.unsigned_abs();
        if let Ok(small) = u64::try_from(magnitude) {
            return Some(Self::from_billionths(small, unscaled < 0));
        }
        if magnitude >= LIMIT {
            return None;
        }
        let value = rust_decimal::Decimal::try_from_i128_with_scale(unscaled, Self::SCALE).ok()?;
        Self::checked(value)
    }

    /// The same for values that fit into 64 bits, which is most of them and several times faster.
    fn from_billionths(mut magnitude: u64, negative: bool) -> Self {
        if magnitude == 0 {
            return Self::ZERO;
        }
        let mut scale = Self::SCALE;
        // cents have seven zeros behind them
        if magnitude.is_multiple_of(10_000_000) {
            magnitude /= 10_000_000;
            scale -= 7;
        }
        while scale > 0 && magnitude.is_multiple_of(10) {
            magnitude /= 10;
            scale -= 1;
        }
        let (low, middle) = (magnitude as u32, (magnitude >> 32) as u32);
        Self(rust_decimal::Decimal::from_parts(
            low, middle, 0, negative, scale,
        ))
    }

    /// The value as a count of billionths.
    #[must_use]
    pub fn unscaled(self) -> i128 {
        self.0.mantissa() * 10_i128.pow(Self::SCALE - self.0.scale())
    }

    /// From a whole number.
    #[must_use]
    pub fn from_int(value: i64) -> Self {
        Self(value.into())
    }

    /// Sum, if it fits.
    #[must_use]
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).and_then(Self::checked)
    }

    /// Difference, if it fits.
    #[must_use]
    pub fn checked_sub(self, other: Self) -> Option<Self> {
        self.0.checked_sub(other.0).and_then(Self::checked)
    }

    /// Exact product, if it fits into 9 digits after the point; see [`Self::mul_rounded`].
    #[must_use]
    pub fn checked_mul(self, other: Self) -> Option<Self> {
        self.0.checked_mul(other.0).and_then(Self::checked)
    }

    /// Product rounded half-even to `digits` after the point (at most 9).
    #[must_use]
    pub fn mul_rounded(self, other: Self, digits: u32) -> Option<Self> {
        let exact = self.0.checked_mul(other.0)?;
        Self::checked(exact.round_dp(digits.min(Self::SCALE)))
    }

    /// Product rounded up (away from zero) to `digits` after the point: for limits, so that no
    /// amount slips under one by rounding.
    #[must_use]
    pub fn mul_rounded_up(self, other: Self, digits: u32) -> Option<Self> {
        use rust_decimal::RoundingStrategy::AwayFromZero;
        let exact = self.0.checked_mul(other.0)?;
        Self::checked(exact.round_dp_with_strategy(digits.min(Self::SCALE), AwayFromZero))
    }

    /// Quotient rounded half-even to `digits` after the point; `None` for a zero divisor.
    #[must_use]
    pub fn div_rounded(self, other: Self, digits: u32) -> Option<Self> {
        let quotient = self.0.checked_div(other.0)?;
        Self::checked(quotient.round_dp(digits.min(Self::SCALE)))
    }

    /// Rounded half-even to `digits` after the point.
    #[must_use]
    pub fn rounded(self, digits: u32) -> Self {
        Self(self.0.round_dp(digits).normalize())
    }

    /// Whether it is above zero.
    #[must_use]
    pub fn is_positive(self) -> bool {
        self > Self::ZERO
    }

    /// Whether it is below zero.
    #[must_use]
    pub fn is_negative(self) -> bool {
        self < Self::ZERO
    }

    /// The nearest float, for plots and gauges only.
    #[must_use]
    pub fn to_f64(self) -> f64 {
        self.0.to_f64().unwrap_or(f64::NAN)
    }
}

impl std::ops::Neg for Decimal {
    type Output = Self;

    fn neg(self) -> Self {
        Self(-self.0)
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Decimal {
    type Err = DecimalError;

    fn from_str(text: &str) -> Result<Self, DecimalError> {
        let digits = text.strip_prefix('-').unwrap_or(text);
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
        let number = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
        if !number(whole) || !number(fraction) {
            return Err(DecimalError::NotANumber);
        }
        if whole.trim_start_matches('0').len() > 19 {
            return Err(DecimalError::TooLarge);
        }
        let fraction = fraction.trim_end_matches('0');
        if fraction.len() > 9 {
            return Err(DecimalError::TooFine);
        }
        let sign = if text.starts_with('-') { "-" } else { "" };
        let plain = format!("{sign}{whole}.{fraction}0");
        let value: rust_decimal::Decimal = plain.parse().map_err(|_| DecimalError::TooLarge)?;
        Self::checked(value).ok_or(DecimalError::TooLarge)
    }
}

impl serde::Serialize for Decimal {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Decimal {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Decimal;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an exact amount as a string, such as \"1250.75\"")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Decimal, E> {
                text.parse().map_err(E::custom)
            }
            fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Decimal, E> {
                Ok(Decimal::from_int(value))
            }
            fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Decimal, E> {
                value.to_string().parse().map_err(E::custom)
            }
            /// A JSON number was read as a float. Up to 15 significant digits its shortest
            /// spelling is exactly what was written; beyond that digits may be lost, so refuse.
            fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Decimal, E> {
                let text = value.to_string();
                if text.bytes().filter(u8::is_ascii_digit).count() > 15 {
                    return Err(E::custom(
                        "a JSON number with more than 15 digits is not exact; write a string",
                    ));
                }
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::avro;

    proptest! {
        #[test]
        fn survives_text_and_avro(unscaled in -(10_i128.pow(28) - 1)..10_i128.pow(28)) {
            let value = Decimal::from_unscaled(unscaled).unwrap();
            prop_assert_eq!(value.unscaled(), unscaled);
            prop_assert_eq!(value.to_string().parse::<Decimal>().unwrap(), value);
            prop_assert_eq!(avro::decode::<Decimal>(&avro::encode(&value)).unwrap(), value);
        }
    }

    proptest! {
        #[test]
        fn short_way_gives_the_same_representation(
            digits in 0_u64..=u64::MAX, zeros in 0_u32..10, negative: bool,
        ) {
            let magnitude = digits / 10_u64.pow(zeros) * 10_u64.pow(zeros);
            let unscaled = if negative { -i128::from(magnitude) } else { i128::from(magnitude) };
            let long = rust_decimal::Decimal::try_from_i128_with_scale(unscaled, Decimal::SCALE);
            let long = Decimal::checked(long.unwrap()).unwrap();
            let short = Decimal::from_unscaled(unscaled).unwrap();
            prop_assert_eq!(short.0.serialize(), long.0.serialize());
        }
    }

    #[test]
    fn refuses_what_is_not_exact() {
        use DecimalError::{NotANumber, TooFine, TooLarge};
        for (text, error) in [
            ("NaN", NotANumber),
            ("", NotANumber),
            ("1e3", NotANumber),
            ("+1", NotANumber),
            (".5", NotANumber),
            ("1234567890123456789012345678901234567890", TooLarge),
            ("0.0000000001", TooFine),
        ] {
            assert_eq!(text.parse::<Decimal>(), Err(error), "{text}");
        }
    }

    #[test]
    fn json_numbers_are_taken_only_while_exact() {
        let read = |s: &str| serde_json::from_str::<Decimal>(s);
        assert_eq!(read("1000.01").unwrap().to_string(), "1000.01");
        assert_eq!(read("\"1000.01\"").unwrap(), read("1000.01").unwrap());
        assert!(read("1000.0100000000001").is_err());
    }
}
