//! Has authorized trades executed: at the next bar's open it submits a job whose one effect is an
//! order at the mock exchange. A worker carries it out; what the exchange answered comes back as an
//! event of the job, and is the trade's fill.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;
use sovereign_aggregates::AnyEvent;
use sovereign_aggregates::job::{EffectStatus, JobCommand, Submit};
use sovereign_aggregates::trade::{Cancel, Fill, Place, TradeCommand, Withdraw};
use sovereign_effects::{Effect, Exchange, Order};
use sovereign_schemas::events::{
    AgentEvent, JobEvent, JobQueue, MarketObserved, OrderFilled, Side, TradeEvent, Verdict,
};
use sovereign_schemas::{AggregateId, Decimal, DepartmentId, IdError, Identifier, RawText};

use super::{Names, Reaction, Reactions, Role, Seen, code};

pub(crate) const ROLE: Role = Role {
    name: "exchange",
    department: DepartmentId::TRADER,
};

/// Ids of jobs that are orders begin with this; the trade's id follows.
pub(crate) const JOB_PREFIX: &str = "order_";
/// Why a trade is given up for which no order can be made, or whose job's id is somebody else's.
const NOT_POSSIBLE: &str = "order_not_possible";
/// So often an order is tried that failed in a way that is worth it: with pauses of a second and then
/// twice as long each time, over 4 to 9 minutes.
const TRIES_MAX: u32 = 10;

/// What the exchange knows about one instrument.
#[derive(Debug, Clone)]
pub struct State {
    names: Names,
    /// Intents that may still become orders.
    intents: BTreeMap<String, Terms>,
    /// Authorized, waiting for the next bar.
    orders: BTreeMap<AggregateId, Terms>,
    /// Orders of trades that are about to be placed.
    placing: BTreeMap<String, Order>,
    /// Trades whose order is with a worker.
    placed: BTreeSet<String>,
    /// Jobs of others that bear the id of an order: no order can be placed under it.
    taken: BTreeSet<String>,
}

/// What an order is about.
#[derive(Debug, Clone)]
struct Terms {
    instrument: Identifier,
    side: Side,
    quantity: Decimal,
}

impl State {
    /// Before the first event.
    #[must_use]
    pub const fn new(names: Names) -> Self {
        Self {
            names,
            intents: BTreeMap::new(),
            orders: BTreeMap::new(),
            placing: BTreeMap::new(),
            placed: BTreeSet::new(),
            taken: BTreeSet::new(),
        }
    }

