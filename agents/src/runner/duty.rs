//! Lanes come and go while the agents work.

use std::sync::Arc;
use std::time::Duration;

use sovereign_schemas::Position;
use tracing::{info, warn};

use super::Runner;
use super::pass::{Pass, Restart};
use super::workers::Over;
use crate::RunnerError;
use crate::duties::LANES;

impl Runner {
    /// Takes lanes on and gives them up as the duties now say. A lane that is taken on goes on
    /// where its last owner's checkpoint is: what came behind it is known here too, unless it was
    /// too much to keep, which takes a new fold.
    pub(super) async fn rearrange(&mut self, pass: &mut Pass) -> Result<(), Restart> {
        let duties = self.duties.borrow_and_update().clone();
        pass.expiry = duties.expiry;
        for lane in 0..LANES {
            match (&pass.held[lane], duties.lanes.contains(&lane)) {
                (Some(over), false) => {
                    over.send_replace(true);
                    pass.held[lane] = None;
                    self.shared.holds(pass.held_lanes());
                    info!(lane, "agents give up a lane");
                    self.save_checkpoints(&[lane]).await;
                }
                (None, true) => self.take_on(pass, lane).await?,
                _ => {}
            }
        }
        Ok(())
    }

    async fn take_on(&mut self, pass: &mut Pass, lane: usize) -> Result<(), Restart> {
        let checkpoint = self.load_checkpoint(lane).await;
        self.saved[lane] = checkpoint;
        self.pending.prune(lane, checkpoint);
        let Some(jobs) = self.pending.of(lane, checkpoint) else {
            warn!(lane, %checkpoint, "lane is too far behind; agents fold the ledger again");
            return Err(Restart::Refold);
        };
        info!(lane, %checkpoint, jobs = jobs.len(), "agents take a lane on");
        let over = Over::default();
        pass.checkpoints[lane] = checkpoint;
        pass.held[lane] = Some(Arc::clone(&over));
        self.shared.holds(pass.held_lanes());
        for job in jobs {
            // a worker that has ended is reported by the pass
            let _: Result<(), RunnerError> = pass.workers.hand_over(&job, &over).await;
        }
        Ok(())
    }

    /// Forgets what the owners of other lanes have done meanwhile.
    pub(super) async fn prune_others(&mut self, pass: &Pass) {
        for lane in (0..LANES).filter(|lane| pass.held[*lane].is_none()) {
            if !self.pending.has_any(lane) || self.distrusts {
                continue;
            }
            match self.stored(lane).await {
                Ok(checkpoint) => self.pending.prune(lane, checkpoint),
                Err(problem) => return self.shared.in_trouble("checkpoint", problem),
            }
        }
    }

    /// Where the lane's last owner was, as soon as it can be read; the start, if checkpoints are
    /// not believed.
    pub(super) async fn load_checkpoint(&mut self, lane: usize) -> Position {
        if self.distrusts {
            return Position::START;
        }
        let mut pause = self.options.retry_min;
        loop {
            match self.stored(lane).await {
                Ok(position) => {
                    self.shared.recovered("checkpoint");
                    return position;
                }
                Err(problem) => {
                    self.shared.in_trouble("checkpoint", problem);
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(self.options.retry_max);
                }
            }
        }
    }

    async fn stored(&mut self, lane: usize) -> Result<Position, sovereign_schemas::Problem> {
        // a build without lanes had one checkpoint for all of them
        let before = self.checkpoints.load(&self.options.name).await?;
        Ok(before.max(self.checkpoints.load(&self.name_of(lane)).await?))
    }

    fn name_of(&self, lane: usize) -> String {
        format!("{}/{lane:02}", self.options.name)
    }

    /// Saves how far everything of these lanes is durable, where that has grown. A failure costs
    /// nothing but work that is done again after a restart.
    pub(super) async fn save_checkpoints(&mut self, lanes: &[usize]) {
        let mut grown = Vec::new();
        let mut names = Vec::new();
        for &lane in lanes {
            let position = self.pending.durable(lane);
            if position > self.saved[lane] {
                grown.push((lane, position));
                names.push((self.name_of(lane), position));
            }
        }
        if grown.is_empty() {
            return;
        }
        match self.checkpoints.save(&names).await {
            Ok(()) => {
                for (lane, position) in grown {
                    self.saved[lane] = position;
                }
                let oldest = lanes.iter().map(|lane| self.saved[*lane]).min();
                self.shared.saved(oldest.unwrap_or_default());
                self.shared.recovered("checkpoint");
            }
            Err(problem) => {
                warn!(code = %problem.code, "checkpoints not saved");
                self.shared.in_trouble("checkpoint", problem);
            }
        }
    }
}

/// So long a ledger may seem to end before a checkpoint that another process has just written.
pub(super) const BEYOND_WAIT: Duration = Duration::from_secs(2);
