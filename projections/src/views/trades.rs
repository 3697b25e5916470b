use sovereign_schemas::events::{Side, TradeEvent, TradeProposed, Verdict};
use sovereign_schemas::{AggregateType, Decimal, EventHeader, Position, RecordedEvent, Timestamp};

use crate::table::{Stored, by_symbol, storable};
use crate::{FoldError, View, table};

/// One row a trade, from intent to result.
#[derive(Debug)]
pub struct Trades;

/// Where a trade stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TradeStatus {
    /// Intent stated; judged Green if its verdict says so.
    Proposed,
    /// Waits for a human.
    Held,
    /// Judged Red; ended.
    Rejected,
    /// May be executed.
    Authorized,
    /// Its order is on the way to an exchange.
    Placed,
    /// Executed.
    Filled,
    /// Given up; ended.
    Cancelled,
    /// The position that it opened is closed; ended.
    Concluded,
}

impl TradeStatus {
    /// All, in the order of a trade's life.
    pub const ALL: &'static [Self] = &[
        Self::Proposed,
        Self::Held,
        Self::Rejected,
        Self::Authorized,
        Self::Placed,
        Self::Filled,
        Self::Cancelled,
        Self::Concluded,
    ];

    /// As stored and shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Proposed => "proposed",
            Self::Held => "held",
            Self::Rejected => "rejected",
            Self::Authorized => "authorized",
            Self::Placed => "placed",
            Self::Filled => "filled",
            Self::Cancelled => "cancelled",
            Self::Concluded => "concluded",
        }
    }
}

by_symbol!(TradeStatus);

table! {
    /// A trade. Amounts are in `currency`.
    TradeRow = "trades" version 1 key trade_id: String, index agent (agent_id, trade_id);
    /// Its id.
    trade_id: String,
    /// Who wants it.
    agent_id: String,
    /// What is traded.
    instrument: String,
    /// Buy or sell.
    side: Side,
    /// Units wanted.
    quantity: Decimal,
    /// Reference price of one unit.
    price: Decimal,
    /// Quantity times price, rounded up to the cent: what the policy judges.
    amount: Decimal,
    /// Of price and amount.
    currency: String,
    /// The trade whose position this one closes.
    closes: Option<String>,
    /// Start of the bar that the decision rests on.
    decided_on: Timestamp,
    /// Where it stands.
    status: TradeStatus,
    /// The auditor's verdict.
    verdict: Option<Verdict>,
    /// The rule that decided it.
    verdict_rule: Option<String>,
    /// The request to a human, if it needs one.
    approval_id: Option<String>,
    /// What authorized it.
    authority: Option<String>,
    /// Why it was given up.
    cancel_reason: Option<String>,
    /// The exchange's name for its execution.
    order_id: Option<String>,
    /// Price of one unit, as executed.
    fill_price: Option<Decimal>,
    /// Units executed.
    fill_quantity: Option<Decimal>,
    /// Cost of its own execution.
    commission: Option<Decimal>,
    /// Start of the bar that filled it.
    filled_at: Option<Timestamp>,
    /// The trade that closed the position.
    exit_trade_id: Option<String>,
    /// Price of one unit at the exit.
    exit_price: Option<Decimal>,
    /// Cost of entry and exit together.
    total_commission: Option<Decimal>,
    /// Result after all costs; negative for a loss.
    profit: Option<Decimal>,
    /// Position of the intent.
    first_position: Position,
    /// Position of its newest event.
    last_position: Position,
    /// When the ledger took its newest event.
    updated_at: Timestamp,
}

impl TradeRow {
    fn proposed(event: TradeProposed, header: &EventHeader) -> Self {
        Self {
            trade_id: header.aggregate_id.clone(),
            agent_id: event.agent_id,
            instrument: event.instrument,
            side: event.side,
            quantity: event.quantity,
            price: event.price,
            amount: event.amount,
            currency: event.currency,
            closes: event.closes,
            decided_on: storable(event.decided_on),
            status: TradeStatus::Proposed,
            verdict: None,
            verdict_rule: None,
            approval_id: None,
            authority: None,
            cancel_reason: None,
            order_id: None,
            fill_price: None,
            fill_quantity: None,
            commission: None,
            filled_at: None,
            exit_trade_id: None,
            exit_price: None,
            total_commission: None,
            profit: None,
            first_position: header.position,
            last_position: header.position,
            updated_at: storable(header.recorded_at),
        }
    }

    fn take(&mut self, event: TradeEvent) -> Result<(), FoldError> {
        match event {
            TradeEvent::TradeProposed(_) => {
                return Err(FoldError::RowExists {
                    key: self.trade_id.clone(),
                });
            }
            TradeEvent::VerdictGiven(e) => {
                if e.verdict == Verdict::Red {
                    self.status = TradeStatus::Rejected;
                }
                self.verdict = Some(e.verdict);
                self.verdict_rule = Some(e.rule);
            }
            TradeEvent::TradeHeld(e) => {
                self.status = TradeStatus::Held;
                self.approval_id = Some(e.approval_id);
            }
            TradeEvent::TradeAuthorized(e) => {
                self.status = TradeStatus::Authorized;
                self.authority = Some(e.authority);
            }
            TradeEvent::TradePlaced(_) => self.status = TradeStatus::Placed,
            TradeEvent::TradeFilled(e) => {
                self.status = TradeStatus::Filled;
                self.order_id = Some(e.order_id);
                self.fill_price = Some(e.price);
                self.fill_quantity = Some(e.quantity);
                self.commission = Some(e.commission);
                self.filled_at = Some(storable(e.filled_at));
            }
            TradeEvent::TradeCancelled(e) => {
                self.status = TradeStatus::Cancelled;
                self.cancel_reason = Some(e.reason);
            }
            TradeEvent::TradeConcluded(e) => {
                self.status = TradeStatus::Concluded;
                self.exit_trade_id = Some(e.exit_trade_id);
                self.exit_price = Some(e.exit_price);
                self.total_commission = Some(e.commission);
                self.profit = Some(e.profit);
            }
        }
        Ok(())
    }
}

impl View for Trades {
    const NAME: &'static str = TradeRow::NAME;
    const VERSION: u32 = TradeRow::VERSION;
    type Key = String;
    type Row = TradeRow;

    fn key(event: &RecordedEvent) -> Option<String> {
        let header = &event.header;
        let own = header.aggregate_type == AggregateType::Trade.as_str();
        own.then(|| header.aggregate_id.clone())
    }

    fn row_key(row: &TradeRow) -> String {
        row.trade_id.clone()
    }

    fn opens(header: &EventHeader) -> bool {
        header.sequence == 1
    }

    fn fold(row: &mut Option<TradeRow>, event: &RecordedEvent) -> Result<(), FoldError> {
        let header = &event.header;
        match (row.as_mut(), event.decode::<TradeEvent>()?) {
            (None, TradeEvent::TradeProposed(e)) => *row = Some(TradeRow::proposed(e, header)),
            (None, _) => {
                return Err(FoldError::RowMissing {
                    key: header.aggregate_id.clone(),
                });
            }
            (Some(row), e) => {
                row.take(e)?;
                row.last_position = header.position;
                row.updated_at = storable(header.recorded_at);
            }
        }
        Ok(())
    }
}
