use cqrs_es::Aggregate;
use cqrs_es::event_sink::EventSink;
use futures::FutureExt as _;
use serde_json::Value;
use sovereign_schemas::avro::{DecodeError, EventGroup, TextsToJson};
use sovereign_schemas::events::{
    AgentEvent, AgentEventRef, ApprovalEvent, ApprovalEventRef, ApproverEvent, ApproverEventRef,
    ImportedEvent, ImportedEventRef, JobEvent, JobEventRef, PolicyEvent, PolicyEventRef,
    SchedulesEvent, SchedulesEventRef, TradeEvent, TradeEventRef,
};
use sovereign_schemas::{
    AggregateType, DepartmentId, ErrorCode, EventType, Problem, RawText, RecordedEvent, Text,
};

use crate::agent::{Agent, AgentCommand};
use crate::approval::{self, Approval, ApprovalCommand};
use crate::approver::{Approver, ApproverCommand};
use crate::imported::{Imported, ImportedCommand};
use crate::job::{Job, JobCommand};
use crate::policy::{Adopted, PolicyCommand};
use crate::schedules::{SchedulesCommand, Timetable};
use crate::trade::{Trade, TradeCommand};
use crate::{Decision, Refusal};

/// A command to any aggregate. `T` is [`RawText`] before the guard and [`Text`] after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AnyCommand<T = Text> {
    /// To an agent.
    Agent(AgentCommand<T>),
    /// To a trade.
    Trade(TradeCommand<T>),
    /// To an approval.
    Approval(ApprovalCommand<T>),
    /// To an imported aggregate.
    Imported(ImportedCommand),
    /// To the policy.
    Policy(PolicyCommand),
    /// To an approver.
    Approver(ApproverCommand<T>),
    /// To a job.
    Job(JobCommand<T>),
    /// To the schedules of jobs.
    Schedules(SchedulesCommand),
}

impl AnyCommand<RawText> {
    /// Reads a command as callers write it.
    ///
    /// # Errors
    /// Which name, field or type is wrong, and what was expected.
    ///
    /// # Examples
    /// ```
    /// use sovereign_aggregates::AnyCommand;
    /// let command = AnyCommand::parse("agent", "register", serde_json::json!({"role": "trader"}));
    /// assert_eq!(command.unwrap().name(), "register");
    /// ```
    pub fn parse(aggregate: &str, command: &str, data: Value) -> Result<Self, Problem> {
        Ok(match aggregate.parse()? {
            AggregateType::Agent => Self::Agent(AgentCommand::parse(command, data)?),
            AggregateType::Trade => Self::Trade(TradeCommand::parse(command, data)?),
            AggregateType::Approval => Self::Approval(ApprovalCommand::parse(command, data)?),
            AggregateType::Imported => return Err(ImportedCommand::parse(command)),
            AggregateType::Policy => Self::Policy(PolicyCommand::parse(command, data)?),
            AggregateType::Approver => Self::Approver(ApproverCommand::parse(command, data)?),
            AggregateType::Job => Self::Job(JobCommand::parse(command, data)?),
            AggregateType::Schedules => Self::Schedules(SchedulesCommand::parse(command, data)?),
        })
    }
}

impl<T> AnyCommand<T> {
    /// Whom it is for.
    #[must_use]
    pub const fn aggregate_type(&self) -> AggregateType {
        match self {
            Self::Agent(_) => AggregateType::Agent,
            Self::Trade(_) => AggregateType::Trade,
            Self::Approval(_) => AggregateType::Approval,
            Self::Imported(_) => AggregateType::Imported,
            Self::Policy(_) => AggregateType::Policy,
            Self::Approver(_) => AggregateType::Approver,
            Self::Job(_) => AggregateType::Job,
            Self::Schedules(_) => AggregateType::Schedules,
        }
    }

