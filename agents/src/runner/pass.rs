use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use sovereign_schemas::{ErrorCode, LogError, Position, Problem, RecordedEvent, Status, Uuid};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{info, warn};

use super::Runner;
use super::carry::Carrier;
use super::handle::StartRequest;
use super::lanes::Lanes;
use crate::logic::Seen;
use crate::{Floor, RawRequest, RunnerError};

/// So long the ledger is waited for before the clock is looked at.
const WAIT: Duration = Duration::from_millis(200);
/// Clock and progress are looked at this often.
const TICK: Duration = Duration::from_millis(200);
/// Overdue approvals ended at once.
const EXPIRE_MAX: usize = 64;
/// Tasks being started at the same time.
const STARTING_MAX: usize = 4;

/// The pass has to begin anew.
pub(super) struct Restart;

/// One life of the agents: a fold from the first event on.
struct Pass {
    floor: Floor,
    lanes: Lanes,
    starting: JoinSet<()>,
    /// Reactions up to here are durable already.
    checkpoint: Position,
    seen: Position,
    caught_up: bool,
    ticked: Instant,
    saved: Instant,
    /// Expiries that were asked for.
    asked: HashSet<Uuid>,
}

impl Runner {
    /// Folds the ledger from position 1, with reactions from `checkpoint` on, until something
    /// ends it.
    pub(super) async fn pass(&mut self, checkpoint: Position) -> Result<Restart, RunnerError> {
        let now = Instant::now();
        let mut pass = Pass {
            floor: Floor::default(),
            lanes: Lanes::new(
                self.options.lanes,
                self.options.lane_events,
                &self.carrier,
                &self.outstanding,
            ),
            starting: JoinSet::new(),
            checkpoint,
            seen: Position::START,
            caught_up: false,
            ticked: now,
            saved: now,
            asked: HashSet::new(),
        };
        let mut pause = self.options.retry_min;
        loop {
            let room = pass.caught_up && pass.starting.len() < STARTING_MAX;
            let batch = tokio::select! {
                failed = pass.lanes.failed() => return Err(failed),
                Some(_) = pass.starting.join_next() => continue,
                Some(request) = self.starts.recv(), if room => {
                    pass.begin(&self.carrier, request);
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
                if pass.seen < checkpoint {
                    return Ok(Restart);
                }
                pass.caught_up = true;
                info!(position = %pass.seen, %checkpoint, "agents have caught up");
                self.tick(&mut pass);
            }
            if pass.ticked.elapsed() >= TICK {
                self.tick(&mut pass);
            }
            if pass.saved.elapsed() >= self.options.checkpoint_interval {
                pass.saved = Instant::now();
                self.save_checkpoint().await;
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
                if let Some((slug, reactions)) = pass.floor.step(&seen)
                    && position > pass.checkpoint
                {
                    self.outstanding.open(position);
                    pass.lanes.hand_over(slug, position, reactions).await?;
                }
            }
            pass.seen = position;
            self.outstanding.seen(position);
        }
        Ok(())
    }

    /// Tells the handles how far everything is, and ends overdue approvals.
    fn tick(&self, pass: &mut Pass) {
        pass.ticked = Instant::now();
        self.shared.at(pass.seen, pass.caught_up);
        let expiries = pass.floor.expiries();
        self.shared
            .publish(pass.seen, pass.floor.progress(), expiries.waiting());
        metrics::gauge!("sovereign_agents_position").set(pass.seen.0 as f64);
        if !pass.caught_up {
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
        if !ask.is_empty() && pass.lanes.expire(ask) {
            pass.asked.extend(ids);
        }
    }
}

impl Pass {
    /// Starts a task on the side, so that nothing else waits for it.
    fn begin(&mut self, carrier: &Arc<Carrier>, request: StartRequest) {
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
                let register = request.command.name() == "register";
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
