use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use sovereign_schemas::{ErrorCode, LogError, Position, Problem, RecordedEvent, Status, Uuid};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{info, warn};

use super::Runner;
use super::carry::Carrier;
use super::duty::BEYOND_WAIT;
use super::handle::StartRequest;
use super::pending::Job;
use super::workers::{Over, Workers};
use crate::duties::{LANES, lane_of};
use crate::logic::Seen;
use crate::{Floor, RawRequest, RunnerError};

/// So long the ledger is waited for before the clock is looked at.
const WAIT: Duration = Duration::from_millis(200);
/// Clock and progress are looked at this often.
const TICK: Duration = Duration::from_millis(200);
/// What waits so long for another process is waited for in vain: a take-over takes 6 s, its start
/// and fold a little more.
const IDLE_AFTER: Duration = Duration::from_secs(30);
/// Overdue approvals ended at once.
const EXPIRE_MAX: usize = 64;
/// Tasks being started at the same time.
const STARTING_MAX: usize = 4;

/// The pass has to begin anew.
pub(super) enum Restart {
    /// A lane needs reactions that are not kept any more.
    Refold,
    /// A checkpoint lies beyond the ledger.
    Beyond(Position),
}

/// One life of the agents: a fold from the first event on.
pub(super) struct Pass {
    floor: Floor,
    pub(super) workers: Workers,
    starting: JoinSet<()>,
    /// Reactions of each lane up to here are durable already.
    pub(super) checkpoints: [Position; LANES],
    /// The lanes that are worked on here.
    pub(super) held: [Option<Over>; LANES],
    /// Whether overdue approvals are ended here.
    pub(super) expiry: bool,
    seen: Position,
    caught_up: bool,
    /// Since when the ledger seems to end before a checkpoint.
    short_since: Option<Instant>,
    ticked: Instant,
    saved: Instant,
    /// Expiries that were asked for.
    asked: HashSet<Uuid>,
}

impl Runner {
    fn begin(&self) -> Pass {
        let now = Instant::now();
        Pass {
            floor: Floor::default(),
            workers: Workers::new(
                self.options.workers,
                self.options.worker_events,
                &self.carrier,
                &self.pending,
            ),
            starting: JoinSet::new(),
            checkpoints: self.saved,
            held: Default::default(),
            expiry: false,
            seen: Position::START,
            caught_up: false,
            short_since: None,
            ticked: now,
            saved: now,
            asked: HashSet::new(),
        }
    }

    /// Folds the ledger from position 1, with reactions of each lane from its checkpoint on, until
    /// something ends it.
    pub(super) async fn pass(&mut self) -> Result<Restart, RunnerError> {
        let mut pass = self.begin();
        if let Err(restart) = self.rearrange(&mut pass).await {
            return Ok(restart);
        }
        // a sender that is gone changes nothing any more
        let mut settled = false;
        let mut pause = self.options.retry_min;
        loop {
            let room = pass.caught_up && pass.starting.len() < STARTING_MAX;
            let batch = tokio::select! {
                failed = pass.workers.failed() => return Err(failed),
                changed = self.duties.changed(), if !settled => {
                    settled = changed.is_err();
                    if let Err(restart) = self.rearrange(&mut pass).await {
                        return Ok(restart);
                    }
                    continue;
                }
                Some(_) = pass.starting.join_next() => continue,
                Some(request) = self.starts.recv(), if room => {
                    pass.start(&self.carrier, request);
                    continue;
                }
                batch = self.tail.next(pass.seen, self.options.batch_events, WAIT) => batch,
            };
            let at_end = match batch {
                Ok(events) => {
                    pause = self.options.retry_min;
                    self.shared.recovered("log");
                    self.take(&mut pass, &events).await?;
                    events.len() < self.options.batch_events
                }
                Err(LogError::Unreachable(cause)) => {
                    let problem = Problem::new(ErrorCode::DatabaseUnreachable, cause);
                    self.shared.in_trouble("log", problem);
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(self.options.retry_max);
                    continue;
                }
                Err(cause) => return Err(cause.into()),
            };
            if at_end && !pass.caught_up {
                match pass.beyond() {
                    Some(checkpoint) => return Ok(Restart::Beyond(checkpoint)),
                    None if pass.short_since.is_some() => {}
                    None => {
                        pass.caught_up = true;
                        info!(position = %pass.seen, "agents have caught up");
                        self.tick(&mut pass);
                    }
                }
            }
            if pass.ticked.elapsed() >= TICK {
                self.tick(&mut pass);
            }
            if pass.saved.elapsed() >= self.options.checkpoint_interval {
                pass.saved = Instant::now();
                self.save_checkpoints(&pass.held_lanes()).await;
                self.prune_others(&pass).await;
            }
        }
    }

