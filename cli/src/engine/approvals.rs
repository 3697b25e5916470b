//! Approvals as the API and its page show them: with the action behind the digest.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};
use sovereign_aggregates::job::{ABORT, FORCE_START, RUN, submission_digest};
use sovereign_aggregates::trade::{EXECUTE, Trade};
use sovereign_console::{ApprovalSource, ApprovalTerms, EventSource as _, PasskeyRow, Texts};
use sovereign_projections::{ApprovalRow, Page, PasskeysFilter};
use sovereign_schemas::events::{JobEvent, TradeEvent};
use sovereign_schemas::{AggregateType, Digest, ErrorCode, Problem, RecordedEvent};

use super::api::{Events, Views};

/// Passkeys of a person that are shown; he cannot have more.
const PASSKEYS_MAX: u32 = sovereign_aggregates::approver::PASSKEYS_MAX as u32;
/// Events of a trade or a job that are read: a trade has about ten at most.
const TARGET_EVENTS_MAX: usize = 1_000;

/// The ledger and the views, as far as approvals need them.
pub(super) struct Approvals {
    pub(super) events: Arc<Events>,
    pub(super) views: Arc<Views>,
}

impl Approvals {
    async fn row(&self, id: &str) -> Result<ApprovalRow, Problem> {
        let found = self.views.0.approval(id).await.map_err(|e| e.problem())?;
        found.ok_or_else(|| Problem::new(ErrorCode::NotFound, "no such approval").found(id))
    }

    /// The events of what waits, its proposal or submission first; none if it is something else.
    async fn target(&self, row: &ApprovalRow) -> Result<Vec<RecordedEvent>, Problem> {
        let kind = match row.action.as_str() {
            EXECUTE => AggregateType::Trade,
            RUN | FORCE_START | ABORT => AggregateType::Job,
            _ => return Ok(Vec::new()),
        };
        let reader = &self.events.reader;
        let found = reader.read_aggregate(kind, &row.target_id, 0, TARGET_EVENTS_MAX);
        found.await.map_err(|e| e.problem())
    }
}

/// The digest of the exact action, computed again from the ledger.
fn digest_of(first: &RecordedEvent) -> Option<Digest> {
    if first.header.aggregate_type == AggregateType::Trade.as_str() {
        return Some(Digest::of(&[&first.payload]));
    }
    let Ok(JobEvent::JobSubmitted(e)) = first.decode() else {
        return None;
    };
    let id = &first.header.aggregate_id;
    Some(submission_digest(id, &e.kind, &e.arguments))
}

/// How a trade or a job stands after its events.
fn standing(events: &[RecordedEvent], currency: &str) -> Value {
    if events[0].header.aggregate_type == AggregateType::Job.as_str() {
        let found = sovereign_jobs::view(&events[0].header.aggregate_id, events);
        return found.ok().flatten().unwrap_or_default();
    }
    let mut trade = Trade::default();
    for event in events {
        match event.decode::<TradeEvent>() {
            Ok(event) => trade.evolve(&event),
            Err(error) => return json!({ "undecodable": error.to_string() }),
        }
    }
    json!({ "status": trade.status, "currency": currency,
        "fill_price": trade.execution.map(|e| e.price) })
}

#[async_trait]
impl ApprovalSource for Approvals {
    async fn terms(&self, id: &str) -> Result<ApprovalTerms, Problem> {
        let row = self.row(id).await?;
        let action_digest = row.action_digest.parse().map_err(|_| {
            Problem::new(ErrorCode::Internal, "the view holds no digest").field("action_digest")
        })?;
        Ok(ApprovalTerms {
            action_digest,
            policy_version: row.policy_version,
            expires_at: row.expires_at,
        })
    }

    async fn details(&self, id: &str, texts: Texts) -> Result<Value, Problem> {
        let row = self.row(id).await?;
        let events = self.target(&row).await?;
        let (mut action, mut digest, mut target) = (Value::Null, None, Value::Null);
        if let Some(proposal) = events.first() {
            action = self.events.describe(proposal, texts).await;
            digest = digest_of(proposal).map(|digest| digest.to_string());
            target = standing(&events, &row.currency);
        }
        let matches = digest.as_ref().map(|digest| *digest == row.action_digest);
        let mut approval = json!(row);
        if let (Texts::Revealed, Some(reason)) = (texts, &row.reason) {
            let revealer = self.events.describer.revealer.as_ref();
            if let Some(revealer) = revealer
                && let Some(words) = revealer.reveal(reason).await
            {
                approval["reason"] = words.into();
            }
        }
        Ok(
            json!({ "approval": approval, "action": action, "action_digest": digest,
            "action_matches": matches, "target": target }),
        )
    }

    async fn passkeys(&self, approver: &str) -> Result<Vec<PasskeyRow>, Problem> {
        let filter = PasskeysFilter {
            approver: Some(approver.to_owned()),
            revoked: true,
            page: Page {
                after: None,
                limit: PASSKEYS_MAX,
            },
        };
        let listing = self
            .views
            .0
            .passkeys(&filter)
            .await
            .map_err(|e| e.problem())?;
        let mut rows = listing.rows;
        rows.sort_by_key(|row| row.first_position);
        let shown = rows.into_iter().map(|row| PasskeyRow {
            credential_id: row.credential_id,
            approver: row.approver,
            rp_id: row.rp_id,
            origin: row.origin,
            label: row.label,
            enrolled_at: row.enrolled_at,
            revoked_at: row.revoked_at,
        });
        Ok(shown.collect())
    }
}
