use std::sync::Arc;

use sovereign_passkeys::soft::Soft;
use sovereign_passkeys::{Algorithm, Assertion, Challenge, Terms};

use super::*;
use crate::approver::{Approver, ApproverCommand, Enrol};
use crate::policy::Policy;

const NOW: i64 = 1_770_206_460_000_000;
const TWO_PEOPLE: &str = r#"
version = 7

[[rules]]
name = "large"
approvals = [{ above = "1000", people = 2 }]

[approvers.alice]

[approvers.bob]
amount_max = "5000"

[approvers.carol]
amount_max = "1200"

[approvers.trader-aapl]
"#;

pub(super) fn decision(actor: &str, at_us: i64) -> Decision {
    Decision::new(
        "approval_1".parse().unwrap(),
        Timestamp(at_us),
        actor.parse().unwrap(),
    )
}

/// Enrols a passkey for a person, through the command that does.
pub(super) fn enrol(approver: &mut Approver, name: &str, soft: &Soft) {
    let challenge = Challenge([3; 32]);
    let enrol = Enrol {
        credential_id: soft.id.clone().into(),
        public_key: soft.cose().into(),
        rp_id: soft.party_id.clone(),
        origin: soft.origin.clone(),
        aaguid: vec![9; 16].into(),
        backup_eligible: false,
        sign_count: soft.sign_count,
        label: None,
        registration: soft.register(&challenge),
        challenge: challenge.0.to_vec().into(),
    };
    let own = Decision::new(name.parse().unwrap(), Timestamp(NOW), name.parse().unwrap());
    let command = ApproverCommand::Enrol(Box::new(enrol));
    let events = approver.decide(command, &own).unwrap();
    events.iter().for_each(|e| approver.evolve(e));
}

fn person(name: &str) -> (Soft, Arc<Approver>) {
    let mut soft = Soft::new(Algorithm::Es256);
    soft.id = name.as_bytes().to_vec();
    let mut approver = Approver::default();
    enrol(&mut approver, name, &soft);
    (soft, Arc::new(approver))
}

fn request(amount: &str) -> ApprovalCommand {
    ApprovalCommand::Request(Box::new(Request {
        action: "trade.execute".parse().unwrap(),
        target_id: "trade_1".parse().unwrap(),
        action_digest: Digest::of(&[amount.as_bytes()]),
        amount: amount.parse().unwrap(),
        currency: "USD".parse().unwrap(),
        on_behalf_of: Some("trader-aapl".parse().unwrap()),
        department: None,
        asset: Some("AAPL".parse().unwrap()),
    }))
}

/// An approval that waits, and the policy that asked for it.
struct Case {
    approval: Approval,
    policy: Arc<Policy>,
}

impl Case {
    fn of(amount: &str, policy: Arc<Policy>) -> Self {
        let mut approval = Approval::default();
        let mut asked = decision("guardian", NOW);
        asked.policy = Arc::clone(&policy);
        let events = approval.decide(request(amount), &asked).unwrap();
        events.iter().for_each(|e| approval.evolve(e));
        Self { approval, policy }
    }

    fn one_person() -> Self {
        Self::of("1000.01", Policy::built_in())
    }

    fn two_people(amount: &str) -> Self {
        Self::of(amount, Arc::new(Policy::parse(TWO_PEOPLE).unwrap()))
    }

