//! Which approvals nobody answered in time. Folded from the log, so it survives restarts; the
//! clock is brought by the caller, and whether an approval is really due is decided by its
//! aggregate.

use std::collections::{BTreeMap, HashMap};

use sovereign_aggregates::approval::{self, ApprovalCommand, Expire};
use sovereign_aggregates::{AnyCommand, AnyEvent};
use sovereign_schemas::events::ApprovalEvent;
use sovereign_schemas::{CommandContext, Timestamp, Uuid};

use crate::RawRequest;
use crate::logic::{Seen, code, command_id, guardian};

/// An approval that did not end is asked for again after so many seconds.
pub const AGAIN_S: i64 = 5;

/// The approvals that wait for an answer.
#[derive(Debug, Clone, Default)]
pub struct Expiries {
    by_time: BTreeMap<(Timestamp, String), Requested>,
    by_id: HashMap<String, Timestamp>,
}

#[derive(Debug, Clone, Copy)]
struct Requested {
    event_id: Uuid,
    correlation_id: Uuid,
}

impl Expiries {
    /// Takes an event of any kind.
    pub fn apply(&mut self, seen: &Seen) {
        let AnyEvent::Approval(event) = &seen.event else {
            return;
        };
        let id = seen.aggregate_id().to_owned();
        match event {
            ApprovalEvent::ApprovalRequested(e) => {
                let header = seen.header();
                let requested = Requested {
                    event_id: header.event_id,
                    correlation_id: header.correlation_id,
                };
                self.by_id.insert(id.clone(), e.expires_at);
                self.by_time.insert((e.expires_at, id), requested);
            }
            event if approval::has_ended(event) => {
                if let Some(expires_at) = self.by_id.remove(&id) {
                    self.by_time.remove(&(expires_at, id));
                }
            }
            _ => {}
        }
    }

    /// How many wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.by_id.len()
    }

    /// The commands that end what is due, at most `limit`, the longest overdue first. Their ids
    /// change every [`AGAIN_S`] seconds: a ledger whose clock is behind refuses at first, and
    /// remembers that. The approval itself ends only once.
    #[must_use]
    pub fn due(&self, now: Timestamp, limit: usize) -> Vec<RawRequest> {
        let due = self
            .by_time
            .iter()
            .take_while(|((expires_at, _), _)| *expires_at < now);
        due.take(limit)
            .filter_map(|((expires_at, id), requested)| {
                let overdue_us = now.0.saturating_sub(expires_at.0);
                let attempt = usize::try_from(overdue_us / (AGAIN_S * 1_000_000)).ok()?;
                expire(id, *requested, attempt)
            })
            .collect()
    }
}

fn expire(id: &str, requested: Requested, attempt: usize) -> Option<RawRequest> {
    let context = CommandContext {
        command_id: command_id("guardian/expire", requested.event_id, attempt),
        actor: code(guardian::ROLE.name),
        department: guardian::ROLE.department,
        correlation_id: requested.correlation_id,
        causation_id: Some(requested.event_id),
        traceparent: None,
    };
    let command = AnyCommand::Approval(ApprovalCommand::Expire(Expire {}));
    Some(RawRequest {
        aggregate_id: id.parse().ok()?,
        command,
        context,
    })
}
