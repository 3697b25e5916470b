use sovereign_aggregates::approval::id_for;
use sovereign_aggregates::policy::POLICY_ID;
use sovereign_aggregates::{AnyCommand, AnyEvent, AnyState, Decision};
use sovereign_passkeys::soft::Soft;
use sovereign_passkeys::{Algorithm, Challenge, Terms};
use sovereign_schemas::chain::{Head, expected_hash};
use sovereign_schemas::{
    AggregateType, DepartmentId, Digest, EventHeader, Position, RecordedEvent, Text, Timestamp,
    Uuid, avro, catalog,
};

use super::*;

const NOW: i64 = 1_770_206_460_000_000;
const POLICY: &str = r#"
version = 2

[[rules]]
name = "of-traders"
department = "trader"
approvals = [{ above = "1000", people = 2 }]

[[rules]]
name = "rest"
approvals = []

[approvers.alice]

[approvers.bob]
amount_max = "5000"

[approvers.carol]
amount_max = "1001"
"#;

fn plain(words: &str) -> Text {
    let mut datum = vec![0; 16];
    avro::put_long(&mut datum, 0);
    datum.extend_from_slice(&[0; 12]);
    avro::put_bytes(&mut datum, words.as_bytes());
    avro::decode(&datum).unwrap()
}

/// A ledger in memory: decides by the aggregates, or takes whatever it is told.
#[derive(Default)]
struct Ledger {
    events: Vec<RecordedEvent>,
    states: std::collections::BTreeMap<String, AnyState>,
    at_us: i64,
}

impl Ledger {
    fn state(&mut self, kind: AggregateType, id: &str) -> AnyState {
        let key = format!("{kind}/{id}");
        self.states
            .get(&key)
            .cloned()
            .unwrap_or_else(|| AnyState::new(kind))
    }

    fn send(&mut self, kind: &str, id: &str, command: &str, actor: &str, data: serde_json::Value) {
        let command = AnyCommand::parse(kind, command, data).unwrap();
        let command = command
            .try_map_text(|_| Ok::<_, ()>(plain("words")))
            .unwrap();
        self.at_us += 1_000_000;
        let at = Timestamp(NOW + self.at_us);
        let mut decision = Decision::new(id.parse().unwrap(), at, actor.parse().unwrap());
        decision.department = command.default_department();
        let (own, who) = (id.parse().unwrap(), actor.parse().unwrap());
        for read in command.reads(&own, &who) {
            let state = self.state(read.aggregate_type, &read.id);
            decision.know(&read.id, &state);
        }
        let kind = command.aggregate_type();
        let department = decision.department;
        let mut state = self.state(kind, id);
        let events = state.handle(command, &decision).unwrap();
        self.states.insert(format!("{kind}/{id}"), state);
        for event in &events {
            self.record(kind, id, department, actor, event);
        }
    }

    fn record(
        &mut self,
        kind: AggregateType,
        id: &str,
        department: DepartmentId,
        actor: &str,
        event: &AnyEvent,
    ) {
        let mut payload = Vec::new();
        event.encode(&mut payload);
        let own = |e: &&RecordedEvent| {
            e.header.aggregate_id == id && e.header.aggregate_type == kind.as_str()
        };
        let schema = catalog::latest(event.event_type());
        let number = self.events.len() as u64 + 1;
        let uuid = Uuid::from_u128(u128::from(number));
        let header = EventHeader {
            position: Position(number),
            event_id: uuid,
            aggregate_type: kind.as_str().into(),
            aggregate_id: id.to_owned(),
            sequence: self.events.iter().filter(own).count() as u64 + 1,
            event_type: schema.name.into(),
            event_version: schema.version,
            department,
            actor: actor.to_owned(),
            command_id: uuid,
            correlation_id: uuid,
            causation_id: None,
            recorded_at: Timestamp(NOW + self.at_us),
            schema_fingerprint: schema.fingerprint,
        };
        self.events.push(RecordedEvent {
            header,
            payload: payload.into(),
            hash: Digest::ZERO,
            traceparent: None,
        });
    }

