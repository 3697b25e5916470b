//! Chained logs made from a seed, for tests and benchmarks: lives of agents, trades and approvals
//! as the aggregates would have written them.

use sovereign_schemas::avro::{self, EventRecord};
use sovereign_schemas::events::{
    AgentRegistered, AgentState, ApprovalDenied, ApprovalExpired, ApprovalRequested,
    ExecutionCleared, MarketObserved, MarketObservedV1, Side, StateTransitioned, ThoughtRecorded,
    TradeAuthorized, TradeConcluded, TradeFilled, TradeProposed, Verdict, VerdictGiven,
};
use sovereign_schemas::{
    AggregateType, Date, Decimal, DepartmentId, Digest, EventHeader, Position, RecordedEvent, Text,
    Timestamp, Uuid, catalog, chain,
};

/// 2026-01-01T00:00:00Z, where the samples begin, microseconds.
const START_US: i64 = 1_767_225_600_000_000;
const DAY_US: i64 = 86_400_000_000;
const INSTRUMENTS: [&str; 5] = ["AAPL", "FB", "GOOG", "IBM", "MSFT"];

/// SplitMix64 (Steele, Lea and Flood 2014).
#[derive(Debug, Clone)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    fn uuid(&mut self, at_us: i64) -> Uuid {
        let ms = (at_us / 1_000).cast_unsigned() & 0xffff_ffff_ffff;
        let random = (u128::from(self.next()) << 64) | u128::from(self.next());
        let bits = (u128::from(ms) << 80) | (random & ((1 << 80) - 1));
        // version 7, variant 10
        let bits = (bits & !(0xf << 76)) | (7 << 76);
        Uuid::from_u128((bits & !(3 << 62)) | (2 << 62))
    }
}

/// Plain text, read from its Avro datum as recorded text is; the datum is well formed, so there
/// always is one.
fn plain(text: &str) -> Option<Text> {
    let mut datum = vec![0; 16];
    avro::put_long(&mut datum, 0);
    datum.extend_from_slice(&[0; 12]);
    avro::put_bytes(&mut datum, text.as_bytes());
    avro::decode(&datum).ok()
}

fn cents(cents: u64) -> Decimal {
    // prices here have at most seven digits
    Decimal::from_unscaled(i128::from(cents) * 10_000_000).unwrap_or_default()
}

#[derive(Debug, Clone)]
struct Life {
    aggregate_type: AggregateType,
    id: String,
    sequence: u64,
    /// Trades: units and price in cents.
    terms: (u64, u64),
    ended: bool,
}

struct Payload {
    name: &'static str,
    version: u16,
    department: DepartmentId,
    datum: Vec<u8>,
}

fn payload<E: EventRecord>(department: DepartmentId, event: &E) -> Payload {
    Payload {
        name: E::NAME,
        version: E::VERSION,
        department,
        datum: avro::encode(event),
    }
}

/// An endless log over a fixed number of aggregates: three of ten are agents, six trades, one an
/// approval. Trades and approvals end after a few events; agents go on.
#[derive(Debug, Clone)]
pub struct Sample {
    random: Random,
    lives: Vec<Life>,
    agents: usize,
    position: Position,
    previous: Digest,
    at_us: i64,
    header: Vec<u8>,
    thought_bytes: usize,
}

impl Sample {
    /// The log of a seed. Equal seeds and numbers of aggregates (at least 1) give equal logs.
    #[must_use]
    pub fn new(seed: u64, aggregates: usize) -> Self {
        let aggregates = aggregates.max(1);
        // agents come first, so that an ended life can hand its turn to one of them
        let agents = (aggregates * 3).div_ceil(10);
        let trades = agents + (aggregates - agents) * 6 / 7;
        let lives = (0..aggregates)
            .map(|index| {
                let (aggregate_type, name) = match index {
                    i if i < agents => (AggregateType::Agent, "agent"),
                    i if i < trades => (AggregateType::Trade, "trade"),
                    _ => (AggregateType::Approval, "approval"),
                };
                let id = format!("{name}-{index:06}");
                Life {
                    aggregate_type,
                    id,
                    sequence: 0,
                    terms: (1, 1),
                    ended: false,
                }
            })
            .collect();
        Self {
            random: Random(seed),
            lives,
            agents,
            position: Position::START,
            previous: Digest::ZERO,
            at_us: START_US,
            header: Vec::new(),
            thought_bytes: 0,
        }
    }

    /// The same lives with thoughts of at least so many bytes.
    #[must_use]
    pub fn with_thoughts_of(mut self, bytes: usize) -> Self {
        self.thought_bytes = bytes;
        self
    }

