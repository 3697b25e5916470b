//! A life of agents, and a tail that has all of it in memory.

#[path = "../../../projections/tests/support/chain.rs"]
mod chain;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sovereign_schemas::events::{
    AgentRegistered, AgentState, ApprovalDenied, StateTransitioned, ThoughtRecorded,
    TradeAuthorized, TradeEvent, TradeFilled, TradeHeld, Verdict, VerdictGiven,
};
use sovereign_schemas::{
    DepartmentId, LogError, MemoryLog, Position, RecordedEvent, Tail, Timestamp,
};

use chain::{Chain, decimal, text};

const AGENTS: u64 = 2_000;

/// The events of all arms.
#[derive(Clone)]
pub(crate) struct Input {
    pub(crate) events: Arc<Vec<Arc<RecordedEvent>>>,
}

impl Input {
    pub(crate) fn new(count: usize) -> Self {
        let mut chain = Chain::default();
        let mut known = vec![false; AGENTS as usize];
        let mut n = 0;
        while chain.events.len() < count {
            let agent = pick(n);
            let id = format!("agent-{agent}");
            if !std::mem::replace(&mut known[agent as usize], true) {
                let role = "trader".to_owned();
                chain.agent(&id, AgentRegistered { role });
            }
            round(&mut chain, &id, n);
            n += 1;
        }
        chain.events.truncate(count);
        let events = chain.events.into_iter().map(Arc::new).collect();
        Self {
            events: Arc::new(events),
        }
    }

    pub(crate) fn head(&self) -> Position {
        Position(self.events.len() as u64)
    }

    pub(crate) fn log(&self) -> MemoryLog {
        MemoryLog::new(
            self.events
                .iter()
                .map(|e| RecordedEvent::clone(e))
                .collect(),
        )
    }

    pub(crate) fn tail(&self) -> Box<dyn Tail> {
        Box::new(self.clone())
    }
}

/// Few agents often, most seldom: the square of an even share, from splitmix64.
fn pick(n: u64) -> u64 {
    let mut z = (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    let share = ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64;
    (share * share * AGENTS as f64) as u64
}

/// What one agent does with one bar: it looks, thinks, and at every eighth it trades.
fn round(chain: &mut Chain, id: &str, n: u64) {
    let step = |chain: &mut Chain, from, to| {
        let reason = "new-bar".to_owned();
        chain.agent(
            id,
            StateTransitioned {
                from,
                to,
                reason,
                definition: 1,
            },
        );
    };
    chain.observe(id, n);
    step(chain, AgentState::Idle, AgentState::Scanning);
    chain.agent(
        id,
        ThoughtRecorded {
            text: text(&[b'x'; 240]),
            likeness: vec![7; 8],
        },
    );
    step(chain, AgentState::Scanning, AgentState::Idle);
    if !n.is_multiple_of(8) {
        return;
    }
    let trade = format!("trade-{n}");
    chain.propose(&trade, id, n);
    chain.push::<TradeEvent>(
        &trade,
        DepartmentId::AUDITOR,
        VerdictGiven {
            verdict: Verdict::Green,
            rule: "limit".to_owned(),
            note: text(b"note"),
        },
    );
    if n.is_multiple_of(32) {
        let approval_id = format!("approval-{n}");
        chain.request(&approval_id, &trade);
        let held = approval_id.clone();
        chain.trade(&trade, TradeHeld { approval_id: held });
        chain.approval(
            &approval_id,
            ApprovalDenied {
                denied_by: "operator".to_owned(),
                reason: text(b"no"),
            },
        );
        return;
    }
    chain.trade(
        &trade,
        TradeAuthorized {
            authority: "policy".to_owned(),
        },
    );
    chain.trade(
        &trade,
        TradeFilled {
            order_id: format!("order-{n}"),
            price: decimal("12.5"),
            quantity: decimal("1"),
            commission: decimal("0.0125"),
            filled_at: Timestamp(n.cast_signed() * 86_400_000_000),
        },
    );
}

#[async_trait]
impl Tail for Input {
    async fn next(
        &mut self,
        after: Position,
        limit: usize,
        wait: Duration,
    ) -> Result<Vec<Arc<RecordedEvent>>, LogError> {
        let start = usize::try_from(after.0).unwrap().min(self.events.len());
        let end = (start + limit).min(self.events.len());
        if start == end {
            tokio::time::sleep(wait).await;
        }
        Ok(self.events[start..end].to_vec())
    }
}
