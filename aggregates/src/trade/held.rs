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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use sovereign_schemas::events::{Side, TradeEvent, Verdict};
    use sovereign_schemas::{Decimal, DepartmentId, Digest, Timestamp, avro};

    use super::super::{
        ApplyPolicy, Authorize, GiveVerdict, Proposal, Propose, TradeCommand, TradeStatus,
    };
    use super::*;
    use crate::approval::{Approval, Giver, Requested};
    use crate::recorded_text::recorded_text as text;

    const TRADE: &str = "trade_eth_040226_1201";
    const APPROVAL: &str = "approval_trade_eth_040226_1201";

    fn decision() -> Decision {
        Decision::new(
            TRADE.parse().unwrap(),
            Timestamp(1_000_000),
            "anna".parse().unwrap(),
        )
    }

    fn take(trade: &mut Trade, command: TradeCommand) -> TradeEvent {
        let event = trade.decide(command, &decision()).unwrap().remove(0);
        trade.evolve(&event);
        event
    }

    /// A trade of this price, judged Green, to which the built-in policy was applied.
    fn judged(price: &str) -> Trade {
        let mut trade = Trade::default();
        let proposed = take(
            &mut trade,
            TradeCommand::Propose(Propose {
                agent_id: "trader".parse().unwrap(),
                instrument: "ETH".parse().unwrap(),
                side: Side::Buy,
                quantity: "1".parse().unwrap(),
                price: price.parse().unwrap(),
                amount: None,
                currency: "USD".parse().unwrap(),
                closes: None,
                decided_on: Timestamp(1),
                rationale: text(),
            }),
        );
        let TradeEvent::TradeProposed(event) = &proposed else {
            panic!("{proposed:?}");
        };
        trade.proposed(Proposal {
            department: DepartmentId::ORCHESTRATOR,
            digest: Digest::of(&[&avro::encode(event)]),
            agent_id: event.agent_id.clone(),
            currency: event.currency.clone(),
        });
        let verdict = GiveVerdict {
            verdict: Verdict::Green,
            rule: "limits".parse().unwrap(),
            note: text(),
        };
        take(&mut trade, TradeCommand::GiveVerdict(verdict));
        take(&mut trade, TradeCommand::ApplyPolicy(ApplyPolicy {}));
        trade
    }

    /// As if one person had approved exactly this trade.
    fn granted(trade: &Trade) -> Decision {
        let intent = trade.intent.as_ref().unwrap();
        let proposal = intent.proposal.as_deref().unwrap();
        let mut decision = decision();
        decision.approval_id = trade.approval_id.clone();
        decision.approval = Arc::new(Approval {
            stage: Stage::Granted,
            requested: Some(Box::new(Requested {
                action: EXECUTE.to_owned(),
                target_id: TRADE.to_owned(),
                action_digest: proposal.digest,
                amount: intent.amount,
                currency: "USD".to_owned(),
                policy_version: decision.policy.version,
                requested_by: "guardian".to_owned(),
                on_behalf_of: Some("trader".to_owned()),
                people_needed: 1,
                expires_at: Timestamp(2_000_000),
            })),
            given: vec![Giver {
                approver: "bob".to_owned(),
                passkey: Digest::ZERO,
                assertion: Digest::ZERO,
            }],
            refused: 0,
        });
        decision
    }

    fn but(decision: &Decision, change: impl FnOnce(&mut Approval)) -> Decision {
        let mut decision = decision.clone();
        change(Arc::make_mut(&mut decision.approval));
        decision
    }

    fn asked(approval: &mut Approval) -> &mut Requested {
        approval.requested.as_mut().unwrap()
    }

    fn code(trade: &Trade, decision: &Decision) -> ErrorCode {
        let command = TradeCommand::Authorize(Authorize { approval_id: None });
        trade.decide(command, decision).unwrap_err().problem.code
    }

    #[test]
    fn a_trade_waits_above_the_policys_amount_and_not_at_it() {
        assert_eq!(judged("1000").status, TradeStatus::Authorized);
        let held = judged("1000.01");
        assert_eq!(held.status, TradeStatus::Held);
        assert_eq!(held.approval_id.as_deref(), Some(APPROVAL));
    }

    #[test]
    fn a_held_trade_is_authorized_only_by_an_approval_of_exactly_this_trade() {
        let mut trade = judged("1500");
        let good = granted(&trade);
        let cent: Decimal = "1500.01".parse().unwrap();
        let mut elsewhere = good.clone();
        elsewhere.approval_id = Some("approval_other".to_owned());
        let mismatches = [
            elsewhere,
            but(&good, |a| asked(a).action = "job.run".to_owned()),
            but(&good, |a| asked(a).target_id = "another".to_owned()),
            but(&good, |a| asked(a).action_digest = Digest::ZERO),
            but(&good, |a| asked(a).amount = cent),
            but(&good, |a| asked(a).currency = "EUR".to_owned()),
            but(&good, |a| asked(a).on_behalf_of = None),
            but(&good, |a| asked(a).on_behalf_of = Some("bob".to_owned())),
        ];
        for (index, changed) in mismatches.iter().enumerate() {
            let found = code(&trade, changed);
            assert_eq!(found, ErrorCode::ApprovalTermsMismatch, "{index}");
        }
        let expires_at = Timestamp(2_000_000);
        let waiting = Stage::Waiting { expires_at };
        for stage in [Stage::None, waiting, Stage::Denied, Stage::Expired] {
            let not = but(&good, |a| a.stage = stage);
            assert_eq!(code(&trade, &not), ErrorCode::ApprovalRequired, "{stage:?}");
        }
        let nobody = but(&good, |a| a.given.clear());
        assert_eq!(code(&trade, &nobody), ErrorCode::ApprovalRequired);
        let older = but(&good, |a| asked(a).policy_version += 1);
        assert_eq!(code(&trade, &older), ErrorCode::PolicyChanged);

        let run = TradeCommand::Authorize(Authorize { approval_id: None });
        let events = trade.decide(run, &good).unwrap();
        let expected = TradeEvent::from(TradeAuthorized {
            authority: format!("approval:{APPROVAL}"),
        });
        assert_eq!(events, [expected]);
        trade.evolve(&events[0]);
        assert_eq!(
            code(&trade, &good),
            ErrorCode::WrongState,
            "an approval counts once"
        );
    }

    #[test]
    fn what_the_proposal_said_has_to_be_known() {
        let mut trade = judged("1500");
        let good = granted(&trade);
        trade.intent.as_mut().unwrap().proposal = None;
        assert_eq!(code(&trade, &good), ErrorCode::ApprovalTermsMismatch);
    }
}
