//! The one task that decides. It owns all memory of the appender.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use sovereign_schemas::chain::Head;
use sovereign_schemas::{ErrorCode, Outcome, Position, Problem, Status, Uuid};
use tokio::sync::{mpsc, oneshot};

use super::batch::{Batch, Item, Key, Tip, Waiting};
use super::cache::{self, Cache, Cached};
use super::commit::{Report, Step};
use super::decide::{self, Effect};
use super::first::{self, First, Recent};
use super::session::Session;
use super::{LedgerOptions, reconnect};
use crate::shared::Shared;
use crate::{LedgerReader, StoreError};

/// Pause after the first failed connection; doubles up to the next.
const BACK_OFF_MIN: Duration = Duration::from_millis(50);
/// Longest pause between two connections.
const BACK_OFF_MAX: Duration = Duration::from_secs(2);
/// Rows of one page while catching up with another process.
const CATCH_UP_PAGE: usize = 5_000;
/// Catching up with more events than this forgets everything instead of reading them.
const CATCH_UP_MAX: u64 = 50_000;
/// Transactions of one command that the database may reject before its caller is told.
const REJECTIONS_MAX: u32 = 2;

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
    options: Arc<LedgerOptions>,
    reader: LedgerReader,
    queue: mpsc::Receiver<Waiting>,
    controls: mpsc::Receiver<Control>,
    cache: Cache,
    recent: Recent,
    session: Option<Session>,
    /// The writing backend of the last session.
    last_backend: Option<(i32, String)>,
    /// What is known to be committed.
    committed: Tip,
    /// The tip of the batch that is being committed, if one is.
    in_flight: Option<Tip>,
    /// Decided on top of everything before it.
    open: Batch,
    /// To be decided again, before anything new.
    redo: VecDeque<Waiting>,
    /// The next commands go one by one: one of them is not taken by the database.
    one_by_one: usize,
    snapshots: Vec<oneshot::Sender<Snapshot>>,
    closing: bool,
    closed: Vec<oneshot::Sender<()>>,
}

