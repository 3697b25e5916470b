use sovereign_aggregates::approval::{Approval, Attempt, Requested, Stage};
use sovereign_aggregates::job::{ABORT, FORCE_START, RUN};
use sovereign_aggregates::policy::Action as Asked;
use sovereign_aggregates::trade::EXECUTE;
use sovereign_passkeys::Assertion;
use sovereign_schemas::events::{ApprovalEvent, ApprovalGiven, ApprovalGranted, ApprovalRequested};
use sovereign_schemas::{AggregateId, IMPORT_ACTOR, Position, RecordedEvent, Timestamp};

use crate::report::{Action, Given, JobAction, PolicyProof, Proof, TradeAction, Use};
use crate::verifier::{Reason, Verifier, decode};

/// An approval, as far as it was followed.
#[derive(Debug)]
pub(crate) struct Followed {
    state: Approval,
    requested_at: Position,
    /// What was asked for; it never changes.
    pub(crate) requested: Requested,
    policy: PolicyProof,
    department: String,
    asset: String,
    action: Option<Action>,
    given: Vec<Given>,
    pub(crate) granted_at: Option<Position>,
    pub(crate) used: Option<Use>,
    pub(crate) imported: bool,
}

impl Followed {
    pub(crate) fn proof(self, approval_id: String) -> Proof {
        let Requested {
            action,
            target_id,
            action_digest,
            amount,
            currency,
            requested_by,
            on_behalf_of,
            people_needed,
            expires_at,
            policy_version: _,
        } = self.requested;
        Proof {
            approval_id,
            status: match self.state.stage {
                Stage::None | Stage::Waiting { .. } => "waiting",
                Stage::Granted => "granted",
                Stage::Denied => "denied",
                Stage::Expired => "expired",
            },
            imported: self.imported,
            requested_at: self.requested_at,
            requested_by,
            on_behalf_of,
            action_name: action,
            target_id,
            action_digest,
            action: self.action,
            amount,
            currency,
            policy: self.policy,
            people_needed,
            expires_at,
            given: self.given,
            granted_at: self.granted_at,
            used: self.used,
            attempts_refused: self.state.refused,
        }
    }

    /// The last moment for an answer, if it still waits.
    fn waits_until(&self) -> Option<Timestamp> {
        match self.state.stage {
            Stage::Waiting { expires_at } => Some(expires_at),
            _ => None,
        }
    }
}

impl Verifier {
    pub(crate) fn approval_event(&mut self, event: &RecordedEvent) -> Result<(), Reason> {
        let header = &event.header;
        let change: ApprovalEvent = decode(event)?;
        let imported = header.actor == IMPORT_ACTOR;
        if let ApprovalEvent::ApprovalRequested(e) = &change {
            let followed = self.requested(event, e, imported)?;
            let id = header.aggregate_id.clone();
            return match self.approvals.insert(id, followed) {
                Some(_) => Err("the approval was requested before".to_owned()),
                None => Ok(()),
            };
        }
        let id = header.aggregate_id.as_str();
        let followed = self.approvals.get(id).ok_or("no such approval")?;
        if !imported && followed.imported {
            return Err("what was brought in from another store went on here".to_owned());
        }
        if !imported {
            self.judge_answer(event, followed, &change)?;
        }
        let given = match &change {
            ApprovalEvent::ApprovalGiven(e) if !imported => Some(self.given(event, e)?),
            _ => None,
        };
        let action = match &change {
            ApprovalEvent::ApprovalGranted(_) if !imported => Some(self.action_of(followed)?),
            _ => None,
        };
        if let Some((number, name)) = action.as_ref().map(|(_, department)| department.clone()) {
            let known = self
                .departments
                .entry(number)
                .or_insert_with(|| name.clone());
            if *known != name {
                return Err(format!(
                    "department {number} is {known} elsewhere, and {name} here"
                ));
            }
        }
        let Some(followed) = self.approvals.get_mut(id) else {
            return Ok(());
        };
        followed.given.extend(given);
        if let Some((action, _)) = action {
            followed.action = Some(action);
            followed.granted_at = Some(header.position);
        }
        followed.state.evolve(&change);
        Ok(())
    }

