//! The ledger as a store of `cqrs-es`, so that its framework runs on it.
//!
//! The framework loads an aggregate, lets it handle a command, and hands the events over with the
//! version that they rest on. What the ledger adds: the version is checked where positions are
//! given, so exactly one of two wins; a command id in the metadata takes effect once; other parts of
//! the system see the events in one order.
//!
//! Three things to know:
//! - The framework's queries are called once, by the process that committed. Whatever must see
//!   every event reads the ledger ([`crate::LedgerReader::log`], [`crate::Ledger::tail`]).
//! - The framework has one [`Decision`](sovereign_aggregates::Decision) for all its commands. Make
//!   one for each command where the actor or the moment matters (approvals), or send commands
//!   through [`CommandPort`], which does.
//! - The header of an event has fields for what [`CqrsStore::METADATA`] lists, and for nothing else: other
//!   metadata is refused, not dropped.

use std::collections::HashMap;

use cqrs_es::{AggregateContext, AggregateError, EventEnvelope, EventStore};
use sovereign_aggregates::{CommandPort as _, CommandRequest, LedgerAggregate, Refusal};
use sovereign_schemas::avro::EventGroup;
use sovereign_schemas::{
    AggregateId, CommandContext, DepartmentId, ErrorCode, Identifier, Outcome, Problem,
    RecordedEvent, Status, Uuid, command_id_from_text,
};

use crate::{Ledger, StoreError};

/// Rows of one query when a history is loaded.
const PAGE_ROWS: usize = 1_000;

type Failure = AggregateError<Refusal>;

/// A [`Ledger`] seen through the store trait of `cqrs-es`. Cheap to clone.
///
/// Works for every [`LedgerAggregate`]. Ids must be [`AggregateId`]s.
#[derive(Debug, Clone)]
pub struct CqrsStore {
    ledger: Ledger,
    actor: Identifier,
    department: Option<DepartmentId>,
}

/// An aggregate as loaded, with the sequence of its last event.
#[derive(Debug)]
pub struct CqrsContext<A> {
    aggregate_id: AggregateId,
    sequence: u64,
    aggregate: A,
}

impl<A> CqrsContext<A> {
    /// Sequence of the last event that was loaded; 0 if there was none.
    #[must_use]
    pub const fn sequence(&self) -> u64 {
        self.sequence
    }
}

impl<A: LedgerAggregate> AggregateContext<A> for CqrsContext<A> {
    fn aggregate(&mut self) -> &mut A {
        &mut self.aggregate
    }
}

impl CqrsStore {
    /// Metadata that it takes: `command_id` (a UUID, or any text of 1 to 200 bytes),
    /// `correlation_id` and `causation_id` (UUIDs), `actor`, `department` (its number) and
    /// `traceparent`. Loaded events also have `event_id`, `position`, `recorded_at` and `hash`.
    pub const METADATA: [&str; 6] = [
        "command_id",
        "correlation_id",
        "causation_id",
        "actor",
        "department",
        "traceparent",
    ];

    /// A store whose events name `actor` unless their metadata names another.
    #[must_use]
    pub const fn new(ledger: Ledger, actor: Identifier) -> Self {
        Self {
            ledger,
            actor,
            department: None,
        }
    }

    /// Puts events into this department unless their metadata names another; without it, into the
    /// default one of their kind.
    #[must_use]
    pub const fn department(mut self, department: DepartmentId) -> Self {
        self.department = Some(department);
        self
    }

