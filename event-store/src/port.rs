//! What the ledger needs of a database, of a clock and of a source of ids.
//!
//! Everything that decides, batches, recovers, flushes and follows works over [`Database`]; the one
//! in production is PostgreSQL (`Ledger::open`). A simulated one that keeps the promises written
//! here runs the real appender: `Ledger::open_on(Arc::new(database), options)`, on a runtime with
//! one thread and paused time, with `options.clock` set to a simulated [`Clock`]. Nothing on that
//! path reads another clock, makes another id, or chooses at random.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use sovereign_schemas::chain::Head;
use sovereign_schemas::{
    AggregateType, DepartmentId, LogError, Position, Problem, RecordedEvent, Timestamp, Uuid,
};

use crate::StoreError;
pub use crate::clock::SystemClock;

/// Moments and ids of events.
pub trait Clock: Send + Sync + fmt::Debug {
    /// Now.
    fn now(&self) -> Timestamp;
    /// A fresh id, later than all before it.
    fn event_id(&self) -> Uuid;
}

/// Names one aggregate.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AggregateKey {
    /// Its kind.
    pub aggregate_type: AggregateType,
    /// Its id.
    pub id: String,
}

/// A refusal to remember.
#[derive(Debug, Clone)]
pub struct Refused {
    /// Of which command.
    pub command_id: Uuid,
    /// Why.
    pub problem: Problem,
    /// When it was decided.
    pub at: Timestamp,
}

/// What one transaction does, all or nothing: it moves the head, and adds rows and refusals.
#[derive(Debug, Clone)]
pub struct Transaction {
    /// Where the head row must stand, position and hash.
    pub before: Head,
    /// Where it stands afterwards; the same as `before` if there is no event.
    pub after: Head,
    /// The events, in order of position. All events of one command follow each other.
    pub events: Vec<Arc<RecordedEvent>>,
    /// Refusals to remember.
    pub refusals: Vec<Refused>,
    /// Ids of the commands that were decided for it; if one of them was refused before, the
    /// transaction must not happen.
    pub decided: Vec<Uuid>,
    /// Those of them that leave no event. If one took effect before, the transaction must not
    /// happen; that of the others shows because a command id is unique among first events.
    pub without_events: Vec<Uuid>,
    /// Nobody else waits: [`Done::Committed`] has to mean durable. Only asked of a session that
    /// [`WriteSession::can_commit_durably`].
    pub durable: bool,
}

impl Transaction {
    /// One that changes nothing, at `head`.
    #[must_use]
    pub const fn at(head: Head) -> Self {
        Self {
            before: head,
            after: head,
            events: Vec::new(),
            refusals: Vec::new(),
            decided: Vec::new(),
            without_events: Vec::new(),
            durable: false,
        }
    }

    /// Whether it changes the database.
    #[must_use]
    pub fn writes(&self) -> bool {
        !self.events.is_empty() || !self.refusals.is_empty()
    }

    /// The events, each with the number of events of its command if it is the first of them, else
    /// with 0.
    pub fn rows(&self) -> impl Iterator<Item = (&RecordedEvent, u32)> {
        let events = &self.events;
        (0..events.len()).map(move |at| {
            let command_id = events[at].header.command_id;
            if at > 0 && events[at - 1].header.command_id == command_id {
                return (&*events[at], 0);
            }
            let own = events[at..]
                .iter()
                .take_while(|e| e.header.command_id == command_id);
            (&*events[at], own.count() as u32)
        })
    }
}

/// What became of a transaction.
#[derive(Debug)]
pub enum Done {
    /// It is committed: any other session sees it. It need not be durable, unless that was asked.
    Committed,
    /// Nothing happened: the head row stands elsewhere.
    HeadMoved,
    /// Nothing happened: these commands were refused before, and this is what they were told.
    RefusedBefore(Vec<(Uuid, Problem)>),
    /// Nothing happened: a command id is in the ledger, or among the refusals, already.
    Taken,
    /// Nothing happened: the database does not take these rows.
    Rejected(String),
    /// The session is unusable, and whether the transaction was committed is unknown.
    Lost(StoreError),
}