    /// Its name, as callers write it.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Agent(c) => c.name(),
            Self::Trade(c) => c.name(),
            Self::Approval(c) => c.name(),
            Self::Imported(c) => c.name(),
            Self::Policy(c) => c.name(),
            Self::Approver(c) => c.name(),
            Self::Job(c) => c.name(),
            Self::Schedules(c) => c.name(),
        }
    }

    /// The department whose topic carries the events when the caller names none.
    #[must_use]
    pub const fn default_department(&self) -> DepartmentId {
        match self {
            Self::Agent(AgentCommand::ObserveMarket(_)) => DepartmentId::HUNTER,
            Self::Agent(_) | Self::Job(_) | Self::Schedules(_) => DepartmentId::ORCHESTRATOR,
            Self::Trade(TradeCommand::GiveVerdict(_)) => DepartmentId::AUDITOR,
            Self::Trade(TradeCommand::Conclude(_)) => DepartmentId::HISTORIAN,
            Self::Trade(_) => DepartmentId::TRADER,
            Self::Approval(_) | Self::Policy(_) | Self::Approver(_) => DepartmentId::GUARDIAN,
            Self::Imported(_) => DepartmentId::HISTORIAN,
        }
    }

    /// Passes every free text through `f`.
    ///
    /// # Errors
    /// The first error of `f`.
    pub fn try_map_text<U, E>(self, f: impl FnMut(T) -> Result<U, E>) -> Result<AnyCommand<U>, E> {
        Ok(match self {
            Self::Agent(c) => AnyCommand::Agent(c.try_map_text(f)?),
            Self::Trade(c) => AnyCommand::Trade(c.try_map_text(f)?),
            Self::Approval(c) => AnyCommand::Approval(c.try_map_text(f)?),
            Self::Imported(c) => AnyCommand::Imported(c),
            Self::Policy(c) => AnyCommand::Policy(c),
            Self::Approver(c) => AnyCommand::Approver(c.try_map_text(f)?),
            Self::Job(c) => AnyCommand::Job(c.try_map_text(f)?),
            Self::Schedules(c) => AnyCommand::Schedules(c),
        })
    }

    /// Where the guard puts what tells whether the command's one text equals another.
    pub const fn likeness_mut(&mut self) -> Option<&mut Vec<u8>> {
        match self {
            Self::Agent(c) => c.likeness_mut(),
            _ => None,
        }
    }

    /// Every short string that is not free text, with its field: they travel unsealed, so the
    /// guard looks through them and refuses what looks like a secret.
    #[must_use]
    pub fn identifiers(&self) -> Vec<(&'static str, &str)> {
        match self {
            Self::Agent(c) => c.identifiers(),
            Self::Trade(c) => c.identifiers(),
            Self::Approval(c) => c.identifiers(),
            Self::Imported(_) => vec![],
            Self::Policy(c) => c.identifiers(),
            Self::Approver(c) => c.identifiers(),
            Self::Job(c) => c.identifiers(),
            Self::Schedules(c) => c.identifiers(),
        }
    }
}

/// An event of any aggregate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AnyEvent {
    /// Of an agent.
    Agent(AgentEvent),
    /// Of a trade.
    Trade(TradeEvent),
    /// Of an approval.
    Approval(ApprovalEvent),
    /// Of an imported aggregate.
    Imported(ImportedEvent),
    /// Of the policy.
    Policy(PolicyEvent),
    /// Of an approver.
    Approver(ApproverEvent),
    /// Of a job.
    Job(JobEvent),
    /// Of the schedules.
    Schedules(SchedulesEvent),
}

impl AnyEvent {
    /// Reads a recorded event of any known version.
    ///
    /// # Errors
    /// If its type or version is unknown, or its payload is not exactly one datum.
    pub fn decode(event: &RecordedEvent) -> Result<Self, DecodeError> {
        let header = &event.header;
        let unknown = || DecodeError::UnknownEvent {
            event_type: header.event_type.to_string(),
            version: header.event_version,
        };
        let event_type = EventType::parse(&header.event_type).ok_or_else(unknown)?;
        Ok(match event_type.aggregate_type() {
            AggregateType::Agent => Self::Agent(event.decode()?),
            AggregateType::Trade => Self::Trade(event.decode()?),
            AggregateType::Approval => Self::Approval(event.decode()?),
            AggregateType::Imported => Self::Imported(event.decode()?),
            AggregateType::Policy => Self::Policy(event.decode()?),
            AggregateType::Approver => Self::Approver(event.decode()?),
            AggregateType::Job => Self::Job(event.decode()?),
            AggregateType::Schedules => Self::Schedules(event.decode()?),
        })
    }

