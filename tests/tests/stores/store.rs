//! The stores under test, behind one small trait.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use cqrs_es::mem_store::MemStore;
use cqrs_es::persist::{PersistedEventStore, QueryReplay};
use cqrs_es::{AggregateError, CqrsFramework, EventEnvelope, EventStore, Query};
use postgres_es::PostgresEventRepository;
use sovereign_aggregates::agent::{Agent, AgentCommand, Register, Transition};
use sovereign_aggregates::{AnyEvent, Refusal};
use sovereign_aggregates::{CommandPort as _, CommandRequest, Decision, LedgerAggregate as _};
use sovereign_event_store::{CqrsStore, Ledger};
use sovereign_schemas::chain::{self, Head};
use sovereign_schemas::events::{AgentEvent, AgentState};
use sovereign_schemas::{
    AggregateType, CommandContext, Cursor, DepartmentId, ErrorCode, EventLog as _, IdError,
    Problem, Status, Timestamp, command_id_from_text,
};
use sqlx::{Executor as _, PgPool};

use crate::common::Database;

/// Which store, as the table names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Memory,
    Stock,
    /// The ledger through `cqrs-es`'s store trait.
    Cqrs,
    /// The ledger through its command port.
    Port,
}

/// How a store refuses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Somebody else was first.
    Conflict,
    /// It says what is wrong with the input, by a stable code.
    Refused(ErrorCode),
    /// Anything else.
    Technical(String),
}

/// An event as loaded.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Loaded {
    pub(crate) sequence: u64,
    pub(crate) event: AgentEvent,
    pub(crate) metadata: HashMap<String, String>,
}

/// One event among all: which aggregate, which of its events.
pub(crate) type Place = (String, u64);

/// What the suite needs of a store. Events are those of agents.
pub(crate) trait Store: Clone + Send + Sync + 'static {
    /// A version of an aggregate to commit on.
    type Context: Send + 'static;

    fn fresh() -> impl Future<Output = Self> + Send;
    fn remove(self) -> impl Future<Output = ()> + Send;
    fn begin(&self, id: &str) -> impl Future<Output = Result<Self::Context, Failure>> + Send;
    /// How many events it says it has committed.
    fn commit(
        &self,
        context: Self::Context,
        events: Vec<AgentEvent>,
        metadata: &[(&str, &str)],
    ) -> impl Future<Output = Result<usize, Failure>> + Send;
    fn load(&self, id: &str) -> impl Future<Output = Result<Vec<Loaded>, Failure>> + Send;
    /// Everything, by the store's own means.
    fn read_all(&self) -> impl Future<Output = Result<Vec<Place>, Failure>> + Send;
    /// A reader sees three events and dies while it takes the second; a new one carries on. What
    /// both together have taken to the end.
    fn crash_of_a_reader(&self) -> impl Future<Output = Vec<Place>> + Send;
    /// By the store's own means: whether what is stored is what was committed. `None` if it has
    /// none.
    fn verified(&self) -> impl Future<Output = Option<Result<(), String>>> + Send;
    /// Runs SQL as a superuser where the events lie.
    fn sql(&self, sql: &str) -> impl Future<Output = Result<(), String>> + Send;
    /// The table of events.
    const TABLE: &'static str;
    /// What turns the store's own protection of that table off, if it has any.
    const UNPROTECT: &'static str;
}

fn metadata_of(pairs: &[(&str, &str)]) -> HashMap<String, String> {
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    pairs.iter().map(own).collect()
}

fn failure(error: AggregateError<Refusal>) -> Failure {
    match error {
        AggregateError::AggregateConflict => Failure::Conflict,
        AggregateError::UserError(refusal) => Failure::Refused(refusal.problem.code),
        AggregateError::UnexpectedError(error) => match error.downcast_ref::<Problem>() {
            Some(problem) => Failure::Refused(problem.code),
            None => Failure::Technical(error.to_string()),
        },
        other => Failure::Technical(other.to_string()),
    }
}

fn loaded(envelope: EventEnvelope<Agent>) -> Loaded {
    Loaded {
        sequence: envelope.sequence as u64,
        event: envelope.payload,
        metadata: envelope.metadata,
    }
}

async fn commit_to<ES: EventStore<Agent, AC: Send>>(
    store: &ES,
    context: ES::AC,
    events: Vec<AgentEvent>,
    metadata: &[(&str, &str)],
) -> Result<usize, Failure> {
    let committed = store.commit(events, context, metadata_of(metadata)).await;
    committed.map(|e| e.len()).map_err(failure)
}

async fn load_from<ES: EventStore<Agent>>(store: &ES, id: &str) -> Result<Vec<Loaded>, Failure> {
    let events = store.load_events(id).await.map_err(failure)?;
    Ok(events.into_iter().map(loaded).collect())
}

