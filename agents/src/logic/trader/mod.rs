//! Trades one instrument: looks at each bar, thinks aloud, and proposes an intent when its
//! strategy gives a signal. It never authorizes or executes anything itself.

pub mod strategy;
mod words;

use std::collections::VecDeque;

use sovereign_aggregates::AnyEvent;
use sovereign_aggregates::agent::{AgentCommand, RecordThought, Transition};
use sovereign_aggregates::trade::{Cancel, Propose, TradeCommand};
use sovereign_schemas::events::{
    AgentEvent, AgentState, MarketObserved, Side, TradeEvent, TradeFilled, TransitionRefused,
    Verdict,
};
use sovereign_schemas::{AggregateId, Decimal, DepartmentId, Identifier, RawText, Uuid};

use super::{Names, Reaction, Reactions, Seen, code};
use strategy::{Reading, Signal};

/// What the trader of one instrument knows.
#[derive(Debug, Clone)]
pub struct State {
    names: Names,
    registered: bool,
    /// The last closes, newest last.
    closes: VecDeque<Decimal>,
    stage: Stage,
    /// A bar that was not looked at yet, with its correlation.
    unseen: Option<(MarketObserved, Uuid)>,
    /// Correlation of the bar that was looked at last: all that follows from it belongs to it, so
    /// that the hunter knows which bar is settled, even if somebody else had a hand in it.
    current: Option<Uuid>,
    /// The exchange is about to report the fill of `order`: the bar has to wait for it.
    fill_due: bool,
    /// Authorized, not filled yet.
    order: Option<Order>,
    position: Option<Position>,
    /// Positions whose exit a human has to decide about; they are not touched again.
    parked: u64,
    /// Day and number of the last intent.
    last_intent: (String, u32),
}

/// Where the work on the current bar stands.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Stage {
    /// Nothing to do.
    Resting,
    /// On the way back to IDLE.
    Returning,
    /// An intent was proposed and is being judged.
    Waiting(Order),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Order {
    trade_id: AggregateId,
    /// The position that it closes.
    closes: Option<AggregateId>,
}

/// Units that were bought and not sold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Position {
    entry: AggregateId,
    quantity: Decimal,
    price: Decimal,
}

impl State {
    /// Before the first bar; `registered` says whether the agent exists already.
    #[must_use]
    pub fn new(names: Names, registered: bool) -> Self {
        Self {
            names,
            registered,
            closes: VecDeque::with_capacity(strategy::CLOSES + 1),
            stage: Stage::Resting,
            unseen: None,
            current: None,
            fill_due: false,
            order: None,
            position: None,
            parked: 0,
            last_intent: (String::new(), 0),
        }
    }

    /// Positions whose exit waits for a human, or was not allowed by one.
    #[must_use]
    pub const fn parked(&self) -> u64 {
        self.parked
    }

    fn observe(&mut self, bar: &MarketObserved, correlation_id: Uuid) {
        self.closes.push_back(bar.close);
        if self.closes.len() > strategy::CLOSES {
            self.closes.pop_front();
        }
        self.unseen = Some((bar.clone(), correlation_id));
        // what was authorized before this bar is filled at its open
        self.fill_due = self.order.is_some();
    }

