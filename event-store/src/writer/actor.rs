//! The one task that decides. It owns all memory of the appender.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use sovereign_aggregates::AnyCommand;
use sovereign_schemas::chain::Head;
use sovereign_schemas::{Departments, ErrorCode, Outcome, Position, Problem, Status, Uuid};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::LedgerOptions;
use super::batch::{Batch, Known, Tip, Waiting};
use super::cache::{self, Cache, Cached};
use super::commit::{Lost, Report, Step, Why};
use super::decide::{self, Effect};
use super::first::{First, Recent};
use super::session::Session;
use crate::port::{AggregateKey, Backend};
use crate::shared::Shared;
use crate::{LedgerReader, StoreError};

/// Turns of the runtime that a batch waits for more commands while nothing is under way.
const LINGER_TURNS_MAX: usize = 3;

/// Commands of a batch that may be flushed with its commit: more are sent by many callers.
const DURABLE_MAX: usize = 4;

/// So few commands are not worth two transactions.
const SHARE_MIN: usize = 32;

/// A head, and the aggregates in memory at that head.
pub(crate) type Snapshot = Result<(Head, HashMap<AggregateKey, Cached>), StoreError>;

/// What can be asked of the actor besides commands.
#[derive(Debug)]
pub(crate) enum Control {
    /// Answer with the aggregates in memory once nothing is under way.
    Snapshot(oneshot::Sender<Snapshot>),
    /// Finish and end; dropped at the end.
    Close(oneshot::Sender<()>),
}

/// See the module.
pub(crate) struct Actor {
    pub(super) options: Arc<LedgerOptions>,
    pub(super) reader: LedgerReader,
    pub(super) queue: mpsc::Receiver<Waiting>,
    pub(super) controls: mpsc::Receiver<Control>,
    pub(super) cache: Cache,
    pub(super) recent: Recent,
    pub(super) session: Option<Session>,
    /// The writing backend of the last session.
    pub(super) last_backend: Option<Backend>,
    /// What is known to be committed.
    pub(super) committed: Tip,
    /// The tips of the batches that are being committed, the oldest first.
    pub(super) in_flight: VecDeque<Tip>,
    /// A batch failed since the last was handed over.
    pub(super) restart: bool,
    /// Decided on top of everything before it.
    pub(super) open: Batch,
    /// To be decided again, before anything new.
    pub(super) redo: VecDeque<Waiting>,
    /// The next commands go one by one: one of them is not taken by the database.
    pub(super) one_by_one: usize,
    pub(super) snapshots: Vec<oneshot::Sender<Snapshot>>,
    pub(super) closing: bool,
    pub(super) closed: Vec<oneshot::Sender<()>>,
    departments: Arc<Departments>,
}

impl Actor {
    pub(crate) fn new(
        options: Arc<LedgerOptions>,
        reader: LedgerReader,
        queue: mpsc::Receiver<Waiting>,
        controls: mpsc::Receiver<Control>,
    ) -> Self {
        let nowhere = Tip {
            head: Head::EMPTY,
            recorded_at: sovereign_schemas::Timestamp(0),
        };
        let departments = Arc::new(options.departments.clone());
        // an aggregate that the batches under way have changed must not be evicted, or it would
        // be loaded again without their events; these are at most three batches and one load, and
        // each command may touch others besides its own
        let aggregates_max = options
            .cache_aggregates_max
            .max(6 * (1 + AnyCommand::READS_MAX) * options.batch_events_max.max(1));
        Self {
            cache: Cache::new(aggregates_max),
            // a batch must find the ids of the one before it here
            recent: Recent::new(
                options
                    .recent_commands_max
                    .max(6 * options.batch_events_max.max(1)),
            ),
            options,
            reader,
            queue,
            controls,
            session: None,
            last_backend: None,
            committed: nowhere,
            in_flight: VecDeque::new(),
            restart: false,
            open: Batch::on(nowhere),
            redo: VecDeque::new(),
            one_by_one: 0,
            snapshots: Vec::new(),
            closing: false,
            closed: Vec::new(),
            departments,
        }
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.reader.shared
    }