    fn terms(&self) -> Terms<'static> {
        let requested = self.approval.requested.as_ref().unwrap();
        Terms {
            approval_id: "approval_1",
            action_digest: requested.action_digest.0,
            policy_version: requested.policy_version,
            expires_at_us: requested.expires_at.0,
        }
    }

    fn signed(&self, soft: &Soft) -> Assertion {
        soft.assert(&self.terms().challenge())
    }

    fn give_at(
        &mut self,
        at_us: i64,
        who: &str,
        passkeys: &Arc<Approver>,
        assertion: Assertion,
    ) -> Vec<ApprovalEvent> {
        let mut decision = decision(who, at_us);
        decision.policy = Arc::clone(&self.policy);
        decision.approver = Arc::clone(passkeys);
        let command = ApprovalCommand::Give(Box::new(Give { assertion }));
        let events = self.approval.decide(command, &decision).unwrap();
        events.iter().for_each(|e| self.approval.evolve(e));
        events
    }

    fn give(&mut self, who: &str, passkeys: &Arc<Approver>, assertion: Assertion) -> bool {
        let events = self.give_at(NOW + 1, who, passkeys, assertion);
        matches!(events[0], ApprovalEvent::ApprovalGiven(_))
    }

    /// That this attempt is refused and recorded with this code, and changes nothing else.
    #[track_caller]
    fn refuses(&mut self, code: ErrorCode, who: &str, keys: &Arc<Approver>, shown: Assertion) {
        self.refuses_at(NOW + 1, code, who, keys, shown);
    }

    #[track_caller]
    fn refuses_at(
        &mut self,
        at_us: i64,
        code: ErrorCode,
        who: &str,
        keys: &Arc<Approver>,
        shown: Assertion,
    ) {
        let before = self.approval.clone();
        let digest = assertion_digest(&shown);
        let events = self.give_at(at_us, who, keys, shown);
        let expected = ApprovalAttemptRefused {
            approver: who.to_owned(),
            code: code.as_str().to_owned(),
            assertion_digest: digest,
        };
        assert_eq!(events, [expected.into()]);
        let refusal = crate::AnyEvent::Approval(events[0].clone());
        assert_eq!(refusal.recorded_refusal().unwrap().problem.code, code);
        let refused = before.refused + 1;
        assert_eq!(self.approval, Approval { refused, ..before });
    }
}

#[test]
fn expires_after_3600_seconds_and_not_before() {
    let mut case = Case::one_person();
    let expire = || ApprovalCommand::Expire(Expire {});
    let at = |us: i64| decision("guardian", NOW + us);
    let early = case.approval.decide(expire(), &at(3_600_000_000));
    assert_eq!(early.unwrap_err().problem.code, ErrorCode::NotDue);
    let late = case.approval.decide(expire(), &at(3_600_000_001)).unwrap();
    late.iter().for_each(|e| case.approval.evolve(e));
    let again = case.approval.decide(expire(), &at(i64::MAX - NOW));
    assert_eq!(again.unwrap_err().problem.code, ErrorCode::WrongState);
}

#[test]
fn one_signature_over_exactly_these_terms_grants() {
    let mut case = Case::one_person();
    let (soft, keys) = person("alice");
    let assertion = case.signed(&soft);
    let events = case.give_at(NOW + 3_600_000_000, "alice", &keys, assertion);
    assert_eq!(events.len(), 2, "{events:?}");
    let ApprovalEvent::ApprovalGranted(granted) = &events[1] else {
        panic!("{events:?}")
    };
    assert_eq!((granted.people, granted.policy_version), (1, 1));
    assert_eq!(granted.action_digest, Digest::of(&[b"1000.01"]));
    assert_eq!(case.approval.stage, Stage::Granted);
}

#[test]
fn a_signature_over_any_other_terms_is_refused() {
    let (soft, keys) = person("alice");
    let terms = Case::one_person().terms();
    let others = [
        // one cent more is another action
        Terms {
            action_digest: Digest::of(&[b"1000.02"]).0,
            ..terms
        },
        Terms {
            approval_id: "approval_2",
            ..terms
        },
        Terms {
            policy_version: 2,
            ..terms
        },
        Terms {
            expires_at_us: terms.expires_at_us + 1,
            ..terms
        },
    ];
    let mut case = Case::one_person();
    for other in others {
        let shown = soft.assert(&other.challenge());
        case.refuses(ErrorCode::ApprovalTermsMismatch, "alice", &keys, shown);
    }
}