    /// The events after sequence `after`, at most `limit`.
    async fn events<A>(
        &self,
        id: &AggregateId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<EventEnvelope<A>>, Failure>
    where
        A: LedgerAggregate<Error = Refusal>,
    {
        let reader = self.ledger.reader();
        let mut envelopes: Vec<EventEnvelope<A>> = Vec::new();
        loop {
            let sequence = after + envelopes.len() as u64;
            let rows = PAGE_ROWS.min(limit - envelopes.len());
            let page = reader
                .read_aggregate(
                    <A::Event as EventGroup>::AGGREGATE_TYPE,
                    id.as_str(),
                    sequence,
                    rows,
                )
                .await
                .map_err(technical)?;
            let full = page.len() == rows;
            for event in page {
                let expected = after + envelopes.len() as u64;
                sovereign_schemas::chain::check_sequence(expected, &event.header).map_err(|e| {
                    unexpected(Problem::new(ErrorCode::DecodeFailed, e.to_string()))
                })?;
                envelopes.push(envelope(&event)?);
            }
            if !full || envelopes.len() == limit {
                return Ok(envelopes);
            }
        }
    }

    fn context(
        &self,
        default: DepartmentId,
        metadata: &HashMap<String, String>,
    ) -> Result<CommandContext, Problem> {
        if let Some(other) = metadata
            .keys()
            .find(|k| !Self::METADATA.contains(&k.as_str()))
        {
            return Err(
                Problem::new(ErrorCode::UnknownField, "events have no place for it")
                    .field(format!("metadata.{other}"))
                    .expected(Self::METADATA.join(", ")),
            );
        }
        let field = |name: &str| format!("metadata.{name}");
        let uuid = |name: &str| {
            let text = metadata.get(name);
            text.map(|text| Uuid::try_parse(text))
                .transpose()
                .map_err(|_| Problem::new(ErrorCode::InvalidId, "is no UUID").field(field(name)))
        };
        let command_id = match metadata.get("command_id") {
            None => Uuid::now_v7(),
            Some(text) => command_id_from_text(text).ok_or_else(|| {
                Problem::new(ErrorCode::InvalidId, "is empty or too long")
                    .field(field("command_id"))
            })?,
        };
        let actor = match metadata.get("actor") {
            None => self.actor.clone(),
            Some(actor) => actor.parse().map_err(|e: sovereign_schemas::IdError| {
                Problem::new(ErrorCode::InvalidId, e.to_string()).field(field("actor"))
            })?,
        };
        let department = match metadata.get("department") {
            None => self.department.unwrap_or(default),
            Some(number) => DepartmentId(number.parse().map_err(|_| {
                Problem::new(ErrorCode::UnknownDepartment, "is no department's number")
                    .field(field("department"))
            })?),
        };
        Ok(CommandContext {
            command_id,
            actor,
            department,
            correlation_id: uuid("correlation_id")?.unwrap_or(command_id),
            causation_id: uuid("causation_id")?,
            traceparent: metadata.get("traceparent").cloned(),
        })
    }
}

impl<A> EventStore<A> for CqrsStore
where
    A: LedgerAggregate<Error = Refusal>,
{
    type AC = CqrsContext<A>;

    async fn load_events(&self, aggregate_id: &str) -> Result<Vec<EventEnvelope<A>>, Failure> {
        self.events(&id(aggregate_id)?, 0, usize::MAX).await
    }

    async fn load_aggregate(&self, aggregate_id: &str) -> Result<CqrsContext<A>, Failure> {
        let aggregate_id = id(aggregate_id)?;
        let mut aggregate = A::default();
        let mut sequence = 0;
        for envelope in self.events::<A>(&aggregate_id, 0, usize::MAX).await? {
            sequence = envelope.sequence as u64;
            aggregate.apply(envelope.payload);
        }
        Ok(CqrsContext {
            aggregate_id,
            sequence,
            aggregate,
        })
    }

    /// Commits all events or none. A repeat of a command id returns no event: its effect is there
    /// already, and queries have been told.
    async fn commit(
        &self,
        events: Vec<A::Event>,
        context: CqrsContext<A>,
        metadata: HashMap<String, String>,
    ) -> Result<Vec<EventEnvelope<A>>, Failure> {
        if events.is_empty() {
            return Ok(Vec::new());
        }
        let count = events.len();
        let command = A::recorded(events);
        let request = CommandRequest {
            aggregate_id: context.aggregate_id.clone(),
            context: self
                .context(command.default_department(), &metadata)
                .map_err(unexpected)?,
            command,
            expected_sequence: Some(context.sequence),
            source: None,
        };
        let outcome = self.ledger.send(request).await;
        let Outcome {
            status,
            positions,
            error,
            ..
        } = outcome;
        match (status, positions, error) {
            // a refusal on record is an event like any other here: the aggregate handled the
            // command, and the event says how
            (Status::Accepted, ..) | (Status::Refused, Some(_), _) => {}
            (Status::Duplicate, ..) => return Ok(Vec::new()),
            (Status::Conflict, ..) => return Err(AggregateError::AggregateConflict),
            (_, _, Some(problem)) => return Err(of(problem)),
            (_, _, None) => {
                let problem = Problem::new(ErrorCode::Internal, "the ledger gave no reason");
                return Err(unexpected(problem));
            }
        }
        let mut committed = self
            .events::<A>(&context.aggregate_id, context.sequence, count)
            .await?;
        // the repeat of a refusal on record looks like its first time, but for its place
        let own = |e: &EventEnvelope<A>| {
            let position = e.metadata.get("position").and_then(|p| p.parse().ok());
            positions.is_some_and(|(first, last)| {
                position.is_some_and(|p: u64| (first.0..=last.0).contains(&p))
            })
        };
        committed.retain(own);
        Ok(committed)
    }
}

fn id(text: &str) -> Result<AggregateId, Failure> {
    text.parse().map_err(|e: sovereign_schemas::IdError| {
        unexpected(Problem::new(ErrorCode::InvalidId, e.to_string()).field("aggregate_id"))
    })
}

fn envelope<A>(event: &RecordedEvent) -> Result<EventEnvelope<A>, Failure>
where
    A: LedgerAggregate<Error = Refusal>,
{
    let header = &event.header;
    let payload = event.decode().map_err(|cause| {
        AggregateError::DeserializationError(Box::new(StoreError::Decode {
            position: event.position(),
            cause: cause.to_string(),
        }))
    })?;
    let mut metadata = HashMap::from(
        [
            ("command_id", header.command_id.to_string()),
            ("correlation_id", header.correlation_id.to_string()),
            ("actor", header.actor.clone()),
            ("department", header.department.to_string()),
            ("event_id", header.event_id.to_string()),
            ("position", header.position.to_string()),
            ("recorded_at", header.recorded_at.to_string()),
            ("hash", event.hash.to_string()),
        ]
        .map(|(name, value)| (name.to_owned(), value)),
    );
    let optional = [
        ("causation_id", header.causation_id.map(|id| id.to_string())),
        ("traceparent", event.traceparent.clone()),
    ];
    for (name, value) in optional {
        if let Some(value) = value {
            metadata.insert(name.to_owned(), value);
        }
    }
    Ok(EventEnvelope {
        aggregate_id: header.aggregate_id.clone(),
        // a sequence is far below 2^63
        sequence: usize::try_from(header.sequence).unwrap_or(usize::MAX),
        payload,
        metadata,
    })
}

fn unexpected(problem: Problem) -> Failure {
    AggregateError::UnexpectedError(Box::new(problem))
}

/// By who must act: nobody but time can help where the database does not answer.
fn of(problem: Problem) -> Failure {
    match problem.code {
        ErrorCode::VersionConflict => AggregateError::AggregateConflict,
        ErrorCode::Busy
        | ErrorCode::TimedOut
        | ErrorCode::DatabaseUnreachable
        | ErrorCode::DatabaseAuth
        | ErrorCode::EngineNotRunning
        | ErrorCode::DiskFull => AggregateError::DatabaseConnectionError(Box::new(problem)),
        ErrorCode::DecodeFailed => AggregateError::DeserializationError(Box::new(problem)),
        _ => unexpected(problem),
    }
}

fn technical(error: StoreError) -> Failure {
    match error.code() {
        ErrorCode::DecodeFailed | ErrorCode::VerificationDifference => {
            AggregateError::DeserializationError(Box::new(error))
        }
        _ if error.is_transient() => AggregateError::DatabaseConnectionError(Box::new(error)),
        _ => AggregateError::UnexpectedError(Box::new(error)),
    }
}