    pub(crate) async fn run(mut self) {
        loop {
            if self.session.is_none() && !self.reconnect().await {
                break;
            }
            let again = self.take_redo();
            let decided = self.decide(again).await;
            if let Err(error) = decided {
                self.lose(error).await;
                continue;
            }
            if let Err(error) = self.linger().await {
                self.lose(error).await;
                continue;
            }
            self.submit();
            self.snapshot().await;
            if self.finished() {
                break;
            }
            self.wait().await;
        }
        if let Some(session) = self.session.take() {
            // the flusher answers what was committed
            drop(session.end().await);
        }
        tracing::info!(head = self.committed.head.position.0, "ledger closed");
    }

    pub(super) fn finished(&self) -> bool {
        self.closing && self.quiet() && self.queue.is_empty()
    }

    /// Nothing is under way.
    pub(super) fn quiet(&self) -> bool {
        self.in_flight.is_empty() && self.open.items.is_empty() && self.redo.is_empty()
    }

    /// How many more commands the open batch takes.
    pub(super) fn room(&self) -> usize {
        let open = &self.open;
        if self.one_by_one > 0 {
            return usize::from(open.items.is_empty());
        }
        if open.bytes() >= self.options.batch_bytes_max {
            return 0;
        }
        let full = open.items.len().max(open.events().len());
        // two batches of half of all commands keep both sides busy; one of all lets each side wait
        // for the other
        let share = (self.shared().outstanding_now() / 2).max(SHARE_MIN);
        let events_max = self.options.batch_events_max.max(1).min(share);
        events_max.saturating_sub(full)
    }

    /// Lets those who are about to send do so, so that a batch is not one command and the next all
    /// the others. Costs a lone caller a turn of the runtime.
    pub(super) async fn linger(&mut self) -> Result<(), StoreError> {
        if !self.in_flight.is_empty() || !self.redo.is_empty() || self.one_by_one > 0 {
            return Ok(());
        }
        for _ in 0..LINGER_TURNS_MAX {
            // what waits to be decided again was there before anything new
            if self.open.items.is_empty() || !self.redo.is_empty() {
                break;
            }
            tokio::task::yield_now().await;
            let mut new = Vec::new();
            while new.len() < self.room()
                && let Ok(waiting) = self.queue.try_recv()
            {
                new.push(waiting);
            }
            if new.is_empty() {
                break;
            }
            self.shared().unqueue(new.len());
            self.decide(new).await?;
        }
        Ok(())
    }

    pub(super) async fn wait(&mut self) {
        let room = self.room();
        // a batch that needed no transaction was answered at once: no report will come
        if !self.redo.is_empty() && self.in_flight.is_empty() && room > 0 {
            return;
        }
        let ended = self.queue.is_closed() && self.queue.is_empty();
        let take = room > 0 && self.redo.is_empty() && self.snapshots.is_empty() && !ended;
        let mut new = Vec::new();
        let Some(session) = self.session.as_mut() else {
            return;
        };
        tokio::select! {
            biased;
            report = session.report() => {
                let error = || StoreError::Internal("session ended".to_owned());
                let ended = || Report::Lost(Lost::because(error()));
                self.handle(report.unwrap_or_else(ended)).await;
            }
            control = self.controls.recv(), if !self.closing => self.control(control),
            count = self.queue.recv_many(&mut new, room), if take => {
                self.shared().unqueue(count);
                if count == 0 {
                    self.closing = true;
                }
                self.redo.extend(new);
            }
        }
    }

    pub(super) fn control(&mut self, control: Option<Control>) {
        match control {
            Some(Control::Snapshot(reply)) => self.snapshots.push(reply),
            Some(Control::Close(reply)) => {
                self.closed.push(reply);
                self.close();
            }
            // the last handle is gone
            None => self.close(),
        }
    }

    pub(super) fn close(&mut self) {
        self.closing = true;
        self.queue.close();
    }

    pub(super) fn take_redo(&mut self) -> Vec<Waiting> {
        let count = self.room().min(self.redo.len());
        self.redo.drain(..count).collect()
    }