impl Actor {
    pub(crate) fn new(
        options: Arc<LedgerOptions>,
        reader: LedgerReader,
        queue: mpsc::Receiver<Waiting>,
        controls: mpsc::Receiver<Control>,
    ) -> Self {
        let nowhere = Tip { head: Head::EMPTY, recorded_at: sovereign_schemas::Timestamp(0) };
        // an aggregate that the batches under way have changed must not be evicted, or it would
        // be loaded again without their events; these are at most two batches and one load
        let aggregates_max = options.cache_aggregates_max.max(4 * options.batch_events_max.max(1));
        Self {
            cache: Cache::new(aggregates_max),
            // a batch must find the ids of the one before it here
            recent: Recent::new(
                options.recent_commands_max.max(4 * options.batch_events_max.max(1)),
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

    fn shared(&self) -> &Arc<Shared> {
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

    fn finished(&self) -> bool {
        self.closing && self.quiet() && self.queue.is_empty()
    }

    /// Nothing is under way.
    fn quiet(&self) -> bool {
        self.in_flight.is_none() && self.open.items.is_empty() && self.redo.is_empty()
    }

    /// How many more commands the open batch takes.
    fn room(&self) -> usize {
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

    async fn wait(&mut self) {
        let room = self.room();
        let ended = self.queue.is_closed() && self.queue.is_empty();
        let take = room > 0 && self.redo.is_empty() && self.snapshots.is_empty() && !ended;
        let mut new = Vec::new();
        let Some(session) = self.session.as_mut() else { return };
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

    fn control(&mut self, control: Option<Control>) {
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

    fn close(&mut self) {
        self.closing = true;
        self.queue.close();
    }

    fn take_redo(&mut self) -> Vec<Waiting> {
        let count = self.room().min(self.redo.len());
        self.redo.drain(..count).collect()
    }

    /// Decides commands in their order. On an error they wait to be decided again.
    async fn decide(&mut self, mut commands: Vec<Waiting>) -> Result<(), StoreError> {
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

    fn put_back(&mut self, commands: impl IntoIterator<Item = Waiting>) {
        let rest = std::mem::take(&mut self.redo);
        self.redo.extend(commands);
        self.redo.extend(rest);
    }

    fn decide_one(&mut self, waiting: Waiting, key: &Key, broken: &HashMap<Key, Problem>) {
        self.one_by_one = self.one_by_one.saturating_sub(1);
        let departments = &self.options.departments;
        if let Some(outcome) = decide::without_aggregate(&waiting, &mut self.recent, departments) {
            self.open.answer(waiting, outcome);
            return;
        }
        let Some(cached) = self.cache.get(key) else {
            let lost = || Problem::new(ErrorCode::Internal, "aggregate is not in memory");
            let problem = broken.get(key).cloned().unwrap_or_else(lost);
            self.open.answer(waiting, Outcome::failed(Status::Invalid, problem));
            return;
        };
        let effect = decide::on_aggregate(waiting, cached, &mut self.recent, &mut self.open);
        if effect == Effect::Spoiled {
            self.cache.forget(key);
        }
    }

    /// Brings aggregates into memory; returns those that cannot be folded.
    async fn load(&mut self, mut keys: Vec<Key>) -> Result<HashMap<Key, Problem>, StoreError> {
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
    fn submit(&mut self) {
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

    async fn handle(&mut self, report: Report) {
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
                    self.recent.put(command_id, First::Refused(Box::new(problem)));
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

    async fn look_up(&self, ids: &[Uuid]) -> Result<Vec<(Uuid, First)>, StoreError> {
        let mut connection = self.reader.pool.acquire().await?;
        first::look_up(&mut connection, ids).await
    }

    /// Forgets what rests on a batch that was rolled back; its commands and those after it wait
    /// to be decided again.
    fn throw_away(&mut self, failed: Batch) {
        let next = Batch::on(self.committed);
        let open = std::mem::replace(&mut self.open, next);
        self.in_flight = None;
        let items: Vec<Item> = failed.items.into_iter().chain(open.items).collect();
        for Item { waiting, outcome } in &items {
            self.cache.forget(&waiting.key());
            if outcome.status != Status::Duplicate {
                self.recent.forget(&waiting.command_id());
            }
        }
        self.put_back(items.into_iter().map(|item| item.waiting).collect::<Vec<_>>());
    }

    /// Another process has written, and the head row is locked for us now: what is decided next
    /// cannot be overtaken.
    async fn catch_up_locked(&mut self, batch: Batch, head: Head) {
        metrics::counter!("sovereign_ledger_head_moved_total").increment(1);
        self.throw_away(batch);
        let done = match self.catch_up(head).await {
            Ok(()) => {
                let again = self.take_redo();
                self.decide(again).await
            }
            Err(error) => Err(error),
        };
        if let Err(error) = done {
            self.lose(&error).await;
            return;
        }
        let Some(session) = &self.session else { return };
        if !self.open.needs_transaction() {
            // a release has no report, and what follows it is queued behind it
            if session.step(Step::Release).is_err() {
                tracing::debug!("committer has ended");
            }
            return;
        }
        let next = Batch::on(self.open.after);
        let batch = std::mem::replace(&mut self.open, next);
        self.in_flight = Some(batch.after);
        if let Err(Step::Commit(batch) | Step::Continue(batch)) =
            session.step(Step::Continue(batch))
        {
            self.put_back(batch.into_waiting().collect::<Vec<_>>());
        }
    }

    /// Reads what others have written up to `head`, and forgets the aggregates they touched.
    async fn catch_up(&mut self, head: Head) -> Result<(), StoreError> {
        let mut at = self.committed.head.position;
        if head.position < at {
            return Err(StoreError::Internal(format!(
                "ledger.head went back from {at} to {}",
                head.position
            )));
        }
        if head.position.0 - at.0 > CATCH_UP_MAX {
            self.cache.clear();
            self.recent.clear();
        } else {
            while at < head.position {
                at = self.catch_up_page(at, head.position).await?;
            }
        }
        let mut connection = self.reader.pool.acquire().await?;
        self.committed = reconnect::tip(&mut connection, head).await?;
        self.open = Batch::on(self.committed);
        Ok(())
    }

    async fn catch_up_page(
        &mut self,
        after: Position,
        up_to: Position,
    ) -> Result<Position, StoreError> {
        let events = self.reader.committed(after, CATCH_UP_PAGE).await?;
        for event in &events {
            if let Ok(aggregate_type) = event.header.aggregate_type.parse() {
                let id = event.header.aggregate_id.clone();
                self.cache.forget(&Key { aggregate_type, id });
            }
        }
        // a command whose events end at the page's edge may go on behind it: it is left to the
        // unique index
        let mut rest = events.as_slice();
        while let Some(first) = rest.first() {
            let command_id = first.header.command_id;
            let own = rest.iter().take_while(|e| e.header.command_id == command_id).count();
            let last = rest[own - 1].position();
            if own < rest.len() || last >= up_to {
                self.recent.put(command_id, First::of(first, last));
            }
            rest = &rest[own..];
        }
        events.last().map(|e| e.position()).ok_or_else(|| {
            StoreError::Internal(format!("no event after {after}, although the head is {up_to}"))
        })
    }

    /// The database does not take the first `count` commands together: they go one by one, and
    /// the one that is not taken alone either is told so.
    fn suspect(&mut self, count: usize, why: &str) {
        tracing::error!(why, commands = count, "database rejects a batch");
        metrics::counter!("sovereign_ledger_rejected_total").increment(1);
        // memory may disagree with the tables
        self.cache.clear();
        self.recent.clear();
        self.one_by_one = self.one_by_one.max(count);
        if count != 1 {
            return;
        }
        let Some(mut waiting) = self.redo.pop_front() else { return };
        waiting.rejections += 1;
        if waiting.rejections >= REJECTIONS_MAX {
            let problem = Problem::new(ErrorCode::Internal, "the database does not take the event");
            waiting.answer(Outcome::failed(Status::Invalid, problem));
        } else {
            self.redo.push_front(waiting);
        }
    }

    async fn lose(&mut self, error: &StoreError) {
        self.lose_with(Vec::new(), error).await;
    }

    /// Ends the session. Everything that was not answered waits for the next.
    async fn lose_with(&mut self, unknown: Vec<Waiting>, error: &StoreError) {
        self.shared().database_fails(error);
        metrics::counter!("sovereign_ledger_sessions_lost_total").increment(1);
        let open = std::mem::replace(&mut self.open, Batch::on(self.committed));
        self.put_back(open.into_waiting().collect::<Vec<_>>());
        self.put_back(unknown);
        self.in_flight = None;
        if let Some(session) = self.session.take() {
            self.last_backend = Some(session.backend.clone());
            let unanswered = session.end().await;
            self.put_back(unanswered);
        }
        self.cache.clear();
        self.recent.clear();
    }

    /// Tries until there is a session. False if the ledger was closed and nobody waits.
    async fn reconnect(&mut self) -> bool {
        let mut pause = BACK_OFF_MIN;
        loop {
            self.redo.retain(|waiting| !waiting.reply.is_closed());
            let ids: Vec<Uuid> = self.redo.iter().map(Waiting::command_id).collect();
            let previous = self.last_backend.as_ref();
            match reconnect::connect(&self.options, &self.reader, previous, &ids).await {
                Ok(connected) => {
                    self.take_over(connected);
                    return true;
                }
                Err(error) => self.shared().database_fails(&error),
            }
            if self.closing && self.redo.is_empty() {
                return false;
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                control = self.controls.recv(), if !self.closing => self.control(control),
            }
            pause = (pause * 2).min(BACK_OFF_MAX);
        }
    }

    fn take_over(&mut self, connected: reconnect::Connected) {
        tracing::info!(head = connected.tip.head.position.0, "ledger is writable");
        self.session = Some(connected.session);
        self.committed = connected.tip;
        self.open = Batch::on(connected.tip);
        self.in_flight = None;
        let found: HashMap<Uuid, First> = connected.found.into_iter().collect();
        for mut waiting in std::mem::take(&mut self.redo) {
            // durable since the session began, so the answer need not wait
            match found.get(&waiting.command_id()) {
                Some(first) if waiting.sent => waiting.answer(first.answer()),
                Some(first) => waiting.answer(first.repeated()),
                None => {
                    waiting.sent = false;
                    self.redo.push_back(waiting);
                }
            }
        }
        for (command_id, first) in found {
            self.recent.put(command_id, first);
        }
    }

    /// Answers those who asked for the aggregates, once nothing is under way.
    async fn snapshot(&mut self) {
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
                    let cached = self.cache.iter().map(|(k, c)| (k.clone(), c.clone())).collect();
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
