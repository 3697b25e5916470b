use serde::Deserialize;
use serde_json::Value;
use sovereign_schemas::events::{Side, TradeEvent, Verdict};
use sovereign_schemas::{
    AggregateId, Decimal, ErrorCode, Identifier, Problem, RawText, Text, Timestamp,
};

use crate::parse;

/// What can be asked of a trade. `T` is [`RawText`] before the guard and [`Text`] after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TradeCommand<T = Text> {
    /// State an intent.
    Propose(Propose<T>),
    /// Judge it.
    GiveVerdict(GiveVerdict<T>),
    /// Let it wait for a human.
    Hold(Hold),
    /// Allow it, if the policy asks nobody, or if those whom it asks have approved.
    Authorize(Authorize),
    /// Allow it, or let it wait for a human, as the policy says.
    ApplyPolicy(ApplyPolicy),
    /// Say that its order goes to an exchange now: from here on it cannot be cancelled.
    Place(Place),
    /// Report its execution.
    Fill(Fill),
    /// Give it up, before its order was placed.
    Cancel(Cancel),
    /// Give it up after that: its order has ended, and certainly was not executed.
    Withdraw(Withdraw),
    /// Record the result of the position it opened.
    Conclude(Conclude),
    /// Take these events, which were decided elsewhere. It has no form in JSON.
    Recorded(Vec<TradeEvent>),
}

/// Data of [`TradeCommand::Propose`].
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Propose<T> {
    /// Who wants it.
    pub agent_id: AggregateId,
    /// What is traded.
    pub instrument: Identifier,
    /// Buy or sell.
    pub side: Side,
    /// Units, above zero.
    pub quantity: Decimal,
    /// Reference price of one unit, above zero.
    pub price: Decimal,
    /// quantity times price, rounded up to the cent; computed if left out.
    #[serde(default)]
    pub amount: Option<Decimal>,
    /// Currency of price and amount.
    #[serde(default = "usd")]
    pub currency: Identifier,
    /// The trade whose position this one closes.
    #[serde(default)]
    pub closes: Option<AggregateId>,
    /// Start of the bar that the decision rests on.
    pub decided_on: Timestamp,
    /// Why, in words.
    pub rationale: T,
}

fn usd() -> Identifier {
    #[allow(clippy::expect_used)]
    "USD".parse().expect("three letters are an identifier")
}

/// Data of [`TradeCommand::GiveVerdict`].
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GiveVerdict<T> {
    /// Green or Red.
    pub verdict: Verdict,
    /// The rule that decided.
    pub rule: Identifier,
    /// In words.
    pub note: T,
}

/// Data of [`TradeCommand::Hold`].
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hold {
    /// The request that a human must answer.
    pub approval_id: AggregateId,
}

/// Data of [`TradeCommand::Authorize`].
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Authorize {
    /// The approval that a held trade waits for; the one that belongs to it if left out.
    #[serde(default)]
    pub approval_id: Option<AggregateId>,
}

/// Data of [`TradeCommand::ApplyPolicy`].
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApplyPolicy {}

/// Data of [`TradeCommand::Place`].
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// The job that carries the order out.
    pub job_id: AggregateId,
}

/// Data of [`TradeCommand::Fill`].
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fill {
    /// The exchange's name for it.
    pub order_id: AggregateId,
    /// Price of one unit, above zero.
    pub price: Decimal,
    /// Units, equal to the intent's.
    pub quantity: Decimal,
    /// Not negative.
    pub commission: Decimal,
    /// Start of the bar that filled it; after the bar of the decision.
    pub filled_at: Timestamp,
}

/// Data of [`TradeCommand::Cancel`].
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cancel {
    /// Why, as a short code.
    pub reason: Identifier,
}

/// Data of [`TradeCommand::Withdraw`].
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Withdraw {
    /// Why the order was not executed, as a short code.
    pub reason: Identifier,
}

/// Data of [`TradeCommand::Conclude`].
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conclude {
    /// The trade that closed the position.
    pub exit_trade_id: AggregateId,
    /// Its price.
    pub exit_price: Decimal,
    /// Its commission.
    pub exit_commission: Decimal,
}

impl TradeCommand<RawText> {
    /// The commands by name.
    pub const NAMES: &'static str = "propose, give_verdict, hold, authorize, apply_policy, place, fill, cancel, withdraw, conclude";

