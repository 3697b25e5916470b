use std::fmt;

use serde::Serialize;
use sovereign_passkeys::Base64Url;
use sovereign_schemas::chain::Head;
use sovereign_schemas::events::Side;
use sovereign_schemas::{Decimal, Digest, Position, Timestamp};

/// Something that cannot be as it is said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The event that says it.
    pub position: Position,
    /// Type and id of its aggregate.
    pub aggregate: String,
    /// Why it cannot be.
    pub reason: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            position,
            aggregate,
            reason,
        } = self;
        write!(f, "position {position}, {aggregate}: {reason}")
    }
}

impl std::error::Error for Difference {}

/// The exact action that was approved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Action {
    /// A trade is executed.
    Trade(TradeAction),
    /// Something is done with a job.
    Job(JobAction),
}

/// A job that runs, is forced to start, or is given up: [`Proof::action_name`] says which.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct JobAction {
    /// Position of the submission, over whose sealed bytes the digest was computed again.
    pub position: Position,
    /// Its id.
    pub job_id: String,
    /// Which handler does it.
    pub kind: String,
    /// Who submitted it.
    pub submitted_by: String,
    /// What the policy judged.
    pub amount: Decimal,
    /// Of the amount.
    pub currency: String,
}

/// A trade that is executed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TradeAction {
    /// Position of the proposal, over whose payload the digest was computed again.
    pub position: Position,
    /// Who wants it.
    pub agent_id: String,
    /// Buy or sell.
    pub side: Side,
    /// What.
    pub instrument: String,
    /// Units.
    pub quantity: Decimal,
    /// Reference price of one unit.
    pub price: Decimal,
    /// Quantity times price, rounded up to the cent.
    pub amount: Decimal,
    /// Of price and amount.
    pub currency: String,
}

/// The policy under which people were asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PolicyProof {
    /// Its version.
    pub version: i32,
    /// SHA-256 of its text.
    pub digest: Digest,
    /// Where it was adopted; none for the built-in one.
    pub adopted_at: Option<Position>,
    /// Its rule that asked; none if the request's version does not say.
    pub rule: Option<String>,
}

/// One yes, judged again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Given {
    /// Who.
    pub approver: String,
    /// Where.
    pub position: Position,
    /// When.
    pub at: Timestamp,
    /// With which passkey.
    pub credential_id: Base64Url,
    /// Where that was enrolled.
    pub enrolled_at: Position,
    /// For which relying party it signs.
    pub rp_id: String,
    /// On which page it signed.
    pub origin: String,
}

/// What an approval was used for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Use {
    /// The trade or the job that was allowed by it.
    pub target_id: String,
    /// Where.
    pub position: Position,
}

/// What is proven of one approval.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Proof {
    /// Its id.
    pub approval_id: String,
    /// `waiting`, `granted`, `denied` or `expired`.
    pub status: &'static str,
    /// It was brought in from another store: nothing is proven.
    pub imported: bool,
    /// Where it was requested.
    pub requested_at: Position,
    /// Who asked.
    pub requested_by: String,
    /// On whose behalf.
    pub on_behalf_of: Option<String>,
    /// What would be done, by name.
    pub action_name: String,
    /// To what.
    pub target_id: String,
    /// SHA-256 of the exact action.
    pub action_digest: Digest,
    /// The action itself; only of one that was granted, and then always.
    pub action: Option<Action>,
    /// How much.
    pub amount: Decimal,
    /// Of the amount.
    pub currency: String,
    /// Under which policy.
    pub policy: PolicyProof,
    /// So many different people had to approve.
    pub people_needed: i32,
    /// Last moment for an answer.
    pub expires_at: Timestamp,
    /// Who approved.
    pub given: Vec<Given>,
    /// Where it was granted.
    pub granted_at: Option<Position>,
    /// What it was used for, once.
    pub used: Option<Use>,
    /// Attempts that were refused and recorded.
    pub attempts_refused: u32,
}

/// All that is proven.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Events looked at.
    pub events: u64,
    /// The end of the chain; compare it with one that was noted elsewhere.
    pub head: Head,
    /// Passkeys whose enrolment was verified again.
    pub passkeys: u64,
    /// By id.
    pub approvals: Vec<Proof>,
}
