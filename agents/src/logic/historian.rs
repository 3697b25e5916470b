//! Records the result of each finished trade: when a position's exit is filled, its entry is
//! concluded. The profit itself is computed by the trade.

use std::collections::BTreeMap;

use sovereign_aggregates::AnyEvent;
use sovereign_aggregates::trade::{Conclude, TradeCommand};
use sovereign_schemas::events::{TradeEvent, Verdict};
use sovereign_schemas::{AggregateId, DepartmentId};

use super::{Reaction, Reactions, Role, Seen, code};

pub(crate) const ROLE: Role = Role {
    name: "historian",
    department: DepartmentId::HISTORIAN,
};

/// What the historian knows about one instrument.
#[derive(Debug, Clone, Default)]
pub struct State {
    /// Exits that are not filled yet, with the entry that each closes.
    exits: BTreeMap<String, AggregateId>,
}

/// Takes an event; answers the fill of an exit.
pub fn step(state: &mut State, seen: &Seen) -> Vec<Reaction> {
    let AnyEvent::Trade(event) = &seen.event else {
        return vec![];
    };
    let id = seen.aggregate_id();
    match event {
        TradeEvent::TradeProposed(e) => {
            if let Some(entry) = e.closes.as_deref().and_then(|c| c.parse().ok()) {
                state.exits.insert(id.to_owned(), entry);
            }
            vec![]
        }
        TradeEvent::TradeCancelled(_) => {
            state.exits.remove(id);
            vec![]
        }
        TradeEvent::VerdictGiven(e) if e.verdict == Verdict::Red => {
            state.exits.remove(id);
            vec![]
        }
        TradeEvent::TradeFilled(e) => {
            let (Some(entry), Ok(exit_trade_id)) = (state.exits.remove(id), id.parse()) else {
                return vec![];
            };
            let mut out = Reactions::of(code(ROLE.name), ROLE.department, seen.header());
            out.trade(
                &entry,
                TradeCommand::Conclude(Conclude {
                    exit_trade_id,
                    exit_price: e.price,
                    exit_commission: e.commission,
                }),
            );
            out.done()
        }
        _ => vec![],
    }
}
