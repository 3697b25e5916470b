//! Agents that come by HTTP: the same door as everybody's, behind the list of what an agent may ask
//! for; and what they are told.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use lru::LruCache;
use sovereign_aggregates::acting::{self, Granted};
use sovereign_console::AgentSource;
use sovereign_event_store::{Filter, LedgerReader, RawCommand};
use sovereign_schemas::events::{ApprovalEvent, TradeEvent};
use sovereign_schemas::{
    AggregateId, AggregateType, ErrorCode, Identifier, Outcome, Position, Problem, RecordedEvent,
    Status,
};

use super::gateway::Door;

/// Agents, intents and approvals of which it is known whose they are. That never changes.
const OWNERS_MAX: NonZeroUsize = NonZeroUsize::new(65_536).unwrap();
/// Events that are looked through at once; as many owners may have to be read.
const LOOKED_MAX: usize = 256;

/// An aggregate by type and id.
type Key = (AggregateType, String);

/// Agents from outside, over the ledger.
pub(super) struct Acting {
    door: Arc<Door>,
    /// Under the role of the API.
    reader: LedgerReader,
    owners: Mutex<LruCache<Key, String>>,
}

impl Acting {
    pub(super) fn new(door: Arc<Door>, reader: LedgerReader) -> Self {
        Self {
            door,
            reader,
            owners: Mutex::new(LruCache::new(OWNERS_MAX)),
        }
    }

    fn owners(&self) -> MutexGuard<'_, LruCache<Key, String>> {
        self.owners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps whose the aggregate is, if this is the event that says so.
    fn note(&self, event: &RecordedEvent) {
        if let Some((key, owner)) = owner_in(event) {
            self.owners().put(key, owner);
        }
    }

    /// Whose these are; what nobody owns is left out.
    async fn owners_of(&self, mut keys: Vec<Key>) -> Result<BTreeMap<Key, String>, Problem> {
        keys.sort();
        keys.dedup();
        let mut found = BTreeMap::new();
        keys.retain(|key| match self.owners().get(key).cloned() {
            Some(owner) => found.insert(key.clone(), owner).is_some(),
            None => true,
        });
        if keys.is_empty() {
            return Ok(found);
        }
        let first = self.reader.read_first(&keys).await;
        for event in first.map_err(|e| e.problem())?.iter().flatten() {
            self.note(event);
            found.extend(owner_in(event));
        }
        Ok(found)
    }

    async fn owner(&self, kind: AggregateType, id: &str) -> Result<Option<String>, Problem> {
        let mut found = self.owners_of(vec![(kind, id.to_owned())]).await?;
        Ok(found.pop_first().map(|(_, owner)| owner))
    }

    async fn may(&self, agent: &Identifier, raw: &RawCommand) -> Result<(), Problem> {
        let own = self.owner(AggregateType::Agent, agent.as_str()).await?;
        if own.is_none() {
            return Err(
                Problem::new(ErrorCode::NotFound, "no such agent; register it first")
                    .field("id")
                    .found(agent.as_str())
                    .remedy(
                        "let an operator send the command register of the aggregate agent for it; \
                 docs/AGENTS.md has the line",
                    ),
            );
        }
        let as_aggregate: AggregateId = agent.as_str().parse().map_err(|_| {
            let message = "an agent's id is no id of an aggregate";
            Problem::new(ErrorCode::Internal, message)
        })?;
        if acting::check(&as_aggregate, &raw.aggregate_id, &raw.command)? == Granted::Yes {
            return Ok(());
        }
        let proposer = self
            .owner(AggregateType::Trade, raw.aggregate_id.as_str())
            .await?;
        if proposer.as_deref() == Some(agent.as_str()) {
            return Ok(());
        }
        Err(acting::not_its_intent())
    }

    /// For each of these events whether it tells the agent something.
    async fn tell(
        &self,
        agent: &Identifier,
        events: impl Iterator<Item = &RecordedEvent> + Clone + Send,
    ) -> Result<Vec<bool>, Problem> {
        let mut keys = Vec::new();
        for event in events.clone() {
            self.note(event);
            if let Told::Owner(key) = told_of(event) {
                keys.push(key);
            }
        }
        let owners = self.owners_of(keys).await?;
        let tells = |event: &RecordedEvent| match told_of(event) {
            Told::Itself => event.header.aggregate_id == agent.as_str(),
            Told::Owner(key) => owners.get(&key).is_some_and(|own| own == agent.as_str()),
            Told::Nobody => false,
        };
        Ok(events.map(tells).collect())
    }
}

