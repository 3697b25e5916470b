//! An agent: who it is, where its state machine stands, what it works on.

mod command;
pub mod machine;

use std::collections::BTreeMap;

use cqrs_es::Aggregate;
use cqrs_es::event_sink::EventSink;
use serde::{Deserialize, Serialize};
use sovereign_schemas::borrowed::{ToBorrowed as _, Utf8};
use sovereign_schemas::events::{
    AgentEvent, AgentEventRef, AgentRegistered, AgentState, ExecutionCleared, MarketObserved,
    StateTransitioned, TaskFinished, TaskStarted, ThoughtRecorded, TransitionRefused,
};
use sovereign_schemas::{Decimal, ErrorCode, Problem, Timestamp};

use crate::{Decision, Refusal};

pub use command::{
    AgentCommand, ClearExecution, FinishTask, ObserveMarket, RecordThought, Register, StartTask,
    Transition,
};

/// An agent observes at most so many instruments (I9).
pub const INSTRUMENTS_MAX: usize = 1_024;

/// State of one agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agent {
    /// Set by registration.
    pub role: Option<String>,
    /// Where the state machine stands.
    pub state: AgentState,
    /// The trade that may be executed now.
    pub cleared: Option<String>,
    /// Work that has been started and not finished.
    pub task: Option<Task>,
    /// Thoughts recorded so far.
    pub thoughts: u64,
    /// Start of the last bar observed, per instrument.
    pub observed: BTreeMap<String, Timestamp>,
}

/// Work in progress.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// Its name.
    pub task: String,
    /// Items in its input.
    pub items: i64,
}

impl Default for Agent {
    fn default() -> Self {
        Self {
            role: None,
            state: AgentState::Idle,
            cleared: None,
            task: None,
            thoughts: 0,
            observed: BTreeMap::new(),
        }
    }
}

impl Agent {
    /// Which events follow from `command`, if it may happen.
    ///
    /// # Errors
    /// Why it may not.
    pub fn decide(&self, command: AgentCommand) -> Result<Vec<AgentEvent>, Refusal> {
        if let AgentCommand::Recorded(events) = command {
            return Ok(events);
        }
        if let AgentCommand::Register(Register { role }) = command {
            if self.role.is_some() {
                return Err(Refusal::new(
                    ErrorCode::AlreadyExists,
                    "the agent is registered",
                ));
            }
            return Ok(vec![AgentRegistered { role: role.into() }.into()]);
        }
        if self.role.is_none() {
            return Err(Refusal::new(
                ErrorCode::NotFound,
                "no such agent; register it first",
            ));
        }
        let event: AgentEvent = match command {
            AgentCommand::Register(_) | AgentCommand::Recorded(_) => return Ok(vec![]),
            AgentCommand::RecordThought(RecordThought { text }) => ThoughtRecorded { text }.into(),
            AgentCommand::Transition(Transition { to, reason }) => {
                self.transition(to, reason.into())
            }
            AgentCommand::ObserveMarket(bar) => self.observe(bar)?.into(),
            AgentCommand::StartTask(task) => self.start(task)?.into(),
            AgentCommand::FinishTask(FinishTask { task }) => match &self.task {
                Some(own) if own.task == task.as_str() => TaskFinished {
                    task: task.into(),
                    items: own.items,
                }
                .into(),
                _ => {
                    return Err(Refusal::new(
                        ErrorCode::WrongState,
                        "the agent is not at this task",
                    ));
                }
            },
            AgentCommand::ClearExecution(ClearExecution {
                trade_id,
                authority,
            }) => {
                if self.state != AgentState::Verifying {
                    return Err(Refusal::new(
                        ErrorCode::WrongState,
                        format!("an agent is cleared in VERIFYING; it is in {}", self.state),
                    ));
                }
                ExecutionCleared {
                    trade_id: trade_id.into(),
                    authority: authority.into(),
                }
                .into()
            }
        };
        Ok(vec![event])
    }

    /// Refused transitions are recorded, so this always yields an event.
    fn transition(&self, to: AgentState, reason: String) -> AgentEvent {
        let from = self.state;
        let cleared = to != AgentState::Executing || self.cleared.is_some();
        if machine::is_legal(from, to) && cleared {
            StateTransitioned { from, to, reason }.into()
        } else {
            TransitionRefused { from, to, reason }.into()
        }
    }

