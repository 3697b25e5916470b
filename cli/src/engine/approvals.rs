//! Approvals as the API and its page show them: with the action behind the digest.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};
use sovereign_aggregates::trade::{EXECUTE, Trade};
use sovereign_console::{ApprovalSource, ApprovalTerms, EventSource as _, PasskeyRow, Texts};
use sovereign_projections::{ApprovalRow, Page, PasskeysFilter};
use sovereign_schemas::events::TradeEvent;
use sovereign_schemas::{AggregateType, Digest, ErrorCode, Problem, RecordedEvent};

use super::api::{Events, Views};

/// Passkeys of a person that are shown; he cannot have more.
const PASSKEYS_MAX: u32 = sovereign_aggregates::approver::PASSKEYS_MAX as u32;
/// Events of a trade that are read: one has about ten at most.
const TRADE_EVENTS_MAX: usize = 100;

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

    /// The events of what waits, the proposal first; none if it is no trade.
    async fn trade(&self, row: &ApprovalRow) -> Result<Vec<RecordedEvent>, Problem> {
        if row.action != EXECUTE {
            return Ok(Vec::new());
        }
        let reader = &self.events.reader;
        let kind = AggregateType::Trade;
        let found = reader.read_aggregate(kind, &row.target_id, 0, TRADE_EVENTS_MAX);
        found.await.map_err(|e| e.problem())
    }
}

/// How a trade stands after its events.
fn standing(events: &[RecordedEvent], currency: &str) -> Value {
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
        let events = self.trade(&row).await?;
        let (mut action, mut digest, mut target) = (Value::Null, None, Value::Null);
        if let Some(proposal) = events.first() {
            action = self.events.describe(proposal, texts).await;
            digest = Some(Digest::of(&[&proposal.payload]).to_string());
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