/// A query that notes what it is told, and hangs at one event as a process that dies would.
#[derive(Clone)]
struct Noting {
    seen: Arc<Mutex<Vec<Place>>>,
    dies_at: Option<u64>,
}

#[async_trait]
impl Query<Agent> for Noting {
    async fn dispatch(&self, aggregate_id: &str, events: &[EventEnvelope<Agent>]) {
        for event in events {
            if self.dies_at == Some(event.sequence as u64) {
                std::future::pending::<()>().await;
            }
            let place = (aggregate_id.to_owned(), event.sequence as u64);
            self.seen.lock().unwrap().push(place);
        }
    }
}

/// Three commands through the framework; the process dies in the query of the second.
async fn framework_crash<ES>(store: impl Fn() -> ES + Send + Sync) -> Vec<Place>
where
    ES: EventStore<Agent, AC: Send>,
{
    let seen: Arc<Mutex<Vec<Place>>> = Arc::default();
    let framework = |dies_at| {
        let query = Noting {
            seen: Arc::clone(&seen),
            dies_at,
        };
        let decision = Decision::new(
            "a".parse().unwrap(),
            Timestamp(1),
            "tester".parse().unwrap(),
        );
        CqrsFramework::new(store(), vec![Box::new(query)], decision)
    };
    let to = |state| {
        AgentCommand::Transition(Transition {
            to: state,
            reason: "test".parse().unwrap(),
        })
    };
    let register = AgentCommand::Register(Register {
        role: "trader".parse().unwrap(),
    });
    let first = framework(Some(2));
    first.execute("a", register).await.unwrap();
    let second = first.execute("a", to(AgentState::Scanning));
    let cut = tokio::time::timeout(std::time::Duration::from_secs(2), second).await;
    assert!(cut.is_err(), "the process dies in the query");
    drop(first);
    let again = framework(None);
    again.execute("a", to(AgentState::Analyzing)).await.unwrap();
    seen.lock().unwrap().clone()
}

/// cqrs-es's own store for tests.
#[derive(Clone)]
pub(crate) struct Memory(MemStore<Agent>);

impl Store for Memory {
    type Context = <MemStore<Agent> as EventStore<Agent>>::AC;
    const TABLE: &'static str = "";
    const UNPROTECT: &'static str = "";

    async fn fresh() -> Self {
        Self(MemStore::default())
    }
    async fn remove(self) {}
    async fn begin(&self, id: &str) -> Result<Self::Context, Failure> {
        self.0.load_aggregate(id).await.map_err(failure)
    }
    async fn commit(
        &self,
        context: Self::Context,
        events: Vec<AgentEvent>,
        metadata: &[(&str, &str)],
    ) -> Result<usize, Failure> {
        commit_to(&self.0, context, events, metadata).await
    }
    async fn load(&self, id: &str) -> Result<Vec<Loaded>, Failure> {
        load_from(&self.0, id).await
    }
    async fn read_all(&self) -> Result<Vec<Place>, Failure> {
        Err(Failure::Technical("it has no way to".to_owned()))
    }
    async fn crash_of_a_reader(&self) -> Vec<Place> {
        framework_crash(|| self.0.clone()).await
    }
    async fn verified(&self) -> Option<Result<(), String>> {
        None
    }
    async fn sql(&self, _: &str) -> Result<(), String> {
        Err("no database".to_owned())
    }
}

/// The stock repository in a database of its own.
#[derive(Clone)]
pub(crate) struct Stock {
    database: Arc<Database>,
    pool: PgPool,
    store: Arc<PersistedEventStore<PostgresEventRepository, Agent>>,
}

/// The table as the crate's own db/init.sql makes it.
pub(crate) const STOCK_TABLE: &str = "create table events (aggregate_type text not null, \
    aggregate_id text not null, sequence bigint check (sequence >= 0) not null, \
    event_type text not null, event_version text not null, payload json not null, \
    metadata json not null, primary key (aggregate_type, aggregate_id, sequence))";

impl Store for Stock {
    type Context = cqrs_es::persist::EventStoreAggregateContext<Agent>;
    const TABLE: &'static str = "events";
    const UNPROTECT: &'static str = "";

