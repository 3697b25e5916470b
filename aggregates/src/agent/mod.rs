//! An agent: who it is, where its state machine stands, what it works on.

mod command;
pub mod definition;
pub mod machine;
mod steps;

use std::collections::BTreeMap;

use cqrs_es::Aggregate;
use cqrs_es::event_sink::EventSink;
use serde::{Deserialize, Serialize};
use sovereign_schemas::borrowed::{ToBorrowed as _, Utf8};
use sovereign_schemas::events::{
    AgentDefined, AgentEvent, AgentEventRef, AgentRegistered, AgentState, ExecutionCleared,
    LoopDetected, MarketObserved, ProgramFaulted, StateTransitioned, TaskFinished, TaskStarted,
    ThoughtRecorded, TransitionRefused,
};
use sovereign_schemas::{Decimal, ErrorCode, Problem, Timestamp};

use crate::{Decision, Refusal};

pub use command::{
    AgentCommand, ClearExecution, Define, FinishTask, ObserveMarket, RecordThought, Register,
    ReportFault, StartTask, Transition,
};
pub use definition::{Defined, Definition, Edge, Guard, Needs};
pub use steps::{Loop, LoopGuard, Step, Steps};

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
    /// What it is made of, if anybody said so.
    pub definition: Option<Box<Defined>>,
    /// What it did last.
    pub steps: Steps,
    /// Whether it had a thought since it moved last.
    pub explained: bool,
    /// It was put into SAFE_MODE by the engine; somebody else has to let it out.
    pub stopped: bool,
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
            definition: None,
            steps: Steps::default(),
            explained: false,
            stopped: false,
        }
    }
}

impl Agent {
    /// Which events follow from `command`, if it may happen.
    ///
    /// # Errors
    /// Why it may not.
    pub fn decide(
        &self,
        command: AgentCommand,
        decision: &Decision,
    ) -> Result<Vec<AgentEvent>, Refusal> {
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
            AgentCommand::Define(define) => self.define(*define)?.into(),
            AgentCommand::RecordThought(RecordThought { text, likeness }) => {
                let step = Step::thought(&likeness);
                let event = ThoughtRecorded { text, likeness }.into();
                return Ok(self.unless_it_loops(event, step, self.state));
            }
            AgentCommand::Transition(Transition { to, reason }) => {
                let own = decision.actor.as_str() == decision.aggregate_id.as_str();
                return Ok(self.transition(to, reason.into(), own));
            }
            AgentCommand::ReportFault(fault) => return Ok(self.fault(fault)),
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

    /// The definition's version; 0 without one.
    #[must_use]
    pub fn version(&self) -> i32 {
        self.definition.as_ref().map_or(0, |d| d.version)
    }

    fn loop_guard(&self) -> LoopGuard {
        let definition = self.definition.as_ref().and_then(|d| d.definition.as_ref());
        definition.map_or(LoopGuard::DEFAULT, |d| d.loop_guard)
    }

    fn define(&self, define: Define<sovereign_schemas::Text>) -> Result<AgentDefined, Refusal> {
        let Define {
            version,
            definition,
            prompt,
            prompt_likeness,
        } = define;
        definition.check()?;
        let next = self.version().saturating_add(1);
        if let Some(version) = version.filter(|v| *v != next) {
            return Err(Problem::new(
                ErrorCode::VersionConflict,
                "the definition has another version than the next",
            )
            .field("data.version")
            .found(version.to_string())
            .expected(next.to_string())
            .remedy("start from the definition that holds (sovereign agents show NAME)")
            .into());
        }
        let text = definition.text();
        let digest = Definition::digest(&text, &prompt_likeness);
        if self.definition.as_ref().is_some_and(|d| d.digest == digest) {
            return Err(Refusal::new(
                ErrorCode::AlreadyExists,
                "the agent has this definition",
            ));
        }
        // a run is under one definition from its start to its end
        if !matches!(self.state, AgentState::Idle | AgentState::SafeMode) {
            return Err(Refusal::new(
                ErrorCode::WrongState,
                format!(
                    "an agent is defined in IDLE or SAFE_MODE; it is in {}",
                    self.state
                ),
            ));
        }
        Ok(AgentDefined {
            version: next,
            digest,
            definition: text,
            prompt,
            prompt_likeness,
        })
    }

    /// What forbids a transition; none if it may happen.
    fn forbids(&self, from: AgentState, to: AgentState, own: bool) -> Option<&'static str> {
        if !machine::is_legal(from, to) {
            return Some("machine");
        }
        if machine::is_safety(from, to) {
            let out = from == AgentState::SafeMode && to == AgentState::Idle;
            return (out && self.stopped && own).then_some("stopped");
        }
        if let Some(defined) = &self.definition {
            let Some(definition) = defined.definition.as_ref().filter(|d| d.has(from, to)) else {
                return Some("definition");
            };
            let lacks = |needs: &Needs| match needs {
                Needs::Thought => !self.explained,
                Needs::Task => self.task.is_none(),
            };
            if let Some(needs) = definition.needs(from, to).find(lacks) {
                return Some(needs.as_str());
            }
        }
        (to == AgentState::Executing && self.cleared.is_none()).then_some("clearance")
    }

