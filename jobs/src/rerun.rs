//! The handlers of all jobs of a log once more, with recorded sinks: they must decide again what
//! they decided then, and nothing is reached but the log.

use std::collections::HashMap;

use serde::{Deserialize as _, Serialize};
use serde_json::Value;
use sovereign_aggregates::job::effect_id;
use sovereign_effects::{Effect, EffectId, Filled, Outcome, Recording, Request};
use sovereign_schemas::events::{EffectEnd, EffectIntended, JobEvent};
use sovereign_schemas::{
    AggregateId, AggregateType, Decimal, Digest, ErrorCode, Position, Problem, RecordedEvent,
    Timestamp,
};
use sovereign_sinks::{Sink, Sinks};
use tokio_util::sync::CancellationToken;

use crate::history::json;
use crate::next::{Proposal, Reach};
use crate::{History, Reveal, Seen, handler};

/// Collects what a log holds of effects: the first pass.
#[derive(Debug, Default)]
pub struct Recorder {
    recording: Recording,
    wanted: HashMap<EffectId, Digest>,
}

impl Recorder {
    /// Takes the next event of the log.
    ///
    /// # Errors
    /// If it does not decode, or a text cannot be read.
    pub async fn take(
        &mut self,
        keys: &dyn Reveal,
        recorded: &RecordedEvent,
    ) -> Result<(), Problem> {
        if recorded.header.aggregate_type != AggregateType::Job.as_str() {
            return Ok(());
        }
        let job: AggregateId = id_of(recorded)?;
        let id = |index: i32| EffectId(effect_id(&job, u32::try_from(index).unwrap_or_default()));
        match recorded.decode::<JobEvent>().map_err(Problem::from)? {
            JobEvent::EffectIntended(e) => {
                let wanted = Effect::from_value(json(keys, &e.effect).await?)?;
                self.wanted.insert(id(e.index), wanted.digest());
            }
            JobEvent::EffectFinished(e) => {
                let result = match &e.result {
                    Some(text) => json(keys, text).await?,
                    None => Value::Null,
                };
                let outcome = match e.end {
                    EffectEnd::Done => Outcome::done(result),
                    EffectEnd::Cancelled => Outcome::Cancelled,
                    EffectEnd::Failed => Outcome::refused(problem(e.code.as_deref())),
                };
                self.insert(id(e.index), outcome);
            }
            JobEvent::EffectInDoubt(e) => {
                self.insert(id(e.index), Outcome::in_doubt(problem(Some(&e.code))));
            }
            JobEvent::EffectResolved(e) => {
                let outcome = match (e.done, &e.result) {
                    (true, Some(text)) => Outcome::done(json(keys, text).await?),
                    (true, None) => Outcome::done(Value::Null),
                    (false, _) => Outcome::Cancelled,
                };
                self.insert(id(e.index), outcome);
            }
            _ => {}
        }
        Ok(())
    }

    fn insert(&mut self, id: EffectId, outcome: Outcome) {
        // what was never intended has no digest, and stays unknown
        if let Some(wanted) = self.wanted.get(&id) {
            self.recording.insert(id, *wanted, outcome);
        }
    }

    /// Sinks that answer with what was collected.
    #[must_use]
    pub fn sinks(self) -> Sinks {
        Sinks::recorded(self.recording)
    }
}

fn problem(code: Option<&str>) -> Problem {
    let known = |c: &&ErrorCode| Some(c.as_str()) == code;
    let code = ErrorCode::ALL.iter().find(known).copied();
    Problem::new(
        code.unwrap_or(ErrorCode::TargetFailed),
        "so it was recorded",
    )
}

fn id_of(recorded: &RecordedEvent) -> Result<AggregateId, Problem> {
    let id = recorded.header.aggregate_id.parse();
    id.map_err(|_| Problem::new(ErrorCode::DecodeFailed, "a job without an id"))
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct RerunReport {
    /// Jobs of which an event was seen.
    pub jobs: u64,
    /// Effects that handlers wanted.
    pub effects: u64,
    /// Of them, those whose outcome the log does not hold: it ends before.
    pub open: u64,
    /// Ends that handlers came to.
    pub ends: u64,
    /// SHA-256 over all recorded decisions, in the order of the log.
    pub recorded: Digest,
    /// The same over what the handlers decided now.
    pub decided: Digest,
}

/// Where a handler decides otherwise than is recorded, or nothing can be said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Differs {
    /// Another decision.
    At {
        /// The recorded decision's event.
        position: Position,
        /// What is recorded there.
        expected: String,
        /// What the handler decides now.
        found: String,
    },
    /// An event or a text cannot be read.
    Unreadable(Problem),
}