    /// That the policy that holds asks exactly this.
    fn requested(
        &self,
        event: &RecordedEvent,
        request: &ApprovalRequested,
        imported: bool,
    ) -> Result<Followed, Reason> {
        let header = &event.header;
        let policy = self.policy.policy();
        let says_rule = header.event_version >= 2;
        let mut state = Approval::default();
        state.evolve(&request.clone().into());
        let requested = state.requested.as_deref().cloned();
        let followed = Followed {
            requested: requested.ok_or("the request says nothing")?,
            state,
            requested_at: header.position,
            policy: PolicyProof {
                version: policy.version,
                digest: policy.digest(),
                adopted_at: self.policy_adopted_at,
                rule: says_rule.then(|| request.rule.clone()),
            },
            department: request.department.clone(),
            asset: request.asset.clone(),
            action: None,
            given: Vec::new(),
            granted_at: None,
            used: None,
            imported,
        };
        if imported {
            return Ok(followed);
        }
        if request.requested_by != header.actor {
            return Err(format!(
                "{} asked, not {}",
                header.actor, request.requested_by
            ));
        }
        if request.policy_version != policy.version {
            let (found, holds) = (request.policy_version, policy.version);
            return Err(format!(
                "policy {holds} holds, and the request names {found}"
            ));
        }
        if request.expires_at != header.recorded_at.plus_s(policy.approval_ttl_s) {
            let ttl = policy.approval_ttl_s;
            return Err(format!(
                "the request does not end {ttl} s after it was made"
            ));
        }
        if says_rule {
            let asked = policy.asks(&Asked {
                department: &request.department,
                action: &request.action,
                asset: &request.asset,
                amount: request.amount,
            });
            let rule = asked.rule.map_or("", |rule| rule.as_str());
            if request.rule != rule {
                return Err(format!(
                    "rule {rule} applies, and the request names {}",
                    request.rule
                ));
            }
            let people = i32::from(asked.people.max(1));
            if request.people_needed != people {
                let found = request.people_needed;
                return Err(format!(
                    "the policy asks {people} people, and the request {found}"
                ));
            }
        }
        Ok(followed)
    }

    /// That this answer may come now.
    fn judge_answer(
        &self,
        event: &RecordedEvent,
        followed: &Followed,
        change: &ApprovalEvent,
    ) -> Result<(), Reason> {
        let header = &event.header;
        if matches!(change, ApprovalEvent::ApprovalAttemptRefused(_)) {
            // it changes nothing
            return Ok(());
        }
        let until = followed.waits_until();
        let until = until.ok_or("the approval had ended before")?;
        let late = header.recorded_at > until;
        match change {
            ApprovalEvent::ApprovalDenied(e) if e.denied_by != header.actor => {
                Err(format!("{} denied, not {}", header.actor, e.denied_by))
            }
            ApprovalEvent::ApprovalDenied(_) if late => Err("denied after its end".to_owned()),
            ApprovalEvent::ApprovalExpired(_) if !late => Err("expired before its end".to_owned()),
            ApprovalEvent::ApprovalExpired(e) if e.expired_at != until => {
                Err(format!("it ends at {until}, not at {}", e.expired_at))
            }
            ApprovalEvent::ApprovalGranted(e) => granted(followed, e),
            _ => Ok(()),
        }
    }