#[test]
fn an_assertion_counts_once() {
    let mut case = Case::two_people("1500");
    let (alice, keys) = person("alice");
    let shown = case.signed(&alice);
    assert!(case.give("alice", &keys, shown.clone()));
    case.refuses(ErrorCode::ApprovalReplayed, "alice", &keys, shown.clone());
    let (bob, bobs) = person("bob");
    case.refuses(ErrorCode::ApprovalReplayed, "bob", &bobs, shown);
    let second = case.signed(&bob);
    assert!(case.give("bob", &bobs, second.clone()));
    assert_eq!(case.approval.stage, Stage::Granted);
    case.refuses(ErrorCode::ApprovalReplayed, "bob", &bobs, second);
    let third = case.signed(&alice);
    case.refuses(ErrorCode::WrongState, "alice", &keys, third);
}

#[test]
fn what_comes_after_the_hour_is_refused_with_and_without_the_event_of_the_expiry() {
    let mut case = Case::one_person();
    let (soft, keys) = person("alice");
    let late = NOW + 3_601_000_000;
    let shown = case.signed(&soft);
    case.refuses_at(late, ErrorCode::ApprovalExpired, "alice", &keys, shown);
    let expired = ApprovalExpired {
        expired_at: Timestamp(NOW + 3_600_000_000),
    };
    case.approval.evolve(&expired.into());
    let shown = case.signed(&soft);
    case.refuses_at(late, ErrorCode::ApprovalExpired, "alice", &keys, shown);
}

#[test]
fn who_wants_it_or_asks_for_it_cannot_approve_it() {
    for who in ["trader-aapl", "guardian"] {
        let mut case = Case::one_person();
        let (soft, keys) = person(who);
        let shown = case.signed(&soft);
        case.refuses(ErrorCode::SelfApproval, who, &keys, shown);
    }
}

#[test]
fn limits_and_names_of_the_policy_hold() {
    let mut case = Case::two_people("1500");
    let (carol, carols) = person("carol");
    let shown = case.signed(&carol);
    case.refuses(ErrorCode::ApproverLimit, "carol", &carols, shown);
    let (mallory, mallorys) = person("mallory");
    let shown = case.signed(&mallory);
    case.refuses(ErrorCode::NotApprover, "mallory", &mallorys, shown);
    let mut small = Case::two_people("1200");
    let shown = small.signed(&carol);
    assert!(small.give("carol", &carols, shown));
}

#[test]
fn a_person_or_a_passkey_counts_once_where_two_people_are_asked() {
    let mut case = Case::two_people("1500");
    let (alice, keys) = person("alice");
    let first = case.signed(&alice);
    assert!(case.give("alice", &keys, first));
    let again = case.signed(&alice);
    case.refuses(ErrorCode::AlreadyApproved, "alice", &keys, again);
    // a second passkey of the same person
    let mut second = Soft::new(Algorithm::EdDsa);
    second.id = b"alice-2".to_vec();
    let mut more = (*keys).clone();
    enrol(&mut more, "alice", &second);
    let shown = case.signed(&second);
    case.refuses(ErrorCode::AlreadyApproved, "alice", &Arc::new(more), shown);
    // her authenticator under his name
    let mut bobs = Approver::default();
    enrol(&mut bobs, "bob", &alice);
    let shown = case.signed(&alice);
    case.refuses(ErrorCode::AlreadyApproved, "bob", &Arc::new(bobs), shown);
    assert_eq!(case.approval.given.len(), 1);
}

#[test]
fn a_revoked_passkey_signs_no_more_and_an_unknown_one_never() {
    let mut case = Case::one_person();
    let (soft, keys) = person("alice");
    let mut revoked = (*keys).clone();
    revoked.passkeys[0].revoked = true;
    let shown = case.signed(&soft);
    case.refuses(
        ErrorCode::PasskeyRevoked,
        "alice",
        &Arc::new(revoked),
        shown,
    );
    let nobody = Arc::new(Approver::default());
    let shown = case.signed(&soft);
    case.refuses(ErrorCode::PasskeyUnknown, "alice", &nobody, shown);
}