impl From<Problem> for Differs {
    fn from(problem: Problem) -> Self {
        Self::Unreadable(problem)
    }
}

/// The second pass.
pub struct Rerun<'a> {
    keys: &'a dyn Reveal,
    sinks: Sinks,
    jobs: HashMap<AggregateId, History>,
    report: RerunReport,
}

impl std::fmt::Debug for Rerun<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rerun")
            .field("report", &self.report)
            .finish_non_exhaustive()
    }
}

impl<'a> Rerun<'a> {
    /// Over sinks that [`Recorder`] made of the same log.
    #[must_use]
    pub fn new(keys: &'a dyn Reveal, sinks: Sinks) -> Self {
        Self {
            keys,
            sinks,
            jobs: HashMap::new(),
            report: RerunReport::default(),
        }
    }

    /// Takes the next event of the log; lets the job's handler decide again where it is a decision.
    ///
    /// # Errors
    /// The first decision that is another one.
    pub async fn take(&mut self, recorded: &RecordedEvent) -> Result<(), Differs> {
        if recorded.header.aggregate_type != AggregateType::Job.as_str() {
            return Ok(());
        }
        let id = id_of(recorded)?;
        let event: JobEvent = recorded.decode().map_err(Problem::from)?;
        let Some(mut history) = self.jobs.remove(&id) else {
            // a range that begins in the middle of a job says nothing of it
            if matches!(event, JobEvent::JobSubmitted(_)) {
                self.report.jobs += 1;
                let read = History::read(self.keys, vec![recorded.clone()]).await?;
                self.jobs.extend(read.map(|history| (id, history)));
            }
            return Ok(());
        };
        let position = recorded.header.position;
        match &event {
            JobEvent::EffectIntended(e) => self.effect(&id, &history, e, position).await?,
            JobEvent::JobFinished(e) => {
                let result = match &e.result {
                    Some(text) => json(self.keys, text).await?,
                    None => Value::Null,
                };
                let end = format!("{} {}", e.verdict.as_str(), digest(&result));
                self.end(&id, &history, end, position)?;
            }
            JobEvent::OrderFilled(e) => {
                let index = u32::try_from(e.index).unwrap_or_default();
                let found = result_of(&history, index).map(|f| {
                    numbers(
                        f.order_id.as_str(),
                        [f.price, f.quantity, f.commission],
                        f.filled_at,
                    )
                });
                let numbers = numbers(
                    &e.order_id,
                    [e.price, e.quantity, e.commission],
                    e.filled_at,
                );
                let found = found.unwrap_or_else(|| "no fill".to_owned());
                self.compare(&id, index, numbers, found, position)?;
            }
            // the guard decided this, and it is not asked again
            JobEvent::JobFailed(e) if e.code == ErrorCode::SensitiveIdentifier.as_str() => {}
            JobEvent::JobFailed(e) => {
                self.end(&id, &history, format!("failed {}", e.code), position)?;
            }
            _ => {}
        }
        history.take(self.keys, &event).await?;
        if !history.job.status.ended() {
            self.jobs.insert(id, history);
        }
        Ok(())
    }

    async fn effect(
        &mut self,
        job: &AggregateId,
        history: &History,
        event: &EffectIntended,
        position: Position,
    ) -> Result<(), Differs> {
        let wanted = Effect::from_value(json(self.keys, &event.effect).await?)?;
        let expected = spelled(&wanted, event.compensates);
        let index = u32::try_from(event.index).unwrap_or_default();
        let decided = match decide(history) {
            Proposal::Effect {
                effect,
                compensates,
                ..
            } => {
                let request = Request::new(EffectId(effect_id(job, index)), *effect);
                let outcome = self.sinks.run(&request, &CancellationToken::new()).await;
                // another effect under the id is told apart below, where both are spelled
                let code = outcome.problem().map(|problem| problem.code);
                if code == Some(ErrorCode::NotRecorded) {
                    self.report.open += 1;
                }
                let compensates = compensates.and_then(|n| i32::try_from(n).ok());
                spelled(&request.effect, compensates)
            }
            other => end_of(&other),
        };
        self.report.effects += 1;
        self.compare(job, index, expected, decided, position)
    }

    fn end(
        &mut self,
        job: &AggregateId,
        history: &History,
        expected: String,
        position: Position,
    ) -> Result<(), Differs> {
        self.report.ends += 1;
        let decided = match decide(history) {
            Proposal::Effect {
                effect,
                compensates,
                ..
            } => spelled(&effect, compensates.and_then(|n| i32::try_from(n).ok())),
            other => end_of(&other),
        };
        self.compare(job, u32::MAX, expected, decided, position)
    }