    /// Decides commands in their order. On an error they wait to be decided again.
    pub(super) async fn decide(&mut self, mut commands: Vec<Waiting>) -> Result<(), StoreError> {
        // nobody waits for these any more, and nothing of them has happened
        commands.retain(|waiting| !waiting.reply.is_closed());
        if commands.is_empty() {
            return Ok(());
        }
        let missing: Vec<AggregateKey> = commands
            .iter()
            .filter(|waiting| !self.has_all(waiting))
            .flat_map(|waiting| waiting.keys().cloned())
            .collect();
        let mut broken = match self.load(missing).await {
            Ok(broken) => broken,
            Err(error) => {
                self.put_back(commands);
                return Err(error);
            }
        };
        let (started, count) = (Instant::now(), commands.len());
        let mut commands = VecDeque::from(commands);
        while let Some(waiting) = commands.pop_front() {
            if self.room() == 0 {
                commands.push_front(waiting);
                break;
            }
            if !self.has_all(&waiting) && !waiting.keys().any(|key| broken.contains_key(key)) {
                match self.load(waiting.keys().cloned().collect()).await {
                    Ok(more) => broken.extend(more),
                    Err(error) => {
                        commands.push_front(waiting);
                        self.put_back(commands);
                        return Err(error);
                    }
                }
            }
            self.decide_one(waiting, &broken);
        }
        // the mean: one command takes less than reading the clock twice
        metrics::histogram!("sovereign_ledger_decide_seconds")
            .record(started.elapsed().as_secs_f64() / count as f64);
        self.put_back(commands);
        Ok(())
    }

    /// Whether all aggregates that decide are in memory.
    fn has_all(&self, waiting: &Waiting) -> bool {
        waiting.keys().all(|key| self.cache.contains(key))
    }

    /// What a decision rests on besides the aggregate: others at the same position. `None` if one
    /// is not in memory.
    fn known(&mut self, waiting: &Waiting) -> Option<Known> {
        let mut others = Vec::with_capacity(waiting.reads.len());
        for key in &waiting.reads {
            others.push((key.clone(), self.cache.get(key)?.state.clone()));
        }
        Some(Known {
            departments: Arc::clone(&self.departments),
            others,
        })
    }

    pub(super) fn put_back(&mut self, commands: impl IntoIterator<Item = Waiting>) {
        let rest = std::mem::take(&mut self.redo);
        self.redo.extend(commands);
        self.redo.extend(rest);
    }

    pub(super) fn decide_one(&mut self, waiting: Waiting, broken: &HashMap<AggregateKey, Problem>) {
        self.one_by_one = self.one_by_one.saturating_sub(1);
        let departments = &self.options.departments;
        if let Some(outcome) = decide::without_aggregate(&waiting, &mut self.recent, departments) {
            self.open.answer(waiting, outcome);
            return;
        }
        let known = self.known(&waiting);
        let (Some(known), Some(cached)) = (known, self.cache.get(&waiting.key)) else {
            let lost = || Problem::new(ErrorCode::Internal, "aggregate is not in memory");
            let problem = waiting.keys().find_map(|key| broken.get(key).cloned());
            let problem = problem.unwrap_or_else(lost);
            self.open
                .answer(waiting, Outcome::failed(Status::Invalid, problem));
            return;
        };
        let clock = &*self.options.clock;
        let (recent, open) = (&mut self.recent, &mut self.open);
        let effect = decide::on_aggregate(waiting, cached, &known, recent, open, clock);
        if let Effect::Spoiled(key) = effect {
            self.cache.forget(&key);
        }
    }

    /// Brings aggregates into memory; returns those that cannot be folded.
    pub(super) async fn load(
        &mut self,
        mut keys: Vec<AggregateKey>,
    ) -> Result<HashMap<AggregateKey, Problem>, StoreError> {
        keys.retain(|key| !self.cache.contains(key));
        keys.sort_unstable();
        keys.dedup();
        if keys.is_empty() {
            return Ok(HashMap::new());
        }
        let mut broken = HashMap::new();
        for (key, loaded) in cache::load(&*self.reader.database, keys, Position(u64::MAX)).await? {
            match loaded {
                Ok(cached) => self.cache.put(key, cached),
                Err(problem) => {
                    tracing::error!(
                        aggregate_type = %key.aggregate_type, aggregate_id = key.id, %problem,
                        "aggregate cannot be folded"
                    );
                    broken.insert(key, problem);
                }
            }
        }
        Ok(broken)
    }

