use serde::Deserialize;
use serde_json::Value;
use sovereign_schemas::events::{AgentEvent, AgentState};
use sovereign_schemas::{
    AggregateId, Decimal, Digest, ErrorCode, Identifier, Problem, RawText, Text, Timestamp,
};

use super::definition::Definition;
use crate::parse;

/// What an agent can be asked to do. `T` is [`RawText`] before the guard and [`Text`] after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AgentCommand<T = Text> {
    /// Join a department.
    Register(Register),
    /// Be made of something else from now on.
    Define(Box<Define<T>>),
    /// Record a thought.
    RecordThought(RecordThought<T>),
    /// Move along the state machine.
    Transition(Transition),
    /// Record one bar of a market.
    ObserveMarket(ObserveMarket),
    /// Take on work with a known input.
    StartTask(StartTask),
    /// Declare that work done.
    FinishTask(FinishTask),
    /// Allow the execution of one trade.
    ClearExecution(ClearExecution),
    /// The program behind it has failed. Only the engine knows, so it has no form in JSON.
    ReportFault(ReportFault),
    /// Take these events, which were decided elsewhere. It has no form in JSON.
    Recorded(Vec<AgentEvent>),
}

/// Data of [`AgentCommand::Register`].
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Register {
    /// What the agent does.
    pub role: Identifier,
}

/// Data of [`AgentCommand::RecordThought`].
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordThought<T> {
    /// In words.
    pub text: T,
    /// Equal for equal thoughts; the guard makes it when it seals the text, nobody sends it.
    #[serde(skip)]
    pub likeness: Vec<u8>,
}

impl<T> RecordThought<T> {
    /// Of this text, before the guard.
    pub const fn of(text: T) -> Self {
        Self {
            text,
            likeness: Vec::new(),
        }
    }
}

/// Data of [`AgentCommand::Define`].
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[serde(bound(deserialize = "T: Deserialize<'de>"))]
pub struct Define<T> {
    /// One more than that of the definition that holds, if the caller wants to be sure of it; the
    /// first has 1.
    #[serde(default)]
    pub version: Option<i32>,
    /// All but the prompt.
    pub definition: Definition,
    /// The prompt, in words.
    #[serde(default = "none")]
    pub prompt: Option<T>,
    /// As [`RecordThought::likeness`], of the prompt.
    #[serde(skip)]
    pub prompt_likeness: Vec<u8>,
}

const fn none<T>() -> Option<T> {
    None
}

/// Data of [`AgentCommand::ReportFault`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportFault {
    /// The program's name.
    pub program: Identifier,
    /// What was wrong, as a short code.
    pub fault: Identifier,
    /// Which start of it.
    pub run: i64,
    /// Whether it is not started again: the agent goes into SAFE_MODE then.
    pub given_up: bool,
}

/// Data of [`AgentCommand::Transition`].
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Transition {
    /// The state to move to.
    pub to: AgentState,
    /// Why, as a short code.
    pub reason: Identifier,
}

/// Data of [`AgentCommand::ObserveMarket`].
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ObserveMarket {
    /// What is traded.
    pub instrument: Identifier,
    /// Start of the bar.
    pub opened_at: Timestamp,
    /// Length of the bar in seconds, at least 1.
    #[serde(default = "one_day_s")]
    pub interval_s: i32,
    /// First price.
    pub open: Decimal,
    /// Highest price.
    pub high: Decimal,
    /// Lowest price.
    pub low: Decimal,
    /// Last price.
    pub close: Decimal,
    /// Units traded; not negative.
    pub volume: Decimal,
}

const fn one_day_s() -> i32 {
    86_400
}

/// Data of [`AgentCommand::StartTask`].
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StartTask {
    /// Name of the work.
    pub task: Identifier,
    /// SHA-256 of its input.
    pub input_digest: Digest,
    /// How many items the input holds, at least 1.
    pub items: i64,
}

/// Data of [`AgentCommand::FinishTask`].
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FinishTask {
    /// Name of the work.
    pub task: Identifier,
}

/// Data of [`AgentCommand::ClearExecution`].
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClearExecution {
    /// The trade that may be executed.
    pub trade_id: AggregateId,
    /// What authorized it.
    pub authority: Identifier,
}

