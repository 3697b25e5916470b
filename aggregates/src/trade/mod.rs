//! A trade: from intent through verdict and authorization to its fill and result.

mod command;
mod held;

use cqrs_es::Aggregate;
use cqrs_es::event_sink::EventSink;
use serde::{Deserialize, Serialize};
use sovereign_schemas::borrowed::ToBorrowed as _;
use sovereign_schemas::events::{
    Side, TradeAuthorized, TradeCancelled, TradeConcluded, TradeEvent, TradeEventRef, TradeFilled,
    TradeHeld, TradePlaced, TradeProposed, Verdict, VerdictGiven,
};
use sovereign_schemas::{
    Decimal, DepartmentId, Digest, ErrorCode, EventHeader, EventType, Problem, Text, Timestamp,
    avro,
};

use crate::policy::Action;
use crate::{Decision, Refusal, approval};

pub use command::{
    ApplyPolicy, Authorize, Cancel, Conclude, Fill, GiveVerdict, Hold, Place, Propose,
    TradeCommand, Withdraw,
};

/// Where a trade stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TradeStatus {
    /// Not proposed yet.
    None,
    /// Waits for a verdict.
    Proposed,
    /// Judged Green, waits for authorization.
    Green,
    /// Judged Red; ended.
    Rejected,
    /// Waits for a human.
    Held,
    /// May be executed.
    Authorized,
    /// Its order is on the way to an exchange.
    Placed,
    /// Executed.
    Filled,
    /// Given up; ended.
    Cancelled,
    /// The position it opened is closed; ended.
    Concluded,
}

/// What the intent says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// Buy or sell.
    pub side: Side,
    /// Units.
    pub quantity: Decimal,
    /// What the policy judges.
    pub amount: Decimal,
    /// Whether it opens a position (or closes one).
    pub opens: bool,
    /// Start of the bar that the decision rests on.
    pub decided_on: Timestamp,
    /// What is traded. Not part of the canonical state, whose digests were noted without it.
    #[serde(skip)]
    pub instrument: Box<str>,
    /// What is not known where events are folded without their headers, and nothing is decided
    /// there. Not part of the canonical state either.
    #[serde(skip)]
    pub proposal: Option<Box<Proposal>>,
}

/// The proposal as it was recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// Whose topic carries it.
    pub department: DepartmentId,
    /// SHA-256 of its payload: the exact action that an approval is about.
    pub digest: Digest,
    /// Who wants it.
    pub agent_id: String,
    /// Currency of the amount.
    pub currency: String,
}

/// The action that an approval of a trade allows.
pub const EXECUTE: &str = "trade.execute";

/// How it was executed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Execution {
    /// Price of one unit.
    pub price: Decimal,
    /// Costs.
    pub commission: Decimal,
}

/// State of one trade.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trade {
    /// Where it stands.
    pub status: TradeStatus,
    /// Set by the proposal.
    pub intent: Option<Intent>,
    /// Set by the fill.
    pub execution: Option<Execution>,
    /// Set when it waits for a human.
    pub approval_id: Option<String>,
}

impl Default for Trade {
    fn default() -> Self {
        Self {
            status: TradeStatus::None,
            intent: None,
            execution: None,
            approval_id: None,
        }
    }
}

fn not_in_range(field: &str, message: &str) -> Refusal {
    Problem::new(ErrorCode::InvalidAmount, message)
        .field(format!("data.{field}"))
        .into()
}