    /// Shows the agents these events and hands on what they answer.
    async fn take(
        &mut self,
        pass: &mut Pass,
        events: &[Arc<RecordedEvent>],
    ) -> Result<(), RunnerError> {
        for event in events {
            let position = event.position();
            if Floor::wants(&event.header) {
                let seen = Seen::decode(event.clone())
                    .map_err(|cause| RunnerError::Decode { position, cause })?;
                if let Some((slug, reactions)) = pass.floor.step(&seen) {
                    let lane = lane_of(&slug);
                    let job = Job {
                        lane,
                        slug,
                        position,
                        reactions,
                        since: Instant::now(),
                    };
                    self.dispatch(pass, job).await?;
                }
            }
            pass.seen = position;
            self.pending.seen(position);
        }
        Ok(())
    }

    async fn dispatch(&mut self, pass: &mut Pass, job: Job) -> Result<(), RunnerError> {
        if job.position <= pass.checkpoints[job.lane] {
            return Ok(());
        }
        let job = Arc::new(job);
        match &pass.held[job.lane] {
            Some(over) => {
                self.pending.open(&job);
                pass.workers.hand_over(&job, over).await
            }
            None => {
                self.pending.keep(&job);
                Ok(())
            }
        }
    }

    /// Red when nobody does what the agents of other processes' lanes want.
    fn idle(&self, caught_up: bool, oldest: Option<Instant>) {
        match oldest.map(|since| since.elapsed()) {
            Some(waits) if caught_up && waits > IDLE_AFTER => {
                let problem = Problem::new(
                    ErrorCode::AgentsIdle,
                    format!(
                        "what agents want waits for a worker since {} s",
                        waits.as_secs()
                    ),
                );
                self.shared.in_trouble("lanes", problem);
            }
            _ => self.shared.recovered("lanes"),
        }
    }

    /// Tells the handles how far everything is, and ends overdue approvals.
    fn tick(&self, pass: &mut Pass) {
        pass.ticked = Instant::now();
        self.shared.at(pass.seen, pass.caught_up);
        let expiries = pass.floor.expiries();
        let (pending, oldest) = self.pending.waiting(&pass.held_lanes());
        self.idle(pass.caught_up, oldest);
        let waiting = (expiries.waiting(), pending);
        self.shared
            .publish(pass.seen, pass.floor.progress(), waiting);
        metrics::gauge!("sovereign_agents_position").set(pass.seen.0 as f64);
        if !pass.caught_up || !pass.expiry {
            return;
        }
        let due = expiries.due(self.clock.now(), EXPIRE_MAX);
        pass.asked
            .retain(|id| due.iter().any(|r| r.context.command_id == *id));
        let ask: Vec<RawRequest> = due
            .into_iter()
            .filter(|r| !pass.asked.contains(&r.context.command_id))
            .collect();
        let ids: Vec<Uuid> = ask.iter().map(|r| r.context.command_id).collect();
        if !ask.is_empty() && pass.workers.expire(ask) {
            pass.asked.extend(ids);
        }
    }
}

impl Pass {
    pub(super) fn held_lanes(&self) -> Vec<usize> {
        (0..LANES)
            .filter(|lane| self.held[*lane].is_some())
            .collect()
    }

    /// A checkpoint beyond the ledger, if it stays there: the owner before may have written more
    /// than this process has heard of, but only for a moment.
    fn beyond(&mut self) -> Option<Position> {
        let furthest = self
            .held_lanes()
            .into_iter()
            .map(|lane| self.checkpoints[lane])
            .max()
            .filter(|checkpoint| *checkpoint > self.seen);
        if furthest.is_none() {
            self.short_since = None;
            return None;
        }
        let since = *self.short_since.get_or_insert_with(Instant::now);
        furthest.filter(|_| since.elapsed() > BEYOND_WAIT)
    }

    /// Starts a task on the side, so that nothing else waits for it.
    fn start(&mut self, carrier: &Arc<Carrier>, request: StartRequest) {
        let StartRequest { file, reply } = request;
        let (outcome, requests) = match self.floor.start(&file) {
            Ok(plan) => plan,
            Err(problem) => {
                // nobody waits any more: nothing to do about it
                let _ = reply.send(Err(problem));
                return;
            }
        };
        info!(input = %file.digest(), bars = file.bars(), ?outcome, "market task");
        let carrier = carrier.clone();
        self.starting.spawn(async move {
            let mut failure = None;
            let mut last = Position::START;
            for request in requests {
                // an agent that is there is there, and one at work is defined when it rests
                let register = matches!(request.command.name(), "register" | "define");
                let answer = carrier.send("start", request).await;
                let taken = matches!(answer.status, Status::Accepted | Status::Duplicate);
                last = answer.positions.map_or(last, |(_, to)| last.max(to));
                if !taken && !register {
                    failure = failure.or(answer.error);
                }
            }
            if let Some(problem) = &failure {
                warn!(code = %problem.code, "market task not started");
            }
            // whoever looks at the progress next finds the task there
            carrier.shared.published_up_to(last).await;
            let _ = reply.send(failure.map_or(Ok(outcome), Err));
        });
    }
}