    /// Which event it is.
    #[must_use]
    pub fn event_type(&self) -> EventType {
        match self {
            Self::Agent(e) => EventGroup::event_type(e),
            Self::Trade(e) => EventGroup::event_type(e),
            Self::Approval(e) => EventGroup::event_type(e),
            Self::Imported(e) => EventGroup::event_type(e),
            Self::Policy(e) => EventGroup::event_type(e),
            Self::Approver(e) => EventGroup::event_type(e),
            Self::Job(e) => EventGroup::event_type(e),
            Self::Schedules(e) => EventGroup::event_type(e),
        }
    }

    /// Appends the raw Avro datum of the newest version.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Agent(e) => e.encode(out),
            Self::Trade(e) => e.encode(out),
            Self::Approval(e) => e.encode(out),
            Self::Imported(e) => e.encode(out),
            Self::Policy(e) => e.encode(out),
            Self::Approver(e) => e.encode(out),
            Self::Job(e) => e.encode(out),
            Self::Schedules(e) => e.encode(out),
        }
    }

    /// The payload for people and scripts.
    #[must_use]
    pub fn json(&self, texts: TextsToJson<'_>) -> Value {
        match self {
            Self::Agent(e) => e.json(texts),
            Self::Trade(e) => e.json(texts),
            Self::Approval(e) => e.json(texts),
            Self::Imported(e) => e.json(texts),
            Self::Policy(e) => e.json(texts),
            Self::Approver(e) => e.json(texts),
            Self::Job(e) => e.json(texts),
            Self::Schedules(e) => e.json(texts),
        }
    }

    /// For an event that records a refusal (an illegal transition, an approval that counts for
    /// nothing): what its caller is told. Such a command's outcome is "refused", with the position
    /// of this event.
    #[must_use]
    pub fn recorded_refusal(&self) -> Option<Refusal> {
        let e = match self {
            Self::Agent(AgentEvent::TransitionRefused(e)) => e,
            Self::Approval(ApprovalEvent::ApprovalAttemptRefused(e)) => {
                let code = ErrorCode::from_text(&e.code);
                return Some(Refusal::new(code, approval::told(code)));
            }
            _ => return None,
        };
        let expected: Vec<&str> = crate::agent::machine::successors(e.from)
            .iter()
            .map(|s| s.as_str())
            .collect();
        let (from, to) = (e.from, e.to);
        let message = match e.cause.as_str() {
            "definition" => format!("the agent's definition has no transition from {from} to {to}"),
            "thought" => format!("{to} needs a thought since the agent moved last"),
            "task" => format!("{to} needs work that was started"),
            "stopped" => "the engine stopped the agent; somebody else has to let it out".to_owned(),
            _ if expected.contains(&to.as_str()) => {
                format!("{to} needs a clearance: no trade of this agent is authorized")
            }
            _ => format!("no transition from {from} to {to}"),
        };
        Some(
            Problem::new(ErrorCode::IllegalTransition, message)
                .field("data.to")
                .found(e.to.as_str())
                .expected(if expected.is_empty() {
                    "none".into()
                } else {
                    expected.join(", ")
                })
                .into(),
        )
    }
}

/// The state of any aggregate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AnyState {
    /// An agent's.
    Agent(Agent),
    /// A trade's.
    Trade(Trade),
    /// An approval's.
    Approval(Approval),
    /// An imported aggregate's.
    Imported(Imported),
    /// The policy's.
    Policy(Adopted),
    /// An approver's.
    Approver(Approver),
    /// A job's.
    Job(Job),
    /// Those of the schedules.
    Schedules(Timetable),
}

