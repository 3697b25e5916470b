//! When and how much: a crossing of two moving averages, filtered by volatility, sized by
//! momentum. All numbers are exact decimals; comparisons are made before rounding.

use std::collections::VecDeque;

use sovereign_schemas::Decimal;

use crate::logic::percent;

/// Bars of the fast average.
pub const FAST: usize = 10;
/// Bars of the slow average.
pub const SLOW: usize = 30;
/// Moves that the volatility is the mean of.
pub const VOLATILITY_MOVES: usize = 20;
/// Bars back to which momentum compares.
pub const MOMENTUM_BARS: usize = 10;
/// Closes that are needed to judge: the slow average, and the one before it.
pub const CLOSES: usize = SLOW + 1;
/// No entry while closes move by more percent a bar on average.
pub const VOLATILITY_PERCENT_MAX: i64 = 3;
/// A position is given up when the close has fallen by so many percent of its price.
pub const STOP_PERCENT: i64 = 8;
/// Amount of the smallest entry.
pub const AMOUNT_MIN: i64 = 300;
/// Amount added for each percent of momentum.
pub const AMOUNT_PER_PERCENT: i64 = 60;
/// Amount of the largest entry.
pub const AMOUNT_MAX: i64 = 1_500;
/// Digits after the point of a quantity.
pub const QUANTITY_DIGITS: u32 = 3;

/// What the averages did with the last bar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crossing {
    /// The fast one rose above the slow one.
    Up,
    /// The fast one fell below the slow one.
    Down,
    /// Neither.
    None,
}

/// What the last closes say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// Last close.
    pub close: Decimal,
    /// Fast average, rounded to 4 digits.
    pub fast: Decimal,
    /// Slow average, rounded to 4 digits.
    pub slow: Decimal,
    /// What they did.
    pub crossing: Crossing,
    /// Mean move between closes in percent of the mean close.
    pub volatility: Decimal,
    /// Move over [`MOMENTUM_BARS`] in percent.
    pub momentum: Decimal,
}

fn sum<'a>(closes: impl Iterator<Item = &'a Decimal>) -> Option<Decimal> {
    closes
        .copied()
        .try_fold(Decimal::ZERO, Decimal::checked_add)
}

