use serde::Deserialize;
use serde_json::Value;
use sovereign_effects::Filled;
use sovereign_schemas::events::{JobEvent, JobQueue, Verdict};
use sovereign_schemas::{
    AggregateId, Decimal, ErrorCode, Identifier, Problem, RawText, Text, Timestamp,
};

use crate::parse;

/// What can be asked of a job. `T` is [`RawText`] before the guard and [`Text`] after it.
///
/// Only the first five have a form in JSON: the others are a worker's or the queue's, and nobody
/// outside can send them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobCommand<T = Text> {
    /// Let it wait for a worker.
    Submit(Submit<T>),
    /// Let it run, if those have approved whom the policy asks about its amount.
    Authorize(Authorize),
    /// Let it run now, whatever it waits for: other jobs, or a moment.
    ForceStart(ForceStart),
    /// Give it up: at once if no effect was begun, else before its next effect.
    Abort(Abort),
    /// Say whether an effect happened of which nobody knew.
    Resolve(Resolve<T>),
    /// All jobs that it waited for ended Green.
    Unblock,
    /// A job that it waited for did not end Green.
    Cancel(Cancel),
    /// A worker begins an attempt.
    Start(Start<T>),
    /// A worker says what became of an effect, and what comes next.
    Step(Step<T>),
    /// The worker of this attempt is gone, and an effect of it is in doubt.
    Lose(Lose),
    /// Take these events, which were decided elsewhere. It has no form in JSON.
    Recorded(Vec<JobEvent>),
}

/// Data of [`JobCommand::Submit`].
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Submit<T> {
    /// Which handler does it, such as `plan`.
    pub kind: Identifier,
    /// How urgent it is.
    #[serde(default = "default_queue")]
    pub queue: JobQueue,
    /// What the handler is given, JSON as text, at most 256 KiB.
    pub arguments: T,
    /// How many effects it will have, at most [`super::EFFECTS_MAX`], where that is known.
    #[serde(default)]
    pub planned: Option<u32>,
    /// Not before.
    #[serde(default)]
    pub run_at: Option<Timestamp>,
    /// Jobs that must end Green first, at most [`super::AFTER_MAX`].
    #[serde(default)]
    pub after: Vec<AggregateId>,
    /// Stands for it among jobs that are not ended.
    #[serde(default)]
    pub unique_key: Option<Identifier>,
    /// How often its effects may fail in a way that is worth a retry, 1 to
    /// [`super::ATTEMPTS_MAX`].
    #[serde(default = "default_attempts")]
    pub attempts_max: u32,
    /// Pause before the first retry in milliseconds, 1 to [`super::BACKOFF_MS_MAX`]; each further
    /// one is twice as long.
    #[serde(default = "default_backoff")]
    pub backoff_ms: u32,
    /// What the policy judges, above zero.
    #[serde(default)]
    pub amount: Option<Decimal>,
    /// Currency of the amount.
    #[serde(default)]
    pub currency: Option<Identifier>,
    /// The schedule that it is a run of, due at [`Self::run_at`]. Nobody outside can say so.
    #[serde(skip)]
    pub schedule: Option<Identifier>,
}

const fn default_queue() -> JobQueue {
    JobQueue::Default
}

const fn default_attempts() -> u32 {
    5
}

const fn default_backoff() -> u32 {
    1_000
}

/// Data of [`JobCommand::Authorize`].
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Authorize {}

/// Data of [`JobCommand::ForceStart`].
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForceStart {
    /// The approval of it, where the policy asks people.
    #[serde(default)]
    pub approval_id: Option<AggregateId>,
}

/// Data of [`JobCommand::Abort`].
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Abort {
    /// Why, as a short code.
    pub reason: Identifier,
    /// The approval of it, where the policy asks people.
    #[serde(default)]
    pub approval_id: Option<AggregateId>,
}

/// Data of [`JobCommand::Resolve`].
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resolve<T> {
    /// Number of the effect, from 0.
    pub index: u32,
    /// Whether it happened. One that did not is run again.
    pub done: bool,
    /// What the target said, JSON as text; the handler sees it.
    #[serde(default = "none")]
    pub result: Option<T>,
}

const fn none<T>() -> Option<T> {
    None
}

