use std::sync::Arc;

use sovereign_aggregates::{CommandRequest, Decision};
use sovereign_schemas::chain::{self, Head};
use sovereign_schemas::{
    AggregateType, Outcome, Position, Problem, RecordedEvent, Status, Timestamp, Uuid,
};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::row::CopyBuffer;

/// Names one aggregate.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) aggregate_type: AggregateType,
    pub(crate) id: String,
}

/// A command whose caller waits.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) request: CommandRequest,
    pub(crate) reply: oneshot::Sender<Outcome>,
    pub(crate) received: Instant,
    /// Transactions of its own that the database has rejected.
    pub(crate) rejections: u32,
    /// A transaction that holds its effect was sent, and its fate is unknown.
    pub(crate) sent: bool,
}

impl Waiting {
    pub(crate) fn key(&self) -> Key {
        Key {
            aggregate_type: self.request.command.aggregate_type(),
            id: self.request.aggregate_id.as_str().to_owned(),
        }
    }

    pub(crate) fn command_id(&self) -> Uuid {
        self.request.context.command_id
    }

    pub(crate) fn decision(&self, at: Timestamp) -> Decision {
        Decision {
            aggregate_id: self.request.aggregate_id.clone(),
            at,
            actor: self.request.context.actor.clone(),
        }
    }

    pub(crate) fn answer(self, outcome: Outcome) {
        metrics::histogram!("sovereign_ledger_command_seconds")
            .record(self.received.elapsed().as_secs_f64());
        let status = match outcome.status {
            Status::Accepted => "accepted",
            Status::Refused => "refused",
            Status::Duplicate => "duplicate",
            Status::Conflict => "conflict",
            Status::Invalid => "invalid",
        };
        metrics::counter!("sovereign_ledger_commands_total", "status" => status).increment(1);
        // the caller may have given up waiting; a repeat with the same id tells it
        let _ = self.reply.send(outcome);
    }
}

/// A command with its outcome, which counts once the batch is durable.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) waiting: Waiting,
    pub(crate) outcome: Outcome,
}

/// Where the ledger stands, or will stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tip {
    pub(crate) head: Head,
    /// Recorded time of the last event: the next is not earlier, even if the clock was set back.
    pub(crate) recorded_at: Timestamp,
}

/// A refusal to remember.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) command_id: Uuid,
    pub(crate) problem: Problem,
    pub(crate) at: Timestamp,
}

/// What one transaction does, and whom it answers.
#[derive(Debug)]
pub(crate) struct Batch {
    /// Where the ledger must stand for it.
    pub(crate) before: Tip,
    /// Where it stands after it.
    pub(crate) after: Tip,
    pub(crate) items: Vec<Item>,
    pub(crate) events: Vec<Arc<RecordedEvent>>,
    pub(crate) copy: CopyBuffer,
    pub(crate) refusals: Vec<Refused>,
    /// Commands whose answer leaves no event. If one of them is a repeat that memory does not know,
    /// the transaction must find its events: no unique index would.
    pub(crate) without_events: Vec<Uuid>,
    /// Highest position that an answer speaks of.
    depends_on: Position,
}

impl Batch {
    pub(crate) fn on(tip: Tip) -> Self {
        Self {
            before: tip,
            after: tip,
            items: Vec::new(),
            events: Vec::new(),
            copy: CopyBuffer::new(),
            refusals: Vec::new(),
            without_events: Vec::new(),
            depends_on: tip.head.position,
        }
    }

    /// Whether it changes the database.
    pub(crate) fn writes(&self) -> bool {
        !self.events.is_empty() || !self.refusals.is_empty()
    }

    /// Whether the database has to be asked.
    pub(crate) fn needs_transaction(&self) -> bool {
        self.writes() || !self.without_events.is_empty()
    }

    /// Whether its answers have to wait for a flush.
    pub(crate) fn needs_flush(&self, flushed: Position) -> bool {
        self.writes() || self.depends_on > flushed
    }

    pub(crate) fn bytes(&self) -> usize {
        self.copy.len()
    }

    /// Answers a command that was decided and caused no event.
    pub(crate) fn answer_without_events(&mut self, waiting: Waiting, outcome: Outcome) {
        self.without_events.push(waiting.command_id());
        self.answer(waiting, outcome);
    }

    pub(crate) fn answer(&mut self, waiting: Waiting, outcome: Outcome) {
        if let Some((_, last)) = outcome.positions {
            self.depends_on = self.depends_on.max(last);
        }
        self.items.push(Item { waiting, outcome });
    }

    /// Chains one event on; its position and hash are set here.
    pub(crate) fn push(&mut self, mut event: RecordedEvent, command_events: usize) {
        let position = self.after.head.position.next();
        event.header.position = position;
        event.hash = chain::expected_hash(&self.after.head.hash, &event.header, &event.payload);
        self.copy
            .push(&event, i32::try_from(command_events).unwrap_or(i32::MAX));
        self.after = Tip {
            head: Head {
                position,
                hash: event.hash,
            },
            recorded_at: event.header.recorded_at,
        };
        self.depends_on = self.depends_on.max(position);
        self.events.push(Arc::new(event));
    }

    /// Tells all callers.
    pub(crate) fn answer_all(self) {
        for Item { waiting, outcome } in self.items {
            waiting.answer(outcome);
        }
    }

    /// The callers when it is unknown whether the batch was committed: its own commands are
    /// marked, so that they are not told they are repeats of themselves.
    pub(crate) fn into_unknown(self) -> impl Iterator<Item = Waiting> {
        let writes = self.writes();
        self.items.into_iter().map(move |mut item| {
            let own = matches!(item.outcome.status, Status::Accepted | Status::Refused);
            item.waiting.sent = item.waiting.sent || (writes && own);
            item.waiting
        })
    }

    /// The callers, for whom nothing has happened yet.
    pub(crate) fn into_waiting(self) -> impl Iterator<Item = Waiting> {
        self.items.into_iter().map(|item| item.waiting)
    }
}