    /// Orders that have not come to an end yet.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.placing.len() + self.placed.len()
    }

    fn forget(&mut self, id: &str) {
        self.intents.remove(id);
        self.orders.retain(|order, _| order.as_str() != id);
        self.placing.remove(id);
        self.placed.remove(id);
        self.taken.remove(id);
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

/// The id of the job that is this trade's order.
///
/// # Errors
/// If the trade's id is too long for it.
pub fn job_id(trade: &AggregateId) -> Result<AggregateId, IdError> {
    format!("{JOB_PREFIX}{trade}").parse()
}

/// The trade whose order this job is, by its id.
#[must_use]
pub fn trade_of(job: &str) -> Option<&str> {
    job.strip_prefix(JOB_PREFIX)
}

/// The order for a trade at this bar; `None` if no exchange would take it.
fn order(terms: &Terms, bar: &MarketObserved) -> Option<Order> {
    let fits = commission(bar.open, terms.quantity).is_some() && bar.open.is_positive();
    fits.then(|| Order {
        exchange: Exchange::mock_name(),
        instrument: terms.instrument.clone(),
        side: match terms.side {
            Side::Buy => sovereign_effects::Side::Buy,
            Side::Sell => sovereign_effects::Side::Sell,
        },
        quantity: terms.quantity,
        price: bar.open,
        at: bar.opened_at,
        price_worst: None,
    })
}

fn submit(order: Order) -> JobCommand<RawText> {
    let plan = json!({ "steps": [{ "effect": Effect::Order(order) }] });
    JobCommand::Submit(Submit {
        kind: code("plan"),
        queue: JobQueue::High,
        arguments: RawText::new(plan.to_string()),
        planned: Some(1),
        run_at: None,
        after: vec![],
        unique_key: None,
        attempts_max: TRIES_MAX,
        backoff_ms: 1_000,
        amount: None,
        currency: None,
        schedule: None,
    })
}

fn cancel(out: &mut Reactions<'_>, trade: &AggregateId, reason: &'static str) {
    let reason = code(reason);
    out.trade(trade, TradeCommand::Cancel(Cancel { reason }));
}

fn withdraw(out: &mut Reactions<'_>, trade: &str, reason: &'static str) {
    let reason = code(reason);
    if let Ok(trade) = trade.parse() {
        out.trade(&trade, TradeCommand::Withdraw(Withdraw { reason }));
    }
}

/// Takes an event; answers each bar with orders for what was authorized before it, and what became
/// of an order with the trade's fill or end.
pub fn step(state: &mut State, seen: &Seen) -> Vec<Reaction> {
    let mut out = Reactions::of(code(ROLE.name), ROLE.department, seen.header());
    let id = seen.aggregate_id();
    match &seen.event {
        AnyEvent::Trade(event) => trade(state, id, event, &mut out),
        AnyEvent::Job(event) => job(state, seen, event, &mut out),
        AnyEvent::Agent(AgentEvent::MarketObserved(bar)) if id == state.names.hunter.as_str() => {
            for (trade, terms) in std::mem::take(&mut state.orders) {
                match (job_id(&trade), order(&terms, bar)) {
                    (Ok(job_id), Some(order)) if !state.taken.contains(trade.as_str()) => {
                        out.trade(&trade, TradeCommand::Place(Place { job_id }));
                        state.placing.insert(trade.into(), order);
                    }
                    _ => cancel(&mut out, &trade, NOT_POSSIBLE),
                }
            }
        }
        AnyEvent::Agent(AgentEvent::TaskFinished(_)) if id == state.names.hunter.as_str() => {
            for trade in std::mem::take(&mut state.orders).into_keys() {
                cancel(&mut out, &trade, "no_next_bar");
            }
        }
        _ => {}
    }
    out.done()
}

fn trade(state: &mut State, id: &str, event: &TradeEvent, out: &mut Reactions<'_>) {
    match event {
        TradeEvent::TradeProposed(e) => {
            if let Ok(instrument) = e.instrument.parse() {
                let terms = Terms {
                    instrument,
                    side: e.side,
                    quantity: e.quantity,
                };
                state.intents.insert(id.to_owned(), terms);
            }
        }
        TradeEvent::VerdictGiven(e) if e.verdict == Verdict::Red => state.forget(id),
        TradeEvent::TradeAuthorized(_) => {
            if let (Some(terms), Ok(trade)) = (state.intents.remove(id), id.parse()) {
                state.orders.insert(trade, terms);
            }
        }
        TradeEvent::TradePlaced(e) => {
            // one that somebody else has placed is filled by them
            if let (Some(order), Ok(job)) = (state.placing.remove(id), e.job_id.parse()) {
                out.job(&job, submit(order));
                state.placed.insert(id.to_owned());
            } else {
                state.forget(id);
            }
        }
        TradeEvent::TradeFilled(_) | TradeEvent::TradeCancelled(_) => state.forget(id),
        _ => {}
    }
}

/// Only of jobs that were submitted here: others may call theirs alike.
fn job(state: &mut State, seen: &Seen, event: &JobEvent, out: &mut Reactions<'_>) {
    let Some(trade) = trade_of(seen.aggregate_id()) else {
        return;
    };
    match event {
        JobEvent::JobSubmitted(_) if seen.header().actor == ROLE.name => {}
        JobEvent::JobSubmitted(_) => {
            // an order that is on its way there is refused
            if state.placed.remove(trade) {
                withdraw(out, trade, NOT_POSSIBLE);
            }
            state.taken.insert(trade.to_owned());
        }
        JobEvent::OrderFilled(e) => {
            let ours = state.placed.remove(trade);
            if let (true, Ok(trade), Some(fill)) = (ours, trade.parse(), fill(e)) {
                out.trade(&trade, TradeCommand::Fill(fill));
            }
        }
        JobEvent::JobFailed(e) => ended(state, trade, &e.report, "order_failed", out),
        JobEvent::JobAborted(e) => ended(state, trade, &e.report, "order_aborted", out),
        _ => {}
    }
}

/// The order of a trade was given up. One that may have been executed all the same is left to a
/// human, who fills the trade or withdraws it.
fn ended(
    state: &mut State,
    trade: &str,
    report: &str,
    reason: &'static str,
    out: &mut Reactions<'_>,
) {
    let in_doubt = report.contains(EffectStatus::InDoubt.reported());
    if state.placed.remove(trade) && !in_doubt {
        withdraw(out, trade, reason);
    }
}

fn fill(filled: &OrderFilled) -> Option<Fill> {
    Some(Fill {
        order_id: filled.order_id.parse().ok()?,
        price: filled.price,
        quantity: filled.quantity,
        commission: filled.commission,
        filled_at: filled.filled_at,
    })
}