impl Trade {
    /// Which events follow from `command`, if it may happen.
    ///
    /// # Errors
    /// Why it may not.
    pub fn decide(
        &self,
        command: TradeCommand,
        decision: &Decision,
    ) -> Result<Vec<TradeEvent>, Refusal> {
        let intent = match (&self.intent, command) {
            (_, TradeCommand::Recorded(events)) => return Ok(events),
            (None, TradeCommand::Propose(propose)) => {
                return Ok(vec![Self::propose(propose)?.into()]);
            }
            (None, _) => return Err(Refusal::new(ErrorCode::NotFound, "no such trade")),
            (Some(_), TradeCommand::Propose(_)) => {
                return Err(Refusal::new(
                    ErrorCode::AlreadyExists,
                    "the trade was proposed before",
                ));
            }
            (Some(intent), command) => (intent, command),
        };
        let (intent, command) = intent;
        let event: TradeEvent = match command {
            TradeCommand::Propose(_) | TradeCommand::Recorded(_) => return Ok(vec![]),
            TradeCommand::GiveVerdict(GiveVerdict {
                verdict,
                rule,
                note,
            }) => {
                self.must_be(&[TradeStatus::Proposed])?;
                VerdictGiven {
                    verdict,
                    rule: rule.into(),
                    note,
                }
                .into()
            }
            TradeCommand::Hold(Hold { approval_id }) => {
                self.must_be(&[TradeStatus::Green])?;
                TradeHeld {
                    approval_id: approval_id.into(),
                }
                .into()
            }
            TradeCommand::Authorize(_) if self.status == TradeStatus::Held => {
                self.authorize_held(intent, decision)?.into()
            }
            TradeCommand::Authorize(_) => {
                self.must_be(&[TradeStatus::Green])?;
                if Self::people(intent, decision) > 0 {
                    return Err(Refusal::new(
                        ErrorCode::ApprovalRequired,
                        format!(
                            "policy {} lets an amount of {} wait for an approval",
                            decision.policy.version, intent.amount
                        ),
                    ));
                }
                TradeAuthorized {
                    authority: decision.policy.authority(),
                }
                .into()
            }
            TradeCommand::ApplyPolicy(ApplyPolicy {}) => {
                self.must_be(&[TradeStatus::Green])?;
                if Self::people(intent, decision) > 0 {
                    TradeHeld {
                        approval_id: approval::id_for(&decision.aggregate_id).into(),
                    }
                    .into()
                } else {
                    TradeAuthorized {
                        authority: decision.policy.authority(),
                    }
                    .into()
                }
            }
            TradeCommand::Place(Place { job_id }) => {
                self.must_be(&[TradeStatus::Authorized])?;
                TradePlaced {
                    job_id: job_id.into(),
                }
                .into()
            }
            TradeCommand::Fill(fill) => self.fill(intent, fill)?.into(),
            TradeCommand::Cancel(Cancel { reason }) => {
                use TradeStatus::{Authorized, Green, Held, Proposed};
                // an order may have been executed by now: whoever wants it back aborts its job
                self.must_be(&[Proposed, Green, Held, Authorized])?;
                TradeCancelled {
                    reason: reason.into(),
                }
                .into()
            }
            TradeCommand::Withdraw(Withdraw { reason }) => {
                self.must_be(&[TradeStatus::Placed])?;
                TradeCancelled {
                    reason: reason.into(),
                }
                .into()
            }
            TradeCommand::Conclude(conclude) => self.conclude(intent, conclude)?.into(),
        };
        Ok(vec![event])
    }

    fn must_be(&self, allowed: &[TradeStatus]) -> Result<(), Refusal> {
        if allowed.contains(&self.status) {
            return Ok(());
        }
        Err(Refusal::new(
            ErrorCode::WrongState,
            format!(
                "the trade is {:?}; this needs one of {allowed:?}",
                self.status
            ),
        ))
    }

    fn propose(propose: Propose<Text>) -> Result<TradeProposed, Refusal> {
        let Propose {
            agent_id,
            instrument,
            side,
            quantity,
            price,
            amount,
            currency,
            closes,
            decided_on,
            rationale,
        } = propose;
        for (field, value) in [("quantity", quantity), ("price", price)] {
            if !value.is_positive() {
                return Err(not_in_range(field, "must be above zero"));
            }
        }
        let exact = quantity
            .mul_rounded_up(price, 2)
            .ok_or_else(|| not_in_range("quantity", "quantity times price is too large"))?;
        if amount.is_some_and(|a| a != exact) {
            return Err(Problem::new(
                ErrorCode::AmountMismatch,
                "amount is not quantity times price",
            )
            .field("data.amount")
            .expected(exact.to_string())
            .into());
        }
        Ok(TradeProposed {
            agent_id: agent_id.into(),
            instrument: instrument.into(),
            side,
            quantity,
            price,
            amount: exact,
            currency: currency.into(),
            closes: closes.map(Into::into),
            decided_on,
            rationale,
        })
    }

    fn fill(&self, intent: &Intent, fill: Fill) -> Result<TradeFilled, Refusal> {
        self.must_be(&[TradeStatus::Authorized, TradeStatus::Placed])?;
        let Fill {
            order_id,
            price,
            quantity,
            commission,
            filled_at,
        } = fill;
        if !price.is_positive() {
            return Err(not_in_range("price", "must be above zero"));
        }
        if commission.is_negative() {
            return Err(not_in_range("commission", "must not be negative"));
        }
        if quantity != intent.quantity {
            return Err(
                Problem::new(ErrorCode::AmountMismatch, "a fill is of the whole intent")
                    .field("data.quantity")
                    .expected(intent.quantity.to_string())
                    .into(),
            );
        }
        if filled_at <= intent.decided_on {
            return Err(Refusal::new(
                ErrorCode::WrongState,
                format!(
                    "a fill comes after the bar it was decided on, {}",
                    intent.decided_on
                ),
            ));
        }
        Ok(TradeFilled {
            order_id: order_id.into(),
            price,
            quantity,
            commission,
            filled_at,
        })
    }