    async fn fresh() -> Self {
        let database = Database::create().await;
        let pool = postgres_es::default_postgress_pool(&database.url).await;
        pool.execute(STOCK_TABLE).await.unwrap();
        let repository = PostgresEventRepository::new(pool.clone());
        Self {
            database: Arc::new(database),
            store: Arc::new(PersistedEventStore::new_event_store(repository)),
            pool,
        }
    }
    async fn remove(self) {
        self.pool.close().await;
        if let Some(database) = Arc::into_inner(self.database) {
            database.remove().await;
        }
    }
    async fn begin(&self, id: &str) -> Result<Self::Context, Failure> {
        self.store.load_aggregate(id).await.map_err(failure)
    }
    async fn commit(
        &self,
        context: Self::Context,
        events: Vec<AgentEvent>,
        metadata: &[(&str, &str)],
    ) -> Result<usize, Failure> {
        commit_to(&*self.store, context, events, metadata).await
    }
    async fn load(&self, id: &str) -> Result<Vec<Loaded>, Failure> {
        load_from(&*self.store, id).await
    }
    async fn read_all(&self) -> Result<Vec<Place>, Failure> {
        let seen: Arc<Mutex<Vec<Place>>> = Arc::default();
        let query = Noting {
            seen: Arc::clone(&seen),
            dies_at: None,
        };
        let repository = PostgresEventRepository::new(self.pool.clone());
        let replay = QueryReplay::<_, _, Agent>::new(repository, query);
        replay.replay_all().await.map_err(failure)?;
        let seen = seen.lock().unwrap().clone();
        Ok(seen)
    }
    async fn crash_of_a_reader(&self) -> Vec<Place> {
        framework_crash(|| {
            let repository = PostgresEventRepository::new(self.pool.clone());
            PersistedEventStore::new_event_store(repository)
        })
        .await
    }
    async fn verified(&self) -> Option<Result<(), String>> {
        None
    }
    async fn sql(&self, sql: &str) -> Result<(), String> {
        self.pool
            .execute(sql)
            .await
            .map(drop)
            .map_err(|e| e.to_string())
    }
}

/// What both ways to the ledger share.
#[derive(Clone)]
pub(crate) struct OwnDatabase {
    database: Arc<Database>,
    pub(crate) ledger: Ledger,
}

impl OwnDatabase {
    async fn fresh() -> Self {
        let database = Database::create().await;
        let ledger = database.open().await;
        Self {
            database: Arc::new(database),
            ledger,
        }
    }

    async fn remove(self) {
        self.ledger.close().await;
        if let Some(database) = Arc::into_inner(self.database) {
            database.remove().await;
        }
    }

    /// Every event, decoded.
    async fn read_after(&self, after: u64) -> Result<Vec<Place>, Failure> {
        let technical = |e: String| Failure::Technical(e);
        let mut log = self.ledger.reader().log();
        let mut cursor = Cursor::from(sovereign_schemas::Position(after));
        let mut places = Vec::new();
        loop {
            let read = log.read(cursor, 100).await;
            let (events, next) = read.map_err(|e| technical(e.to_string()))?;
            if events.is_empty() {
                return Ok(places);
            }
            for event in events {
                AnyEvent::decode(&event).map_err(|e| technical(e.to_string()))?;
                places.push((event.header.aggregate_id, event.header.sequence));
            }
            cursor = next;
        }
    }

    /// The first reader keeps where it stands with what it took, and dies with the second event.
    async fn crash_of_a_reader(&self) -> Vec<Place> {
        for command in [
            crate::common::register("a"),
            crate::common::transition("a", "SCANNING"),
            crate::common::transition("a", "ANALYZING"),
        ] {
            assert_eq!(self.ledger.send(command).await.status, Status::Accepted);
        }
        let all = self.read_after(0).await.unwrap();
        let mut taken = vec![all[0].clone()];
        taken.extend(self.read_after(1).await.unwrap());
        taken
    }

    async fn verified(&self) -> Result<(), String> {
        let mut log = self.ledger.reader().log();
        let (mut cursor, mut head) = (Cursor::default(), Head::EMPTY);
        loop {
            let read = log.read(cursor, 100).await;
            let (events, next) = read.map_err(|e| e.to_string())?;
            if events.is_empty() {
                return Ok(());
            }
            for event in &events {
                chain::advance(&mut head, event).map_err(|e| e.to_string())?;
            }
            cursor = next;
        }
    }

    async fn sql(&self, sql: &str) -> Result<(), String> {
        let mut connection = self.database.connect().await;
        let done = connection.execute(sql).await;
        done.map(drop).map_err(|e| e.to_string())
    }
}

const OWN_TABLE: &str = "ledger.events";
const OWN_UNPROTECT: &str = "alter table ledger.events disable trigger user; \
                             grant update on ledger.events to current_user;";

/// The ledger through cqrs-es's own trait.
#[derive(Clone)]
pub(crate) struct LedgerStore {
    own: OwnDatabase,
    store: CqrsStore,
}

impl Store for LedgerStore {
    type Context = <CqrsStore as EventStore<Agent>>::AC;
    const TABLE: &'static str = OWN_TABLE;
    const UNPROTECT: &'static str = OWN_UNPROTECT;

