//! Views the stock way: `GenericQuery` over `PostgresViewRepository`.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use cqrs_es::event_sink::EventSink;
use cqrs_es::persist::{GenericQuery, ViewRepository as _};
use cqrs_es::{Aggregate, DomainEvent, EventEnvelope, Query as _, View};
use postgres_es::PostgresViewRepository;
use serde::{Deserialize, Serialize};
use sqlx::Executor as _;
use sqlx::postgres::PgPoolOptions;

use super::input::Input;
use crate::protocol::Reading;
use crate::servers::BenchServers;

/// Whatever happened to whatever: the stock crates know no common log.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Anything;

/// As much of an event as the view keeps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Happened {
    event_type: String,
    position: u64,
    payload: Vec<u8>,
}

impl DomainEvent for Happened {
    fn event_type(&self) -> String {
        self.event_type.clone()
    }

    fn event_version(&self) -> String {
        "1".to_owned()
    }
}

/// Nobody commands here.
#[derive(Debug)]
pub(crate) struct Never;

impl std::fmt::Display for Never {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("never")
    }
}

impl std::error::Error for Never {}

impl Aggregate for Anything {
    const TYPE: &'static str = "anything";
    type Command = ();
    type Event = Happened;
    type Error = Never;
    type Services = ();

    async fn handle(&mut self, (): (), (): &(), _: &EventSink<Self>) -> Result<(), Never> {
        Err(Never)
    }

    fn apply(&mut self, _: Happened) {}
}

/// About what our rows hold: counts by type, first and last position, the newest payload.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Summary {
    events: u64,
    events_by_type: BTreeMap<String, u64>,
    first_position: u64,
    last_position: u64,
    last_size: usize,
}

impl Summary {
    fn take(&mut self, event: &Happened) {
        if self.events == 0 {
            self.first_position = event.position;
        }
        self.events += 1;
        *self
            .events_by_type
            .entry(event.event_type.clone())
            .or_default() += 1;
        self.last_position = event.position;
        self.last_size = event.payload.len();
    }
}

impl View<Anything> for Summary {
    fn update(&mut self, event: &EventEnvelope<Anything>) {
        self.take(&event.payload);
    }
}

type Repository = PostgresViewRepository<Summary, Anything>;

pub(crate) async fn run(
    servers: &BenchServers,
    input: &Input,
    count: usize,
) -> anyhow::Result<Reading> {
    let database = servers.database().await?;
    let pool = PgPoolOptions::new()
        .max_connections(4)
        .connect(&database)
        .await?;
    let tables = ["agent", "trade", "approval", "department"];
    let failures = Arc::new(AtomicUsize::new(0));
    let mut queries = HashMap::new();
    for name in tables {
        // as the stock init.sql has it
        let table = format!(
            "CREATE TABLE {name}_view (view_id text NOT NULL, \
             version bigint CHECK (version >= 0) NOT NULL, payload json NOT NULL, \
             PRIMARY KEY (view_id))"
        );
        pool.execute(table.as_str()).await?;
        let repository = Arc::new(Repository::new(&format!("{name}_view"), pool.clone()));
        let mut query = GenericQuery::<Repository, Summary, Anything>::new(repository);
        let failures = Arc::clone(&failures);
        query.use_error_handler(Box::new(move |_| {
            failures.fetch_add(1, Ordering::Relaxed);
        }));
        queries.insert(name, query);
    }
    let mut expected: BTreeMap<(&str, String), Summary> = BTreeMap::new();
    let started = Instant::now();
    for event in &input.events[..count] {
        let header = &event.header;
        let payload = Happened {
            event_type: header.event_type.to_string(),
            position: header.position.0,
            payload: event.payload.to_vec(),
        };
        let ids = [
            (&*header.aggregate_type, header.aggregate_id.clone()),
            ("department", header.department.to_string()),
        ];
        for (view, id) in ids {
            let view = tables
                .iter()
                .find(|t| **t == view)
                .expect("a view for each type");
            let envelope = EventEnvelope {
                aggregate_id: id.clone(),
                sequence: header.sequence as usize,
                payload: payload.clone(),
                metadata: HashMap::new(),
            };
            queries[view].dispatch(&id, &[envelope]).await;
            expected.entry((view, id)).or_default().take(&payload);
        }
    }
    let took_s = started.elapsed().as_secs_f64();
    anyhow::ensure!(
        failures.load(Ordering::Relaxed) == 0,
        "a stock query failed"
    );
    for ((view, id), summary) in &expected {
        let repository = Repository::new(&format!("{view}_view"), pool.clone());
        let found = repository.load(id).await?;
        anyhow::ensure!(found.as_ref() == Some(summary), "{view} {id} is {found:?}");
    }
    pool.close().await;
    Ok(Reading::new(count as f64 / took_s))
}