/// Data of [`JobCommand::Cancel`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cancel {
    /// The job that it waited for.
    pub because: AggregateId,
    /// How that ended, as a short code.
    pub reason: Identifier,
}

/// Data of [`JobCommand::Start`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start<T> {
    /// One more than the attempt before: the fence.
    pub attempt: u32,
    /// Whether another worker may still think that the job is its own.
    pub takes_over: bool,
    /// Name of the worker.
    pub worker: Identifier,
    /// Others may take over when it was silent for so long.
    pub lease_ms: u32,
    /// What comes first.
    pub then: Then<T>,
}

/// Data of [`JobCommand::Step`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step<T> {
    /// Which attempt says so; only the newest may.
    pub attempt: u32,
    /// What became of the effect that it had started.
    pub ended: Option<Ended<T>>,
    /// What comes next.
    pub then: Then<T>,
}

/// What became of an effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended<T> {
    /// Its number.
    pub index: u32,
    /// How it ended.
    pub how: How,
    /// What the target said, or what was wrong, JSON.
    pub result: Option<T>,
    /// The same as numbers, of an order that is done: they are not sealed.
    pub fill: Option<Filled>,
}

/// How an effect ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum How {
    /// It happened.
    Done,
    /// It certainly did not happen.
    Failed(Identifier),
    /// It was stopped before it happened.
    Cancelled,
    /// Nobody knows.
    InDoubt(Identifier),
}

/// What a job does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Then<T> {
    /// A new effect: intended and started at once.
    Effect {
        /// What kind it is.
        kind: Identifier,
        /// The effect, JSON.
        effect: T,
        /// Whether running it again under its id is safe.
        repeatable: bool,
        /// The effect that it undoes.
        compensates: Option<u32>,
    },
    /// An effect that was intended before is started, or started again.
    Again(u32),
    /// It came to an end.
    Finish {
        /// Green or Red.
        verdict: Verdict,
        /// What it came to, JSON.
        result: Option<T>,
    },
    /// It is tried again after a pause.
    Retry,
    /// It could not be done.
    Fail(Identifier),
    /// It is given up, as somebody asked for.
    Abort,
    /// The worker gives it back; any may go on at once.
    Release,
    /// A human has to look first.
    Wait,
}

/// Data of [`JobCommand::Lose`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lose {
    /// The attempt whose worker is gone.
    pub attempt: u32,
}

impl JobCommand<RawText> {
    /// The commands by name that callers may send.
    pub const NAMES: &'static str = "submit, authorize, force_start, abort, resolve";

    pub(crate) fn parse(command: &str, data: Value) -> Result<Self, Problem> {
        Ok(match command {
            "submit" => Self::Submit(parse::data(data)?),
            "authorize" => Self::Authorize(parse::data(data)?),
            "force_start" => Self::ForceStart(parse::data(data)?),
            "abort" => Self::Abort(parse::data(data)?),
            "resolve" => Self::Resolve(parse::data(data)?),
            other => {
                return Err(
                    Problem::new(ErrorCode::UnknownCommand, "jobs have no such command")
                        .field("command")
                        .found(other)
                        .expected(Self::NAMES),
                );
            }
        })
    }
}

impl<T> Then<T> {
    fn try_map_text<U, E>(self, f: &mut impl FnMut(T) -> Result<U, E>) -> Result<Then<U>, E> {
        Ok(match self {
            Self::Effect {
                kind,
                effect,
                repeatable,
                compensates,
            } => Then::Effect {
                kind,
                effect: f(effect)?,
                repeatable,
                compensates,
            },
            Self::Finish { verdict, result } => Then::Finish {
                verdict,
                result: result.map(f).transpose()?,
            },
            Self::Again(index) => Then::Again(index),
            Self::Retry => Then::Retry,
            Self::Fail(code) => Then::Fail(code),
            Self::Abort => Then::Abort,
            Self::Release => Then::Release,
            Self::Wait => Then::Wait,
        })
    }

    fn identifiers(&self) -> Vec<(&'static str, &str)> {
        match self {
            Self::Effect { kind, .. } => vec![("data.then.kind", kind.as_str())],
            Self::Fail(code) => vec![("data.then.code", code.as_str())],
            _ => vec![],
        }
    }
}