    /// The events with the chain that an attacker would give them.
    fn chained(events: &[RecordedEvent]) -> Vec<RecordedEvent> {
        let mut head = Head::EMPTY;
        let link = |event: &RecordedEvent| {
            let mut event = event.clone();
            event.hash = expected_hash(&head.hash, &event.header, &event.payload);
            head.hash = event.hash;
            event
        };
        events.iter().map(link).collect()
    }
}

fn verify(events: &[RecordedEvent]) -> Result<Report, Difference> {
    let mut verifier = Verifier::new();
    for event in events {
        verifier.take(event)?;
    }
    Ok(verifier.finish().unwrap())
}

fn soft(name: &str) -> Soft {
    let mut soft = Soft::new(Algorithm::Es256);
    soft.id = name.as_bytes().to_vec();
    soft
}

fn enrol(ledger: &mut Ledger, name: &str, soft: &Soft) {
    let challenge = Challenge([5; 32]);
    let b64 = |bytes: Vec<u8>| sovereign_passkeys::Base64Url(bytes);
    let data = serde_json::json!({
        "credential_id": b64(soft.id.clone()), "public_key": b64(soft.cose()),
        "rp_id": soft.party_id, "origin": soft.origin, "aaguid": b64(vec![9; 16]),
        "backup_eligible": false, "sign_count": soft.sign_count,
        "registration": soft.register(&challenge), "challenge": b64(challenge.0.to_vec()),
    });
    ledger.send("approver", name, "enrol", name, data);
}

fn request_of(ledger: &mut Ledger) -> sovereign_aggregates::approval::Requested {
    let AnyState::Approval(approval) = ledger.state(AggregateType::Approval, "approval_trade_1")
    else {
        panic!("an approval")
    };
    *approval.requested.unwrap()
}

fn give(ledger: &mut Ledger, name: &str, soft: &Soft) {
    let requested = request_of(ledger);
    let id = id_for(&"trade_1".parse().unwrap());
    let terms = Terms {
        approval_id: id.as_str(),
        action_digest: requested.action_digest.0,
        policy_version: requested.policy_version,
        expires_at_us: requested.expires_at.0,
    };
    let data = serde_json::json!({ "assertion": soft.assert(&terms.challenge()) });
    ledger.send("approval", id.as_str(), "give", name, data);
}

/// Up to the request: a policy, three people, a trade that waits for two of them.
fn asked() -> (Ledger, [Soft; 3]) {
    let mut ledger = Ledger::default();
    let people = ["alice", "bob", "carol"].map(soft);
    let policy = serde_json::json!({ "text": POLICY });
    ledger.send("policy", POLICY_ID, "adopt", "owner", policy);
    for (name, soft) in ["alice", "bob", "carol"].iter().zip(&people) {
        enrol(&mut ledger, name, soft);
    }
    let proposal = serde_json::json!({ "agent_id": "trader-aapl", "instrument": "AAPL",
        "side": "BUY", "quantity": "15", "price": "100.07", "decided_on": "2000-03-01",
        "rationale": "" });
    ledger.send("trade", "trade_1", "propose", "trader-aapl", proposal);
    let digest = Digest::of(&[&ledger.events.last().unwrap().payload]);
    let verdict = serde_json::json!({ "verdict": "GREEN", "rule": "ok", "note": "" });
    ledger.send("trade", "trade_1", "give_verdict", "auditor", verdict);
    let none = serde_json::json!({});
    ledger.send("trade", "trade_1", "apply_policy", "guardian", none);
    let request = serde_json::json!({ "action": "trade.execute", "target_id": "trade_1",
        "action_digest": digest, "amount": "1501.05", "currency": "USD",
        "on_behalf_of": "trader-aapl", "department": 5, "asset": "AAPL" });
    ledger.send(
        "approval",
        "approval_trade_1",
        "request",
        "guardian",
        request,
    );
    (ledger, people)
}

/// To the end: two people approve, and the trade is authorized.
fn granted() -> Vec<RecordedEvent> {
    let (mut ledger, [alice, bob, carol]) = asked();
    give(&mut ledger, "carol", &carol);
    give(&mut ledger, "alice", &alice);
    give(&mut ledger, "bob", &bob);
    ledger.send(
        "trade",
        "trade_1",
        "authorize",
        "guardian",
        serde_json::json!({}),
    );
    Ledger::chained(&ledger.events)
}

