//! Judges each intent, Green or Red, by the rules below, in their order; the first one that is
//! broken is named. What it knows comes from bars and fills only, never from the trader's words.
//!
//! | rule | an intent is Red if | applies to |
//! |---|---|---|
//! | `stale_price` | it rests on another bar than the last one observed | all |
//! | `price_off_market` | its price is more than 1 % off the last close | all |
//! | `no_such_position` | it closes what its agent does not hold, or not exactly that | exits |
//! | `position_open` | its agent holds a position that no human has to decide about | entries |
//! | `amount_cap` | its amount is above 5,000, approval or not | entries |
//! | `price_jump` | a close jumped by more than 35 % within 30 bars: a split, or a bad print | entries |
//! | `wild_bar` | high minus low exceeds 6 % of the close | entries |
//! | `loss_budget` | its agent has lost 120 or more here in this calendar year | entries |

use std::collections::{BTreeMap, VecDeque};

use sovereign_aggregates::AnyEvent;
use sovereign_aggregates::trade::{GiveVerdict, TradeCommand};
use sovereign_schemas::events::{
    AgentEvent, MarketObserved, Side, TradeEvent, TradeFilled, TradeProposed, Verdict,
};
use sovereign_schemas::{Decimal, DepartmentId, RawText, Timestamp};

use super::{Names, Reaction, Reactions, Role, Seen, code, moment, percent};

pub(crate) const ROLE: Role = Role {
    name: "auditor",
    department: DepartmentId::AUDITOR,
};

/// A price may be so many percent off the last close.
pub const PRICE_OFF_PERCENT_MAX: i64 = 1;
/// No entry may be larger.
pub const AMOUNT_CAP: i64 = 5_000;
/// A close that moves by more percent is a jump.
pub const JUMP_PERCENT: i64 = 35;
/// Bars without entries after a jump.
pub const JUMP_BARS: usize = 30;
/// A bar with a wider range, in percent of its close, is wild.
pub const RANGE_PERCENT_MAX: i64 = 6;
/// No entries after this loss in a calendar year, per agent and instrument.
pub const LOSS_BUDGET: i64 = 120;

/// What the auditor knows about one instrument.
#[derive(Debug, Clone)]
pub struct State {
    names: Names,
    last: Option<MarketObserved>,
    /// The moves of the last closes in percent, without sign, newest last.
    moves: VecDeque<Decimal>,
    intents: BTreeMap<String, Intent>,
    books: BTreeMap<String, Book>,
}

#[derive(Debug, Clone)]
struct Intent {
    agent_id: String,
    side: Side,
    closes: Option<String>,
}

/// One agent's dealings in the instrument.
#[derive(Debug, Clone, Default)]
struct Book {
    positions: BTreeMap<String, Position>,
    /// Year, and the result of the positions closed in it.
    result: (String, Decimal),
}

#[derive(Debug, Clone)]
struct Position {
    side: Side,
    quantity: Decimal,
    price: Decimal,
    commission: Decimal,
    /// A human has to decide about its exit.
    parked: bool,
}

fn year(at: Timestamp) -> String {
    at.to_string().chars().take(4).collect()
}

impl State {
    /// Before the first event.
    #[must_use]
    pub const fn new(names: Names) -> Self {
        Self {
            names,
            last: None,
            moves: VecDeque::new(),
            intents: BTreeMap::new(),
            books: BTreeMap::new(),
        }
    }

    fn observe(&mut self, bar: &MarketObserved) {
        if let Some(last) = &self.last {
            let step = bar
                .close
                .checked_sub(last.close)
                .map(|d| if d.is_negative() { -d } else { d });
            // a move beyond all numbers is a jump
            let step = step.and_then(|d| percent(d, last.close));
            self.moves
                .push_back(step.unwrap_or_else(|| Decimal::from_int(i64::MAX)));
            if self.moves.len() > JUMP_BARS {
                self.moves.pop_front();
            }
        }
        self.last = Some(bar.clone());
    }

    fn filled(&mut self, id: &str, fill: &TradeFilled) {
        let Some(intent) = self.intents.remove(id) else {
            return;
        };
        let book = self.books.entry(intent.agent_id).or_default();
        let Some(entry) = intent.closes else {
            let position = Position {
                side: intent.side,
                quantity: fill.quantity,
                price: fill.price,
                commission: fill.commission,
                parked: false,
            };
            book.positions.insert(id.to_owned(), position);
            return;
        };
        let result = book.positions.remove(&entry).and_then(|p| result(&p, fill));
        let year = year(fill.filled_at);
        if book.result.0 != year {
            book.result = (year, Decimal::ZERO);
        }
        if let Some(sum) = result.and_then(|r| book.result.1.checked_add(r)) {
            book.result.1 = sum;
        }
    }

    fn park(&mut self, id: &str) {
        let Some(Intent {
            agent_id,
            closes: Some(entry),
            ..
        }) = self.intents.get(id)
        else {
            return;
        };
        let positions = self.books.get_mut(agent_id).map(|b| &mut b.positions);
        if let Some(position) = positions.and_then(|p| p.get_mut(entry)) {
            position.parked = true;
        }
    }

