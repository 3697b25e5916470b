use serde::{Deserialize, Serialize};
use sovereign_schemas::{Decimal, ErrorCode, Identifier, Problem, Timestamp};

use crate::calls::{Order, Side};
use crate::effect::EffectId;
use crate::luck::Luck;

/// A mock exchange: fills each order whole, at once or after a latency, with slippage, for a
/// commission. What it does follows from its settings, the effect's id and the order, so a repeat
/// is answered alike by every process.
///
/// The defaults are those of the exchange `mock`: 0.1 % of the amount, at least a cent, no
/// slippage and no latency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exchange {
    /// Of slippage and latency.
    pub seed: u64,
    /// Commission, thousandths of the amount.
    pub commission_per_mille: Decimal,
    /// Least commission.
    pub commission_min: Decimal,
    /// Most that a price moves against the order, hundredths of a percent.
    pub slippage_bps_max: u32,
    /// Shortest time until the fill, milliseconds.
    pub latency_ms_min: u64,
    /// Longest time until the fill, milliseconds.
    pub latency_ms_max: u64,
}

impl Exchange {
    /// What is taken per 1,000 of the amount where nothing else is set.
    pub const COMMISSION_PER_MILLE: i64 = 1;
}

impl Default for Exchange {
    fn default() -> Self {
        Self {
            seed: 0,
            commission_per_mille: Decimal::from_int(Self::COMMISSION_PER_MILLE),
            commission_min: fraction(10_000_000),
            slippage_bps_max: 0,
            latency_ms_min: 0,
            latency_ms_max: 0,
        }
    }
}

/// So many billionths; these constants are in range.
fn fraction(billionths: i128) -> Decimal {
    Decimal::from_unscaled(billionths).unwrap_or_default()
}

/// The result of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Filled {
    /// The exchange's name for it.
    pub order_id: Identifier,
    /// For one unit.
    pub price: Decimal,
    /// All that was ordered.
    pub quantity: Decimal,
    /// What the exchange takes.
    pub commission: Decimal,
    /// When, on the market's clock.
    pub filled_at: Timestamp,
}

impl Exchange {
    /// The name of the exchange that is always there.
    ///
    /// # Panics
    /// Never: four letters are a name.
    #[must_use]
    pub fn mock_name() -> Identifier {
        #[allow(clippy::expect_used)]
        "mock".parse().expect("four letters are a name")
    }

    /// The commission on an amount: rounded half-even to the cent, at least the least. `None` if it
    /// is too large for a [`Decimal`].
    ///
    /// # Examples
    /// ```
    /// use sovereign_effects::Exchange;
    /// let of = |p: &str, q: &str| Exchange::default().commission(p.parse().unwrap(), q.parse().unwrap());
    /// assert_eq!(of("100", "5.25").unwrap().to_string(), "0.52");
    /// assert_eq!(of("1", "1").unwrap().to_string(), "0.01");
    /// ```
    #[must_use]
    pub fn commission(&self, price: Decimal, quantity: Decimal) -> Option<Decimal> {
        let share = self
            .commission_per_mille
            .mul_rounded(fraction(1_000_000), Decimal::SCALE)?;
        let exact = price
            .mul_rounded(quantity, Decimal::SCALE)?
            .mul_rounded(share, 2)?;
        Some(exact.max(self.commission_min))
    }

    /// How long the fill takes, milliseconds.
    #[must_use]
    pub fn latency_ms(&self, id: EffectId) -> u64 {
        let span = self.latency_ms_max.saturating_sub(self.latency_ms_min);
        self.latency_ms_min + Luck::new(self.seed, id, "latency").up_to(span)
    }

