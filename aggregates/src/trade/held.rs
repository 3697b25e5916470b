use sovereign_schemas::events::TradeAuthorized;
use sovereign_schemas::{ErrorCode, Problem};

use super::{EXECUTE, Intent, Trade};
use crate::approval::Stage;
use crate::{Decision, Refusal};

impl Trade {
    /// Authorizes a trade that waits for people, if they have approved exactly this trade under the
    /// policy that holds now. There is no other way out of waiting but to be given up.
    ///
    /// # Errors
    /// [`ErrorCode::ApprovalRequired`] if its approval is not granted,
    /// [`ErrorCode::ApprovalTermsMismatch`] if that approval is of something else,
    /// [`ErrorCode::PolicyChanged`] if another policy holds than the one that asked.
    pub(super) fn authorize_held(
        &self,
        intent: &Intent,
        decision: &Decision,
    ) -> Result<TradeAuthorized, Refusal> {
        let approval = &decision.approval;
        let wanted = self.approval_id.as_deref().unwrap_or_default();
        if decision.approval_id.as_deref() != Some(wanted) {
            let problem = Problem::new(
                ErrorCode::ApprovalTermsMismatch,
                "the trade waits for another approval",
            );
            return Err(problem.field("data.approval_id").expected(wanted).into());
        }
        let granted = approval.stage == Stage::Granted;
        let Some(requested) = approval.requested.as_ref().filter(|_| granted) else {
            let message = format!("the trade waits for {wanted}, which is not granted");
            return Err(Refusal::new(ErrorCode::ApprovalRequired, message));
        };
        let other = |what: &str| {
            let message = format!("{wanted} was granted for another {what}");
            Refusal::new(ErrorCode::ApprovalTermsMismatch, message)
        };
        let Some(proposal) = &intent.proposal else {
            return Err(other("trade, as far as this engine knows"));
        };
        if requested.action != EXECUTE || requested.target_id != decision.aggregate_id.as_str() {
            return Err(other("action"));
        }
        if requested.action_digest != proposal.digest {
            return Err(other("proposal"));
        }
        if requested.amount != intent.amount || requested.currency != proposal.currency {
            return Err(other("amount"));
        }
        // or it could be approved by the one who wants it
        if requested.on_behalf_of.as_ref() != Some(&proposal.agent_id) {
            return Err(other("agent"));
        }
        let policy = &decision.policy;
        if requested.policy_version != policy.version {
            let message = format!(
                "{wanted} was granted under policy {}, and {} holds now",
                requested.policy_version, policy.version
            );
            return Err(Refusal::new(ErrorCode::PolicyChanged, message));
        }
        let people = usize::from(Self::people(intent, decision));
        if approval.given.len() < people.max(1) {
            let message = format!(
                "policy {} asks {people} people, and {} have approved",
                policy.version,
                approval.given.len()
            );
            return Err(Refusal::new(ErrorCode::ApprovalRequired, message));
        }
        Ok(TradeAuthorized {
            authority: format!("approval:{wanted}"),
        })
    }
}