    fn compare(
        &mut self,
        job: &AggregateId,
        index: u32,
        expected: String,
        found: String,
        position: Position,
    ) -> Result<(), Differs> {
        let chained = |before: Digest, decision: &str| {
            let (job, index) = (job.as_str().as_bytes(), index.to_be_bytes());
            Digest::of(&[&before.0, job, b"\0", &index, decision.as_bytes()])
        };
        self.report.recorded = chained(self.report.recorded, &expected);
        self.report.decided = chained(self.report.decided, &found);
        if expected == found {
            return Ok(());
        }
        Err(Differs::At {
            position,
            expected,
            found,
        })
    }

    /// What was found, at the end of the log.
    #[must_use]
    pub fn finish(self) -> RerunReport {
        self.report
    }
}

/// What the handler decides; of a kind that this build does not have, what a worker would.
fn decide(history: &History) -> Proposal {
    match handler(&history.kind) {
        // what may be repeated is not decided by handlers
        Some(handler) => history.propose(handler, &Reach::default()),
        None => Proposal::Fail(crate::next::code("unknown-kind")),
    }
}

fn digest(value: &Value) -> Digest {
    Digest::of(&[value.to_string().as_bytes()])
}

/// The result of an order as it was recorded.
fn result_of(history: &History, index: u32) -> Option<Filled> {
    match &history.effects.get(index as usize)?.seen {
        Some(Seen::Done(result)) => Filled::deserialize(result).ok(),
        _ => None,
    }
}

/// A fill as reports name it.
fn numbers(order: &str, amounts: [Decimal; 3], at: Timestamp) -> String {
    let value = serde_json::json!([order, amounts, at]);
    format!("fill {}", digest(&value))
}

/// An effect as reports name it: kind, target and digest, no content.
fn spelled(effect: &Effect, compensates: Option<i32>) -> String {
    let undoes = compensates.map_or_else(String::new, |index| format!(" undoes {index}"));
    let (kind, target) = (effect.kind(), effect.target());
    format!("effect {kind} {target} {}{undoes}", effect.digest())
}