/// The session that writes. Transactions take effect in the order in which they were sent.
#[async_trait]
pub trait WriteSession: Send + fmt::Debug {
    /// How many transactions may be sent and not answered yet; at least 1.
    fn in_flight_max(&self) -> usize {
        1
    }

    /// Whether it can make a single transaction durable as it commits, which saves a lone caller the
    /// way to the flushing session.
    fn can_commit_durably(&self) -> bool {
        false
    }

    /// Starts a transaction, inside the lock if [`Self::lock`] holds it. Does not wait; whatever
    /// goes wrong is the outcome. If an earlier one does not commit, this one must not either
    /// (its `before` is then not the head).
    fn send(&mut self, transaction: &Transaction);

    /// What became of the oldest transaction without an answer. The lock, if it was held, is
    /// released with it, whatever the answer. If `in_flight_max` is more than 1, dropping this
    /// future and calling again loses nothing.
    async fn outcome(&mut self) -> Done;

    /// Locks the head row until the next transaction ends or [`Self::release`], and returns where
    /// it stands: nobody else can move it. Only while no transaction is under way.
    ///
    /// # Errors
    /// If the session is unusable.
    async fn lock(&mut self) -> Result<Head, StoreError>;

    /// Gives the lock back.
    ///
    /// # Errors
    /// If the session is unusable.
    async fn release(&mut self) -> Result<(), StoreError>;
}

/// The session that makes commits durable.
#[async_trait]
pub trait FlushSession: Send + fmt::Debug {
    /// Returns once every commit that was answered before the call is durable, those of other
    /// processes that an earlier read has seen among them.
    ///
    /// # Errors
    /// If that is not so, or unknown.
    async fn flush(&mut self) -> Result<(), StoreError>;
}

/// Names the process behind a [`WriteSession`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    /// Its number.
    pub process: i32,
    /// The name that it gave itself; unlike numbers, names do not come again.
    pub name: String,
}

/// A command that the database knows.
#[derive(Debug, Clone)]
pub enum Known {
    /// It caused `events` events, of which this is the first.
    Effective {
        /// The first.
        first: Box<RecordedEvent>,
        /// How many.
        events: u32,
    },
    /// It was refused, and no event says so.
    Refused(Box<Problem>),
}

/// A fresh pair of sessions, and what the database holds.
#[derive(Debug)]
pub struct Opened {
    /// Writes.
    pub writer: Box<dyn WriteSession>,
    /// Flushes.
    pub flusher: Box<dyn FlushSession>,
    /// The writer's process.
    pub backend: Backend,
    /// Where the ledger stands, committed.
    pub head: Head,
    /// Those of the unknown commands that took effect or were refused.
    pub known: Vec<(Uuid, Known)>,
}

/// Which events a filtered read keeps.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Of this department only.
    pub department: Option<DepartmentId>,
    /// Of this aggregate type only.
    pub aggregate_type: Option<AggregateType>,
    /// Of the aggregate with this id only.
    pub aggregate_id: Option<String>,
    /// What may concern the agent with this id: its own events, and those of all trades and
    /// approvals.
    pub around_agent: Option<String>,
}

impl Filter {
    /// Whether the event passes.
    #[must_use]
    pub fn passes(&self, event: &RecordedEvent) -> bool {
        let header = &event.header;
        self.department.is_none_or(|d| d == header.department)
            && self
                .aggregate_type
                .is_none_or(|t| t.as_str() == header.aggregate_type)
            && self
                .aggregate_id
                .as_ref()
                .is_none_or(|id| *id == header.aggregate_id)
            && self
                .around_agent
                .as_ref()
                .is_none_or(|agent| match header.aggregate_type.as_ref() {
                    "trade" | "approval" => true,
                    kind => kind == "agent" && *agent == header.aggregate_id,
                })
    }
}

/// The database of one ledger. All reads see what is committed, durable or not.
#[async_trait]
pub trait Database: Send + Sync + fmt::Debug {
    /// Ends the transaction of the `previous` session, should it hang on; then, once no transaction
    /// of it can still become committed, looks where the ledger stands and which of the `unknown`
    /// commands it knows.
    ///
    /// # Errors
    /// If the database fails; another attempt follows.
    async fn open(
        &self,
        previous: Option<&Backend>,
        unknown: &[Uuid],
    ) -> Result<Opened, StoreError>;

