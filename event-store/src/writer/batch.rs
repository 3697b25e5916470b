use std::sync::Arc;

use sovereign_aggregates::{AnyState, CommandRequest, Decision, Read};
use sovereign_schemas::chain::{self, Head};
use sovereign_schemas::{Departments, Outcome, Position, RecordedEvent, Status, Timestamp, Uuid};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::port::{AggregateKey, Refused, Transaction};
use crate::shared::Outstanding;

/// What a row takes besides its payload; an estimate, generous.
const ROW_OVERHEAD_BYTES: usize = 400;

/// What a decision rests on besides the aggregate itself.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) departments: Arc<Departments>,
    /// The other aggregates that the command reads, as they are after all events of the open
    /// batch.
    pub(crate) others: Vec<(AggregateKey, AnyState)>,
}

/// A command whose caller waits. It passes through many hands, so they pass a pointer.
pub(crate) type Waiting = Box<Command>;

/// See [`Waiting`].
#[derive(Debug)]
pub(crate) struct Command {
    pub(crate) request: CommandRequest,
    /// The aggregate that it is for.
    pub(crate) key: AggregateKey,
    /// The other aggregates whose states decide; none for most commands.
    pub(crate) reads: Vec<AggregateKey>,
    pub(crate) reply: oneshot::Sender<Outcome>,
    pub(crate) received: Instant,
    /// Transactions of its own that the database has rejected.
    pub(crate) rejections: u32,
    /// A transaction that holds its effect was sent, and its fate is unknown.
    pub(crate) sent: bool,
    _outstanding: Outstanding,
}

impl Command {
    pub(crate) fn waiting(
        request: CommandRequest,
        reply: oneshot::Sender<Outcome>,
        outstanding: Outstanding,
    ) -> Waiting {
        let actor = &request.context.actor;
        let reads = request.command.reads(&request.aggregate_id, actor);
        Box::new(Self {
            reads: reads
                .map(|Read { aggregate_type, id }| AggregateKey { aggregate_type, id })
                .collect(),
            key: AggregateKey {
                aggregate_type: request.command.aggregate_type(),
                id: request.aggregate_id.as_str().to_owned(),
            },
            request,
            reply,
            received: Instant::now(),
            rejections: 0,
            sent: false,
            _outstanding: outstanding,
        })
    }

    pub(crate) fn command_id(&self) -> Uuid {
        self.request.context.command_id
    }

    /// The aggregates whose states decide.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &AggregateKey> {
        std::iter::once(&self.key).chain(&self.reads)
    }

    pub(crate) fn decision(&self, at: Timestamp, known: &Known) -> Decision {
        let (request, context) = (&self.request, &self.request.context);
        let mut decision = Decision {
            department: context.department,
            departments: Arc::clone(&known.departments),
            ..Decision::new(request.aggregate_id.clone(), at, context.actor.clone())
        };
        for (key, state) in &known.others {
            decision.know(&key.id, state);
        }
        decision
    }

    pub(crate) fn answer(self: Box<Self>, outcome: Outcome) {
        Answers::default().answer(self, outcome);
    }
}

/// Tells callers, and counts what they were told: once for many.
#[derive(Debug, Default)]
struct Answers {
    counts: [u64; STATUSES.len()],
}

const STATUSES: [(Status, &str); 5] = [
    (Status::Accepted, "accepted"),
    (Status::Refused, "refused"),
    (Status::Duplicate, "duplicate"),
    (Status::Conflict, "conflict"),
    (Status::Invalid, "invalid"),
];

impl Answers {
    fn answer(&mut self, waiting: Waiting, outcome: Outcome) {
        metrics::histogram!("sovereign_ledger_command_seconds")
            .record(waiting.received.elapsed().as_secs_f64());
        if let Some(at) = STATUSES.iter().position(|(s, _)| *s == outcome.status) {
            self.counts[at] += 1;
        }
        // the caller may have given up waiting; a repeat with the same id tells it
        let _ = waiting.reply.send(outcome);
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        for ((_, status), count) in STATUSES.iter().zip(self.counts) {
            if count > 0 {
                metrics::counter!("sovereign_ledger_commands_total", "status" => *status)
                    .increment(count);
            }
        }
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

/// What one transaction does, and whom it answers.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) transaction: Transaction,
    /// Where the ledger stands after it.
    pub(crate) after: Tip,
    pub(crate) items: Vec<Item>,
    bytes: usize,
    /// The encoded header of the last event; kept for its memory.
    header: Vec<u8>,
    /// Highest position that an answer speaks of.
    depends_on: Position,
}

impl Batch {
    pub(crate) fn on(tip: Tip) -> Self {
        Self {
            transaction: Transaction::at(tip.head),
            after: tip,
            items: Vec::new(),
            bytes: 0,
            header: Vec::with_capacity(256),
            depends_on: tip.head.position,
        }
    }

    pub(crate) fn events(&self) -> &[Arc<RecordedEvent>] {
        &self.transaction.events
    }

    /// Whether the database has to be asked.
    pub(crate) fn needs_transaction(&self) -> bool {
        self.transaction.writes() || !self.transaction.without_events.is_empty()
    }

    /// Whether its answers have to wait for a flush.
    pub(crate) fn needs_flush(&self, flushed: Position) -> bool {
        !self.transaction.durable && (self.transaction.writes() || self.depends_on > flushed)
    }

    /// About what its rows take.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Answers a command that was decided and caused events, which were pushed before.
    pub(crate) fn answer_with_events(&mut self, waiting: Waiting, outcome: Outcome) {
        self.transaction.decided.push(waiting.command_id());
        self.answer(waiting, outcome);
    }

    /// Answers a command that was decided and caused no event. If it is a repeat that memory does
    /// not know, the transaction must find its events: no unique index would.
    pub(crate) fn answer_without_events(&mut self, waiting: Waiting, outcome: Outcome) {
        self.transaction.decided.push(waiting.command_id());
        self.transaction.without_events.push(waiting.command_id());
        self.answer(waiting, outcome);
    }

    /// Remembers a refusal.
    pub(crate) fn refuse(&mut self, refused: Refused) {
        self.transaction.refusals.push(refused);
    }

    /// Answers a command that nothing had to be decided for.
    pub(crate) fn answer(&mut self, waiting: Waiting, outcome: Outcome) {
        if let Some((_, last)) = outcome.positions {
            self.depends_on = self.depends_on.max(last);
        }
        self.items.push(Item { waiting, outcome });
    }

    /// Chains one event on; its position and hash are set here.
    pub(crate) fn push(&mut self, mut event: RecordedEvent) {
        let position = self.after.head.position.next();
        event.header.position = position;
        self.header.clear();
        event.header.encode(&mut self.header);
        event.hash = chain::hash(&self.after.head.hash, &self.header, &event.payload);
        self.after = Tip {
            head: Head {
                position,
                hash: event.hash,
            },
            recorded_at: event.header.recorded_at,
        };
        self.transaction.after = self.after.head;
        self.depends_on = self.depends_on.max(position);
        self.bytes += event.payload.len() + ROW_OVERHEAD_BYTES;
        self.transaction.events.push(Arc::new(event));
    }

    /// Tells all callers.
    pub(crate) fn answer_all(self) {
        let mut answers = Answers::default();
        for Item { waiting, outcome } in self.items {
            answers.answer(waiting, outcome);
        }
    }

    /// The callers when it is unknown whether the batch was committed: its own commands are
    /// marked, so that they are not told they are repeats of themselves.
    pub(crate) fn into_unknown(self) -> impl Iterator<Item = Waiting> {
        let writes = self.transaction.writes();
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
