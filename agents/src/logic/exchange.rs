//! A mock exchange: fills what is authorized at the next bar's open, whole, without slippage,
//! for a commission. It is the sink of trade intents until real venues are connected.

use std::collections::BTreeMap;

use sovereign_aggregates::AnyEvent;
use sovereign_aggregates::trade::{Cancel, Fill, TradeCommand};
use sovereign_effects::Exchange;
use sovereign_schemas::events::{AgentEvent, MarketObserved, TradeEvent, Verdict};
use sovereign_schemas::{AggregateId, Decimal, DepartmentId};

use super::{Names, Reaction, Reactions, Role, Seen, code};

pub(crate) const ROLE: Role = Role {
    name: "exchange",
    department: DepartmentId::TRADER,
};

/// What the exchange knows about one instrument.
#[derive(Debug, Clone)]
pub struct State {
    names: Names,
    /// Intents that may still become orders, with their quantity.
    intents: BTreeMap<String, Decimal>,
    /// Authorized, waiting for the next bar.
    orders: BTreeMap<AggregateId, Decimal>,
}

impl State {
    /// Before the first event.
    #[must_use]
    pub const fn new(names: Names) -> Self {
        Self {
            names,
            intents: BTreeMap::new(),
            orders: BTreeMap::new(),
        }
    }

    fn forget(&mut self, id: &str) {
        self.intents.remove(id);
        self.orders.retain(|order, _| order.as_str() != id);
    }
}

/// 0.1 % of the amount, rounded half-even to the cent, at least one cent: what the exchange `mock`
/// of effects takes.
///
/// # Examples
/// ```
/// use sovereign_agents::logic::exchange::commission;
/// use sovereign_schemas::Decimal;
/// let of = |p: &str, q: &str| commission(p.parse().unwrap(), q.parse().unwrap()).unwrap();
/// assert_eq!(of("100", "5.25").to_string(), "0.52");
/// assert_eq!(of("1", "1").to_string(), "0.01");
/// ```
#[must_use]
pub fn commission(price: Decimal, quantity: Decimal) -> Option<Decimal> {
    Exchange::default().commission(price, quantity)
}

fn fill(quantity: Decimal, bar: &MarketObserved, id: &AggregateId) -> Option<Fill> {
    Some(Fill {
        order_id: format!("order_{id}")
            .parse()
            .or_else(|_| id.as_str().parse())
            .ok()?,
        price: bar.open,
        quantity,
        commission: commission(bar.open, quantity)?,
        filled_at: bar.opened_at,
    })
}

/// Takes an event; answers each bar with the fills of what was authorized before it.
pub fn step(state: &mut State, seen: &Seen) -> Vec<Reaction> {
    let mut out = Reactions::of(code(ROLE.name), ROLE.department, seen.header());
    let id = seen.aggregate_id();
    match &seen.event {
        AnyEvent::Trade(TradeEvent::TradeProposed(e)) => {
            state.intents.insert(id.to_owned(), e.quantity);
        }
        AnyEvent::Trade(TradeEvent::VerdictGiven(e)) if e.verdict == Verdict::Red => {
            state.forget(id);
        }
        AnyEvent::Trade(TradeEvent::TradeAuthorized(_)) => {
            if let (Some(quantity), Ok(order)) = (state.intents.remove(id), id.parse()) {
                state.orders.insert(order, quantity);
            }
        }
        AnyEvent::Trade(TradeEvent::TradeFilled(_) | TradeEvent::TradeCancelled(_)) => {
            state.forget(id);
        }
        AnyEvent::Agent(AgentEvent::MarketObserved(bar)) if id == state.names.hunter.as_str() => {
            for (order, quantity) in std::mem::take(&mut state.orders) {
                match fill(quantity, bar, &order) {
                    Some(fill) => out.trade(&order, TradeCommand::Fill(fill)),
                    None => out.trade(
                        &order,
                        TradeCommand::Cancel(Cancel {
                            reason: code("amount_out_of_range"),
                        }),
                    ),
                }
            }
        }
        AnyEvent::Agent(AgentEvent::TaskFinished(_)) if id == state.names.hunter.as_str() => {
            for order in std::mem::take(&mut state.orders).into_keys() {
                out.trade(
                    &order,
                    TradeCommand::Cancel(Cancel {
                        reason: code("no_next_bar"),
                    }),
                );
            }
        }
        _ => {}
    }
    out.done()
}