    /// The head, once it is durable; `durable` is known to be so already. Whatever is found and
    /// whatever makes it durable belong to one life of the server: a crash in between is an error,
    /// since it may have undone what was found.
    ///
    /// # Errors
    /// If the database fails.
    async fn head(&self, durable: Position) -> Result<Head, StoreError>;

    /// Tells this ledger from every other.
    ///
    /// # Errors
    /// If the database fails.
    async fn identity(&self) -> Result<Uuid, StoreError>;

    /// The events after `after` in order of position, at most `limit`, and the head as it stood
    /// before they were read: every event up to it is among the committed ones. Events above
    /// `durable`, which is known to be so already, are handed out once they are durable, as in
    /// [`Self::head`].
    ///
    /// # Errors
    /// If the database fails, or the first row is no event.
    async fn page(
        &self,
        after: Position,
        limit: usize,
        durable: Position,
    ) -> Result<(Vec<RecordedEvent>, Head), LogError>;

    /// The event at `position`, if there is one.
    ///
    /// # Errors
    /// If the database fails, or the row is no event.
    async fn event(&self, position: Position) -> Result<Option<RecordedEvent>, LogError>;

    /// For each wanted aggregate its events with a sequence above the given one and a position not
    /// above `up_to`, in order of sequence, at most `limit` of each.
    ///
    /// # Errors
    /// If the database fails. A row that is no event is an error in its place.
    async fn aggregates(
        &self,
        wanted: &[(AggregateKey, u64)],
        up_to: Position,
        limit: usize,
    ) -> Result<Vec<Vec<Result<RecordedEvent, LogError>>>, StoreError>;

    /// As [`Self::aggregates`], for whoever reads and does not write: all events there are, handed
    /// out once they are durable, as in [`Self::page`].
    ///
    /// # Errors
    /// If the database fails. A row that is no event is an error in its place.
    async fn histories(
        &self,
        wanted: &[(AggregateKey, u64)],
        limit: usize,
        durable: Position,
    ) -> Result<Vec<Vec<Result<RecordedEvent, LogError>>>, StoreError>;

    /// The aggregates whose first event is not above `up_to`, by type and id, after `after`, at most
    /// `limit`. The name of a type is as stored.
    ///
    /// # Errors
    /// If the database fails.
    async fn keys(
        &self,
        after: &(String, String),
        up_to: Position,
        limit: usize,
    ) -> Result<Vec<(String, String)>, StoreError>;

    /// Which of these commands took effect or were refused.
    ///
    /// # Errors
    /// If the database fails.
    async fn known(&self, command_ids: &[Uuid]) -> Result<Vec<(Uuid, Known)>, StoreError>;

    /// The events after `after` and not above `up_to` that pass the filter, at most `limit`.
    ///
    /// # Errors
    /// If the database fails, or the first row is no event.
    async fn filtered(
        &self,
        after: Position,
        up_to: Position,
        limit: usize,
        filter: &Filter,
    ) -> Result<Vec<RecordedEvent>, LogError> {
        let (mut at, mut found) = (after, Vec::new());
        while at < up_to && found.len() < limit {
            let (events, _) = self.page(at, limit, Position(u64::MAX)).await?;
            let Some(last) = events.last().map(RecordedEvent::position) else {
                break;
            };
            at = last;
            found.extend(
                events
                    .into_iter()
                    .filter(|e| e.position() <= up_to && filter.passes(e)),
            );
        }
        found.truncate(limit);
        Ok(found)
    }

    /// Starts reading the events behind `after` up to `last` ahead of whoever takes them: batches
    /// in order and without a gap, then the error that ended it if it did not come to `last`. What
    /// comes must be durable before the call. `None` if pages are as good.
    fn ahead(
        &self,
        _after: Position,
        _last: Position,
    ) -> Option<tokio::sync::mpsc::Receiver<Result<Vec<RecordedEvent>, LogError>>> {
        None
    }
}