/// Whose the aggregate of this event is, if it is the one that says so.
fn owner_in(event: &RecordedEvent) -> Option<(Key, String)> {
    let id = event.header.aggregate_id.clone();
    match event.header.event_type.as_ref() {
        "AgentRegistered" => Some(((AggregateType::Agent, id.clone()), id)),
        "TradeProposed" => match event.decode::<TradeEvent>() {
            Ok(TradeEvent::TradeProposed(e)) => Some(((AggregateType::Trade, id), e.agent_id)),
            _ => None,
        },
        "ApprovalRequested" => match event.decode::<ApprovalEvent>() {
            Ok(ApprovalEvent::ApprovalRequested(e)) => {
                Some(((AggregateType::Approval, id), e.on_behalf_of?))
            }
            _ => None,
        },
        _ => None,
    }
}

/// Whom an event tells something about what he asked for.
enum Told {
    /// The agent that it is an event of.
    Itself,
    /// The agent whose intent, or whose request, this is.
    Owner(Key),
    Nobody,
}

fn told_of(event: &RecordedEvent) -> Told {
    let header = &event.header;
    let owner = |kind| Told::Owner((kind, header.aggregate_id.clone()));
    match (header.aggregate_type.as_ref(), header.event_type.as_ref()) {
        ("trade", _) => owner(AggregateType::Trade),
        // who said yes, and who tried to, is for auditors
        (
            "approval",
            "ApprovalRequested" | "ApprovalGranted" | "ApprovalDenied" | "ApprovalExpired",
        ) => owner(AggregateType::Approval),
        // what it says itself it knows
        ("agent", "ThoughtRecorded" | "MarketObserved" | "TaskStarted" | "TaskFinished") => {
            Told::Nobody
        }
        ("agent", _) => Told::Itself,
        _ => Told::Nobody,
    }
}

#[async_trait]
impl AgentSource for Acting {
    async fn submit(&self, agent: &Identifier, line: Bytes) -> Outcome {
        let (id, parsed) = self.door.gate.parse(&line);
        let allowed = match parsed {
            Ok(raw) => self.may(agent, &raw).await.map(|()| raw),
            Err(problem) => Err(problem),
        };
        let mut outcome = match allowed {
            Ok(raw) => self.door.run(raw).await,
            Err(problem) if problem.code.exit_code() == 4 => {
                Outcome::failed(Status::Refused, problem)
            }
            Err(problem) => Outcome::failed(Status::Invalid, problem),
        };
        if id.is_some() {
            outcome.command_id = id;
        }
        outcome
    }

    async fn decisions(
        &self,
        agent: &Identifier,
        after: Position,
        limit: usize,
    ) -> Result<(Vec<RecordedEvent>, Position), Problem> {
        let around = Filter {
            around_agent: Some(agent.to_string()),
            ..Filter::default()
        };
        // of many agents' events few are this one's, so more are looked through than are wanted
        let read = self.reader.read_filtered(after, LOOKED_MAX, &around).await;
        let (mut found, mut reached) = read.map_err(|e| e.problem())?;
        let mut tells = self.tell(agent, found.iter()).await?.into_iter();
        found.retain(|_| tells.next() == Some(true));
        if found.len() > limit {
            found.truncate(limit);
            reached = found.last().map_or(reached, RecordedEvent::position);
        }
        Ok((found, reached))
    }

    async fn of_interest(
        &self,
        agent: &Identifier,
        mut events: Vec<Arc<RecordedEvent>>,
    ) -> Result<Vec<Arc<RecordedEvent>>, Problem> {
        let tells = self.tell(agent, events.iter().map(AsRef::as_ref)).await?;
        let mut tells = tells.into_iter();
        events.retain(|_| tells.next() == Some(true));
        Ok(events)
    }
}
