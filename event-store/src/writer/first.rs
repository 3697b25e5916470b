use std::num::NonZeroUsize;

use lru::LruCache;
use sovereign_aggregates::AnyEvent;
use sovereign_schemas::{Outcome, Position, Problem, RecordedEvent, Status, Uuid};

use crate::port::Known;

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

    /// As the database knows it.
    pub(crate) fn known(known: Known) -> Self {
        match known {
            Known::Effective { first, events } => {
                let last = Position(first.position().0 + u64::from(events.max(1)) - 1);
                Self::of(&first, last)
            }
            Known::Refused(problem) => Self::Refused(problem),
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