/// Runs `handle` of a cqrs-es aggregate. It never awaits anything but its sink's own mutex, so one
/// poll is enough. Unconstrained, because tokio lets even a free mutex wait once a task has used
/// up its budget, and by then the sink has applied the event.
fn run<A: Aggregate<Services = Decision, Error = Refusal>>(
    state: &mut A,
    command: A::Command,
    decision: &Decision,
) -> Result<Vec<A::Event>, Refusal> {
    let sink = EventSink::default();
    let handled = tokio::task::unconstrained(state.handle(command, decision, &sink)).now_or_never();
    let collected = sink.collect().now_or_never();
    match (handled, collected) {
        (Some(Ok(())), Some(events)) => Ok(events),
        (Some(Err(refusal)), _) => Err(refusal),
        _ => Err(Refusal::new(
            ErrorCode::Internal,
            "an aggregate waited for something",
        )),
    }
}

impl AnyState {
    /// An aggregate to which nothing happened yet.
    #[must_use]
    pub fn new(aggregate_type: AggregateType) -> Self {
        match aggregate_type {
            AggregateType::Agent => Self::Agent(Agent::default()),
            AggregateType::Trade => Self::Trade(Trade::default()),
            AggregateType::Approval => Self::Approval(Approval::default()),
            AggregateType::Imported => Self::Imported(Imported::default()),
            AggregateType::Policy => Self::Policy(Adopted::default()),
            AggregateType::Approver => Self::Approver(Approver::default()),
            AggregateType::Job => Self::Job(Job::default()),
            AggregateType::Schedules => Self::Schedules(Timetable::default()),
        }
    }

    /// Which kind it is.
    #[must_use]
    pub const fn aggregate_type(&self) -> AggregateType {
        match self {
            Self::Agent(_) => AggregateType::Agent,
            Self::Trade(_) => AggregateType::Trade,
            Self::Approval(_) => AggregateType::Approval,
            Self::Imported(_) => AggregateType::Imported,
            Self::Policy(_) => AggregateType::Policy,
            Self::Approver(_) => AggregateType::Approver,
            Self::Job(_) => AggregateType::Job,
            Self::Schedules(_) => AggregateType::Schedules,
        }
    }

    /// Decides on `command` and, if it may happen, takes its events into the state.
    ///
    /// # Errors
    /// Why it may not happen; the state is unchanged.
    pub fn handle(
        &mut self,
        command: AnyCommand,
        decision: &Decision,
    ) -> Result<Vec<AnyEvent>, Refusal> {
        match (self, command) {
            (Self::Agent(state), AnyCommand::Agent(command)) => Ok(run(state, command, decision)?
                .into_iter()
                .map(AnyEvent::Agent)
                .collect()),
            (Self::Trade(state), AnyCommand::Trade(command)) => Ok(run(state, command, decision)?
                .into_iter()
                .map(AnyEvent::Trade)
                .collect()),
            (Self::Approval(state), AnyCommand::Approval(command)) => {
                Ok(run(state, command, decision)?
                    .into_iter()
                    .map(AnyEvent::Approval)
                    .collect())
            }
            (Self::Imported(state), AnyCommand::Imported(command)) => {
                Ok(run(state, command, decision)?
                    .into_iter()
                    .map(AnyEvent::Imported)
                    .collect())
            }
            (Self::Policy(state), AnyCommand::Policy(command)) => {
                Ok(run(state, command, decision)?
                    .into_iter()
                    .map(AnyEvent::Policy)
                    .collect())
            }
            (Self::Approver(state), AnyCommand::Approver(command)) => {
                Ok(run(state, command, decision)?
                    .into_iter()
                    .map(AnyEvent::Approver)
                    .collect())
            }
            (Self::Job(state), AnyCommand::Job(command)) => Ok(run(state, command, decision)?
                .into_iter()
                .map(AnyEvent::Job)
                .collect()),
            (Self::Schedules(state), AnyCommand::Schedules(command)) => {
                Ok(run(state, command, decision)?
                    .into_iter()
                    .map(AnyEvent::Schedules)
                    .collect())
            }
            _ => Err(Refusal::new(
                ErrorCode::Internal,
                "command and aggregate do not match",
            )),
        }
    }

