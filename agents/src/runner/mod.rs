//! The only part of this room that does I/O: follows the ledger, feeds the agents, carries out
//! what they answer, remembers how far it is.

mod carry;
mod duty;
mod handle;
mod pass;
mod pending;
mod shared;
mod workers;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use sovereign_schemas::{Position, Tail};
use tokio::sync::{mpsc, watch};
use tracing::{error, info, warn};

use crate::duties::{Duties, LANES};
use crate::{CheckpointStore, Clock, Gateway, MarketSource, RunnerError};

pub use handle::RunnerHandle;
pub use shared::{Health, Progress};

pub(crate) use carry::passing;

use carry::Carrier;
use handle::StartRequest;
use pass::Restart;
use pending::Pending;
use shared::Shared;

/// Tasks that may wait to be started.
const STARTS_MAX: usize = 16;

/// How the runner works.
#[derive(Debug, Clone)]
pub struct RunnerOptions {
    /// What the names of the checkpoints begin with.
    pub name: String,
    /// Most events read at once, at least 1.
    pub batch_events: usize,
    /// Instruments that are worked on at the same time, at least 1; more share.
    pub workers: usize,
    /// Events that may wait for one worker, at least 1.
    pub worker_events: usize,
    /// Which part of the work is this process', and every change of it; all of it by default.
    pub duties: watch::Receiver<Duties>,
    /// The checkpoints are saved at most this often.
    pub checkpoint_interval: Duration,
    /// First pause before a command is sent again.
    pub retry_min: Duration,
    /// Longest pause before a command is sent again.
    pub retry_max: Duration,
}

impl Default for RunnerOptions {
    fn default() -> Self {
        Self {
            name: "agents".to_owned(),
            batch_events: 1_024,
            workers: 16,
            worker_events: 64,
            duties: watch::channel(Duties::all()).1,
            checkpoint_interval: Duration::from_secs(1),
            retry_min: Duration::from_millis(5),
            retry_max: Duration::from_secs(2),
        }
    }
}

/// Runs the built-in agents. Dropping the future of [`Runner::run`] at any moment is like a
/// crash: the next runner goes on where this one was, and nothing happens twice.
pub struct Runner {
    options: RunnerOptions,
    tail: Box<dyn Tail>,
    checkpoints: Arc<dyn CheckpointStore>,
    clock: Arc<dyn Clock>,
    carrier: Arc<Carrier>,
    shared: Arc<Shared>,
    pending: Arc<Pending>,
    starts: mpsc::Receiver<StartRequest>,
    stop: watch::Receiver<bool>,
    duties: watch::Receiver<Duties>,
    /// The checkpoint of each lane, as stored.
    saved: [Position; LANES],
    /// Checkpoints lie beyond the ledger, so they are of another one.
    distrusts: bool,
}

impl fmt::Debug for Runner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runner")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl Runner {
    /// Puts a runner together; nothing happens before [`Runner::run`].
    #[must_use]
    pub fn new(
        options: RunnerOptions,
        tail: Box<dyn Tail>,
        gateway: Arc<dyn Gateway>,
        checkpoints: Arc<dyn CheckpointStore>,
        market: Arc<dyn MarketSource>,
        clock: Arc<dyn Clock>,
    ) -> (Self, RunnerHandle) {
        let shared = Arc::new(Shared::default());
        let (start, starts) = mpsc::channel(STARTS_MAX);
        let (stop_sender, stop) = watch::channel(false);
        let carrier = Carrier {
            gateway,
            market,
            shared: shared.clone(),
            retry_min: options.retry_min,
            retry_max: options.retry_max.max(options.retry_min),
        };
        let runner = Self {
            duties: options.duties.clone(),
            options,
            tail,
            checkpoints,
            clock,
            carrier: Arc::new(carrier),
            shared: shared.clone(),
            pending: Arc::default(),
            starts,
            stop,
            saved: [Position::START; LANES],
            distrusts: false,
        };
        (runner, RunnerHandle::new(shared, start, stop_sender))
    }

    /// Puts a runner together and lets it run on the current tokio runtime.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    #[must_use]
    pub fn start(
        options: RunnerOptions,
        tail: Box<dyn Tail>,
        gateway: Arc<dyn Gateway>,
        checkpoints: Arc<dyn CheckpointStore>,
        market: Arc<dyn MarketSource>,
        clock: Arc<dyn Clock>,
    ) -> RunnerHandle {
        let (runner, handle) = Self::new(options, tail, gateway, checkpoints, market, clock);
        tokio::spawn(runner.run());
        handle
    }

    /// Runs until [`RunnerHandle::stop`], or until something happens that needs a person; that is
    /// in [`RunnerHandle::health`] too.
    ///
    /// # Errors
    /// [`RunnerError`], after the checkpoint was saved.
    pub async fn run(mut self) -> Result<(), RunnerError> {
        let mut stop = self.stop.clone();
        let ended = tokio::select! {
            biased;
            // every handle gone counts as a stop as well
            _ = stop.wait_for(|stopped| *stopped) => Ok(()),
            ended = self.work() => ended,
        };
        let own = self.shared.health().lanes;
        self.save_checkpoints(&own).await;
        match &ended {
            Ok(()) => info!("agents stopped"),
            Err(cause) => error!(code = %cause.code(), error = %cause.problem(), "agents stopped"),
        }
        self.shared
            .end(ended.as_ref().err().map(RunnerError::problem));
        ended
    }

    async fn work(&mut self) -> Result<(), RunnerError> {
        loop {
            self.pending.reset();
            for lane in 0..LANES {
                self.saved[lane] = self.load_checkpoint(lane).await;
            }
            match self.pass().await? {
                Restart::Refold => {}
                Restart::Beyond(checkpoint) => {
                    warn!(%checkpoint, "checkpoint lies beyond the ledger; all reactions are sent again");
                    self.distrusts = true;
                }
            }
        }
    }
}
