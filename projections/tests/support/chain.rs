//! Events by hand: a valid chain of everything that views know.
#![allow(dead_code, unreachable_pub)]

use std::collections::HashMap;

use bytes::Bytes;
use sovereign_schemas::avro::{self, EventGroup};
use sovereign_schemas::chain::{Head, expected_hash};
use sovereign_schemas::events::*;
use sovereign_schemas::{
    AggregateType, Decimal, DepartmentId, Digest, EventHeader, EventType, Position, RecordedEvent,
    Text, Timestamp, catalog,
};
use uuid::Uuid;

pub fn decimal(text: &str) -> Decimal {
    text.parse().unwrap()
}

/// Sealed text as a reader of the ledger gets it; new text comes from the guard alone.
pub fn text(bytes: &[u8]) -> Text {
    let mut datum = vec![7; 16];
    avro::put_long(&mut datum, 3);
    datum.extend_from_slice(&[9; 12]);
    avro::put_bytes(&mut datum, bytes);
    avro::decode(&datum).unwrap()
}

/// Appends events as a ledger would.
#[derive(Debug, Clone)]
pub struct Chain {
    head: Head,
    sequences: HashMap<String, u64>,
    pub events: Vec<RecordedEvent>,
}

impl Default for Chain {
    fn default() -> Self {
        Self {
            head: Head::EMPTY,
            sequences: HashMap::new(),
            events: Vec::new(),
        }
    }
}

impl Chain {
    pub fn push<G: EventGroup>(&mut self, id: &str, department: DepartmentId, event: impl Into<G>) {
        let event = event.into();
        let mut payload = Vec::new();
        event.encode(&mut payload);
        self.push_raw(id, department, event.event_type(), payload);
    }

    pub fn agent(&mut self, id: &str, event: impl Into<AgentEvent>) {
        self.push::<AgentEvent>(id, DepartmentId::HUNTER, event);
    }

    pub fn trade(&mut self, id: &str, event: impl Into<TradeEvent>) {
        self.push::<TradeEvent>(id, DepartmentId::TRADER, event);
    }

    pub fn approval(&mut self, id: &str, event: impl Into<ApprovalEvent>) {
        self.push::<ApprovalEvent>(id, DepartmentId::GUARDIAN, event);
    }

    pub fn push_raw(
        &mut self,
        id: &str,
        department: DepartmentId,
        event_type: EventType,
        payload: Vec<u8>,
    ) {
        let aggregate_type = event_type.aggregate_type();
        let sequence = self
            .sequences
            .entry(format!("{aggregate_type}/{id}"))
            .or_default();
        *sequence += 1;
        let position = self.head.position.next();
        let version = event_type.latest_version();
        let uuid = Uuid::from_u128(u128::from(position.0));
        let header = EventHeader {
            position,
            event_id: uuid,
            aggregate_type: aggregate_type.as_str().into(),
            aggregate_id: id.to_owned(),
            sequence: *sequence,
            event_type: event_type.as_str().into(),
            event_version: version,
            department,
            actor: "tester".to_owned(),
            command_id: uuid,
            correlation_id: uuid,
            causation_id: None,
            recorded_at: Timestamp(1_770_206_460_000_000 + position.0.cast_signed() * 1_001),
            schema_fingerprint: catalog::find(event_type.as_str(), version)
                .unwrap()
                .fingerprint,
        };
        self.link(header, payload.into());
    }

    fn link(&mut self, header: EventHeader, payload: Bytes) {
        let hash = expected_hash(&self.head.hash, &header, &payload);
        self.head = Head {
            position: header.position,
            hash,
        };
        self.events.push(RecordedEvent {
            header,
            payload,
            hash,
            traceparent: None,
        });
    }

    /// The same chain with another payload at one position, and so with other hashes from there.
    pub fn with_payload(&self, position: Position, payload: Vec<u8>) -> Self {
        let mut other = Self {
            head: Head::EMPTY,
            sequences: self.sequences.clone(),
            events: vec![],
        };
        for event in &self.events {
            let changed = event.position() == position;
            let bytes = if changed {
                payload.clone().into()
            } else {
                event.payload.clone()
            };
            other.link(event.header.clone(), bytes);
        }
        other
    }

    pub fn propose(&mut self, id: &str, agent: &str, n: u64) {
        let price = Decimal::from_int(10 + n.cast_signed() % 90);
        self.trade(
            id,
            TradeProposed {
                agent_id: agent.to_owned(),
                instrument: "IBM".to_owned(),
                side: if n.is_multiple_of(2) {
                    Side::Buy
                } else {
                    Side::Sell
                },
                quantity: decimal("1.000000001"),
                price,
                amount: price.checked_add(decimal("0.01")).unwrap(),
                currency: "USD".to_owned(),
                closes: n.is_multiple_of(3).then(|| "earlier".to_owned()),
                decided_on: Timestamp(n.cast_signed() * 86_400_000_000),
                rationale: text(b"cipher"),
            },
        );
    }