    /// Takes a recorded event of any known version.
    ///
    /// # Errors
    /// If it does not decode, or belongs to another kind of aggregate.
    pub fn apply_recorded(&mut self, event: &RecordedEvent) -> Result<(), DecodeError> {
        let header = &event.header;
        self.apply_datum(
            header.event_type.as_bytes(),
            header.event_version,
            &event.payload,
        )?;
        if let Self::Trade(trade) = self {
            trade.note_proposal(header, &event.payload);
        }
        if let Self::Job(job) = self
            && header.event_type == EventType::JobSubmitted.as_str()
        {
            job.submitted_by(header.department, &header.actor);
        }
        Ok(())
    }

    /// As [`Self::apply_recorded`], from the parts of an event that lie somewhere else. Nothing
    /// is copied but what the state keeps.
    ///
    /// # Errors
    /// As [`Self::apply_recorded`]; the state is unchanged.
    #[inline]
    pub fn apply_datum(
        &mut self,
        event_type: &[u8],
        version: u16,
        payload: &[u8],
    ) -> Result<(), DecodeError> {
        match self {
            Self::Agent(state) => {
                state.evolve_borrowed(&AgentEventRef::decode(event_type, version, payload)?);
            }
            Self::Trade(state) => {
                state.evolve_borrowed(&TradeEventRef::decode(event_type, version, payload)?);
            }
            Self::Approval(state) => {
                state.evolve_borrowed(&ApprovalEventRef::decode(event_type, version, payload)?);
            }
            Self::Imported(state) => {
                state.evolve_borrowed(&ImportedEventRef::decode(event_type, version, payload)?);
            }
            Self::Policy(state) => {
                state.evolve_borrowed(&PolicyEventRef::decode(event_type, version, payload)?);
            }
            Self::Approver(state) => {
                state.evolve_borrowed(&ApproverEventRef::decode(event_type, version, payload)?);
            }
            Self::Job(state) => {
                state.evolve_borrowed(&JobEventRef::decode(event_type, version, payload)?);
            }
            Self::Schedules(state) => {
                state.evolve_borrowed(&SchedulesEventRef::decode(event_type, version, payload)?);
            }
        }
        Ok(())
    }

    /// The state's canonical bytes, for digests: compact JSON, fields in the order of the struct,
    /// map keys sorted.
    #[must_use]
    pub fn canonical(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.put_canonical(&mut bytes);
        bytes
    }

    /// Appends [`Self::canonical`].
    pub fn put_canonical(&self, out: &mut Vec<u8>) {
        let start = out.len();
        let put = match self {
            Self::Agent(state) => serde_json::to_writer(&mut *out, state),
            Self::Trade(state) => serde_json::to_writer(&mut *out, state),
            Self::Approval(state) => serde_json::to_writer(&mut *out, state),
            Self::Imported(state) => serde_json::to_writer(&mut *out, state),
            Self::Policy(state) => serde_json::to_writer(&mut *out, state),
            Self::Approver(state) => serde_json::to_writer(&mut *out, state),
            Self::Job(state) => serde_json::to_writer(&mut *out, state),
            Self::Schedules(state) => serde_json::to_writer(&mut *out, state),
        };
        // these structs hold only strings, numbers and maps with string keys: it cannot fail
        if put.is_err() {
            out.truncate(start);
        }
    }
}

#[cfg(test)]
mod tests {
    use sovereign_schemas::Timestamp;

    use super::*;

    #[tokio::test]
    async fn decides_in_a_busy_task_as_well() {
        let decision = Decision::new(
            "agent_1".parse().unwrap(),
            Timestamp(0),
            "agent_1".parse().unwrap(),
        );
        // far more than the 128 operations that tokio grants a task between two polls
        for _ in 0..1_000 {
            let data = serde_json::json!({"role": "trader"});
            let command = AnyCommand::parse("agent", "register", data).unwrap();
            let command = command.try_map_text(|_| Err::<Text, _>("no text")).unwrap();
            let mut state = AnyState::new(AggregateType::Agent);
            assert_eq!(state.handle(command, &decision).unwrap().len(), 1);
        }
    }
}
