//! The same strategy, auditor and exchange once more, as one plain loop over vectors: no events,
//! no states, its own arithmetic. What the agents did must equal it row by row.

use rust_decimal::Decimal as D;
use rust_decimal::RoundingStrategy::AwayFromZero;
use sovereign_agents::market::{Bar, MarketFile};

/// One intent and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) trade_id: String,
    pub(crate) buys: bool,
    pub(crate) quantity: D,
    pub(crate) price: D,
    pub(crate) amount: D,
    pub(crate) closes: Option<String>,
    pub(crate) decided_on: String,
    pub(crate) rule: String,
    pub(crate) end: End,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    Red,
    Held,
    NoNextBar,
    Filled {
        on: String,
        price: D,
        commission: D,
        profit: Option<D>,
    },
}

fn d(text: &str) -> D {
    text.parse().unwrap()
}

pub(crate) fn day(bar: &Bar) -> String {
    bar.opened_at.to_string()[..10].to_owned()
}

struct Held {
    row: usize,
    quantity: D,
    price: D,
    commission: D,
}

struct Prices {
    open: Vec<D>,
    high: Vec<D>,
    low: Vec<D>,
    close: Vec<D>,
    days: Vec<String>,
}

impl Prices {
    fn of(bars: &[Bar]) -> Self {
        let column = |f: fn(&Bar) -> String| bars.iter().map(|b| d(&f(b))).collect();
        Self {
            open: column(|b| b.open.to_string()),
            high: column(|b| b.high.to_string()),
            low: column(|b| b.low.to_string()),
            close: column(|b| b.close.to_string()),
            days: bars.iter().map(day).collect(),
        }
    }

    fn sum(&self, end: usize, bars: usize) -> D {
        self.close[end + 1 - bars..=end].iter().sum()
    }

    /// 1 when the fast average rose above the slow one with bar `i`, -1 when it fell below.
    fn crossing(&self, i: usize) -> i8 {
        // thrice the sum of 10 against the sum of 30: no division, so no rounding
        let compare = |i| (self.sum(i, 10) * d("3")).cmp(&self.sum(i, 30));
        let (before, now) = (compare(i - 1), compare(i));
        if before.is_le() && now.is_gt() {
            1
        } else if before.is_ge() && now.is_lt() {
            -1
        } else {
            0
        }
    }

    fn volatility_percent(&self, i: usize) -> D {
        let moved: D = (i - 19..=i)
            .map(|j| (self.close[j] - self.close[j - 1]).abs())
            .sum();
        let base = self.sum(i - 1, 20);
        (moved * d("100") / base).round_dp(4)
    }

    fn momentum_percent(&self, i: usize) -> D {
        ((self.close[i] - self.close[i - 10]) * d("100") / self.close[i - 10]).round_dp(4)
    }

    fn jumped(&self, i: usize) -> bool {
        (1..=i).rev().take(30).any(|j| {
            ((self.close[j] - self.close[j - 1]).abs() * d("100") / self.close[j - 1]).round_dp(4)
                > d("35")
        })
    }
}

/// All intents of one instrument, in order.
pub(crate) fn trades(slug: &str, bars: &[Bar]) -> Vec<Row> {
    let prices = Prices::of(bars);
    let mut rows: Vec<Row> = Vec::new();
    let mut held: Option<Held> = None;
    let mut ordered: Option<usize> = None;
    let mut year_result: (String, D) = (String::new(), D::ZERO);
    for i in 0..bars.len() {
        if let Some(row) = ordered.take() {
            let price = prices.open[i];
            let quantity = rows[row].quantity;
            let commission = (price * quantity * d("0.001")).round_dp(2).max(d("0.01"));
            if rows[row].buys {
                held = Some(Held {
                    row,
                    quantity,
                    price,
                    commission,
                });
            } else {
                let h = held.take().unwrap();
                let won = (price - h.price) * quantity - h.commission - commission;
                let year = prices.days[i][..4].to_owned();
                if year_result.0 != year {
                    year_result = (year, D::ZERO);
                }
                year_result.1 += won;
                if let End::Filled { profit, .. } = &mut rows[h.row].end {
                    *profit = Some(won);
                }
            }
            let on = prices.days[i].clone();
            rows[row].end = End::Filled {
                on,
                price,
                commission,
                profit: None,
            };
        }
        if i < 30 {
            continue;
        }
        let close = prices.close[i];
        let cross = prices.crossing(i);
        let wanted = match &held {
            Some(h) => {
                let fallen = ((close - h.price) * d("100") / h.price).round_dp(4) < d("-8");
                (cross < 0 || fallen).then_some((false, h.quantity))
            }
            None if cross > 0 && prices.volatility_percent(i) <= d("3") => {
                let amount = d("300") + d("60") * prices.momentum_percent(i);
                let amount = amount.max(d("300")).min(d("1500"));
                Some((true, (amount / close).round_dp(3)))
            }
            None => None,
        };
        let Some((buys, quantity)) = wanted else {
            continue;
        };
        let amount = (quantity * close).round_dp_with_strategy(2, AwayFromZero);
        let range = ((prices.high[i] - prices.low[i]) * d("100") / close).round_dp(4);
        let rule = if !buys {
            "within_limits"
        } else if prices.jumped(i) {
            "price_jump"
        } else if range > d("6") {
            "wild_bar"
        } else if year_result.0 == prices.days[i][..4] && year_result.1 <= d("-120") {
            "loss_budget"
        } else {
            "within_limits"
        };
        let green = rule == "within_limits";
        let end = if !green {
            End::Red
        } else if amount > d("1000") {
            End::Held
        } else {
            ordered = Some(rows.len());
            End::NoNextBar
        };
        rows.push(Row {
            trade_id: format!("trade_{slug}_{}_1", prices.days[i].replace('-', "")),
            buys,
            quantity: quantity.normalize(),
            price: close,
            amount: amount.normalize(),
            closes: held
                .as_ref()
                .filter(|_| !buys)
                .map(|h| rows[h.row].trade_id.clone()),
            decided_on: prices.days[i].clone(),
            rule: rule.to_owned(),
            end: end.clone(),
        });
        if !buys && end == End::Held {
            held = None;
        }
    }
    rows
}

pub(crate) fn all(file: &MarketFile) -> Vec<Row> {
    let mut rows: Vec<Row> = file
        .iter()
        .flat_map(|(slug, series)| trades(slug, &series.bars))
        .collect();
    rows.sort_by(|a, b| a.trade_id.cmp(&b.trade_id));
    rows
}
