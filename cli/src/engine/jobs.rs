//! Jobs: the ledger as workers and the feeder see it, and what the API offers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use serde_json::{Map, Value, json};
use sovereign_aggregates::AnyCommand;
use sovereign_console::JobService;
use sovereign_event_store::{JobQueueStore, JobRow, QUEUE_NAMES, RawCommand};
use sovereign_jobs::{JobLedger, JobRequest, Reveal, name_of, numbered, view};
use sovereign_schemas::{
    AggregateId, AggregateType, CommandContext, Departments, ErrorCode, Identifier, Outcome,
    Problem, RecordedEvent, Status, Text, Timestamp, Uuid,
};

use super::gateway::Door;
use super::schedules;

/// Events of a job that are read at once.
const PAGE: usize = 1_000;
/// Most events of one job that are read: far more than its effects can have.
const EVENTS_MAX: usize = 200_000;
/// Numbers that are tried behind a name, before luck is.
const NUMBERS_MAX: u64 = 64;
/// Names whose next number is remembered.
const NAMES_MAX: usize = 10_000;

#[async_trait]
impl Reveal for Door {
    async fn reveal(&self, text: &Text) -> Result<String, Problem> {
        let keys = self.gate.keys();
        keys.reveal(text).await.map_err(|e| e.problem())
    }
}

#[async_trait]
impl JobLedger for Door {
    async fn events(&self, job: &AggregateId) -> Result<Vec<RecordedEvent>, Problem> {
        let reader = self.ledger.reader();
        let mut all: Vec<RecordedEvent> = Vec::new();
        loop {
            let after = all.last().map_or(0, |e| e.header.sequence);
            let page = reader
                .read_aggregate(AggregateType::Job, job.as_str(), after, PAGE)
                .await
                .map_err(|e| e.problem())?;
            let full = page.len() >= PAGE && all.len() < EVENTS_MAX;
            all.extend(page);
            if !full {
                return Ok(all);
            }
        }
    }

    fn scrub(&self, text: &str) -> String {
        self.gate.scrub(text)
    }

    async fn submit(&self, request: JobRequest) -> Outcome {
        let raw = RawCommand {
            aggregate_id: request.job,
            command: AnyCommand::Job(request.command),
            context: request.context,
            expected_sequence: None,
            subject: request.subject,
            source: None,
        };
        self.run(raw).await
    }
}

/// What the API offers of jobs.
pub(crate) struct Jobs {
    door: Arc<Door>,
    queue: JobQueueStore,
    departments: Departments,
    /// The next number behind a name.
    numbers: Mutex<HashMap<String, u64>>,
}

/// A submission that was understood.
struct Wanted {
    command: AnyCommand<sovereign_schemas::RawText>,
    context: CommandContext,
    after: Vec<AggregateId>,
    id: Option<AggregateId>,
    unique: Option<String>,
    name: String,
}

fn field_of(mut problem: Problem) -> Problem {
    // callers write no "data"
    problem.field = problem.field.map(|f| match f.strip_prefix("data.") {
        Some("unique_key") => "unique".to_owned(),
        Some(rest) => rest.to_owned(),
        None => f,
    });
    problem
}

fn text_of(object: &mut Map<String, Value>, field: &str) -> Result<Option<String>, Problem> {
    match object.remove(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(
            Problem::new(ErrorCode::WrongType, "field has the wrong type")
                .field(field)
                .expected("a string"),
        ),
    }
}

fn parsed<T: std::str::FromStr<Err = sovereign_schemas::IdError>>(
    field: &str,
    text: Option<String>,
) -> Result<Option<T>, Problem> {
    let parse = |text: String| {
        text.parse::<T>()
            .map_err(|e| Problem::new(ErrorCode::InvalidId, e.to_string()).field(field))
    };
    text.map(parse).transpose()
}

/// `"job"`, or `{"job": …, "verdict": "green"}`.
fn dependency(value: &Value) -> Result<AggregateId, Problem> {
    let wrong = || {
        Problem::new(ErrorCode::WrongType, "is no job to wait for")
            .field("after")
            .expected("a job's id, or {\"job\": \"…\", \"verdict\": \"green\"}")
    };
    let id = match value {
        Value::String(id) => id,
        Value::Object(object) => {
            let green = object.get("verdict").is_none_or(|v| v == "green");
            let known = object.keys().all(|k| k == "job" || k == "verdict");
            let id = object.get("job").and_then(Value::as_str);
            return match id {
                Some(id) if green && known => id.parse().map_err(|_| wrong()),
                _ => Err(wrong()),
            };
        }
        _ => return Err(wrong()),
    };
    id.parse().map_err(|_| wrong())
}

impl Jobs {
    pub(crate) fn new(door: Arc<Door>, queue: JobQueueStore, departments: Departments) -> Self {
        Self {
            door,
            queue,
            departments,
            numbers: Mutex::default(),
        }
    }