    /// The first rule that the intent breaks, with the reason in words.
    fn broken(&self, e: &TradeProposed, bar: &MarketObserved) -> Option<(&'static str, String)> {
        if e.decided_on != bar.opened_at {
            let last = moment(bar.opened_at, bar.interval_s);
            let own = moment(e.decided_on, bar.interval_s);
            return Some((
                "stale_price",
                format!("rests on {own}, the last bar is of {last}"),
            ));
        }
        let off = e
            .price
            .checked_sub(bar.close)
            .and_then(|d| percent(d, bar.close));
        let limit = Decimal::from_int(PRICE_OFF_PERCENT_MAX);
        if off.is_none_or(|p| p > limit || p < -limit) {
            let why = format!(
                "price {} is more than {limit} % off the close {}",
                e.price, bar.close
            );
            return Some(("price_off_market", why));
        }
        let book = self.books.get(&e.agent_id);
        match &e.closes {
            Some(entry) => Self::broken_by_exit(e, entry, book),
            None => self.broken_by_entry(e, bar, book),
        }
    }

    fn broken_by_exit(
        e: &TradeProposed,
        entry: &str,
        book: Option<&Book>,
    ) -> Option<(&'static str, String)> {
        let held = book.and_then(|b| b.positions.get(entry));
        let fits = |p: &Position| p.quantity == e.quantity && p.side != e.side && !p.parked;
        if held.is_some_and(fits) {
            return None;
        }
        let holds = held.map_or(Decimal::ZERO, |p| p.quantity);
        let why = format!(
            "closes {} of {entry}; the agent holds {holds} of it",
            e.quantity
        );
        Some(("no_such_position", why))
    }

    fn broken_by_entry(
        &self,
        e: &TradeProposed,
        bar: &MarketObserved,
        book: Option<&Book>,
    ) -> Option<(&'static str, String)> {
        let mut open = book
            .into_iter()
            .flat_map(|b| &b.positions)
            .filter(|(_, p)| !p.parked);
        if let Some((id, p)) = open.next() {
            return Some((
                "position_open",
                format!("{} of {id} are held already", p.quantity),
            ));
        }
        let cap = Decimal::from_int(AMOUNT_CAP);
        if e.amount > cap {
            return Some(("amount_cap", format!("amount {} is above {cap}", e.amount)));
        }
        let jump = Decimal::from_int(JUMP_PERCENT);
        if let Some(found) = self.moves.iter().find(|m| **m > jump) {
            let why = format!("a close jumped by {found} % within the last {JUMP_BARS} bars");
            return Some(("price_jump", why));
        }
        let range = bar
            .high
            .checked_sub(bar.low)
            .and_then(|d| percent(d, bar.close));
        let limit = Decimal::from_int(RANGE_PERCENT_MAX);
        if range.is_none_or(|r| r > limit) {
            let range = range.map_or_else(|| "beyond all bounds".to_owned(), |r| format!("{r} %"));
            return Some((
                "wild_bar",
                format!("range {range} of the close, limit {limit} %"),
            ));
        }
        let year = year(bar.opened_at);
        let result = book
            .filter(|b| b.result.0 == year)
            .map_or(Decimal::ZERO, |b| b.result.1);
        if result <= Decimal::from_int(-LOSS_BUDGET) {
            let why = format!("result {result} in {year}, the budget is a loss of {LOSS_BUDGET}");
            return Some(("loss_budget", why));
        }
        None
    }

    fn judge(&self, e: &TradeProposed, bar: &MarketObserved) -> GiveVerdict<RawText> {
        match self.broken(e, bar) {
            Some((rule, why)) => GiveVerdict {
                verdict: Verdict::Red,
                rule: code(rule),
                note: RawText::new(format!("Red by {rule}: {why}.")),
            },
            None => GiveVerdict {
                verdict: Verdict::Green,
                rule: code("within_limits"),
                note: RawText::new(format!(
                    "Green: {} {} at {} makes {}, close {}, all limits kept.",
                    e.quantity, e.instrument, e.price, e.amount, bar.close
                )),
            },
        }
    }
}

fn result(entry: &Position, exit: &TradeFilled) -> Option<Decimal> {
    let (bought, sold) = match entry.side {
        Side::Buy => (entry.price, exit.price),
        Side::Sell => (exit.price, entry.price),
    };
    let gain = sold
        .checked_sub(bought)?
        .mul_rounded(entry.quantity, Decimal::SCALE)?;
    gain.checked_sub(entry.commission.checked_add(exit.commission)?)
}

/// Takes an event; answers each intent with a verdict.
pub fn step(state: &mut State, seen: &Seen) -> Vec<Reaction> {
    let id = seen.aggregate_id();
    match &seen.event {
        AnyEvent::Agent(AgentEvent::MarketObserved(bar)) if id == state.names.hunter.as_str() => {
            state.observe(bar);
        }
        AnyEvent::Trade(event) => match event {
            TradeEvent::TradeProposed(e) => {
                let intent = Intent {
                    agent_id: e.agent_id.clone(),
                    side: e.side,
                    closes: e.closes.clone(),
                };
                state.intents.insert(id.to_owned(), intent);
                if let (Some(bar), Ok(trade_id)) = (&state.last, id.parse()) {
                    let mut out = Reactions::of(code(ROLE.name), ROLE.department, seen.header());
                    out.trade(&trade_id, TradeCommand::GiveVerdict(state.judge(e, bar)));
                    return out.done();
                }
            }
            TradeEvent::VerdictGiven(e) if e.verdict == Verdict::Red => {
                state.intents.remove(id);
            }
            TradeEvent::TradeHeld(_) => state.park(id),
            TradeEvent::TradeFilled(e) => state.filled(id, e),
            TradeEvent::TradeCancelled(_) => {
                state.intents.remove(id);
            }
            _ => {}
        },
        _ => {}
    }
    vec![]
}
