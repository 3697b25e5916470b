use std::num::NonZeroUsize;

use lru::LruCache;
use sovereign_aggregates::AnyEvent;
use sovereign_schemas::{Outcome, Position, Problem, RecordedEvent, Status, Uuid};
use sqlx::{PgConnection, Row as _};

use crate::{StoreError, row};

/// What a command id was answered when it came first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum First {
    /// It took effect.
    Effective(Position, Position),
    /// It was refused, and an event says so.
    RefusedOnRecord(Position, Position, Box<Problem>),
    /// It was refused.
    Refused(Box<Problem>),
}

impl First {
    /// The outcome of the command that caused these events, `last` being the position of its last.
    pub(crate) fn of(first: &RecordedEvent, last: Position) -> Self {
        let refusal = AnyEvent::decode(first)
            .ok()
            .and_then(|e| e.recorded_refusal());
        match refusal {
            Some(refusal) => {
                Self::RefusedOnRecord(first.position(), last, Box::new(refusal.problem))
            }
            None => Self::Effective(first.position(), last),
        }
    }

    /// The answer to the command itself.
    pub(crate) fn answer(&self) -> Outcome {
        match self {
            Self::Effective(first, last) => {
                Outcome::effective(Status::Accepted, Some((*first, *last)))
            }
            _ => self.repeated(),
        }
    }

    /// The answer to a repeat.
    pub(crate) fn repeated(&self) -> Outcome {
        match self {
            Self::Effective(first, last) => {
                Outcome::effective(Status::Duplicate, Some((*first, *last)))
            }
            Self::RefusedOnRecord(first, last, problem) => {
                let mut outcome = Outcome::failed(Status::Refused, (**problem).clone());
                outcome.positions = Some((*first, *last));
                outcome
            }
            Self::Refused(problem) => Outcome::failed(Status::Refused, (**problem).clone()),
        }
    }
}

/// First outcomes of the newest commands, so that a repeat costs no look-up; what is not here is
/// found by the unique indexes.
#[derive(Debug)]
pub(crate) struct Recent(LruCache<Uuid, First>);

impl Recent {
    pub(crate) fn new(commands_max: usize) -> Self {
        Self(LruCache::new(
            NonZeroUsize::new(commands_max).unwrap_or(NonZeroUsize::MIN),
        ))
    }

    pub(crate) fn get(&mut self, command_id: &Uuid) -> Option<&First> {
        self.0.get(command_id)
    }

    pub(crate) fn put(&mut self, command_id: Uuid, first: First) {
        self.0.put(command_id, first);
    }

    pub(crate) fn forget(&mut self, command_id: &Uuid) {
        self.0.pop(command_id);
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

/// Which of these commands the database knows, and how they were answered.
pub(crate) async fn look_up(
    connection: &mut PgConnection,
    command_ids: &[Uuid],
) -> Result<Vec<(Uuid, First)>, StoreError> {
    let mut found = Vec::new();
    let sql = format!(
        "select {}, command_events from ledger.events \
         where command_id = any($1) and command_events > 0",
        row::COLUMNS
    );
    for row in sqlx::query(&sql)
        .bind(command_ids)
        .fetch_all(&mut *connection)
        .await?
    {
        let event = row::event(&row)?;
        let count: i32 = row.try_get("command_events")?;
        let last = Position(event.position().0 + u64::from(count.max(1).cast_unsigned()) - 1);
        found.push((event.header.command_id, First::of(&event, last)));
    }
    let refused = sqlx::query(
        "select command_id, problem::text from ledger.refusals where command_id = any($1)",
    )
    .bind(command_ids)
    .fetch_all(&mut *connection)
    .await?;
    for row in refused {
        found.push((
            row.try_get(0)?,
            First::Refused(Box::new(problem(row.try_get(1)?)?)),
        ));
    }
    Ok(found)
}

/// A stored refusal.
pub(crate) fn problem(json: &str) -> Result<Problem, StoreError> {
    serde_json::from_str(json)
        .map_err(|e| StoreError::Internal(format!("a stored refusal does not parse: {e}")))
}