fn is(event: &RecordedEvent, name: &str) -> bool {
    &*event.header.event_type == name
}

#[test]
fn what_was_approved_is_proven_from_events_alone() {
    let events = granted();
    let report = verify(&events).unwrap();
    assert_eq!((report.events, report.passkeys), (events.len() as u64, 3));
    let [proof] = report.approvals.as_slice() else {
        panic!("one approval")
    };
    assert_eq!((proof.status, proof.people_needed), ("granted", 2));
    assert_eq!(proof.attempts_refused, 1, "carol's limit is 1,001");
    let given: Vec<_> = proof
        .given
        .iter()
        .map(|g| (&*g.approver, g.enrolled_at.0))
        .collect();
    assert_eq!(given, [("alice", 2), ("bob", 3)]);
    assert_eq!(proof.policy.version, 2);
    assert_eq!(proof.policy.adopted_at, Some(Position(1)));
    assert_eq!(proof.policy.rule.as_deref(), Some("of-traders"));
    let Some(crate::Action::Trade(action)) = &proof.action else {
        panic!("{proof:?}")
    };
    assert_eq!(action.amount.to_string(), "1501.05");
    assert_eq!(action.instrument, "AAPL");
    assert_eq!(proof.used.as_ref().unwrap().target_id, "trade_1");
}

#[test]
fn a_changed_byte_breaks_the_chain() {
    let events = granted();
    for at in 0..events.len() {
        let mut copy = events.clone();
        let mut payload = copy[at].payload.to_vec();
        *payload.last_mut().unwrap() ^= 1;
        copy[at].payload = payload.into();
        let found = verify(&copy).unwrap_err();
        assert_eq!(found.position, copy[at].position());
    }
}

/// Even by somebody who writes all hashes anew: each bit of what an approval rests on counts.
#[test]
fn a_changed_bit_of_what_an_approval_rests_on_is_found_under_a_new_chain_too() {
    let events = granted();
    let names = [
        "PolicyAdopted",
        "TradeProposed",
        "ApprovalRequested",
        "ApprovalGiven",
        "ApprovalGranted",
        "TradeAuthorized",
    ];
    let mut tried = 0;
    for at in 0..events.len() {
        if !names.iter().any(|name| is(&events[at], name)) {
            continue;
        }
        for byte in 0..events[at].payload.len() {
            let mut copy = events.clone();
            let mut payload = copy[at].payload.to_vec();
            payload[byte] ^= 1 << (byte % 8);
            copy[at].payload = payload.into();
            let name = &events[at].header.event_type;
            let verified = verify(&Ledger::chained(&copy));
            assert!(verified.is_err(), "{name} byte {byte} says {verified:?}");
            tried += 1;
        }
    }
    assert!(tried > 1_000, "{tried}");
}

#[test]
fn a_key_exchanged_in_an_enrolment_is_found() {
    let events = granted();
    let at = events
        .iter()
        .position(|e| is(e, "PasskeyEnrolled"))
        .unwrap();
    let mallory = soft("alice");
    let mut other = Ledger::default();
    enrol(&mut other, "alice", &mallory);
    let mut copy = events;
    // an enrolment that is whole in itself, but of another key
    copy[at].payload = other.events[0].payload.clone();
    let found = verify(&Ledger::chained(&copy)).unwrap_err();
    assert!(found.reason.contains("invalid-signature"), "{found}");
}