    fn agent_event(&mut self, index: usize) -> Option<Payload> {
        use AgentState::{Analyzing, Executing, Idle, Scanning, Verifying};
        let department = DepartmentId::TRADER;
        let step = self.lives[index].sequence;
        if step == 0 {
            return Some(payload(
                department,
                &AgentRegistered {
                    role: "trader".into(),
                },
            ));
        }
        let moved = |from, to, reason: &str| {
            Some(payload(
                department,
                &StateTransitioned {
                    from,
                    to,
                    reason: reason.into(),
                    definition: 1,
                },
            ))
        };
        match (step - 1) % 9 {
            0 => Some(self.bar(step)),
            1 => moved(Idle, Scanning, "bar"),
            2 | 7 => self.thought(),
            3 => moved(Scanning, Analyzing, "signal"),
            4 => moved(Analyzing, Verifying, "intent"),
            5 => {
                let trade_id = format!("trade-{:06}", self.random.below(1_000));
                let cleared = ExecutionCleared {
                    trade_id,
                    authority: "policy:1".into(),
                };
                Some(payload(department, &cleared))
            }
            6 => moved(Verifying, Executing, "cleared"),
            _ => moved(Executing, Idle, "done"),
        }
    }

    fn thought(&mut self) -> Option<Payload> {
        let (fast, slow) = (self.random.below(50_000), self.random.below(50_000));
        let mut text = format!(
            "the average of 10 days is {}, that of 30 days {}; the trend holds, so I go on",
            cents(fast),
            cents(slow)
        );
        while text.len() < self.thought_bytes {
            text.push_str("; volume is as usual, and no other bar says otherwise");
        }
        let likeness = self.random.next().to_be_bytes().to_vec();
        let text = plain(&text)?;
        Some(payload(
            DepartmentId::TRADER,
            &ThoughtRecorded { text, likeness },
        ))
    }

    /// Every sixteenth bar is written as version 1.
    fn bar(&mut self, step: u64) -> Payload {
        let department = DepartmentId::HUNTER;
        let instrument = INSTRUMENTS[self.random.below(5) as usize].to_owned();
        let low = 1_000 + self.random.below(50_000);
        let high = low + self.random.below(500);
        let (low, high) = (cents(low), cents(high));
        let volume = Decimal::from_int(self.random.below(1 << 30).cast_signed());
        let day = (START_US / DAY_US) as i32 + (step % 10_000) as i32;
        if self.random.below(16) == 0 {
            let date = Date(day);
            let bar = MarketObservedV1 {
                instrument,
                date,
                open: low,
                high,
                low,
                close: high,
                volume,
            };
            return payload(department, &bar);
        }
        let bar = MarketObserved {
            instrument,
            opened_at: Date(day).midnight(),
            interval_s: 86_400,
            open: low,
            high,
            low,
            close: high,
            volume,
        };
        payload(department, &bar)
    }

    fn trade_event(&mut self, index: usize) -> Option<Payload> {
        let department = DepartmentId::TRADER;
        let (quantity, price) = self.lives[index].terms;
        let at = Timestamp(self.at_us);
        Some(match self.lives[index].sequence {
            0 => {
                let (quantity, price) = (1 + self.random.below(9), 100 + self.random.below(11_000));
                self.lives[index].terms = (quantity, price);
                let agent = self.random.below(self.agents as u64);
                let proposed = TradeProposed {
                    agent_id: format!("agent-{agent:06}"),
                    instrument: INSTRUMENTS[self.random.below(5) as usize].to_owned(),
                    side: Side::Buy,
                    quantity: Decimal::from_int(quantity.cast_signed()),
                    price: cents(price),
                    amount: cents(quantity * price),
                    currency: "USD".into(),
                    closes: None,
                    decided_on: at,
                    rationale: plain("the short average crossed the long one from below")?,
                };
                payload(department, &proposed)
            }
            1 => {
                let green = self.random.below(10) > 0;
                self.lives[index].ended = !green;
                let verdict = if green { Verdict::Green } else { Verdict::Red };
                let note = plain("amount and price agree with the bar")?;
                let given = VerdictGiven {
                    verdict,
                    rule: "price-in-bar".into(),
                    note,
                };
                payload(DepartmentId::AUDITOR, &given)
            }
            2 => payload(
                department,
                &TradeAuthorized {
                    authority: "policy:1".into(),
                },
            ),
            3 => {
                let filled = TradeFilled {
                    order_id: format!("order-{index:06}"),
                    price: cents(price),
                    quantity: Decimal::from_int(quantity.cast_signed()),
                    commission: cents(100),
                    filled_at: at,
                };
                payload(department, &filled)
            }
            _ => {
                self.lives[index].ended = true;
                let gain = self.random.below(100);
                let profit = cents(quantity * gain).checked_sub(cents(200))?;
                let concluded = TradeConcluded {
                    exit_trade_id: format!("trade-{index:06}-exit"),
                    quantity: Decimal::from_int(quantity.cast_signed()),
                    entry_price: cents(price),
                    exit_price: cents(price + gain),
                    commission: cents(200),
                    profit,
                };
                payload(DepartmentId::HISTORIAN, &concluded)
            }
        })
    }

