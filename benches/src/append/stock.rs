//! The peer: `cqrs-es` and `postgres-es` as published, with their own table and the same aggregate.

use std::sync::Arc;

use anyhow::ensure;
use cqrs_es::event_sink::EventSink;
use cqrs_es::persist::PersistedEventStore;
use cqrs_es::{Aggregate, AggregateError, CqrsFramework, DomainEvent};
use postgres_es::PostgresEventRepository;
use serde::{Deserialize, Serialize};
use sovereign_aggregates::agent::{Agent, AgentCommand};
use sovereign_aggregates::{Decision, Refusal};
use sovereign_schemas::Timestamp;
use sovereign_schemas::events::AgentEvent;
use sqlx::postgres::PgPoolOptions;

use super::load::{AGGREGATES, Caller, Plan, Random, Times, Unit, drive};
use super::ours::Fixed;
use crate::protocol::Reading;

/// From the crate's `db/init.sql`.
const TABLE: &str = "create table events (
    aggregate_type text not null,
    aggregate_id text not null,
    sequence bigint check (sequence >= 0) not null,
    event_type text not null,
    event_version text not null,
    payload json not null,
    metadata json not null,
    primary key (aggregate_type, aggregate_id, sequence))";

/// More connections made it slower on two cores, fewer leave it waiting for the disk.
const CONNECTIONS_MAX: u32 = 32;

/// An agent that takes several commands as one: the peer gets one transaction for a unit.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Burst(Agent);

/// The events as a user of the stock crates writes them down: our texts are read from Avro only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Event {
    Registered { role: String },
    Thought { text: String },
}

impl DomainEvent for Event {
    fn event_type(&self) -> String {
        match self {
            Self::Registered { .. } => "AgentRegistered".to_owned(),
            Self::Thought { .. } => "ThoughtRecorded".to_owned(),
        }
    }

    fn event_version(&self) -> String {
        "1".to_owned()
    }
}

impl Aggregate for Burst {
    const TYPE: &'static str = "agent";
    type Command = Vec<AgentCommand>;
    type Event = Event;
    type Error = Refusal;
    type Services = Decision;

    async fn handle(
        &mut self,
        commands: Vec<AgentCommand>,
        decision: &Decision,
        sink: &EventSink<Self>,
    ) -> Result<(), Refusal> {
        for command in commands {
            for event in self.0.decide(command, decision)? {
                let event = match event {
                    AgentEvent::AgentRegistered(e) => Event::Registered { role: e.role },
                    AgentEvent::ThoughtRecorded(e) => Event::Thought {
                        text: e.text.as_plain().unwrap_or_default().to_owned(),
                    },
                    _ => continue,
                };
                sink.write(event, self).await;
            }
        }
        Ok(())
    }

    fn apply(&mut self, event: Event) {
        match event {
            Event::Registered { role } => self.0.role = Some(role),
            Event::Thought { .. } => self.0.thoughts += 1,
        }
    }
}

type Framework = CqrsFramework<Burst, PersistedEventStore<PostgresEventRepository, Burst>>;

struct Sender {
    framework: Arc<Framework>,
    fixed: Arc<Fixed>,
}

impl Caller for Sender {
    async fn unit(&mut self, unit: Unit, random: &mut Random) -> anyhow::Result<usize> {
        let commands: Vec<AgentCommand> = (0..unit.events)
            .map(|n| self.fixed.command(unit.first && n == 0, random))
            .collect();
        let id = self.fixed.ids[unit.aggregate].as_str();
        match self.framework.execute(id, commands).await {
            Ok(()) => Ok(unit.events),
            // two callers at one aggregate: the loser has caused nothing
            Err(AggregateError::AggregateConflict) => Ok(0),
            Err(error) => Err(anyhow::anyhow!("{error}")),
        }
    }
}

pub(crate) async fn run(
    database: &str,
    fixed: &Arc<Fixed>,
    in_flight: usize,
    times: Times,
) -> anyhow::Result<Reading> {
    let pool = PgPoolOptions::new()
        .max_connections(CONNECTIONS_MAX.min(in_flight as u32))
        .connect(database)
        .await?;
    sqlx::query(TABLE).execute(&pool).await?;
    let decision = Decision::new(fixed.ids[0].clone(), Timestamp(0), fixed.actor.clone());
    let store = PersistedEventStore::new_event_store(PostgresEventRepository::new(pool.clone()));
    let framework = Arc::new(CqrsFramework::new(store, Vec::new(), decision));
    // it takes no expected sequence, so conflicts are only those that happen
    let plan = Plan::new(AGGREGATES, 0);
    let callers = (0..in_flight)
        .map(|_| Sender {
            framework: Arc::clone(&framework),
            fixed: Arc::clone(fixed),
        })
        .collect();
    let done = drive(&plan, times, callers).await?;
    let stored: i64 = sqlx::query_scalar("select count(*) from events")
        .fetch_one(&pool)
        .await?;
    ensure!(
        stored.cast_unsigned() == done.events,
        "{} events were acknowledged, {stored} are stored",
        done.events
    );
    pool.close().await;
    Ok(done.reading())
}