#[test]
fn headers_that_say_another_person_or_time_are_found() {
    type Change = fn(&mut EventHeader);
    let changes: [(&str, Change, &str); 5] = [
        (
            "ApprovalGiven",
            |h| h.actor = "carol".into(),
            "approved, not",
        ),
        (
            "ApprovalGiven",
            |h| h.recorded_at = Timestamp(NOW + 3_700_000_000),
            "approval-expired",
        ),
        (
            "PasskeyEnrolled",
            |h| h.actor = "mallory".into(),
            "enrolled a passkey for",
        ),
        (
            "ApprovalRequested",
            |h| h.actor = "alice".into(),
            "asked, not",
        ),
        (
            "ApprovalRequested",
            |h| h.recorded_at = Timestamp(NOW),
            "does not end",
        ),
    ];
    for (name, change, says) in changes {
        let mut copy = granted();
        let at = copy.iter().position(|e| is(e, name)).unwrap();
        change(&mut copy[at].header);
        let found = verify(&Ledger::chained(&copy)).unwrap_err();
        assert!(found.reason.contains(says), "{found}");
        assert_eq!(found.position, copy[at].position());
    }
}

#[test]
fn a_forged_grant_is_found() {
    use sovereign_schemas::events::{ApprovalGranted, TradeAuthorized};
    let grant = |ledger: &mut Ledger, people| {
        let requested = request_of(ledger);
        let granted = ApprovalGranted {
            people,
            action_digest: requested.action_digest,
            policy_version: 2,
        };
        let event = AnyEvent::Approval(granted.into());
        let kind = AggregateType::Approval;
        let guardian = DepartmentId::GUARDIAN;
        ledger.record(kind, "approval_trade_1", guardian, "bob", &event);
        verify(&Ledger::chained(&ledger.events)).unwrap_err()
    };
    let (mut ledger, _) = asked();
    let found = grant(&mut ledger, 2);
    assert!(
        found
            .reason
            .contains("granted with 0 approvals, and 2 are needed"),
        "{found}"
    );
    let (mut ledger, [alice, ..]) = asked();
    give(&mut ledger, "alice", &alice);
    let found = grant(&mut ledger, 2);
    assert!(found.reason.contains("granted with 1 approvals"), "{found}");
    // or the trade is simply let through
    for (authority, says) in [
        ("policy:2", "waits for approval_trade_1"),
        ("approval:approval_trade_1", "is not granted"),
    ] {
        let (mut ledger, _) = asked();
        let authorized = TradeAuthorized {
            authority: authority.into(),
        };
        let event = AnyEvent::Trade(authorized.into());
        let trader = DepartmentId::TRADER;
        ledger.record(AggregateType::Trade, "trade_1", trader, "guardian", &event);
        let found = verify(&Ledger::chained(&ledger.events)).unwrap_err();
        assert!(found.reason.contains(says), "{found}");
    }
}

#[test]
fn the_same_person_twice_or_a_revoked_passkey_is_found() {
    let events = granted();
    let first = events.iter().position(|e| is(e, "ApprovalGiven")).unwrap();
    let second = events.iter().rposition(|e| is(e, "ApprovalGiven")).unwrap();
    let mut copy = events.clone();
    copy[second].payload = copy[first].payload.clone();
    copy[second].header.actor = "alice".into();
    let found = verify(&Ledger::chained(&copy)).unwrap_err();
    assert!(found.reason.contains("already-approved"), "{found}");

    let (mut ledger, [alice, ..]) = asked();
    give(&mut ledger, "alice", &alice);
    let given = ledger.events.pop().unwrap();
    let id = sovereign_passkeys::Base64Url(alice.id.clone());
    let revoke = serde_json::json!({ "credential_id": id, "reason": "" });
    ledger.send("approver", "alice", "revoke", "owner", revoke);
    let AnyEvent::Approval(event) = AnyEvent::decode(&given).unwrap() else {
        panic!("of an approval")
    };
    let event = AnyEvent::Approval(event);
    let guardian = DepartmentId::GUARDIAN;
    ledger.record(
        AggregateType::Approval,
        "approval_trade_1",
        guardian,
        "alice",
        &event,
    );
    let found = verify(&Ledger::chained(&ledger.events)).unwrap_err();
    assert!(found.reason.contains("passkey-revoked"), "{found}");
}

#[test]
fn a_part_of_a_ledger_proves_nothing() {
    let events = granted();
    let found = verify(&events[1..]).unwrap_err();
    assert!(found.reason.contains("position 1 expected"), "{found}");
    assert!(Verifier::new().finish().is_err());
}