/// Reads the last [`CLOSES`] closes, newest last; `None` if there are fewer, or if they are so
/// large that sums do not fit.
#[must_use]
pub fn read(closes: &VecDeque<Decimal>) -> Option<Reading> {
    if closes.len() < CLOSES {
        return None;
    }
    let newest_first: Vec<Decimal> = closes.iter().rev().copied().collect();
    let (fast, slow) = (
        sum(newest_first[..FAST].iter())?,
        sum(newest_first[..SLOW].iter())?,
    );
    let fast_before = sum(newest_first[1..=FAST].iter())?;
    let slow_before = sum(newest_first[1..=SLOW].iter())?;
    let times = Decimal::from_int((SLOW / FAST) as i64);
    let now = fast.checked_mul(times)?.cmp(&slow);
    let before = fast_before.checked_mul(times)?.cmp(&slow_before);
    let crossing = if before.is_le() && now.is_gt() {
        Crossing::Up
    } else if before.is_ge() && now.is_lt() {
        Crossing::Down
    } else {
        Crossing::None
    };
    let mut moved = Decimal::ZERO;
    for pair in newest_first[..=VOLATILITY_MOVES].windows(2) {
        let step = pair[0].checked_sub(pair[1])?;
        moved = moved.checked_add(if step.is_negative() { -step } else { step })?;
    }
    let base = sum(newest_first[1..=VOLATILITY_MOVES].iter())?;
    let close = newest_first[0];
    let earlier = newest_first[MOMENTUM_BARS];
    Some(Reading {
        close,
        fast: fast.div_rounded(Decimal::from_int(FAST as i64), 4)?,
        slow: slow.div_rounded(Decimal::from_int(SLOW as i64), 4)?,
        crossing,
        volatility: percent(moved, base)?,
        momentum: percent(close.checked_sub(earlier)?, earlier)?,
    })
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signal {
    /// Buy so many units.
    Enter(Decimal),
    /// Sell what is held: the averages crossed.
    Leave,
    /// Sell what is held: the loss is too large.
    Stop,
    /// Averages crossed upwards, but the market is too volatile.
    TooVolatile,
    /// Nothing.
    Wait,
}

/// Judges a reading, given the price of the position held, if one is.
#[must_use]
pub fn signal(reading: &Reading, entry_price: Option<Decimal>) -> Signal {
    match (entry_price, reading.crossing) {
        (Some(_), Crossing::Down) => Signal::Leave,
        (Some(entry), _) if fallen_too_far(entry, reading.close) => Signal::Stop,
        (None, Crossing::Up) if reading.volatility > Decimal::from_int(VOLATILITY_PERCENT_MAX) => {
            Signal::TooVolatile
        }
        (None, Crossing::Up) => quantity(reading).map_or(Signal::Wait, Signal::Enter),
        _ => Signal::Wait,
    }
}

fn fallen_too_far(entry: Decimal, close: Decimal) -> bool {
    let change = close.checked_sub(entry).and_then(|d| percent(d, entry));
    change.is_some_and(|c| c < Decimal::from_int(-STOP_PERCENT))
}

/// Larger with momentum; rounded half-even. `None` if not even the smallest unit is affordable.
fn quantity(reading: &Reading) -> Option<Decimal> {
    let extra = reading
        .momentum
        .checked_mul(Decimal::from_int(AMOUNT_PER_PERCENT))?;
    let amount = Decimal::from_int(AMOUNT_MIN)
        .checked_add(extra)?
        .clamp(Decimal::from_int(AMOUNT_MIN), Decimal::from_int(AMOUNT_MAX));
    amount
        .div_rounded(reading.close, QUANTITY_DIGITS)
        .filter(|q| q.is_positive())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn closes(prices: impl IntoIterator<Item = i64>) -> VecDeque<Decimal> {
        prices.into_iter().map(Decimal::from_int).collect()
    }

    #[test]
    fn needs_a_bar_more_than_the_slow_average() {
        assert_eq!(read(&closes(std::iter::repeat_n(100, SLOW))), None);
        assert!(read(&closes(std::iter::repeat_n(100, CLOSES))).is_some());
    }

    #[test]
    fn a_rise_after_calm_is_an_entry_sized_by_momentum() {
        let reading = read(&closes(std::iter::repeat_n(100, SLOW).chain([106]))).unwrap();
        assert_eq!(reading.crossing, Crossing::Up);
        assert_eq!(reading.momentum, Decimal::from_int(6));
        // (300 + 6 * 60) / 106
        assert_eq!(
            signal(&reading, None),
            Signal::Enter("6.226".parse().unwrap())
        );
        assert_eq!(signal(&reading, Some(Decimal::from_int(100))), Signal::Wait);
    }

    #[test]
    fn a_fall_is_an_exit_and_a_deep_one_a_stop() {
        let mut falling = closes(std::iter::repeat_n(100, SLOW).chain([97]));
        let reading = read(&falling).unwrap();
        assert_eq!(
            signal(&reading, Some(Decimal::from_int(100))),
            Signal::Leave
        );
        assert_eq!(signal(&reading, None), Signal::Wait);
        falling.pop_front();
        falling.push_back(Decimal::from_int(91));
        let reading = read(&falling).unwrap();
        assert_eq!(reading.crossing, Crossing::None);
        assert_eq!(signal(&reading, Some(Decimal::from_int(100))), Signal::Stop);
        assert_eq!(signal(&reading, Some(Decimal::from_int(98))), Signal::Wait);
    }

    #[test]
    fn a_wild_market_is_left_alone() {
        let wild = (0..SLOW as i64)
            .map(|i| if i % 2 == 0 { 100 } else { 92 })
            .chain([120]);
        let reading = read(&closes(wild)).unwrap();
        assert_eq!(reading.crossing, Crossing::Up);
        assert_eq!(signal(&reading, None), Signal::TooVolatile);
    }

    #[test]
    fn prices_beyond_all_sums_give_no_reading() {
        let huge: Decimal = "9999999999999999999".parse().unwrap();
        assert_eq!(read(&std::iter::repeat_n(huge, CLOSES).collect()), None);
    }
}
