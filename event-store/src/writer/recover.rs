//! When what was decided does not become what is stored: another process wrote, a command was a
//! repeat, the database refused, or went away.

use std::collections::HashMap;
use std::time::Duration;

use sovereign_schemas::chain::Head;
use sovereign_schemas::{ErrorCode, Outcome, Position, Problem, Status, Uuid};

use super::actor::Actor;
use super::batch::{Batch, Item};
use super::commit::{Lost, Report, Step};
use super::first::First;
use super::reconnect;
use super::session::Unanswered;
use crate::StoreError;
use crate::port::AggregateKey;

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

impl Actor {
    /// The failed batches and those that were on their way behind them; `None` if the session was
    /// lost meanwhile.
    pub(super) async fn gather(&mut self, mut batches: Vec<Batch>) -> Option<Vec<Batch>> {
        while batches.len() < self.in_flight.len() {
            let report = self.session.as_mut()?.report().await;
            let mut lost = match report {
                Some(Report::Bounced(batch)) => {
                    batches.push(batch);
                    continue;
                }
                Some(Report::Lost(lost)) => lost,
                _ => Lost::because(StoreError::Internal("session ended".to_owned())),
            };
            lost.unsent.splice(0..0, batches);
            self.lose_with(lost).await;
            return None;
        }
        Some(batches)
    }

    /// Forgets what rests on batches that were rolled back; their commands and those after them
    /// wait to be decided again.
    pub(super) fn throw_away(&mut self, failed: Vec<Batch>) {
        let next = Batch::on(self.committed);
        let open = std::mem::replace(&mut self.open, next);
        self.in_flight.clear();
        let items: Vec<Item> = failed
            .into_iter()
            .chain([open])
            .flat_map(|batch| batch.items)
            .collect();
        for Item { waiting, outcome } in &items {
            self.cache.forget(&waiting.key);
            if outcome.status != Status::Duplicate {
                self.recent.forget(&waiting.command_id());
            }
        }
        self.put_back(
            items
                .into_iter()
                .map(|item| item.waiting)
                .collect::<Vec<_>>(),
        );
    }

    /// Another process has written, and the head row is locked for us now: what is decided next
    /// cannot be overtaken.
    pub(super) async fn catch_up_locked(&mut self, head: Head) {
        metrics::counter!("sovereign_ledger_head_moved_total").increment(1);
        let done = match self.catch_up(head).await {
            Ok(()) => {
                let again = self.take_redo();
                self.decide(again).await
            }
            Err(error) => Err(error),
        };
        if let Err(error) = done {
            self.lose(error).await;
            return;
        }
        let Some(session) = &self.session else { return };
        if !self.open.needs_transaction() {
            // a release has no report, and what follows it is queued behind it
            self.restart = false;
            if session.step(Step::Release).is_some() {
                tracing::debug!("committer has ended");
            }
            return;
        }
        let next = Batch::on(self.open.after);
        let batch = std::mem::replace(&mut self.open, next);
        self.hand_over(batch);
    }

    /// Reads what others have written up to `head`, and forgets the aggregates they touched.
    pub(super) async fn catch_up(&mut self, head: Head) -> Result<(), StoreError> {
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
        self.committed = reconnect::tip(&*self.reader.database, head).await?;
        self.open = Batch::on(self.committed);
        Ok(())
    }

    pub(super) async fn catch_up_page(
        &mut self,
        after: Position,
        up_to: Position,
    ) -> Result<Position, StoreError> {
        let (events, _) = self
            .reader
            .database
            // what is decided on top of these is flushed with them
            .page(after, CATCH_UP_PAGE, Position(u64::MAX))
            .await?;
        for event in &events {
            if let Ok(aggregate_type) = event.header.aggregate_type.parse() {
                let id = event.header.aggregate_id.clone();
                self.cache.forget(&AggregateKey { aggregate_type, id });
            }
        }
        // a command whose events end at the page's edge may go on behind it: it is left to the
        // unique index
        let mut rest = events.as_slice();
        while let Some(first) = rest.first() {
            let command_id = first.header.command_id;
            let own = rest
                .iter()
                .take_while(|e| e.header.command_id == command_id)
                .count();
            let last = rest[own - 1].position();
            if own < rest.len() || last >= up_to {
                self.recent.put(command_id, First::of(first, last));
            }
            rest = &rest[own..];
        }
        events.last().map(|e| e.position()).ok_or_else(|| {
            StoreError::Internal(format!(
                "no event after {after}, although the head is {up_to}"
            ))
        })
    }

    /// The database does not take the first `count` commands together: they go one by one, and
    /// the one that is not taken alone either is told so.
    pub(super) fn suspect(&mut self, count: usize, why: &str) {
        tracing::error!(why, commands = count, "database rejects a batch");
        metrics::counter!("sovereign_ledger_rejected_total").increment(1);
        // memory may disagree with the tables
        self.cache.clear();
        self.recent.clear();
        self.one_by_one = self.one_by_one.max(count);
        if count != 1 {
            return;
        }
        let Some(mut waiting) = self.redo.pop_front() else {
            return;
        };
        waiting.rejections += 1;
        if waiting.rejections >= REJECTIONS_MAX {
            let problem = Problem::new(ErrorCode::Internal, "the database does not take the event");
            waiting.answer(Outcome::failed(Status::Invalid, problem));
        } else {
            self.redo.push_front(waiting);
        }
    }

    pub(super) async fn lose(&mut self, error: StoreError) {
        self.lose_with(Lost::because(error)).await;
    }

    /// Ends the session. Everything that was not answered waits for the next.
    pub(super) async fn lose_with(&mut self, lost: Lost) {
        self.shared().database_fails(&lost.error);
        metrics::counter!("sovereign_ledger_sessions_lost_total").increment(1);
        let open = std::mem::replace(&mut self.open, Batch::on(self.committed));
        self.in_flight.clear();
        self.restart = false;
        let mut ended = Unanswered::default();
        if let Some(session) = self.session.take() {
            self.last_backend = Some(session.backend.clone());
            ended = session.end().await;
        }
        let mut waiting = ended.sent;
        waiting.extend(lost.unknown.into_iter().flat_map(Batch::into_unknown));
        waiting.extend(lost.unsent.into_iter().flat_map(Batch::into_waiting));
        waiting.extend(ended.unsent);
        waiting.extend(open.into_waiting());
        self.put_back(waiting);
        self.cache.clear();
        self.recent.clear();
    }

    /// Tries until there is a session. False if the ledger was closed and nobody waits.
    pub(super) async fn reconnect(&mut self) -> bool {
        let mut pause = BACK_OFF_MIN;
        loop {
            self.redo.retain(|waiting| !waiting.reply.is_closed());
            let ids: Vec<Uuid> = self
                .redo
                .iter()
                .map(|waiting| waiting.command_id())
                .collect();
            let previous = self.last_backend.as_ref();
            match reconnect::connect(&self.reader, previous, &ids).await {
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
                biased;
                control = self.controls.recv(), if !self.closing => self.control(control),
                () = tokio::time::sleep(pause) => {}
            }
            pause = (pause * 2).min(BACK_OFF_MAX);
        }
    }

    pub(super) fn take_over(&mut self, connected: reconnect::Connected) {
        tracing::info!(head = connected.tip.head.position.0, "ledger is writable");
        self.session = Some(connected.session);
        self.committed = connected.tip;
        self.open = Batch::on(connected.tip);
        self.in_flight.clear();
        self.restart = false;
        let found: HashMap<Uuid, First> = connected.found.iter().cloned().collect();
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
        for (command_id, first) in connected.found {
            self.recent.put(command_id, first);
        }
    }
}