    /// Looks at the bar that waits, if nothing has to come first.
    fn look(&mut self, out: &mut Reactions<'_>) {
        if self.stage != Stage::Resting || self.fill_due || !self.registered {
            return;
        }
        let Some((bar, correlation_id)) = self.unseen.take() else {
            return;
        };
        self.current = Some(correlation_id);
        out.correlate(correlation_id);
        let reading = strategy::read(&self.closes);
        let price = self.position.as_ref().map(|p| p.price);
        let signal = match &reading {
            // one thing at a time: with an order open there is nothing to decide
            Some(reading) if self.order.is_none() => strategy::signal(reading, price),
            _ => Signal::Wait,
        };
        let held = self.position.as_ref();
        let thought = words::about_bar(&bar, reading.as_ref(), self.closes.len(), held, &signal);
        self.go(out, AgentState::Scanning, "bar_observed");
        self.think(out, thought);
        let intent = reading.and_then(|reading| self.intent(&bar, &reading, &signal));
        let Some((order, propose, why)) = intent else {
            self.go(out, AgentState::Idle, "nothing_to_do");
            self.stage = Stage::Returning;
            return;
        };
        self.go(out, AgentState::Analyzing, "signal");
        self.think(out, why);
        self.go(out, AgentState::Verifying, "intent_proposed");
        out.trade(&order.trade_id, TradeCommand::Propose(propose));
        self.stage = Stage::Waiting(order);
    }

    /// The intent that follows from a signal, with the reason in words.
    fn intent(
        &mut self,
        bar: &MarketObserved,
        reading: &Reading,
        signal: &Signal,
    ) -> Option<(Order, Propose<RawText>, String)> {
        let (quantity, side, closes) = match (signal, &self.position) {
            (Signal::Enter(quantity), None) => (*quantity, Side::Buy, None),
            (Signal::Leave | Signal::Stop, Some(p)) => {
                (p.quantity, Side::Sell, Some(p.entry.clone()))
            }
            _ => return None,
        };
        let why = words::about_intent(bar, reading, signal, quantity, self.position.as_ref());
        let day = bar.opened_at.to_string();
        let day: String = day
            .chars()
            .take_while(|c| *c != 'T')
            .filter(|c| *c != '-')
            .collect();
        let number = if self.last_intent.0 == day {
            self.last_intent.1 + 1
        } else {
            1
        };
        let trade_id: AggregateId = format!("trade_{}_{day}_{number}", self.names.slug)
            .parse()
            .ok()?;
        let propose = Propose {
            agent_id: self.names.trader.clone(),
            instrument: bar.instrument.parse().ok()?,
            side,
            quantity,
            price: bar.close,
            amount: Some(quantity.mul_rounded_up(bar.close, 2)?),
            currency: code("USD"),
            closes: closes.clone(),
            decided_on: bar.opened_at,
            rationale: RawText::new(why.clone()),
        };
        self.last_intent = (day, number);
        Some((Order { trade_id, closes }, propose, why))
    }

    fn go(&self, out: &mut Reactions<'_>, to: AgentState, reason: &'static str) {
        let transition = Transition {
            to,
            reason: code(reason),
        };
        out.agent(&self.names.trader, AgentCommand::Transition(transition));
    }

    fn think(&self, out: &mut Reactions<'_>, text: String) {
        let thought = RecordThought::of(RawText::new(text));
        out.agent(&self.names.trader, AgentCommand::RecordThought(thought));
    }

    fn give_up(&mut self, out: &mut Reactions<'_>, reason: &'static str) {
        self.go(out, AgentState::Idle, reason);
        self.stage = Stage::Returning;
    }

    fn waits_for(&self, trade_id: &str) -> bool {
        matches!(&self.stage, Stage::Waiting(o) if o.trade_id.as_str() == trade_id)
    }

    fn on_own(&mut self, event: &AgentEvent, out: &mut Reactions<'_>) {
        match event {
            AgentEvent::AgentRegistered(_) => {
                self.registered = true;
                self.look(out);
            }
            AgentEvent::ExecutionCleared(e) if self.waits_for(&e.trade_id) => {
                self.go(out, AgentState::Executing, "execution_cleared");
                self.give_up(out, "order_placed");
            }
            AgentEvent::StateTransitioned(e) if e.to == AgentState::Idle => {
                let before = std::mem::replace(&mut self.stage, Stage::Resting);
                // out of SAFE_MODE: what was under way is given up
                if let (AgentState::SafeMode, Stage::Waiting(order)) = (e.from, before) {
                    self.cancel(&order, out, "interrupted");
                }
                self.look(out);
            }
            AgentEvent::TransitionRefused(e) => self.on_refusal(e, out),
            _ => {}
        }
    }