impl AgentCommand<RawText> {
    /// The commands by name.
    pub const NAMES: &'static str = "register, define, record_thought, transition, observe_market, \
                                     start_task, finish_task, clear_execution";

    pub(crate) fn parse(command: &str, data: Value) -> Result<Self, Problem> {
        Ok(match command {
            "register" => Self::Register(parse::data(data)?),
            "define" => Self::Define(Box::new(parse::data(data)?)),
            "record_thought" => Self::RecordThought(parse::data(data)?),
            "transition" => Self::Transition(parse::data(data)?),
            "observe_market" => Self::ObserveMarket(parse::data(data)?),
            "start_task" => Self::StartTask(parse::data(data)?),
            "finish_task" => Self::FinishTask(parse::data(data)?),
            "clear_execution" => Self::ClearExecution(parse::data(data)?),
            other => {
                return Err(
                    Problem::new(ErrorCode::UnknownCommand, "agents have no such command")
                        .field("command")
                        .found(other)
                        .expected(Self::NAMES),
                );
            }
        })
    }
}

impl<T> AgentCommand<T> {
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Register(_) => "register",
            Self::Define(_) => "define",
            Self::RecordThought(_) => "record_thought",
            Self::Transition(_) => "transition",
            Self::ObserveMarket(_) => "observe_market",
            Self::StartTask(_) => "start_task",
            Self::FinishTask(_) => "finish_task",
            Self::ClearExecution(_) => "clear_execution",
            Self::ReportFault(_) => "report_fault",
            Self::Recorded(_) => "recorded",
        }
    }

    pub(crate) fn try_map_text<U, E>(
        self,
        mut f: impl FnMut(T) -> Result<U, E>,
    ) -> Result<AgentCommand<U>, E> {
        Ok(match self {
            Self::Register(c) => AgentCommand::Register(c),
            Self::Define(c) => AgentCommand::Define(Box::new(Define {
                version: c.version,
                definition: c.definition,
                prompt: c.prompt.map(f).transpose()?,
                prompt_likeness: c.prompt_likeness,
            })),
            Self::RecordThought(c) => AgentCommand::RecordThought(RecordThought {
                text: f(c.text)?,
                likeness: c.likeness,
            }),
            Self::Transition(c) => AgentCommand::Transition(c),
            Self::ObserveMarket(c) => AgentCommand::ObserveMarket(c),
            Self::StartTask(c) => AgentCommand::StartTask(c),
            Self::FinishTask(c) => AgentCommand::FinishTask(c),
            Self::ClearExecution(c) => AgentCommand::ClearExecution(c),
            Self::ReportFault(c) => AgentCommand::ReportFault(c),
            Self::Recorded(events) => AgentCommand::Recorded(events),
        })
    }

    pub(crate) fn identifiers(&self) -> Vec<(&'static str, &str)> {
        match self {
            Self::Register(c) => vec![("data.role", c.role.as_str())],
            Self::Define(c) => {
                let of = |name: &'static str| move |value| (name, value);
                let parameters = c.definition.parameters.iter();
                let parameters =
                    parameters.flat_map(|(name, value)| [name.as_str(), value.as_str()]);
                let all = parameters.map(of("data.definition.parameters"));
                all.chain([("data.definition.program", c.definition.program.as_str())])
                    .collect()
            }
            Self::RecordThought(_) | Self::ReportFault(_) | Self::Recorded(_) => vec![],
            Self::Transition(c) => vec![("data.reason", c.reason.as_str())],
            Self::ObserveMarket(c) => vec![("data.instrument", c.instrument.as_str())],
            Self::StartTask(c) => vec![("data.task", c.task.as_str())],
            Self::FinishTask(c) => vec![("data.task", c.task.as_str())],
            Self::ClearExecution(c) => {
                vec![
                    ("data.trade_id", c.trade_id.as_str()),
                    ("data.authority", c.authority.as_str()),
                ]
            }
        }
    }

    /// Where the guard puts what tells whether its text equals another.
    pub const fn likeness_mut(&mut self) -> Option<&mut Vec<u8>> {
        match self {
            Self::RecordThought(c) => Some(&mut c.likeness),
            Self::Define(c) if c.prompt.is_some() => Some(&mut c.prompt_likeness),
            _ => None,
        }
    }
}