    fn observe(&self, bar: ObserveMarket) -> Result<MarketObserved, Refusal> {
        let wrong = |field: &str, message: &str| {
            Refusal::from(
                Problem::new(ErrorCode::InvalidAmount, message).field(format!("data.{field}")),
            )
        };
        for (field, price) in [
            ("open", bar.open),
            ("high", bar.high),
            ("low", bar.low),
            ("close", bar.close),
        ] {
            if !price.is_positive() {
                return Err(wrong(field, "a price must be above zero"));
            }
            if price > bar.high || price < bar.low {
                return Err(wrong(field, "a price lies outside of low to high"));
            }
        }
        if bar.volume < Decimal::ZERO {
            return Err(wrong("volume", "a volume must not be negative"));
        }
        if bar.interval_s < 1 {
            return Err(wrong("interval_s", "an interval has at least 1 second"));
        }
        match self.observed.get(bar.instrument.as_str()) {
            Some(last) if bar.opened_at <= *last => {
                return Err(Refusal::new(
                    ErrorCode::WrongState,
                    format!("bars come in order; the last one of this instrument is of {last}"),
                ));
            }
            None if self.observed.len() >= INSTRUMENTS_MAX => {
                return Err(Refusal::new(
                    ErrorCode::WrongState,
                    format!("an agent observes at most {INSTRUMENTS_MAX} instruments"),
                ));
            }
            _ => {}
        }
        let ObserveMarket {
            instrument,
            opened_at,
            interval_s,
            open,
            high,
            low,
            close,
            volume,
        } = bar;
        let instrument = instrument.into();
        Ok(MarketObserved {
            instrument,
            opened_at,
            interval_s,
            open,
            high,
            low,
            close,
            volume,
        })
    }

    fn start(&self, task: StartTask) -> Result<TaskStarted, Refusal> {
        if let Some(own) = &self.task {
            return Err(Refusal::new(
                ErrorCode::WrongState,
                format!("the agent is at task {}", own.task),
            ));
        }
        let StartTask {
            task,
            input_digest,
            items,
        } = task;
        if items < 1 {
            return Err(
                Problem::new(ErrorCode::WrongType, "a task has at least 1 item")
                    .field("data.items")
                    .into(),
            );
        }
        Ok(TaskStarted {
            task: task.into(),
            input_digest,
            items,
        })
    }

    /// Takes one recorded event. Total: never fails, whatever came before.
    pub fn evolve(&mut self, event: &AgentEvent) {
        self.evolve_borrowed(&event.borrowed());
    }

    /// As [`Self::evolve`], from an event that was not copied out of its datum.
    pub fn evolve_borrowed(&mut self, event: &AgentEventRef<'_>) {
        match event {
            AgentEventRef::AgentRegistered(e) => put(&mut self.role, e.role),
            AgentEventRef::StateTransitioned(e) => {
                if e.from == AgentState::Executing {
                    self.cleared = None;
                }
                self.state = e.to;
            }
            AgentEventRef::TransitionRefused(_) => {}
            AgentEventRef::ThoughtRecorded(_) => self.thoughts += 1,
            AgentEventRef::MarketObserved(e) => {
                let instrument = e.instrument.as_str();
                match self.observed.get_mut(instrument) {
                    Some(last) => *last = e.opened_at,
                    None => {
                        self.observed.insert(instrument.to_owned(), e.opened_at);
                    }
                }
            }
            AgentEventRef::TaskStarted(e) => {
                self.task = Some(Task {
                    task: e.task.as_str().to_owned(),
                    items: e.items,
                });
            }
            AgentEventRef::TaskFinished(_) => self.task = None,
            AgentEventRef::ExecutionCleared(e) => put(&mut self.cleared, e.trade_id),
        }
    }
}

/// Keeps the memory of the text that was there before.
fn put(kept: &mut Option<String>, text: Utf8<'_>) {
    let kept = kept.get_or_insert_default();
    kept.clear();
    kept.push_str(text.as_str());
}

impl Aggregate for Agent {
    const TYPE: &'static str = "agent";
    type Command = AgentCommand;
    type Event = AgentEvent;
    type Error = Refusal;
    type Services = Decision;

    async fn handle(
        &mut self,
        command: AgentCommand,
        _: &Decision,
        sink: &EventSink<Self>,
    ) -> Result<(), Refusal> {
        for event in self.decide(command)? {
            sink.write(event, self).await;
        }
        Ok(())
    }