impl<T> JobCommand<T> {
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Submit(_) => "submit",
            Self::Authorize(_) => "authorize",
            Self::ForceStart(_) => "force_start",
            Self::Abort(_) => "abort",
            Self::Resolve(_) => "resolve",
            Self::Unblock => "unblock",
            Self::Cancel(_) => "cancel",
            Self::Start(_) => "start",
            Self::Step(_) => "step",
            Self::Lose(_) => "lose",
            Self::Recorded(_) => "recorded",
        }
    }

    pub(crate) fn try_map_text<U, E>(
        self,
        mut f: impl FnMut(T) -> Result<U, E>,
    ) -> Result<JobCommand<U>, E> {
        Ok(match self {
            Self::Submit(c) => JobCommand::Submit(Submit {
                kind: c.kind,
                queue: c.queue,
                arguments: f(c.arguments)?,
                planned: c.planned,
                run_at: c.run_at,
                after: c.after,
                unique_key: c.unique_key,
                attempts_max: c.attempts_max,
                backoff_ms: c.backoff_ms,
                amount: c.amount,
                currency: c.currency,
                schedule: c.schedule,
            }),
            Self::Authorize(c) => JobCommand::Authorize(c),
            Self::ForceStart(c) => JobCommand::ForceStart(c),
            Self::Abort(c) => JobCommand::Abort(c),
            Self::Resolve(c) => JobCommand::Resolve(Resolve {
                index: c.index,
                done: c.done,
                result: c.result.map(f).transpose()?,
            }),
            Self::Unblock => JobCommand::Unblock,
            Self::Cancel(c) => JobCommand::Cancel(c),
            Self::Start(c) => JobCommand::Start(Start {
                attempt: c.attempt,
                takes_over: c.takes_over,
                worker: c.worker,
                lease_ms: c.lease_ms,
                then: c.then.try_map_text(&mut f)?,
            }),
            Self::Step(c) => {
                let ended = match c.ended {
                    None => None,
                    Some(ended) => Some(Ended {
                        index: ended.index,
                        how: ended.how,
                        result: ended.result.map(&mut f).transpose()?,
                        fill: ended.fill,
                    }),
                };
                JobCommand::Step(Step {
                    attempt: c.attempt,
                    ended,
                    then: c.then.try_map_text(&mut f)?,
                })
            }
            Self::Lose(c) => JobCommand::Lose(c),
            Self::Recorded(events) => JobCommand::Recorded(events),
        })
    }

    pub(crate) fn identifiers(&self) -> Vec<(&'static str, &str)> {
        match self {
            Self::Submit(c) => {
                let mut all = vec![("data.kind", c.kind.as_str())];
                all.extend(c.after.iter().map(|id| ("data.after", id.as_str())));
                let key = c.unique_key.as_ref();
                all.extend(key.map(|key| ("data.unique_key", key.as_str())));
                let currency = c.currency.as_ref();
                all.extend(currency.map(|currency| ("data.currency", currency.as_str())));
                all
            }
            Self::ForceStart(c) => {
                let id = c.approval_id.iter();
                id.map(|id| ("data.approval_id", id.as_str())).collect()
            }
            Self::Abort(c) => {
                let id = c.approval_id.iter();
                let id = id.map(|id| ("data.approval_id", id.as_str()));
                id.chain([("data.reason", c.reason.as_str())]).collect()
            }
            Self::Cancel(c) => vec![("data.because", c.because.as_str())],
            Self::Start(c) => {
                let mut all = vec![("data.worker", c.worker.as_str())];
                all.extend(c.then.identifiers());
                all
            }
            Self::Step(c) => {
                let mut all = c.then.identifiers();
                if let Some(How::Failed(code) | How::InDoubt(code)) =
                    c.ended.as_ref().map(|ended| &ended.how)
                {
                    all.push(("data.ended.code", code.as_str()));
                }
                let fill = c.ended.as_ref().and_then(|ended| ended.fill.as_ref());
                all.extend(fill.map(|f| ("data.ended.fill.order_id", f.order_id.as_str())));
                all
            }
            Self::Authorize(_)
            | Self::Resolve(_)
            | Self::Unblock
            | Self::Lose(_)
            | Self::Recorded(_) => vec![],
        }
    }
}