fn end_of(proposal: &Proposal) -> String {
    match proposal {
        Proposal::Finish(verdict, result) => format!("{} {}", verdict.as_str(), digest(result)),
        Proposal::Fail(code) => format!("failed {code}"),
        Proposal::Abort => "aborted".to_owned(),
        Proposal::Again(index) => format!("effect {index} again"),
        Proposal::Retry | Proposal::Release | Proposal::Wait | Proposal::Effect { .. } => {
            "nothing".to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use serde_json::json;
    use sovereign_aggregates::Decision;
    use sovereign_aggregates::job::{Ended, How, Job, JobCommand, Start, Step, Submit, Then};
    use sovereign_schemas::avro::{self, EventGroup as _, Wire as _};
    use sovereign_schemas::events::{JobQueue, Verdict};
    use sovereign_schemas::{DepartmentId, EventHeader, Identifier, Text, Timestamp, Uuid};

    use super::*;

    struct Plain;

    #[async_trait]
    impl Reveal for Plain {
        async fn reveal(&self, text: &Text) -> Result<String, Problem> {
            Ok(text.as_plain().unwrap().to_owned())
        }
    }

    /// A plain text as a log holds it.
    fn text(words: &Value) -> Text {
        let mut datum = vec![0; 16];
        datum.push(0);
        datum.extend([0; 12]);
        avro::put_bytes(&mut datum, words.to_string().as_bytes());
        Text::take(&mut avro::Reader::new(&datum)).unwrap()
    }

    fn name(text: &str) -> Identifier {
        text.parse().unwrap()
    }

    fn random(bytes: u32) -> Value {
        json!({ "kind": "random", "bytes": bytes })
    }

    fn intend(bytes: u32) -> Then<Text> {
        Then::Effect {
            kind: name("random"),
            effect: text(&random(bytes)),
            repeatable: true,
            compensates: None,
        }
    }

    fn ended(index: u32) -> Option<Ended<Text>> {
        let result = Some(text(&json!({ "bytes": "00" })));
        let how = How::Done;
        Some(Ended {
            index,
            how,
            result,
            fill: None,
        })
    }

    /// The log of a plan of two effects, where the second that is recorded has so many bytes.
    fn log(second: u32, verdict: Verdict) -> Vec<RecordedEvent> {
        let steps = json!({ "steps": [{ "effect": random(1) }, { "effect": random(2) }] });
        let step = |told, then| {
            let attempt = 1;
            JobCommand::Step(Step {
                attempt,
                ended: told,
                then,
            })
        };
        let commands = [
            JobCommand::Submit(Submit {
                kind: name("plan"),
                queue: JobQueue::Default,
                arguments: text(&steps),
                planned: Some(2),
                run_at: None,
                after: vec![],
                unique_key: None,
                attempts_max: 3,
                backoff_ms: 1_000,
                amount: None,
                currency: None,
                schedule: None,
            }),
            JobCommand::Start(Start {
                attempt: 1,
                takes_over: false,
                worker: name("worker-1"),
                lease_ms: 10_000,
                then: intend(1),
            }),
            step(ended(0), intend(second)),
            step(
                ended(1),
                Then::Finish {
                    verdict,
                    result: Some(text(&result_of_plan())),
                },
            ),
        ];
        let id: AggregateId = "plan_1".parse().unwrap();
        let decision = Decision::new(id.clone(), Timestamp(0), name("worker"));
        let (mut job, mut events) = (Job::default(), Vec::new());
        for command in commands {
            for event in job.decide(command, &decision).unwrap() {
                job.evolve(&event);
                events.push(recorded(&id, events.len() as u64 + 1, &event));
            }
        }
        events
    }

    /// What the handler comes to after both effects.
    fn result_of_plan() -> Value {
        let steps = json!({ "steps": [{ "effect": random(1) }, { "effect": random(2) }] });
        let done = crate::Seen::Done(json!({ "bytes": "00" }));
        match handler("plan")
            .unwrap()
            .next(&steps, &[done.clone(), done])
            .unwrap()
        {
            crate::Wanted::Done { result, .. } => result,
            other => panic!("{other:?}"),
        }
    }

    fn recorded(id: &AggregateId, position: u64, event: &JobEvent) -> RecordedEvent {
        let event_type = event.event_type();
        let mut payload = Vec::new();
        event.encode(&mut payload);
        RecordedEvent {
            header: EventHeader {
                position: Position(position),
                event_id: Uuid::now_v7(),
                aggregate_type: AggregateType::Job.as_str().into(),
                aggregate_id: id.as_str().into(),
                sequence: position,
                event_type: event_type.as_str().into(),
                event_version: event_type.latest_version(),
                department: DepartmentId::ORCHESTRATOR,
                actor: "worker".into(),
                command_id: Uuid::now_v7(),
                correlation_id: Uuid::now_v7(),
                causation_id: None,
                recorded_at: Timestamp(0),
                schema_fingerprint: [0; 8],
            },
            payload: payload.into(),
            hash: Digest::ZERO,
            traceparent: None,
        }
    }

    async fn rerun(log: &[RecordedEvent]) -> Result<RerunReport, Differs> {
        let mut recorder = Recorder::default();
        for event in log {
            recorder.take(&Plain, event).await?;
        }
        let mut rerun = Rerun::new(&Plain, recorder.sinks());
        for event in log {
            rerun.take(event).await?;
        }
        Ok(rerun.finish())
    }

    #[tokio::test]
    async fn the_same_decisions_give_the_same_digest() {
        let report = rerun(&log(2, Verdict::Green)).await.unwrap();
        assert_eq!(report.recorded, report.decided);
        assert_ne!(report.decided, Digest::ZERO);
        let found = (report.jobs, report.effects, report.open, report.ends);
        assert_eq!(found, (1, 2, 0, 1));
    }

    #[tokio::test]
    async fn a_log_that_ends_early_leaves_effects_open() {
        let log = log(2, Verdict::Green);
        let cut = log
            .iter()
            .rposition(|e| &*e.header.event_type == "EffectIntended")
            .unwrap();
        let report = rerun(&log[..=cut]).await.unwrap();
        assert_eq!((report.effects, report.open, report.ends), (2, 1, 0));
    }

    #[tokio::test]
    async fn another_effect_or_verdict_is_named_with_its_position() {
        for (log, kind) in [
            (log(3, Verdict::Green), "EffectIntended"),
            (log(2, Verdict::Red), "JobFinished"),
        ] {
            let at = log.iter().rfind(|e| &*e.header.event_type == kind).unwrap();
            let Err(Differs::At {
                position,
                expected,
                found,
            }) = rerun(&log).await
            else {
                panic!("{kind} must differ");
            };
            assert_eq!(position, at.header.position, "{kind}");
            assert_ne!(expected, found, "{kind}");
        }
    }
}