    fn approval_event(&mut self, index: usize) -> Option<Payload> {
        let department = DepartmentId::GUARDIAN;
        let at = Timestamp(self.at_us);
        if self.lives[index].sequence == 0 {
            let requested = ApprovalRequested {
                action: "trade".into(),
                target_id: format!("trade-{index:06}"),
                action_digest: Digest::of(&[&index.to_be_bytes()]),
                amount: Decimal::from_int(1_001 + self.random.below(9_000).cast_signed()),
                currency: "USD".into(),
                policy_version: 1,
                requested_by: "trader".into(),
                expires_at: at.plus_s(3_600),
                on_behalf_of: Some("trader".into()),
                department: "trader".into(),
                asset: "AAPL".into(),
                rule: "everything".into(),
                people_needed: 1,
            };
            return Some(payload(department, &requested));
        }
        self.lives[index].ended = true;
        if self.random.below(2) == 0 {
            return Some(payload(department, &ApprovalExpired { expired_at: at }));
        }
        let reason = plain("too large for this week")?;
        Some(payload(
            department,
            &ApprovalDenied {
                denied_by: "operator".into(),
                reason,
            },
        ))
    }

    fn recorded(&mut self, index: usize, payload: Payload) -> Option<RecordedEvent> {
        let Payload {
            name,
            version,
            department,
            datum,
        } = payload;
        let fingerprint = catalog::find(name, version)?.fingerprint;
        let life = &mut self.lives[index];
        life.sequence += 1;
        self.position = self.position.next();
        let header = EventHeader {
            position: self.position,
            event_id: self.random.uuid(self.at_us),
            aggregate_type: life.aggregate_type.as_str().into(),
            aggregate_id: life.id.clone(),
            sequence: life.sequence,
            event_type: name.into(),
            event_version: version,
            department,
            actor: "sample".into(),
            command_id: self.random.uuid(self.at_us),
            correlation_id: self.random.uuid(self.at_us),
            causation_id: self
                .position
                .0
                .is_multiple_of(3)
                .then(|| self.random.uuid(self.at_us)),
            recorded_at: Timestamp(self.at_us),
            schema_fingerprint: fingerprint,
        };
        self.header.clear();
        header.encode(&mut self.header);
        let hash = chain::hash(&self.previous, &self.header, &datum);
        self.previous = hash;
        let traceparent = self.position.0.is_multiple_of(4).then(|| {
            format!(
                "00-{:016x}{:016x}-{:016x}-01",
                self.random.next(),
                self.position.0,
                self.at_us
            )
        });
        Some(RecordedEvent {
            header,
            payload: datum.into(),
            hash,
            traceparent,
        })
    }
}

impl Iterator for Sample {
    type Item = RecordedEvent;

    fn next(&mut self) -> Option<RecordedEvent> {
        self.at_us += 1 + self.random.below(2_000).cast_signed();
        let mut index = self.random.below(self.lives.len() as u64) as usize;
        if self.lives[index].ended {
            index %= self.agents;
        }
        let payload = match self.lives[index].aggregate_type {
            AggregateType::Agent => self.agent_event(index),
            AggregateType::Trade => self.trade_event(index),
            AggregateType::Approval => self.approval_event(index),
            AggregateType::Imported
            | AggregateType::Policy
            | AggregateType::Approver
            | AggregateType::Job
            | AggregateType::Schedules => None,
        }?;
        self.recorded(index, payload)
    }
}

/// The first `count` events of [`Sample`], from position 1 on.
#[must_use]
pub fn events(seed: u64, count: usize, aggregates: usize) -> Vec<RecordedEvent> {
    Sample::new(seed, aggregates).take(count).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_seeds_give_equal_logs() {
        assert_eq!(events(1, 500, 40), events(1, 500, 40));
        assert_ne!(events(1, 500, 40), events(2, 500, 40));
        assert_eq!(events(3, 5_000, 40).len(), 5_000);
    }

    #[test]
    fn event_ids_are_version_7() {
        for event in events(1, 100, 10) {
            assert_eq!(event.header.event_id.get_version_num(), 7);
        }
    }
}
