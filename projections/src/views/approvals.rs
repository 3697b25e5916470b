use sovereign_schemas::events::{ApprovalEvent, ApprovalRequested};
use sovereign_schemas::{
    AggregateType, Decimal, EventHeader, Position, RecordedEvent, Text, Timestamp,
};

use crate::table::{Stored, by_symbol, storable};
use crate::view::add;
use crate::{FoldError, View, table};

/// One row a request to a human.
#[derive(Debug)]
pub struct Approvals;

/// Where a request stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ApprovalStatus {
    /// Not enough people have answered yet.
    Waiting,
    /// Enough people said yes.
    Granted,
    /// Somebody said no.
    Denied,
    /// Not enough people answered in time.
    Expired,
}

impl ApprovalStatus {
    /// All.
    pub const ALL: &'static [Self] = &[Self::Waiting, Self::Granted, Self::Denied, Self::Expired];

    /// As stored and shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Granted => "granted",
            Self::Denied => "denied",
            Self::Expired => "expired",
        }
    }
}

by_symbol!(ApprovalStatus);

table! {
    /// A request to a human.
    ApprovalRow = "approvals" version 2 key approval_id: String;
    /// Its id.
    approval_id: String,
    /// What is to be done.
    action: String,
    /// To what.
    target_id: String,
    /// SHA-256 of the exact action, as 64 hex digits.
    action_digest: String,
    /// How much, in `currency`.
    amount: Decimal,
    /// Of the amount.
    currency: String,
    /// What it is about; empty if nothing is traded.
    asset: Option<String>,
    /// Whose action it is, as policies name departments.
    department: Option<String>,
    /// The policy that asked for people.
    policy_version: i32,
    /// Its rule that asked.
    rule: Option<String>,
    /// Who asks.
    requested_by: String,
    /// Who wants it.
    on_behalf_of: Option<String>,
    /// So many different people must approve.
    people_needed: Option<i32>,
    /// Who has approved, in order.
    given_by: Option<Vec<String>>,
    /// Attempts to approve that counted for nothing and were recorded.
    attempts_refused: Option<i64>,
    /// Until when an answer counts.
    expires_at: Timestamp,
    /// Where it stands.
    status: ApprovalStatus,
    /// Whose answer ended it: who denied it, or whose approval was the last that was needed.
    decided_by: Option<String>,
    /// Why it was denied, in words.
    reason: Option<Text>,
    /// Position of the request.
    first_position: Position,
    /// Position of its newest event.
    last_position: Position,
    /// When the ledger took its newest event.
    updated_at: Timestamp,
}

/// Empty where the event does not say.
fn told(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

impl ApprovalRow {
    fn requested(event: ApprovalRequested, header: &EventHeader) -> Self {
        Self {
            approval_id: header.aggregate_id.clone(),
            action: event.action,
            target_id: event.target_id,
            action_digest: event.action_digest.to_string(),
            amount: event.amount,
            currency: event.currency,
            asset: told(event.asset),
            department: told(event.department),
            policy_version: event.policy_version,
            rule: told(event.rule),
            requested_by: event.requested_by,
            on_behalf_of: event.on_behalf_of,
            people_needed: Some(event.people_needed),
            given_by: Some(Vec::new()),
            attempts_refused: Some(0),
            expires_at: storable(event.expires_at),
            status: ApprovalStatus::Waiting,
            decided_by: None,
            reason: None,
            first_position: header.position,
            last_position: header.position,
            updated_at: storable(header.recorded_at),
        }
    }
}

impl View for Approvals {
    const NAME: &'static str = ApprovalRow::NAME;
    const VERSION: u32 = ApprovalRow::VERSION;
    type Key = String;
    type Row = ApprovalRow;

    fn key(event: &RecordedEvent) -> Option<String> {
        let header = &event.header;
        let own = header.aggregate_type == AggregateType::Approval.as_str();
        own.then(|| header.aggregate_id.clone())
    }

    fn row_key(row: &ApprovalRow) -> String {
        row.approval_id.clone()
    }

    fn opens(header: &EventHeader) -> bool {
        header.sequence == 1
    }

    fn fold(row: &mut Option<ApprovalRow>, event: &RecordedEvent) -> Result<(), FoldError> {
        let header = &event.header;
        let row = match (row.as_mut(), event.decode::<ApprovalEvent>()?) {
            (None, ApprovalEvent::ApprovalRequested(e)) => {
                *row = Some(ApprovalRow::requested(e, header));
                return Ok(());
            }
            (None, _) => {
                return Err(FoldError::RowMissing {
                    key: header.aggregate_id.clone(),
                });
            }
            (Some(row), ApprovalEvent::ApprovalRequested(_)) => {
                return Err(FoldError::RowExists {
                    key: row.approval_id.clone(),
                });
            }
            (Some(row), ApprovalEvent::ApprovalDenied(e)) => {
                row.status = ApprovalStatus::Denied;
                row.decided_by = Some(e.denied_by);
                row.reason = Some(e.reason);
                row
            }
            (Some(row), ApprovalEvent::ApprovalGiven(e)) => {
                row.given_by.get_or_insert_default().push(e.approver);
                row
            }
            (Some(row), ApprovalEvent::ApprovalAttemptRefused(_)) => {
                let refused = row.attempts_refused.unwrap_or_default();
                row.attempts_refused = Some(add(refused, 1, "attempts_refused")?);
                row
            }
            (Some(row), ApprovalEvent::ApprovalGranted(_)) => {
                row.status = ApprovalStatus::Granted;
                row.decided_by = row.given_by.as_ref().and_then(|all| all.last().cloned());
                row
            }
            (Some(row), ApprovalEvent::ApprovalExpired(_)) => {
                row.status = ApprovalStatus::Expired;
                row
            }
        };
        row.last_position = header.position;
        row.updated_at = storable(header.recorded_at);
        Ok(())
    }
}