    fn apply(&mut self, event: AgentEvent) {
        self.evolve(&event);
    }
}

#[cfg(test)]
mod tests {
    use sovereign_schemas::avro;

    use super::*;

    fn registered() -> Agent {
        let mut agent = Agent::default();
        agent.evolve(
            &AgentRegistered {
                role: "trader".into(),
            }
            .into(),
        );
        agent
    }

    fn step(agent: &mut Agent, command: AgentCommand) -> Vec<AgentEvent> {
        let events = agent.decide(command).unwrap();
        events.iter().for_each(|e| agent.evolve(e));
        events
    }

    fn to(state: AgentState) -> AgentCommand {
        AgentCommand::Transition(Transition {
            to: state,
            reason: "test".parse().unwrap(),
        })
    }

    #[test]
    fn executes_only_when_cleared() {
        use AgentState::{Analyzing, Executing, Idle, Scanning, Verifying};
        let mut agent = registered();
        for state in [Scanning, Analyzing, Verifying] {
            step(&mut agent, to(state));
        }
        assert!(matches!(
            step(&mut agent, to(Executing))[0],
            AgentEvent::TransitionRefused(_)
        ));
        assert_eq!(agent.state, Verifying);
        let clear = ClearExecution {
            trade_id: "trade_a_1".parse().unwrap(),
            authority: "policy:1".parse().unwrap(),
        };
        step(&mut agent, AgentCommand::ClearExecution(clear));
        step(&mut agent, to(Executing));
        assert_eq!(agent.state, Executing);
        step(&mut agent, to(Idle));
        assert_eq!(
            agent.cleared, None,
            "one clearance is good for one execution"
        );
    }

    #[test]
    fn every_edge_that_is_not_in_the_table_is_refused_and_recorded() {
        for from in AgentState::ALL {
            for state in AgentState::ALL {
                let agent = Agent {
                    state: *from,
                    cleared: Some("trade_a_1".into()),
                    ..registered()
                };
                let refused = matches!(
                    agent.decide(to(*state)).unwrap()[0],
                    AgentEvent::TransitionRefused(_)
                );
                assert_eq!(
                    refused,
                    !machine::is_legal(*from, *state),
                    "{from} to {state}"
                );
            }
        }
    }

    #[test]
    fn observes_bars_in_order_and_in_range() {
        let bar = |day: &str, high: &str| {
            let price = |s: &str| s.parse().unwrap();
            AgentCommand::ObserveMarket(ObserveMarket {
                instrument: "AAPL".parse().unwrap(),
                opened_at: day.parse().unwrap(),
                interval_s: 86_400,
                open: price("10"),
                high: price(high),
                low: price("9"),
                close: price("10.5"),
                volume: price("0"),
            })
        };
        let mut agent = registered();
        step(&mut agent, bar("2000-03-01", "11"));
        assert_eq!(
            agent
                .decide(bar("2000-03-01", "11"))
                .unwrap_err()
                .problem
                .code,
            ErrorCode::WrongState
        );
        assert_eq!(
            agent
                .decide(bar("2000-03-02", "10.4"))
                .unwrap_err()
                .problem
                .field
                .as_deref(),
            Some("data.close")
        );
    }

    #[test]
    fn nothing_happens_to_an_agent_that_is_not_registered() {
        let refusal = Agent::default()
            .decide(to(AgentState::Scanning))
            .unwrap_err();
        assert_eq!(refusal.problem.code, ErrorCode::NotFound);
    }

    #[test]
    fn a_version_1_observation_is_read_as_the_newest() {
        use sovereign_schemas::avro::EventGroup as _;
        use sovereign_schemas::events::MarketObservedV1;
        let price: Decimal = "10".parse().unwrap();
        let old = MarketObservedV1 {
            instrument: "AAPL".into(),
            date: "2000-03-01".parse().unwrap(),
            open: price,
            high: price,
            low: price,
            close: price,
            volume: price,
        };
        let read = AgentEvent::decode("MarketObserved", 1, &avro::encode(&old)).unwrap();
        let AgentEvent::MarketObserved(bar) = read else {
            panic!("another event")
        };
        assert_eq!(bar.opened_at.to_string(), "2000-03-01T00:00:00.000000Z");
        assert_eq!(bar.interval_s, 86_400);
    }
}
