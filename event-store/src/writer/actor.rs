//! The one task that decides. It owns all memory of the appender.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use sovereign_schemas::chain::Head;
use sovereign_schemas::{ErrorCode, Outcome, Problem, Status, Uuid};
use tokio::sync::{mpsc, oneshot};

use super::LedgerOptions;
use super::batch::{Batch, Key, Tip, Waiting};
use super::cache::{self, Cache, Cached};
use super::commit::{Report, Step};
use super::decide::{self, Effect};
use super::first::{self, First, Recent};
use super::session::Session;
use crate::shared::Shared;
use crate::{LedgerReader, StoreError};

/// A head, and the aggregates in memory at that head.
pub(crate) type Snapshot = Result<(Head, HashMap<Key, Cached>), StoreError>;

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
    pub(super) last_backend: Option<(i32, String)>,
    /// What is known to be committed.
    pub(super) committed: Tip,
    /// The tip of the batch that is being committed, if one is.
    pub(super) in_flight: Option<Tip>,
    /// Decided on top of everything before it.
    pub(super) open: Batch,
    /// To be decided again, before anything new.
    pub(super) redo: VecDeque<Waiting>,
    /// The next commands go one by one: one of them is not taken by the database.
    pub(super) one_by_one: usize,
    pub(super) snapshots: Vec<oneshot::Sender<Snapshot>>,
    pub(super) closing: bool,
    pub(super) closed: Vec<oneshot::Sender<()>>,
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
        // an aggregate that the batches under way have changed must not be evicted, or it would
        // be loaded again without their events; these are at most two batches and one load
        let aggregates_max = options
            .cache_aggregates_max
            .max(4 * options.batch_events_max.max(1));
        Self {
            cache: Cache::new(aggregates_max),
            // a batch must find the ids of the one before it here
            recent: Recent::new(
                options
                    .recent_commands_max
                    .max(4 * options.batch_events_max.max(1)),
            ),
            options,
            reader,
            queue,
            controls,
            session: None,
            last_backend: None,
            committed: nowhere,
            in_flight: None,
            open: Batch::on(nowhere),
            redo: VecDeque::new(),
            one_by_one: 0,
            snapshots: Vec::new(),
            closing: false,
            closed: Vec::new(),
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
                self.lose(&error).await;
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
        self.in_flight.is_none() && self.open.items.is_empty() && self.redo.is_empty()
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
        let full = open.items.len().max(open.events.len());
        self.options.batch_events_max.max(1).saturating_sub(full)
    }

    pub(super) async fn wait(&mut self) {
        let room = self.room();
        let ended = self.queue.is_closed() && self.queue.is_empty();
        let take = room > 0 && self.redo.is_empty() && self.snapshots.is_empty() && !ended;
        let mut new = Vec::new();
        let Some(session) = self.session.as_mut() else {
            return;
        };
        tokio::select! {
            biased;
            report = session.report() => {
                let ended = || Report::Lost(None, StoreError::Internal("session ended".to_owned()));
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
        let missing: Vec<Key> = commands.iter().map(Waiting::key).collect();
        let mut broken = match self.load(missing).await {
            Ok(broken) => broken,
            Err(error) => {
                self.put_back(commands);
                return Err(error);
            }
        };
        let mut commands = VecDeque::from(commands);
        while let Some(waiting) = commands.pop_front() {
            if self.room() == 0 {
                commands.push_front(waiting);
                break;
            }
            let key = waiting.key();
            if !self.cache.contains(&key) && !broken.contains_key(&key) {
                match self.load(vec![key.clone()]).await {
                    Ok(more) => broken.extend(more),
                    Err(error) => {
                        commands.push_front(waiting);
                        self.put_back(commands);
                        return Err(error);
                    }
                }
            }
            self.decide_one(waiting, &key, &broken);
        }
        self.put_back(commands);
        Ok(())
    }

    pub(super) fn put_back(&mut self, commands: impl IntoIterator<Item = Waiting>) {
        let rest = std::mem::take(&mut self.redo);
        self.redo.extend(commands);
        self.redo.extend(rest);
    }

    pub(super) fn decide_one(
        &mut self,
        waiting: Waiting,
        key: &Key,
        broken: &HashMap<Key, Problem>,
    ) {
        self.one_by_one = self.one_by_one.saturating_sub(1);
        let departments = &self.options.departments;
        if let Some(outcome) = decide::without_aggregate(&waiting, &mut self.recent, departments) {
            self.open.answer(waiting, outcome);
            return;
        }
        let Some(cached) = self.cache.get(key) else {
            let lost = || Problem::new(ErrorCode::Internal, "aggregate is not in memory");
            let problem = broken.get(key).cloned().unwrap_or_else(lost);
            self.open
                .answer(waiting, Outcome::failed(Status::Invalid, problem));
            return;
        };
        let effect = decide::on_aggregate(waiting, cached, &mut self.recent, &mut self.open);
        if effect == Effect::Spoiled {
            self.cache.forget(key);
        }
    }

    /// Brings aggregates into memory; returns those that cannot be folded.
    pub(super) async fn load(
        &mut self,
        mut keys: Vec<Key>,
    ) -> Result<HashMap<Key, Problem>, StoreError> {
        keys.retain(|key| !self.cache.contains(key));
        keys.sort_unstable();
        keys.dedup();
        if keys.is_empty() {
            return Ok(HashMap::new());
        }
        let mut broken = HashMap::new();
        for (key, loaded) in cache::load(&self.reader.pool, keys, None).await? {
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

    /// Hands the open batch over if nothing is being committed.
    pub(super) fn submit(&mut self) {
        if self.in_flight.is_some() || self.open.items.is_empty() {
            return;
        }
        let Some(session) = &self.session else { return };
        let next = Batch::on(self.open.after);
        let batch = std::mem::replace(&mut self.open, next);
        let flushed = self.shared().flushed().position;
        if !batch.needs_transaction() && !batch.needs_flush(flushed) {
            batch.answer_all();
            return;
        }
        metrics::histogram!("sovereign_ledger_batch_events").record(batch.events.len() as f64);
        let after = batch.after;
        match session.step(Step::Commit(batch)) {
            Ok(()) => self.in_flight = Some(after),
            // the committer has ended; its report is on the way
            Err(Step::Commit(batch) | Step::Continue(batch)) => {
                self.in_flight = Some(after);
                self.put_back(batch.into_waiting().collect::<Vec<_>>());
            }
            Err(Step::Release) => {}
        }
    }

    pub(super) async fn handle(&mut self, report: Report) {
        match report {
            Report::Committed => {
                if let Some(tip) = self.in_flight.take() {
                    self.committed = tip;
                }
            }
            Report::HeadMoved(batch, head) => self.catch_up_locked(batch, head).await,
            Report::RefusedBefore(batch, refused) => {
                self.throw_away(batch);
                for (command_id, problem) in refused {
                    self.recent
                        .put(command_id, First::Refused(Box::new(problem)));
                }
            }
            Report::Taken(batch) => {
                let count = batch.items.len();
                self.throw_away(batch);
                let ids: Vec<Uuid> = self.redo.iter().map(Waiting::command_id).collect();
                match self.look_up(&ids).await {
                    Ok(found) if found.is_empty() => self.suspect(count, "an id is taken"),
                    Ok(found) => {
                        for (command_id, first) in found {
                            self.recent.put(command_id, first);
                        }
                    }
                    Err(error) => self.lose(&error).await,
                }
            }
            Report::Rejected(batch, why) => {
                let count = batch.items.len();
                self.throw_away(batch);
                self.suspect(count, &why);
            }
            Report::Lost(batch, error) => {
                let unknown: Vec<Waiting> =
                    batch.into_iter().flat_map(Batch::into_unknown).collect();
                self.lose_with(unknown, &error).await;
            }
        }
    }

    pub(super) async fn look_up(&self, ids: &[Uuid]) -> Result<Vec<(Uuid, First)>, StoreError> {
        let mut connection = self.reader.pool.acquire().await?;
        first::look_up(&mut connection, ids).await
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