    async fn fresh() -> Self {
        let own = OwnDatabase::fresh().await;
        let store = CqrsStore::new(own.ledger.clone(), "tester".parse().unwrap());
        Self { own, store }
    }
    async fn remove(self) {
        drop(self.store);
        self.own.remove().await;
    }
    async fn begin(&self, id: &str) -> Result<Self::Context, Failure> {
        self.store.load_aggregate(id).await.map_err(failure)
    }
    async fn commit(
        &self,
        context: Self::Context,
        events: Vec<AgentEvent>,
        metadata: &[(&str, &str)],
    ) -> Result<usize, Failure> {
        commit_to(&self.store, context, events, metadata).await
    }
    async fn load(&self, id: &str) -> Result<Vec<Loaded>, Failure> {
        load_from(&self.store, id).await
    }
    async fn read_all(&self) -> Result<Vec<Place>, Failure> {
        self.own.read_after(0).await
    }
    async fn crash_of_a_reader(&self) -> Vec<Place> {
        self.own.crash_of_a_reader().await
    }
    async fn verified(&self) -> Option<Result<(), String>> {
        Some(self.own.verified().await)
    }
    async fn sql(&self, sql: &str) -> Result<(), String> {
        self.own.sql(sql).await
    }
}

/// The ledger through its command port: what agents, API and command line use.
#[derive(Clone)]
pub(crate) struct LedgerPort(OwnDatabase);

impl LedgerPort {
    fn request(
        id: &str,
        sequence: u64,
        events: Vec<AgentEvent>,
        metadata: &[(&str, &str)],
    ) -> Result<CommandRequest, Failure> {
        let bad = |_: IdError| Failure::Refused(ErrorCode::InvalidId);
        let mut context =
            CommandContext::fresh("tester".parse().unwrap(), DepartmentId::ORCHESTRATOR);
        for (name, value) in metadata {
            match *name {
                "command_id" => context.command_id = command_id_from_text(value).unwrap(),
                // a command has no other fields; the gate refuses such a line
                _ => return Err(Failure::Refused(ErrorCode::UnknownField)),
            }
        }
        Ok(CommandRequest {
            aggregate_id: id.parse().map_err(bad)?,
            command: Agent::recorded(events),
            context,
            expected_sequence: Some(sequence),
            source: None,
        })
    }
}

impl Store for LedgerPort {
    type Context = Place;
    const TABLE: &'static str = OWN_TABLE;
    const UNPROTECT: &'static str = OWN_UNPROTECT;

    async fn fresh() -> Self {
        Self(OwnDatabase::fresh().await)
    }
    async fn remove(self) {
        self.0.remove().await;
    }
    async fn begin(&self, id: &str) -> Result<Place, Failure> {
        let events = self.load(id).await?;
        Ok((id.to_owned(), events.last().map_or(0, |e| e.sequence)))
    }
    async fn commit(
        &self,
        (id, sequence): Place,
        events: Vec<AgentEvent>,
        metadata: &[(&str, &str)],
    ) -> Result<usize, Failure> {
        let request = Self::request(&id, sequence, events, metadata)?;
        let outcome = self.0.ledger.send(request).await;
        match outcome.status {
            Status::Accepted => Ok(outcome.positions.map_or(0, |(a, b)| b.0 + 1 - a.0) as usize),
            Status::Duplicate => Ok(0),
            Status::Conflict => Err(Failure::Conflict),
            _ => Err(Failure::Refused(outcome.error.unwrap().code)),
        }
    }
    async fn load(&self, id: &str) -> Result<Vec<Loaded>, Failure> {
        let bad = |_: IdError| Failure::Refused(ErrorCode::InvalidId);
        let id: sovereign_schemas::AggregateId = id.parse().map_err(bad)?;
        let reader = self.0.ledger.reader();
        let technical = |e: &dyn std::fmt::Display| Failure::Technical(e.to_string());
        let events = reader
            .read_aggregate(AggregateType::Agent, id.as_str(), 0, 10_000)
            .await
            .map_err(|e| technical(&e))?;
        let decoded = events.iter().map(|event| {
            Ok(Loaded {
                sequence: event.header.sequence,
                event: event.decode().map_err(|e| technical(&e))?,
                metadata: HashMap::from([(
                    "position".to_owned(),
                    event.header.position.to_string(),
                )]),
            })
        });
        decoded.collect()
    }
    async fn read_all(&self) -> Result<Vec<Place>, Failure> {
        self.0.read_after(0).await
    }
    async fn crash_of_a_reader(&self) -> Vec<Place> {
        self.0.crash_of_a_reader().await
    }
    async fn verified(&self) -> Option<Result<(), String>> {
        Some(self.0.verified().await)
    }
    async fn sql(&self, sql: &str) -> Result<(), String> {
        self.0.sql(sql).await
    }
}