    /// Fills an order.
    ///
    /// # Errors
    /// [`ErrorCode::TargetRefused`] if the price would be worse than the order takes, or an amount
    /// is out of range; nothing is filled then.
    pub fn fill(&self, id: EffectId, order: &Order) -> Result<Filled, Problem> {
        let refused = |field: &str, message: &str| {
            Problem::new(ErrorCode::TargetRefused, message).field(field)
        };
        let price = self
            .slipped(id, order)
            .filter(|price| price.is_positive())
            .ok_or_else(|| refused("price", "the price is out of range"))?;
        let worse = |worst: Decimal| match order.side {
            Side::Buy => price > worst,
            Side::Sell => price < worst,
        };
        if order.price_worst.is_some_and(worse) {
            let problem = refused("price_worst", "the price moved beyond what the order takes");
            return Err(problem.found(price.to_string()));
        }
        let commission = self
            .commission(price, order.quantity)
            .ok_or_else(|| refused("quantity", "the amount is out of range"))?;
        let latency_us = i64::try_from(self.latency_ms(id)).unwrap_or(i64::MAX / 1_000) * 1_000;
        let order_id = format!("order_{id}").parse();
        Ok(Filled {
            order_id: order_id.map_err(|_| refused("exchange", "no id for the order"))?,
            price,
            quantity: order.quantity,
            commission,
            filled_at: Timestamp(order.at.0.saturating_add(latency_us)),
        })
    }

    fn slipped(&self, id: EffectId, order: &Order) -> Option<Decimal> {
        if self.slippage_bps_max == 0 {
            return Some(order.price);
        }
        // in thousandths of a basis point, so that prices differ
        let most = u64::from(self.slippage_bps_max) * 1_000;
        let moved = Luck::new(self.seed, id, "slippage").up_to(most);
        let share = fraction(i128::from(moved) * 100);
        let by = order.price.mul_rounded(share, Decimal::SCALE)?;
        match order.side {
            Side::Buy => order.price.checked_add(by),
            Side::Sell => order.price.checked_sub(by),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(side: Side) -> Order {
        Order {
            exchange: Exchange::mock_name(),
            instrument: "AAPL".parse().unwrap(),
            side,
            quantity: "5.25".parse().unwrap(),
            price: "100".parse().unwrap(),
            at: "2000-03-02".parse().unwrap(),
            price_worst: None,
        }
    }

    #[test]
    fn the_exchange_mock_fills_at_the_given_price_and_moment() {
        let filled = Exchange::default()
            .fill(EffectId::of("job", 0), &order(Side::Buy))
            .unwrap();
        assert_eq!(filled.price.to_string(), "100");
        assert_eq!(filled.quantity.to_string(), "5.25");
        assert_eq!(filled.commission.to_string(), "0.52");
        assert_eq!(filled.filled_at.to_string(), "2000-03-02T00:00:00.000000Z");
    }

    #[test]
    fn slippage_goes_against_the_order_within_its_bound_and_latency_counts() {
        let exchange = Exchange {
            seed: 7,
            slippage_bps_max: 50,
            latency_ms_min: 10,
            latency_ms_max: 20,
            ..Exchange::default()
        };
        let mut prices = std::collections::BTreeSet::new();
        for index in 0..200 {
            let id = EffectId::of("job", index);
            let bought = exchange.fill(id, &order(Side::Buy)).unwrap();
            let sold = exchange.fill(id, &order(Side::Sell)).unwrap();
            assert_eq!(bought, exchange.fill(id, &order(Side::Buy)).unwrap());
            assert!(
                bought.price >= "100".parse().unwrap() && bought.price <= "100.5".parse().unwrap()
            );
            assert!(sold.price <= "100".parse().unwrap() && sold.price >= "99.5".parse().unwrap());
            let waited = bought.filled_at.0 - order(Side::Buy).at.0;
            assert!((10_000..=20_000).contains(&waited), "{waited}");
            prices.insert(bought.price);
        }
        assert!(prices.len() > 150, "{}", prices.len());
    }

    #[test]
    fn a_price_worse_than_the_order_takes_is_not_filled() {
        let exchange = Exchange {
            slippage_bps_max: 50,
            ..Exchange::default()
        };
        let id = EffectId::of("job", 1);
        let worst = |side, price: &str| Order {
            price_worst: Some(price.parse().unwrap()),
            ..order(side)
        };
        for refused in [worst(Side::Buy, "100"), worst(Side::Sell, "100")] {
            assert_eq!(
                exchange.fill(id, &refused).unwrap_err().code,
                ErrorCode::TargetRefused
            );
        }
        for filled in [worst(Side::Buy, "100.5"), worst(Side::Sell, "99.5")] {
            assert!(exchange.fill(id, &filled).is_ok());
        }
    }
}