    fn conclude(&self, intent: &Intent, conclude: Conclude) -> Result<TradeConcluded, Refusal> {
        self.must_be(&[TradeStatus::Filled])?;
        let Some(entry) = self.execution.as_ref().filter(|_| intent.opens) else {
            return Err(Refusal::new(
                ErrorCode::WrongState,
                "the trade opened no position",
            ));
        };
        let Conclude {
            exit_trade_id,
            exit_price,
            exit_commission,
        } = conclude;
        if !exit_price.is_positive() {
            return Err(not_in_range("exit_price", "must be above zero"));
        }
        if exit_commission.is_negative() {
            return Err(not_in_range("exit_commission", "must not be negative"));
        }
        let (bought, sold) = match intent.side {
            Side::Buy => (entry.price, exit_price),
            Side::Sell => (exit_price, entry.price),
        };
        let profit_and_costs = || {
            let gain = sold
                .checked_sub(bought)?
                .mul_rounded(intent.quantity, Decimal::SCALE)?;
            let commission = entry.commission.checked_add(exit_commission)?;
            Some((gain.checked_sub(commission)?, commission))
        };
        let (profit, commission) = profit_and_costs()
            .ok_or_else(|| not_in_range("exit_price", "the result is out of range"))?;
        Ok(TradeConcluded {
            exit_trade_id: exit_trade_id.into(),
            quantity: intent.quantity,
            entry_price: entry.price,
            exit_price,
            commission,
            profit,
        })
    }

    /// Takes what only the header and the payload of the proposal say.
    pub(crate) fn note_proposal(&mut self, header: &EventHeader, payload: &[u8]) {
        if header.event_type != EventType::TradeProposed.as_str() {
            return;
        }
        let (event_type, version) = (header.event_type.as_bytes(), header.event_version);
        if let Ok(TradeEventRef::TradeProposed(e)) =
            TradeEventRef::decode(event_type, version, payload)
        {
            self.proposed(Proposal {
                department: header.department,
                digest: Digest::of(&[payload]),
                agent_id: e.agent_id.as_str().to_owned(),
                currency: e.currency.as_str().to_owned(),
            });
        }
    }

    fn proposed(&mut self, proposal: Proposal) {
        if let Some(intent) = &mut self.intent {
            intent.proposal = Some(Box::new(proposal));
        }
    }

    /// How many people must approve; 0 if it is automatic.
    fn people(intent: &Intent, decision: &Decision) -> u8 {
        let proposal = intent.proposal.as_ref();
        let department = proposal.map_or(decision.department, |p| p.department);
        decision.policy.people_for(&Action {
            department: decision.department_name(department),
            action: EXECUTE,
            asset: &intent.instrument,
            amount: intent.amount,
        })
    }

    /// Takes one recorded event. Total: never fails, whatever came before.
    pub fn evolve(&mut self, event: &TradeEvent) {
        self.evolve_borrowed(&event.borrowed());
    }

    /// As [`Self::evolve`], from an event that was not copied out of its datum.
    pub fn evolve_borrowed(&mut self, event: &TradeEventRef<'_>) {
        match event {
            TradeEventRef::TradeProposed(e) => {
                self.status = TradeStatus::Proposed;
                self.intent = Some(Intent {
                    side: e.side,
                    quantity: e.quantity,
                    amount: e.amount,
                    opens: e.closes.is_none(),
                    decided_on: e.decided_on,
                    instrument: e.instrument.as_str().into(),
                    proposal: None,
                });
            }
            TradeEventRef::VerdictGiven(e) => {
                self.status = match e.verdict {
                    Verdict::Green => TradeStatus::Green,
                    Verdict::Red => TradeStatus::Rejected,
                };
            }
            TradeEventRef::TradeHeld(e) => {
                self.status = TradeStatus::Held;
                self.approval_id = Some(e.approval_id.as_str().to_owned());
            }
            TradeEventRef::TradeAuthorized(_) => self.status = TradeStatus::Authorized,
            TradeEventRef::TradePlaced(_) => self.status = TradeStatus::Placed,
            TradeEventRef::TradeFilled(e) => {
                self.status = TradeStatus::Filled;
                self.execution = Some(Execution {
                    price: e.price,
                    commission: e.commission,
                });
            }
            TradeEventRef::TradeCancelled(_) => self.status = TradeStatus::Cancelled,
            TradeEventRef::TradeConcluded(_) => self.status = TradeStatus::Concluded,
        }
    }
}

impl Aggregate for Trade {
    const TYPE: &'static str = "trade";
    type Command = TradeCommand;
    type Event = TradeEvent;
    type Error = Refusal;
    type Services = Decision;

    async fn handle(
        &mut self,
        command: TradeCommand,
        decision: &Decision,
        sink: &EventSink<Self>,
    ) -> Result<(), Refusal> {
        for event in self.decide(command, decision)? {
            let proposal = match &event {
                // the ledger records these very bytes
                TradeEvent::TradeProposed(e) => Some(Proposal {
                    department: decision.department,
                    digest: Digest::of(&[&avro::encode(e)]),
                    agent_id: e.agent_id.clone(),
                    currency: e.currency.clone(),
                }),
                _ => None,
            };
            sink.write(event, self).await;
            if let Some(proposal) = proposal {
                self.proposed(proposal);
            }
        }
        Ok(())
    }

    fn apply(&mut self, event: TradeEvent) {
        self.evolve(&event);
    }
}
