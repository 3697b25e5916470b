//! What the trader thinks, in words that quote the numbers.

use sovereign_schemas::Decimal;
use sovereign_schemas::events::MarketObserved;

use super::Position;
use super::strategy::{self, Reading, Signal};
use crate::logic::{moment, percent};

/// A number with its sign.
fn signed(value: Decimal) -> String {
    if value.is_negative() {
        value.to_string()
    } else {
        format!("+{value}")
    }
}

fn opening(bar: &MarketObserved) -> String {
    let when = moment(bar.opened_at, bar.interval_s);
    format!("{} {when}: close {}", bar.instrument, bar.close)
}

fn holding(position: Option<&Position>, close: Decimal) -> String {
    let Some(p) = position else {
        return "flat".to_owned();
    };
    let change = close.checked_sub(p.price).and_then(|d| percent(d, p.price));
    let change = change.map_or_else(String::new, |c| format!(" ({} %)", signed(c.rounded(2))));
    format!("holding {} bought at {}{change}", p.quantity, p.price)
}

/// The thought about every bar.
pub(super) fn about_bar(
    bar: &MarketObserved,
    reading: Option<&Reading>,
    seen: usize,
    position: Option<&Position>,
    signal: &Signal,
) -> String {
    let start = opening(bar);
    let Some(r) = reading else {
        return format!(
            "{start}; {seen} of the {} bars that I need to judge, {}.",
            strategy::CLOSES,
            holding(position, bar.close)
        );
    };
    let conclusion = match signal {
        Signal::Wait => "No signal, I wait.".to_owned(),
        Signal::TooVolatile => format!(
            "The averages crossed upwards, but the market moves more than {} % a bar: I stay out.",
            strategy::VOLATILITY_PERCENT_MAX
        ),
        Signal::Enter(_) => "The fast average crossed above the slow one.".to_owned(),
        Signal::Leave => "The fast average crossed below the slow one.".to_owned(),
        Signal::Stop => {
            format!(
                "The close is more than {} % below my price.",
                strategy::STOP_PERCENT
            )
        }
    };
    format!(
        "{start}; {}-bar average {}, {}-bar average {}; mean move {} % a bar, momentum {} %; {}. \
         {conclusion}",
        strategy::FAST,
        r.fast,
        strategy::SLOW,
        r.slow,
        r.volatility.rounded(2),
        signed(r.momentum.rounded(2)),
        holding(position, bar.close),
    )
}

/// The second thought, and the rationale of the intent.
pub(super) fn about_intent(
    bar: &MarketObserved,
    reading: &Reading,
    signal: &Signal,
    quantity: Decimal,
    position: Option<&Position>,
) -> String {
    let amount = quantity
        .mul_rounded_up(bar.close, 2)
        .map_or_else(String::new, |a| format!(", {a} in all"));
    let verb = if matches!(signal, Signal::Enter(_)) {
        "Buy"
    } else {
        "Sell"
    };
    let why = match (signal, position) {
        (Signal::Enter(_), _) => format!(
            "the {}-bar average {} is above the {}-bar average {} for the first time, with {} % \
             momentum over {} bars",
            strategy::FAST,
            reading.fast,
            strategy::SLOW,
            reading.slow,
            signed(reading.momentum.rounded(2)),
            strategy::MOMENTUM_BARS,
        ),
        (Signal::Stop, Some(p)) => format!(
            "the close fell more than {} % below my price {}",
            strategy::STOP_PERCENT,
            p.price
        ),
        _ => format!(
            "the {}-bar average {} fell below the {}-bar average {}",
            strategy::FAST,
            reading.fast,
            strategy::SLOW,
            reading.slow
        ),
    };
    format!(
        "{verb} {quantity} {} at {}{amount}: {why}.",
        bar.instrument, bar.close
    )
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    fn bar(close: &str) -> MarketObserved {
        let price = close.parse().unwrap();
        MarketObserved {
            instrument: "AAPL".into(),
            opened_at: "2004-02-26".parse().unwrap(),
            interval_s: 86_400,
            open: price,
            high: price,
            low: price,
            close: price,
            volume: Decimal::ZERO,
        }
    }

    #[test]
    fn thoughts_quote_the_numbers() {
        let hundred = Decimal::from_int(100);
        let closes: VecDeque<_> = std::iter::repeat_n(hundred, strategy::SLOW)
            .chain(["106".parse().unwrap()])
            .collect();
        let reading = strategy::read(&closes).unwrap();
        let signal = strategy::signal(&reading, None);
        assert_eq!(
            about_bar(&bar("106"), Some(&reading), 31, None, &signal),
            "AAPL 2004-02-26: close 106; 10-bar average 100.6, 30-bar average 100.2; mean move \
             0.3 % a bar, momentum +6 %; flat. The fast average crossed above the slow one."
        );
        assert_eq!(
            about_intent(
                &bar("106"),
                &reading,
                &signal,
                "6.226".parse().unwrap(),
                None
            ),
            "Buy 6.226 AAPL at 106, 659.96 in all: the 10-bar average 100.6 is above the 30-bar \
             average 100.2 for the first time, with +6 % momentum over 10 bars."
        );
        assert_eq!(
            about_bar(&bar("106"), None, 3, None, &Signal::Wait),
            "AAPL 2004-02-26: close 106; 3 of the 31 bars that I need to judge, flat."
        );
    }
}