    pub(crate) fn parse(command: &str, data: Value) -> Result<Self, Problem> {
        Ok(match command {
            "propose" => Self::Propose(parse::data(data)?),
            "give_verdict" => Self::GiveVerdict(parse::data(data)?),
            "hold" => Self::Hold(parse::data(data)?),
            "authorize" => Self::Authorize(parse::data(data)?),
            "apply_policy" => Self::ApplyPolicy(parse::data(data)?),
            "place" => Self::Place(parse::data(data)?),
            "fill" => Self::Fill(parse::data(data)?),
            "cancel" => Self::Cancel(parse::data(data)?),
            "withdraw" => Self::Withdraw(parse::data(data)?),
            "conclude" => Self::Conclude(parse::data(data)?),
            other => {
                return Err(
                    Problem::new(ErrorCode::UnknownCommand, "trades have no such command")
                        .field("command")
                        .found(other)
                        .expected(Self::NAMES),
                );
            }
        })
    }
}

impl<T> TradeCommand<T> {
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Propose(_) => "propose",
            Self::GiveVerdict(_) => "give_verdict",
            Self::Hold(_) => "hold",
            Self::Authorize(_) => "authorize",
            Self::ApplyPolicy(_) => "apply_policy",
            Self::Place(_) => "place",
            Self::Fill(_) => "fill",
            Self::Cancel(_) => "cancel",
            Self::Withdraw(_) => "withdraw",
            Self::Conclude(_) => "conclude",
            Self::Recorded(_) => "recorded",
        }
    }

    pub(crate) fn try_map_text<U, E>(
        self,
        mut f: impl FnMut(T) -> Result<U, E>,
    ) -> Result<TradeCommand<U>, E> {
        Ok(match self {
            Self::Propose(c) => TradeCommand::Propose(Propose {
                agent_id: c.agent_id,
                instrument: c.instrument,
                side: c.side,
                quantity: c.quantity,
                price: c.price,
                amount: c.amount,
                currency: c.currency,
                closes: c.closes,
                decided_on: c.decided_on,
                rationale: f(c.rationale)?,
            }),
            Self::GiveVerdict(c) => TradeCommand::GiveVerdict(GiveVerdict {
                verdict: c.verdict,
                rule: c.rule,
                note: f(c.note)?,
            }),
            Self::Hold(c) => TradeCommand::Hold(c),
            Self::Authorize(c) => TradeCommand::Authorize(c),
            Self::ApplyPolicy(c) => TradeCommand::ApplyPolicy(c),
            Self::Place(c) => TradeCommand::Place(c),
            Self::Fill(c) => TradeCommand::Fill(c),
            Self::Cancel(c) => TradeCommand::Cancel(c),
            Self::Withdraw(c) => TradeCommand::Withdraw(c),
            Self::Conclude(c) => TradeCommand::Conclude(c),
            Self::Recorded(events) => TradeCommand::Recorded(events),
        })
    }

    pub(crate) fn identifiers(&self) -> Vec<(&'static str, &str)> {
        match self {
            Self::Propose(c) => {
                let mut all = vec![
                    ("data.agent_id", c.agent_id.as_str()),
                    ("data.instrument", c.instrument.as_str()),
                    ("data.currency", c.currency.as_str()),
                ];
                all.extend(c.closes.as_ref().map(|id| ("data.closes", id.as_str())));
                all
            }
            Self::GiveVerdict(c) => vec![("data.rule", c.rule.as_str())],
            Self::Hold(c) => vec![("data.approval_id", c.approval_id.as_str())],
            Self::Authorize(c) => {
                let id = c.approval_id.as_ref();
                id.map(|id| ("data.approval_id", id.as_str()))
                    .into_iter()
                    .collect()
            }
            Self::ApplyPolicy(_) | Self::Recorded(_) => vec![],
            Self::Place(c) => vec![("data.job_id", c.job_id.as_str())],
            Self::Fill(c) => vec![("data.order_id", c.order_id.as_str())],
            Self::Cancel(c) => vec![("data.reason", c.reason.as_str())],
            Self::Withdraw(c) => vec![("data.reason", c.reason.as_str())],
            Self::Conclude(c) => vec![("data.exit_trade_id", c.exit_trade_id.as_str())],
        }
    }
}