#[test]
fn what_a_passkey_did_not_sign_here_and_so_is_refused() {
    type Change = fn(&mut Soft);
    let cases: [(ErrorCode, Change); 5] = [
        (ErrorCode::WrongOrigin, |s| {
            s.origin = "http://localhost:9".into()
        }),
        (ErrorCode::WrongOrigin, |s| {
            s.client_data_more = r#","topOrigin":"http://evil.example""#.into();
        }),
        (ErrorCode::WrongRelyingParty, |s| {
            s.party_id = "evil.example".into()
        }),
        (ErrorCode::UserNotVerified, |s| s.flags = 1),
        (ErrorCode::InvalidAssertion, |s| s.flags = 1 | 4 | 8),
    ];
    let mut case = Case::one_person();
    for (code, change) in cases {
        let (mut soft, keys) = person("alice");
        change(&mut soft);
        let shown = case.signed(&soft);
        case.refuses(code, "alice", &keys, shown);
    }
    let (soft, keys) = person("alice");
    let mut forged = case.signed(&soft);
    forged.signature = soft.sign(b"something else").into();
    case.refuses(ErrorCode::InvalidSignature, "alice", &keys, forged);
    let mut cut = case.signed(&soft);
    cut.authenticator_data.0.truncate(30);
    case.refuses(ErrorCode::InvalidAssertion, "alice", &keys, cut);
    let creates = soft.assert_as("webauthn.create", &case.terms().challenge());
    case.refuses(ErrorCode::InvalidAssertion, "alice", &keys, creates);
}

#[test]
fn a_counter_that_went_back_is_refused() {
    let mut case = Case::one_person();
    let mut soft = Soft::new(Algorithm::Es256);
    soft.sign_count = 9;
    let mut keys = Approver::default();
    enrol(&mut keys, "alice", &soft);
    soft.sign_count = 9;
    let shown = case.signed(&soft);
    case.refuses(ErrorCode::PasskeyCloned, "alice", &Arc::new(keys), shown);
}

#[test]
fn nothing_counts_under_a_policy_that_has_changed() {
    let mut case = Case::one_person();
    let (soft, keys) = person("alice");
    let next = crate::policy::BUILT_IN.replace("version = 1", "version = 2");
    case.policy = Arc::new(Policy::parse(&next).unwrap());
    let shown = case.signed(&soft);
    case.refuses(ErrorCode::PolicyChanged, "alice", &keys, shown);
}

#[test]
fn only_so_many_refused_attempts_are_recorded() {
    let mut case = Case::one_person();
    let nobody = Arc::new(Approver::default());
    let (soft, keys) = person("alice");
    for _ in 0..REFUSALS_RECORDED_MAX {
        let shown = case.signed(&soft);
        case.refuses(ErrorCode::PasskeyUnknown, "alice", &nobody, shown);
    }
    let mut decision = decision("alice", NOW);
    decision.approver = nobody;
    let assertion = case.signed(&soft);
    let command = ApprovalCommand::Give(Box::new(Give { assertion }));
    let refused = case.approval.decide(command, &decision).unwrap_err();
    assert_eq!(refused.problem.code, ErrorCode::PasskeyUnknown);
    // and who may approve still can
    let shown = case.signed(&soft);
    assert!(case.give("alice", &keys, shown));
}

#[test]
fn the_canonical_state_is_that_of_old_until_somebody_tries() {
    let json = |approval: &Approval| serde_json::to_string(approval).unwrap();
    let mut case = Case::two_people("1500");
    let expires = Timestamp(NOW + 3_600_000_000);
    let waiting = format!("{{\"waiting\":{{\"expires_at\":\"{expires}\"}}}}");
    assert_eq!(json(&case.approval), waiting);
    assert_eq!(json(&Approval::default()), "\"none\"");
    let (soft, keys) = person("alice");
    let shown = case.signed(&soft);
    assert!(case.give("alice", &keys, shown));
    let text = json(&case.approval);
    assert!(
        text.contains("\"given\":[{\"approver\":\"alice\""),
        "{text}"
    );
    let back: Approval = serde_json::from_str(&text).unwrap();
    let requested = case.approval.requested.clone();
    assert_eq!(Approval { requested, ..back }, case.approval);
}