    /// Somebody else moved the agent while it worked. Whatever was planned is given up; the way
    /// back to IDLE is not, and being there already is as good as arriving.
    fn on_refusal(&mut self, refused: &TransitionRefused, out: &mut Reactions<'_>) {
        match (&self.stage, refused.to) {
            (_, AgentState::Idle) if refused.from == AgentState::Idle => {
                self.stage = Stage::Resting;
                self.look(out);
            }
            (Stage::Waiting(order), AgentState::Analyzing | AgentState::Verifying) => {
                let order = order.clone();
                self.cancel(&order, out, "interrupted");
                self.give_up(out, "interrupted");
            }
            _ => {}
        }
    }

    /// Cancels an intent, unless it is with the exchange already.
    fn cancel(&self, order: &Order, out: &mut Reactions<'_>, reason: &'static str) {
        if self.order.as_ref() != Some(order) {
            let cancel = Cancel {
                reason: code(reason),
            };
            out.trade(&order.trade_id, TradeCommand::Cancel(cancel));
        }
    }

    fn on_trade(&mut self, id: &str, event: &TradeEvent, out: &mut Reactions<'_>) {
        let ordered = self
            .order
            .as_ref()
            .is_some_and(|o| o.trade_id.as_str() == id);
        match event {
            TradeEvent::VerdictGiven(e) if e.verdict == Verdict::Red && self.waits_for(id) => {
                self.give_up(out, "verdict_red");
            }
            TradeEvent::TradeHeld(_) if self.waits_for(id) => {
                if let Stage::Waiting(Order {
                    closes: Some(_), ..
                }) = &self.stage
                {
                    self.position = None;
                    self.parked += 1;
                }
                self.give_up(out, "approval_awaited");
            }
            TradeEvent::TradeAuthorized(_) => {
                if let Stage::Waiting(order) = &self.stage
                    && order.trade_id.as_str() == id
                {
                    self.order = Some(order.clone());
                }
            }
            TradeEvent::TradeFilled(e) if ordered => {
                self.filled(e);
                self.look(out);
            }
            TradeEvent::TradeCancelled(_) if ordered => {
                // a clearance is on its way or was seen: the stage ends by itself
                self.order = None;
                self.fill_due = false;
                self.look(out);
            }
            TradeEvent::TradeCancelled(_) if self.waits_for(id) => {
                self.give_up(out, "intent_cancelled");
            }
            _ => {}
        }
    }

    fn filled(&mut self, fill: &TradeFilled) {
        self.fill_due = false;
        self.position = match self.order.take() {
            Some(Order {
                trade_id,
                closes: None,
            }) => Some(Position {
                entry: trade_id,
                quantity: fill.quantity,
                price: fill.price,
            }),
            _ => None,
        };
    }
}

/// Takes an event; answers bars with thoughts and intents.
pub fn step(state: &mut State, seen: &Seen) -> Vec<Reaction> {
    let Ok(agent) = state.names.trader.as_str().parse::<Identifier>() else {
        return vec![];
    };
    let mut out = Reactions::of(agent, DepartmentId::TRADER, seen.header());
    if let Some(correlation_id) = state.current {
        out.correlate(correlation_id);
    }
    let id = seen.aggregate_id();
    match &seen.event {
        AnyEvent::Agent(AgentEvent::MarketObserved(bar)) if id == state.names.hunter.as_str() => {
            state.observe(bar, seen.header().correlation_id);
            state.look(&mut out);
        }
        AnyEvent::Agent(event) if id == state.names.trader.as_str() => {
            state.on_own(event, &mut out);
        }
        AnyEvent::Trade(event) => state.on_trade(id, event, &mut out),
        _ => {}
    }
    out.done()
}