    fn understand(&self, wanted: Value, actor: &str) -> Result<Wanted, Problem> {
        let Value::Object(mut object) = wanted else {
            return Err(Problem::new(ErrorCode::MalformedJson, "not a JSON object"));
        };
        let kind = object.get("kind").and_then(Value::as_str);
        let kind = kind.map(str::to_owned).ok_or_else(|| {
            Problem::new(ErrorCode::MissingField, "field is missing").field("kind")
        })?;
        let arguments = object.remove("arguments").ok_or_else(|| {
            Problem::new(ErrorCode::MissingField, "field is missing").field("arguments")
        })?;
        let text = arguments.to_string();
        let (_, planned) = sovereign_jobs::arguments(&kind, &text)?;
        if self.door.gate.scrub(&text) != text {
            let message = "the arguments hold what looks like a secret or personal data";
            return Err(Problem::new(ErrorCode::SensitiveIdentifier, message)
                .field("arguments")
                .remedy("leave it out; secrets of tools are named in their section and read by the worker"));
        }
        let id = parsed("id", text_of(&mut object, "id")?)?;
        let name: Option<Identifier> = parsed("name", text_of(&mut object, "name")?)?;
        let unique: Option<Identifier> = parsed("unique", text_of(&mut object, "unique")?)?;
        let after: Vec<AggregateId> = match object.remove("after") {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(all)) => all.iter().map(dependency).collect::<Result<_, _>>()?,
            Some(other) => vec![dependency(&other)?],
        };
        if let Some(queue) = text_of(&mut object, "queue")? {
            object.insert("queue".to_owned(), json!(queue.to_uppercase()));
        }
        let department = text_of(&mut object, "department")?;
        if object.contains_key("planned") || object.contains_key("unique_key") {
            return Err(Problem::new(ErrorCode::UnknownField, "no such field"));
        }
        object.insert("arguments".to_owned(), json!(text));
        object.insert("planned".to_owned(), json!(planned));
        object.insert("after".to_owned(), json!(after));
        object.insert("unique_key".to_owned(), json!(unique));
        let command = AnyCommand::parse("job", "submit", object.into()).map_err(field_of)?;
        let actor: Identifier = actor
            .parse()
            .map_err(|_| Problem::new(ErrorCode::InvalidId, "is no actor").field("actor"))?;
        let department = match department {
            Some(name) => self.departments.find(&name)?.id,
            None => command.default_department(),
        };
        Ok(Wanted {
            command,
            context: CommandContext::fresh(actor, department),
            after,
            id,
            unique: unique.map(|u| u.to_string()),
            name: name.map_or(kind, |n| n.to_string()),
        })
    }

    /// A job waits only for what is in the ledger.
    async fn dependencies(&self, after: &[AggregateId]) -> Result<(), Problem> {
        for id in after {
            if self
                .queue
                .find(id.as_str())
                .await
                .is_ok_and(|j| j.is_some())
            {
                continue;
            }
            if self.door.events(id).await?.is_empty() {
                return Err(
                    Problem::new(ErrorCode::JobDependency, "no such job to wait for")
                        .field("after")
                        .found(id.as_str()),
                );
            }
        }
        Ok(())
    }

    /// Submits under one id; false if that is taken.
    async fn try_as(&self, wanted: &Wanted, id: &AggregateId) -> Result<bool, Problem> {
        let raw = RawCommand {
            aggregate_id: id.clone(),
            command: wanted.command.clone(),
            context: CommandContext {
                command_id: Uuid::now_v7(),
                ..wanted.context.clone()
            },
            expected_sequence: None,
            subject: None,
            source: None,
        };
        let outcome = self.door.run(raw).await;
        match (outcome.status, outcome.error) {
            (Status::Accepted | Status::Duplicate, _) => Ok(true),
            (_, Some(problem)) if problem.code == ErrorCode::AlreadyExists => Ok(false),
            (_, Some(problem)) => Err(field_of(problem)),
            (_, None) => Err(Problem::new(
                ErrorCode::Internal,
                "the ledger gave no reason",
            )),
        }
    }

    async fn named(&self, wanted: &Wanted) -> Result<AggregateId, Problem> {
        let base = name_of(&wanted.name, Timestamp::now());
        let bad = || Problem::new(ErrorCode::InvalidId, "is no part of an id").field("name");
        for _ in 0..NUMBERS_MAX {
            let id = numbered(&base, self.number(&base)).ok_or_else(bad)?;
            if self.try_as(wanted, &id).await? {
                return Ok(id);
            }
        }
        // other engines have had all of them
        let id: AggregateId = format!("{base}_{}", luck()).parse().map_err(|_| bad())?;
        self.try_as(wanted, &id).await?;
        Ok(id)
    }

    fn number(&self, base: &str) -> u64 {
        let mut numbers = self.numbers.lock().unwrap_or_else(PoisonError::into_inner);
        if numbers.len() >= NAMES_MAX {
            numbers.clear();
        }
        let next = numbers.entry(base.to_owned()).or_insert(0);
        *next += 1;
        *next
    }

    /// A job under a unique key: the one that is not ended, or a new one. Its id follows from the
    /// key, so two who submit at once meet at the same id, and the ledger lets one of them.
    async fn unique(&self, wanted: &Wanted, key: &str) -> Result<(AggregateId, bool), Problem> {
        let newest = self.queue.newest_of(key).await.map_err(|e| e.problem())?;
        let of = |row: &JobRow| match row.job_id.strip_prefix(key) {
            Some("") => Some(1),
            Some(rest) => rest.strip_prefix('_')?.parse::<u64>().ok(),
            None => None,
        };
        let first = newest.as_ref().and_then(of).unwrap_or(1);
        for number in first..first.saturating_add(NUMBERS_MAX) {
            let id = numbered(key, number)
                .ok_or_else(|| Problem::new(ErrorCode::InvalidId, "is too long").field("unique"))?;
            if self.try_as(wanted, &id).await? {
                return Ok((id, true));
            }
            let there = view(id.as_str(), &self.door.events(&id).await?)?;
            let there = there.unwrap_or_default();
            if there["unique"] == key && there.get("ended_at").is_none() {
                return Ok((id, false));
            }
        }
        Err(Problem::new(ErrorCode::Busy, "too many jobs of this key").field("unique"))
    }

    async fn found(&self, id: &str) -> Result<(AggregateId, Value), Problem> {
        let none = || Problem::new(ErrorCode::NotFound, "no such job").field("id");
        let job: AggregateId = id.parse().map_err(|_| none())?;
        let found = view(id, &self.door.events(&job).await?)?;
        found.map(|found| (job, found)).ok_or_else(none)
    }
}