    pub fn request(&mut self, id: &str, target: &str) {
        let expires_at = Timestamp(1_770_206_460_000_000 + 3_600_000_000);
        self.approval(
            id,
            ApprovalRequested {
                action: "trade".to_owned(),
                target_id: target.to_owned(),
                action_digest: Digest::of(&[target.as_bytes()]),
                amount: decimal("1250.75"),
                currency: "USD".to_owned(),
                policy_version: 1,
                requested_by: "guardian".to_owned(),
                expires_at,
                on_behalf_of: Some("trader-1".to_owned()),
                department: "trader".to_owned(),
                asset: "IBM".to_owned(),
                rule: "everything".to_owned(),
                people_needed: 1,
            },
        );
    }

    pub fn observe(&mut self, agent: &str, n: u64) {
        let price = decimal("12.5");
        self.agent(
            agent,
            MarketObserved {
                instrument: "IBM".to_owned(),
                opened_at: Timestamp(n.cast_signed() * 86_400_000_000),
                interval_s: 86_400,
                open: price,
                high: price,
                low: price,
                close: price,
                volume: decimal("1000"),
            },
        );
    }

    /// A life of agents, trades and approvals: `rounds` rounds of about 15 events.
    pub fn busy(rounds: u64) -> Self {
        let mut chain = Self::default();
        for agent in ["hunter-1", "trader-1", "trader-2"] {
            chain.agent(
                agent,
                AgentRegistered {
                    role: agent[..6].to_owned(),
                },
            );
        }
        let task = "bars".to_owned();
        let input_digest = Digest::of(&[b"bars"]);
        let items = rounds.cast_signed();
        chain.agent(
            "hunter-1",
            TaskStarted {
                task: task.clone(),
                input_digest,
                items,
            },
        );
        for n in 0..rounds {
            chain.round(n);
        }
        chain.agent("hunter-1", TaskFinished { task, items });
        chain
    }

    fn round(&mut self, n: u64) {
        let trader = if n.is_multiple_of(2) {
            "trader-1"
        } else {
            "trader-2"
        };
        let trade = format!("trade-{n}");
        let (from, to) = (AgentState::Idle, AgentState::Scanning);
        self.observe("hunter-1", n);
        self.agent(
            trader,
            StateTransitioned {
                from,
                to,
                reason: "new-bar".to_owned(),
                definition: 0,
            },
        );
        self.agent(
            trader,
            ThoughtRecorded {
                text: text(format!("thought {n}").as_bytes()),
                likeness: vec![],
            },
        );
        self.propose(&trade, trader, n);
        let verdict = if n % 5 == 4 {
            Verdict::Red
        } else {
            Verdict::Green
        };
        self.push::<TradeEvent>(
            &trade,
            DepartmentId::AUDITOR,
            VerdictGiven {
                verdict,
                rule: "limit".to_owned(),
                note: text(b"note"),
            },
        );
        match n % 5 {
            4 => self.agent(
                trader,
                TransitionRefused {
                    from,
                    to,
                    reason: "no".to_owned(),
                    cause: "machine".to_owned(),
                },
            ),
            3 => self.hold(n, &trade),
            _ => self.execute(n, trader, &trade),
        }
    }

    fn hold(&mut self, n: u64, trade: &str) {
        let approval_id = format!("approval-{n}");
        self.request(&approval_id, trade);
        self.trade(
            trade,
            TradeHeld {
                approval_id: approval_id.clone(),
            },
        );
        match n % 3 {
            0 => self.approval(
                &approval_id,
                ApprovalDenied {
                    denied_by: "grace".to_owned(),
                    reason: text(b"no"),
                },
            ),
            1 => {
                let expired_at = Timestamp(1_770_206_460_000_000 + 3_600_000_000);
                self.approval(&approval_id, ApprovalExpired { expired_at });
                self.trade(
                    trade,
                    TradeCancelled {
                        reason: "expired".to_owned(),
                    },
                );
            }
            _ => {}
        }
    }

    fn execute(&mut self, n: u64, trader: &str, trade: &str) {
        let authority = "policy:1".to_owned();
        self.trade(
            trade,
            TradeAuthorized {
                authority: authority.clone(),
            },
        );
        self.agent(
            trader,
            ExecutionCleared {
                trade_id: trade.to_owned(),
                authority,
            },
        );
        let (price, quantity) = (decimal("11.123456789"), decimal("1.000000001"));
        let filled_at = Timestamp(n.cast_signed() * 86_400_000_000 + 1);
        self.trade(
            trade,
            TradeFilled {
                order_id: format!("order-{n}"),
                price,
                quantity,
                commission: decimal("0.35"),
                filled_at,
            },
        );
        if !n.is_multiple_of(5) {
            self.push::<TradeEvent>(
                trade,
                DepartmentId::HISTORIAN,
                TradeConcluded {
                    exit_trade_id: format!("exit-{n}"),
                    quantity,
                    entry_price: price,
                    exit_price: decimal("12"),
                    commission: decimal("0.7"),
                    profit: decimal(if n % 5 == 1 { "0.176543212" } else { "-3.5" }),
                },
            );
        }
    }
}

pub const AGENT: AggregateType = AggregateType::Agent;
