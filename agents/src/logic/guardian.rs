//! Keeps the limits: an intent that the auditor found Green is authorized or waits for a human, as
//! the policy says. Whoever wants a trade never authorizes it itself.

use std::collections::BTreeMap;

use sovereign_aggregates::AnyEvent;
use sovereign_aggregates::agent::{AgentCommand, ClearExecution};
use sovereign_aggregates::approval::{self, ApprovalCommand, Request};
use sovereign_aggregates::trade::{ApplyPolicy, Authorize, Cancel, EXECUTE, TradeCommand};
use sovereign_schemas::events::{ApprovalEvent, TradeEvent, Verdict};
use sovereign_schemas::{AggregateId, Decimal, DepartmentId, Digest, Identifier};

use super::{Reaction, Reactions, Role, Seen, code};

pub(crate) const ROLE: Role = Role {
    name: "guardian",
    department: DepartmentId::GUARDIAN,
};

/// What the guardian knows about one instrument.
#[derive(Debug, Clone, Default)]
pub struct State {
    /// Intents that are neither ended nor authorized.
    intents: BTreeMap<String, Intent>,
    /// Approvals that trades wait for.
    waiting: BTreeMap<String, AggregateId>,
}

#[derive(Debug, Clone)]
struct Intent {
    agent_id: AggregateId,
    amount: Decimal,
    currency: Identifier,
    instrument: Identifier,
    /// Whose topic carries the proposal.
    department: DepartmentId,
    /// SHA-256 of the proposal's payload as recorded.
    digest: Digest,
    held: bool,
}

fn proposed(seen: &Seen, e: &sovereign_schemas::events::TradeProposed) -> Option<Intent> {
    Some(Intent {
        agent_id: e.agent_id.parse().ok()?,
        amount: e.amount,
        currency: e.currency.parse().ok()?,
        instrument: e.instrument.parse().ok()?,
        department: seen.header().department,
        digest: Digest::of(&[&seen.recorded.payload]),
        held: false,
    })
}

/// Takes an event; answers Green verdicts, authorizations and the end of approvals.
pub fn step(state: &mut State, seen: &Seen) -> Vec<Reaction> {
    let mut out = Reactions::of(code(ROLE.name), ROLE.department, seen.header());
    match &seen.event {
        AnyEvent::Trade(event) => trade(state, seen, event, &mut out),
        AnyEvent::Approval(event) => {
            if !approval::has_ended(event) {
                return vec![];
            }
            if let Some(id) = state.waiting.remove(seen.aggregate_id()) {
                let cancel = |reason| {
                    TradeCommand::Cancel(Cancel {
                        reason: code(reason),
                    })
                };
                let command = match event {
                    // the trade looks at the approval itself, and takes it only once
                    ApprovalEvent::ApprovalGranted(_) => TradeCommand::Authorize(Authorize {
                        approval_id: seen.aggregate_id().parse().ok(),
                    }),
                    ApprovalEvent::ApprovalDenied(_) => cancel("approval_denied"),
                    _ => cancel("approval_expired"),
                };
                out.trade(&id, command);
            }
        }
        AnyEvent::Agent(_)
        | AnyEvent::Imported(_)
        | AnyEvent::Policy(_)
        | AnyEvent::Approver(_)
        | AnyEvent::Job(_)
        | AnyEvent::Schedules(_) => {}
    }
    out.done()
}

fn trade(state: &mut State, seen: &Seen, event: &TradeEvent, out: &mut Reactions<'_>) {
    let Ok(id) = seen.aggregate_id().parse::<AggregateId>() else {
        return;
    };
    match event {
        TradeEvent::TradeProposed(e) => {
            if let Some(intent) = proposed(seen, e) {
                state.intents.insert(id.into(), intent);
            }
        }
        TradeEvent::VerdictGiven(e) if e.verdict == Verdict::Red => {
            state.intents.remove(id.as_str());
        }
        // by the policy at that moment, whatever it was when the intent was seen here
        TradeEvent::VerdictGiven(_) if state.intents.contains_key(id.as_str()) => {
            out.trade(&id, TradeCommand::ApplyPolicy(ApplyPolicy {}));
        }
        TradeEvent::TradeHeld(e) => {
            let Ok(approval_id) = e.approval_id.parse::<AggregateId>() else {
                return;
            };
            let Some(intent) = state.intents.get_mut(id.as_str()) else {
                return;
            };
            intent.held = true;
            state.waiting.insert(e.approval_id.clone(), id.clone());
            let request = Request {
                action: code(EXECUTE),
                target_id: id.clone(),
                action_digest: intent.digest,
                amount: intent.amount,
                currency: intent.currency.clone(),
                on_behalf_of: Some(intent.agent_id.clone()),
                department: Some(intent.department),
                asset: Some(intent.instrument.clone()),
            };
            out.approval(&approval_id, ApprovalCommand::Request(Box::new(request)));
        }
        TradeEvent::TradeAuthorized(e) => {
            // what was held meanwhile left VERIFYING long ago: its agent is not cleared
            let Some(intent) = state.intents.remove(id.as_str()).filter(|i| !i.held) else {
                return;
            };
            if let Ok(authority) = e.authority.parse() {
                let clear = ClearExecution {
                    trade_id: id,
                    authority,
                };
                out.agent(&intent.agent_id, AgentCommand::ClearExecution(clear));
            }
        }
        TradeEvent::TradeCancelled(_) => {
            let was_held = state.intents.remove(id.as_str()).is_some_and(|i| i.held);
            if was_held {
                state.waiting.retain(|_, trade| *trade != id);
            }
        }
        _ => {}
    }
}