/// Eight hexadecimal digits that nobody else will have.
fn luck() -> String {
    let id = Uuid::now_v7().simple().to_string();
    // the last digits are random
    id[24..].to_owned()
}

#[async_trait]
impl JobService for Jobs {
    async fn submit(&self, wanted: Value, actor: &str) -> Result<Value, Problem> {
        let wanted = self.understand(wanted, actor)?;
        self.dependencies(&wanted.after).await?;
        let (id, created) = match (&wanted.id, &wanted.unique) {
            (Some(id), _) => {
                if !self.try_as(&wanted, id).await? {
                    let message = "the job was submitted before";
                    return Err(Problem::new(ErrorCode::AlreadyExists, message)
                        .field("id")
                        .found(id.as_str()));
                }
                (id.clone(), true)
            }
            (None, Some(key)) => self.unique(&wanted, key).await?,
            (None, None) => (self.named(&wanted).await?, true),
        };
        Ok(json!({ "job_id": id, "created": created }))
    }

    async fn list(&self, after: u64, limit: u32, all: bool) -> Result<Value, Problem> {
        let limit = limit as usize;
        let rows = self.queue.list(after, limit, all).await;
        let rows = rows.map_err(|e| e.problem())?;
        let next = rows.last().filter(|_| rows.len() == limit);
        let next = next.map(|row| row.position);
        Ok(json!({ "jobs": rows, "next": next }))
    }

    async fn show(&self, id: &str) -> Result<Value, Problem> {
        Ok(self.found(id).await?.1)
    }

    async fn command(
        &self,
        id: &str,
        command: &str,
        data: Value,
        actor: &str,
    ) -> Result<Value, Problem> {
        let named = data.get("approval_id").is_some();
        let parsed = AnyCommand::parse("job", command, data).map_err(field_of)?;
        // nothing is left behind of a command to an unknown id
        let (job, _) = self.found(id).await?;
        let actor: Identifier = actor
            .parse()
            .map_err(|_| Problem::new(ErrorCode::InvalidId, "is no actor").field("actor"))?;
        let context = CommandContext::fresh(actor.clone(), parsed.default_department());
        let raw = RawCommand {
            aggregate_id: job.clone(),
            command: parsed,
            context,
            expected_sequence: None,
            subject: None,
            source: None,
        };
        let outcome = self.door.run(raw).await;
        match outcome.error {
            Some(problem) if problem.code == ErrorCode::ApprovalRequired && !named => {
                let events = self.door.events(&job).await?;
                let asked = self.door.ask(&job, command, &events, &actor, problem).await;
                return Err(asked.unwrap_or_else(field_of));
            }
            Some(problem) => return Err(field_of(problem)),
            None => {}
        }
        self.show(id).await
    }

    async fn queues(&self) -> Result<Value, Problem> {
        let queues = self.queue.queues().await.map_err(|e| e.problem())?;
        Ok(json!({ "queues": queues }))
    }

    async fn schedules(&self) -> Result<Value, Problem> {
        schedules::listed(&self.door, &self.queue).await
    }

    async fn pause(&self, queue: &str, by: Option<&str>) -> Result<Value, Problem> {
        let number = QUEUE_NAMES.iter().position(|name| *name == queue);
        let number = number.and_then(|n| u8::try_from(n).ok()).ok_or_else(|| {
            Problem::new(ErrorCode::NotFound, "no such queue")
                .field("queue")
                .found(queue)
                .expected("high, default or low")
        })?;
        let done = match by {
            Some(by) => self.queue.pause(number, by).await,
            None => self.queue.resume(number).await,
        };
        done.map_err(|e| e.problem())?;
        self.queues().await
    }
}