mod any_order {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        /// Who, with whose passkey, over which of two terms.
        Give(usize, usize, bool),
        /// The last assertion that was shown, by somebody.
        Replay(usize),
        Expire,
        Wait(i64),
        Policy,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => (0..3_usize, 0..3_usize, prop::bool::weighted(0.8))
                .prop_map(|(who, key, right)| Step::Give(who, key, right)),
            2 => (0..3_usize).prop_map(Step::Replay),
            1 => Just(Step::Expire),
            2 => (1..1_800_i64).prop_map(Step::Wait),
            1 => Just(Step::Policy),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Kept beside the aggregate: who has really signed these terms in time, under the policy
        /// that asked.
        #[test]
        fn nothing_is_granted_without_enough_different_people(steps in prop::collection::vec(step(), 1..40)) {
            const NAMES: [&str; 3] = ["alice", "bob", "carol"];
            let people: Vec<_> = NAMES.iter().map(|name| person(name)).collect();
            let mut case = Case::two_people("1500");
            let (mut at, mut changed, mut ended) = (NOW, false, false);
            let mut really = std::collections::BTreeSet::new();
            let mut last = None;
            for step in steps {
                let before = case.approval.stage;
                match step {
                    Step::Give(who, key, right) => {
                        let terms = case.terms();
                        let policy_version = if right { 7 } else { 6 };
                        let shown = people[key].0.assert(&Terms { policy_version, ..terms }.challenge());
                        last = Some((key, right, shown.clone()));
                        if who == key && right && may_count(at, who) && !changed && !ended {
                            really.insert(who);
                        }
                        let _ = try_give(&mut case, at, who, &people[who].1, shown);
                    }
                    Step::Replay(who) => {
                        if let Some((key, right, shown)) = last.clone() {
                            if who == key && right && may_count(at, who) && !changed && !ended {
                                really.insert(who);
                            }
                            let _ = try_give(&mut case, at, who, &people[who].1, shown);
                        }
                    }
                    Step::Expire => {
                        let expire = ApprovalCommand::Expire(Expire {});
                        if let Ok(events) = case.approval.decide(expire, &decision("guardian", at)) {
                            events.iter().for_each(|e| case.approval.evolve(e));
                        }
                    }
                    Step::Wait(s) => at += s * 1_000_000,
                    Step::Policy => {
                        let next = TWO_PEOPLE.replace("version = 7", "version = 8");
                        case.policy = Arc::new(Policy::parse(&next).unwrap());
                        changed = true;
                    }
                }
                let now = case.approval.stage;
                if now == Stage::Granted {
                    prop_assert!(really.len() >= 2, "granted with {really:?}");
                }
                // what has ended stays as it is
                if ended {
                    prop_assert_eq!(now, before);
                }
                ended |= !matches!(now, Stage::Waiting { .. });
                let givers: std::collections::BTreeSet<_> =
                    case.approval.given.iter().map(|g| g.approver.clone()).collect();
                prop_assert_eq!(givers.len(), case.approval.given.len());
            }
        }
    }

    /// In time, and within the limit: carol's is 1,200.
    fn may_count(at: i64, who: usize) -> bool {
        at <= NOW + 3_600_000_000 && who < 2
    }

    fn try_give(
        case: &mut Case,
        at: i64,
        who: usize,
        keys: &Arc<Approver>,
        assertion: Assertion,
    ) -> Result<(), Refusal> {
        let mut decision = decision(["alice", "bob", "carol"][who], at);
        decision.policy = Arc::clone(&case.policy);
        decision.approver = Arc::clone(keys);
        let command = ApprovalCommand::Give(Box::new(Give { assertion }));
        let events = case.approval.decide(command, &decision)?;
        events.iter().for_each(|e| case.approval.evolve(e));
        Ok(())
    }
}