    /// Refused transitions are recorded, so this always yields an event. `own` says whether the
    /// agent itself asks.
    fn transition(&self, to: AgentState, reason: String, own: bool) -> Vec<AgentEvent> {
        let from = self.state;
        if let Some(cause) = self.forbids(from, to, own) {
            let cause = cause.to_owned();
            let event = TransitionRefused {
                from,
                to,
                reason,
                cause,
            }
            .into();
            return self.unless_it_loops(event, Step::Refused(from, to), from);
        }
        let event = self.moved(from, to, reason);
        if machine::is_safety(from, to) {
            return vec![event];
        }
        self.unless_it_loops(event, Step::Moved(from, to), to)
    }

    fn moved(&self, from: AgentState, to: AgentState, reason: String) -> AgentEvent {
        let definition = self.version();
        StateTransitioned {
            from,
            to,
            reason,
            definition,
        }
        .into()
    }

    /// The event, and if it closes a loop, the way into SAFE_MODE from `state`, in which it leaves
    /// the agent.
    fn unless_it_loops(&self, event: AgentEvent, step: Step, state: AgentState) -> Vec<AgentEvent> {
        let guard = self.loop_guard();
        if !machine::is_safety(state, AgentState::SafeMode) {
            return vec![event];
        }
        let (kind, steps) = match self.steps.closes(step, guard) {
            None => return vec![event],
            Some(Loop::Thought) => ("thought", 1),
            Some(Loop::Cycle(steps)) => ("cycle", i32::from(steps)),
        };
        let detected = LoopDetected {
            kind: kind.to_owned(),
            repeats: guard.repeats.into(),
            steps,
            window: guard.window.into(),
        };
        let stop = self.moved(state, AgentState::SafeMode, "loop_detected".to_owned());
        vec![event, detected.into(), stop]
    }

    fn fault(&self, fault: ReportFault) -> Vec<AgentEvent> {
        let ReportFault {
            program,
            fault,
            run,
            given_up,
        } = fault;
        let mut events = vec![
            ProgramFaulted {
                program: program.into(),
                fault: fault.into(),
                run,
                given_up,
            }
            .into(),
        ];
        if given_up && machine::is_safety(self.state, AgentState::SafeMode) {
            let reason = "program_given_up".to_owned();
            events.push(self.moved(self.state, AgentState::SafeMode, reason));
        }
        events
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
            AgentEventRef::AgentDefined(e) => {
                let text = e.definition.as_str();
                self.definition = Some(Box::new(Defined::read(e.version, e.digest, text)));
            }
            AgentEventRef::StateTransitioned(e) => {
                if e.from == AgentState::Executing {
                    self.cleared = None;
                }
                if machine::is_safety(e.from, e.to) {
                    self.steps.clear();
                    self.stopped &= e.from != AgentState::SafeMode;
                } else {
                    self.step(Step::Moved(e.from, e.to));
                }
                self.state = e.to;
                self.explained = false;
            }
            AgentEventRef::TransitionRefused(e) => self.step(Step::Refused(e.from, e.to)),
            AgentEventRef::ThoughtRecorded(e) => {
                self.thoughts += 1;
                self.explained = true;
                self.step(Step::thought(e.likeness));
            }
            AgentEventRef::LoopDetected(_) => self.stopped = true,
            AgentEventRef::ProgramFaulted(e) => self.stopped |= e.given_up,
            AgentEventRef::MarketObserved(e) => {
                self.steps.renew();
                let instrument = e.instrument.as_str();
                match self.observed.get_mut(instrument) {
                    Some(last) => *last = e.opened_at,
                    None => {
                        self.observed.insert(instrument.to_owned(), e.opened_at);
                    }
                }
            }
            AgentEventRef::TaskStarted(e) => {
                self.steps.renew();
                self.task = Some(Task {
                    task: e.task.as_str().to_owned(),
                    items: e.items,
                });
            }
            AgentEventRef::TaskFinished(_) => {
                self.steps.renew();
                self.task = None;
            }
            AgentEventRef::ExecutionCleared(e) => {
                self.steps.renew();
                put(&mut self.cleared, e.trade_id);
            }
        }
    }

    /// What an agent does in SAFE_MODE or FROZEN is no work, so nothing there is a loop.
    fn step(&mut self, step: Step) {
        if machine::is_safety(self.state, AgentState::SafeMode) {
            self.steps.take(step, self.loop_guard().window);
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
        decision: &Decision,
        sink: &EventSink<Self>,
    ) -> Result<(), Refusal> {
        for event in self.decide(command, decision)? {
            sink.write(event, self).await;
        }
        Ok(())
    }

    fn apply(&mut self, event: AgentEvent) {
        self.evolve(&event);
    }
}

#[cfg(test)]
mod tests;