    /// Judges a yes again: the person, the limits, and what the passkey signed.
    fn given(&self, event: &RecordedEvent, given: &ApprovalGiven) -> Result<Given, Reason> {
        let header = &event.header;
        if given.approver != header.actor {
            return Err(format!("{} approved, not {}", header.actor, given.approver));
        }
        let id = header.aggregate_id.parse::<AggregateId>();
        let approval_id = id.map_err(|error| error.to_string())?;
        let followed = self.approvals.get(approval_id.as_str());
        let followed = followed.ok_or("no such approval")?;
        let who = given.approver.clone();
        let unknown = || format!("{who} has no passkey");
        let passkeys = self.approvers.get(&who).ok_or_else(unknown)?;
        let assertion = Assertion {
            credential_id: given.credential_id.clone().into(),
            authenticator_data: given.authenticator_data.clone().into(),
            client_data: given.client_data.clone().into(),
            signature: given.signature.clone().into(),
        };
        let judged = Attempt {
            approval_id: &approval_id,
            requested: &followed.requested,
            given: &followed.state.given,
            approver: &who,
            passkeys,
            policy: self.policy.policy(),
            at: header.recorded_at,
            assertion: &assertion,
        }
        .judge()
        .map_err(|code| format!("this approval counts for nothing: {code}"))?;
        if judged.passkey != given.public_key_digest {
            return Err("the public key is another than the event names".to_owned());
        }
        let passkey = passkeys.passkey(&given.credential_id).ok_or_else(unknown)?;
        let enrolled = self
            .enrolled
            .get(&(who.clone(), given.credential_id.clone()));
        Ok(Given {
            position: header.position,
            at: header.recorded_at,
            credential_id: assertion.credential_id,
            enrolled_at: *enrolled.ok_or_else(unknown)?,
            rp_id: passkey.rp_id.clone(),
            origin: passkey.origin.clone(),
            approver: who,
        })
    }

    /// The exact action behind the digest, and the department as number and name.
    fn action_of(&self, followed: &Followed) -> Result<(Action, (u16, String)), Reason> {
        let requested = &followed.requested;
        match requested.action.as_str() {
            EXECUTE => {}
            RUN | FORCE_START | ABORT => return self.job_action_of(followed),
            action => {
                return Err(format!(
                    "this build cannot recompute the digest of {action}"
                ));
            }
        }
        let trade = self.trades.get(&requested.target_id);
        let trade = trade.ok_or("the action that was approved is not in the file")?;
        let proposed = &trade.proposed;
        let same = [
            ("digest", trade.digest == requested.action_digest),
            ("amount", proposed.amount == requested.amount),
            ("currency", proposed.currency == requested.currency),
            (
                "agent",
                Some(&proposed.agent_id) == requested.on_behalf_of.as_ref(),
            ),
            ("asset", proposed.instrument == followed.asset),
        ];
        if let Some((what, _)) = same.iter().find(|(_, same)| !same) {
            return Err(format!(
                "the {what} of the proposal is another than was approved"
            ));
        }
        let action = Action::Trade(TradeAction {
            position: trade.position,
            agent_id: proposed.agent_id.clone(),
            side: proposed.side,
            instrument: proposed.instrument.clone(),
            quantity: proposed.quantity,
            price: proposed.price,
            amount: proposed.amount,
            currency: proposed.currency.clone(),
        });
        Ok((action, (trade.department, followed.department.clone())))
    }

    fn job_action_of(&self, followed: &Followed) -> Result<(Action, (u16, String)), Reason> {
        let requested = &followed.requested;
        let job = self.jobs.get(&requested.target_id);
        let job = job.ok_or("the action that was approved is not in the file")?;
        let own =
            requested.action != RUN || requested.on_behalf_of.as_ref() == Some(&job.submitted_by);
        let same = [
            ("digest", job.digest == requested.action_digest),
            ("amount", job.amount == requested.amount),
            ("currency", job.currency == requested.currency),
            ("submitter", own),
            ("asset", job.kind == followed.asset),
        ];
        if let Some((what, _)) = same.iter().find(|(_, same)| !same) {
            return Err(format!(
                "the {what} of the submission is another than was approved"
            ));
        }
        let action = Action::Job(JobAction {
            position: job.position,
            job_id: requested.target_id.clone(),
            kind: job.kind.clone(),
            submitted_by: job.submitted_by.clone(),
            amount: job.amount,
            currency: job.currency.clone(),
        });
        Ok((action, (job.department, followed.department.clone())))
    }
}

/// That enough people have approved.
fn granted(followed: &Followed, grant: &ApprovalGranted) -> Result<(), Reason> {
    let requested = &followed.requested;
    let people = i32::try_from(followed.state.given.len()).unwrap_or(i32::MAX);
    if people < requested.people_needed {
        let needed = requested.people_needed;
        return Err(format!(
            "granted with {people} approvals, and {needed} are needed"
        ));
    }
    if grant.people != people
        || grant.action_digest != requested.action_digest
        || grant.policy_version != requested.policy_version
    {
        return Err("the grant says something else than the request".to_owned());
    }
    Ok(())
}