    /// Hands the open batch over if there is room.
    pub(super) fn submit(&mut self) {
        let Some(session) = &self.session else { return };
        if self.in_flight.len() >= session.in_flight_max || self.open.items.is_empty() {
            return;
        }
        // while the database is busy, a second batch may wait until it is worth a transaction
        let worthwhile = self.shared().outstanding_now() / 4;
        if !self.in_flight.is_empty() && self.open.items.len() < worthwhile {
            return;
        }
        let next = Batch::on(self.open.after);
        let mut batch = std::mem::replace(&mut self.open, next);
        // nobody waits behind it, so nobody minds that the head row is locked while it is flushed
        batch.transaction.durable = session.can_commit_durably
            && batch.items.len() <= DURABLE_MAX
            && batch.transaction.writes()
            && self.shared().outstanding_now() <= batch.items.len();
        let flushed = self.shared().flushed().position;
        let nothing_to_do = !batch.needs_transaction() && !batch.needs_flush(flushed);
        // what is decided on top of others' batches is answered after them
        if nothing_to_do && self.in_flight.is_empty() {
            batch.answer_all();
            return;
        }
        metrics::histogram!("sovereign_ledger_batch_events").record(batch.events().len() as f64);
        self.hand_over(batch);
    }

    pub(super) fn hand_over(&mut self, batch: Batch) {
        let Some(session) = &self.session else { return };
        let after = batch.after;
        let step = if std::mem::take(&mut self.restart) {
            Step::Restart(batch)
        } else {
            Step::Commit(batch)
        };
        match session.step(step) {
            None => self.in_flight.push_back(after),
            // the committer has ended; its report is on the way
            Some(Step::Commit(batch) | Step::Restart(batch)) => {
                self.in_flight.push_back(after);
                self.put_back(batch.into_waiting().collect::<Vec<_>>());
            }
            Some(Step::Release) => {}
        }
    }

    pub(super) async fn handle(&mut self, report: Report) {
        match report {
            Report::Committed => {
                if let Some(tip) = self.in_flight.pop_front() {
                    self.committed = tip;
                }
            }
            Report::Failed(batches, why) => {
                self.restart = true;
                if let Some(batches) = self.gather(batches).await {
                    self.failed(batches, why).await;
                }
            }
            // gathered above; alone it cannot come
            Report::Bounced(batch) => self.throw_away(vec![batch]),
            Report::Lost(lost) => self.lose_with(lost).await,
        }
    }

    async fn failed(&mut self, batches: Vec<Batch>, why: Why) {
        let oldest = batches.first().map_or(0, |batch| batch.items.len());
        self.throw_away(batches);
        match why {
            Why::HeadMoved(head) => self.catch_up_locked(head).await,
            Why::RefusedBefore(refused) => {
                for (command_id, problem) in refused {
                    self.recent
                        .put(command_id, First::Refused(Box::new(problem)));
                }
            }
            Why::Taken => {
                let ids: Vec<Uuid> = self
                    .redo
                    .iter()
                    .map(|waiting| waiting.command_id())
                    .collect();
                match self.reader.database.known(&ids).await {
                    Ok(known) if known.is_empty() => self.suspect(oldest, "an id is taken"),
                    Ok(known) => {
                        for (command_id, known) in known {
                            self.recent.put(command_id, First::known(known));
                        }
                    }
                    Err(error) => self.lose(error).await,
                }
            }
            Why::Rejected(why) => self.suspect(oldest, &why),
        }
    }

    /// Answers those who asked for the aggregates, once nothing is under way.
    pub(super) async fn snapshot(&mut self) {
        if self.snapshots.is_empty() || !self.quiet() {
            return;
        }
        let done = match self.reader.head().await {
            Ok(head) if head.position > self.committed.head.position => self.catch_up(head).await,
            Ok(_) => Ok(()),
            Err(error) => Err(error),
        };
        match done {
            Ok(()) => {
                let head = self.committed.head;
                for reply in self.snapshots.drain(..) {
                    let cached = self
                        .cache
                        .iter()
                        .map(|(k, c)| (k.clone(), c.clone()))
                        .collect();
                    let _ = reply.send(Ok((head, cached)));
                }
            }
            Err(error) => {
                if let Some(reply) = self.snapshots.pop() {
                    let _ = reply.send(Err(error));
                }
            }
        }
    }
}
