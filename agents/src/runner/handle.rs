use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use sovereign_schemas::{ErrorCode, Problem};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use super::shared::{Health, Progress, Shared};
use crate::StartOutcome;
use crate::market::MarketFile;

/// So long a caller waits for a task to be started.
const START_WAIT: Duration = Duration::from_secs(120);
/// So long a caller waits for the runner to end.
const STOP_WAIT: Duration = Duration::from_secs(10);

pub(super) struct StartRequest {
    pub(super) file: Arc<MarketFile>,
    pub(super) reply: oneshot::Sender<Result<StartOutcome, Problem>>,
}

/// A cheap handle to a running runner. When the last one is dropped, the runner stops.
#[derive(Clone)]
pub struct RunnerHandle {
    shared: Arc<Shared>,
    start: mpsc::Sender<StartRequest>,
    stop: Arc<watch::Sender<bool>>,
}

impl fmt::Debug for RunnerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunnerHandle")
            .field("health", &self.health())
            .finish_non_exhaustive()
    }
}

impl RunnerHandle {
    pub(super) fn new(
        shared: Arc<Shared>,
        start: mpsc::Sender<StartRequest>,
        stop: watch::Sender<bool>,
    ) -> Self {
        Self {
            shared,
            start,
            stop: Arc::new(stop),
        }
    }

    /// Has the file worked through, unless that was done or begun before. Returns once that is
    /// durable: after a crash the work goes on by itself. The runner's [`crate::MarketSource`]
    /// must be able to open the file by its digest.
    ///
    /// # Errors
    /// [`ErrorCode::WrongState`] if an instrument's hunter is at another file;
    /// [`ErrorCode::TimedOut`] if the ledger does not answer within 120 s;
    /// [`ErrorCode::EngineNotRunning`] if the runner has ended.
    pub async fn start_task(&self, file: Arc<MarketFile>) -> Result<StartOutcome, Problem> {
        let (reply, answer) = oneshot::channel();
        let ended = || Problem::new(ErrorCode::EngineNotRunning, "the agents have stopped");
        let asked = async {
            self.start
                .send(StartRequest { file, reply })
                .await
                .map_err(|_| ended())?;
            answer.await.map_err(|_| ended())?
        };
        timeout(START_WAIT, asked).await.unwrap_or_else(|_| {
            Err(
                Problem::new(ErrorCode::TimedOut, "the task could not be started in time")
                    .expected(format!("an answer within {} s", START_WAIT.as_secs())),
            )
        })
    }

    /// How far the work is.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.shared.progress()
    }

    /// How the runner is doing.
    #[must_use]
    pub fn health(&self) -> Health {
        self.shared.health()
    }

    /// Stops the runner and waits up to 10 s until it has saved its checkpoint. Returns whether
    /// it has ended by then.
    pub async fn stop(&self) -> bool {
        self.stop.send_replace(true);
        let mut ended = self.shared.ended();
        timeout(STOP_WAIT, ended.wait_for(|ended| *ended))
            .await
            .is_ok_and(|r| r.is_ok())
    }
}
