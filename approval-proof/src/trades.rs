use sovereign_schemas::events::{TradeEvent, TradeProposed};
use sovereign_schemas::{Digest, IMPORT_ACTOR, Position, RecordedEvent};

use crate::report::Use;
use crate::verifier::{Reason, Verifier, decode};

/// A trade, as far as an approval may rest on it.
#[derive(Debug)]
pub(crate) struct Trade {
    pub(crate) position: Position,
    pub(crate) department: u16,
    /// SHA-256 of the proposal's payload.
    pub(crate) digest: Digest,
    pub(crate) proposed: TradeProposed,
    /// The approval that it waits for, from the moment on at which it is held.
    held: Option<String>,
    authorized: bool,
}

impl Verifier {
    pub(crate) fn trade_event(&mut self, event: &RecordedEvent) -> Result<(), Reason> {
        let header = &event.header;
        let id = &header.aggregate_id;
        let change: TradeEvent = decode(event)?;
        if let TradeEvent::TradeProposed(proposed) = change {
            let trade = Trade {
                position: header.position,
                department: header.department.0,
                digest: Digest::of(&[&event.payload]),
                proposed,
                held: None,
                authorized: false,
            };
            return match self.trades.insert(id.clone(), trade) {
                Some(_) => Err("the trade was proposed before".to_owned()),
                None => Ok(()),
            };
        }
        // what happened in another store is no proof, and nothing here rests on it
        if header.actor == IMPORT_ACTOR {
            return Ok(());
        }
        let trade = self.trades.get_mut(id).ok_or("no such trade")?;
        match change {
            TradeEvent::TradeHeld(e) => {
                if trade.authorized || trade.held.is_some() {
                    return Err("the trade was held or authorized before".to_owned());
                }
                trade.held = Some(e.approval_id);
                Ok(())
            }
            TradeEvent::TradeAuthorized(e) => {
                if trade.authorized {
                    return Err("the trade was authorized before".to_owned());
                }
                trade.authorized = true;
                self.authorized(event, &e.authority)
            }
            TradeEvent::TradeFilled(_) if !trade.authorized => {
                Err("the trade was filled and never authorized".to_owned())
            }
            TradeEvent::TradePlaced(_) if !trade.authorized => {
                Err("the trade's order was placed and never authorized".to_owned())
            }
            _ => Ok(()),
        }
    }

    /// Single use: a granted approval authorizes its own trade, once, under the policy that asked.
    fn authorized(&mut self, event: &RecordedEvent, authority: &str) -> Result<(), Reason> {
        let header = &event.header;
        let trade_id = &header.aggregate_id;
        let held = self.trades.get(trade_id).and_then(|t| t.held.clone());
        let named = authority.strip_prefix("approval:");
        let Some(wanted) = held else {
            return match named {
                Some(_) => Err("an approval authorized a trade that waited for none".to_owned()),
                None => Ok(()),
            };
        };
        if named != Some(wanted.as_str()) {
            return Err(format!(
                "the trade waits for {wanted}, and was authorized by {authority}"
            ));
        }
        let policy = self.policy.policy().version;
        let approval = self.approvals.get_mut(&wanted);
        let approval = approval.filter(|a| a.granted_at.is_some() && !a.imported);
        let approval = approval.ok_or_else(|| format!("{wanted} is not granted"))?;
        if approval.requested.target_id != *trade_id {
            return Err(format!("{wanted} was granted for another trade"));
        }
        if approval.requested.policy_version != policy {
            return Err(format!("policy {policy} holds, and {wanted} is of another"));
        }
        let used = Use {
            target_id: trade_id.clone(),
            position: header.position,
        };
        match approval.used.replace(used) {
            Some(_) => Err(format!("{wanted} was used before")),
            None => Ok(()),
        }
    }
}
