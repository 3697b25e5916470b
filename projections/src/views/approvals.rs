use sovereign_schemas::events::{ApprovalEvent, ApprovalRequested};
use sovereign_schemas::{AggregateType, Decimal, EventHeader, Position, RecordedEvent, Timestamp};

use crate::table::{Stored, by_symbol, storable};
use crate::{FoldError, View, table};

/// One row a request to a human.
#[derive(Debug)]
pub struct Approvals;

/// Where a request stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ApprovalStatus {
    /// Nobody has answered yet.
    Waiting,
    /// A human said no.
    Denied,
    /// Nobody answered in time.
    Expired,
}

impl ApprovalStatus {
    /// All.
    pub const ALL: &'static [Self] = &[Self::Waiting, Self::Denied, Self::Expired];

    /// As stored and shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Denied => "denied",
            Self::Expired => "expired",
        }
    }
}

by_symbol!(ApprovalStatus);

table! {
    /// A request to a human.
    ApprovalRow = "approvals" version 1 key approval_id: String;
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
    /// The policy that asked for a human.
    policy_version: i32,
    /// Who asks.
    requested_by: String,
    /// Until when an answer counts.
    expires_at: Timestamp,
    /// Where it stands.
    status: ApprovalStatus,
    /// Who answered.
    decided_by: Option<String>,
    /// Position of the request.
    first_position: Position,
    /// Position of its newest event.
    last_position: Position,
    /// When the ledger took its newest event.
    updated_at: Timestamp,
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
            policy_version: event.policy_version,
            requested_by: event.requested_by,
            expires_at: storable(event.expires_at),
            status: ApprovalStatus::Waiting,
            decided_by: None,
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

    fn key(header: &EventHeader) -> Option<String> {
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
