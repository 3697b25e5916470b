use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sovereign_schemas::{Position, Problem};
use tokio::sync::watch;
use tokio::time::Instant;

use super::LedgerProbe;
use super::port::RelayPort;
use super::visible::Visible;
use crate::telemetry::Lag;

/// How often the ledger's head is looked at, for the lag.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How often readers' view is looked at: each look is a request to the brokers.
const LOOK_AT_READERS_EVERY: Duration = Duration::from_secs(1);

/// What the relay is doing.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum RelayState {
    /// Takes over from whoever was before.
    Starting,
    /// Relays.
    Running,
    /// Another engine relays; this one takes over when it is gone.
    Standby,
    /// Cannot go on just now and tries again by itself.
    Waiting {
        /// For how long.
        for_ms: u64,
        /// Why.
        problem: Problem,
    },
    /// Does nothing any more: it was stopped, or somebody must act.
    Stopped {
        /// Why, unless it was told to.
        problem: Option<Problem>,
    },
}

/// How the relay is.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct RelayHealth {
    /// What it is doing.
    #[serde(flatten)]
    pub state: RelayState,
    /// Last position that is committed to the topics; readers see it within milliseconds, as
    /// brokers write transactions' markers behind the answer.
    pub position: Position,
    /// Last position of the ledger as far as known.
    pub head: Position,
    /// How many events are still to be relayed.
    pub lag: u64,
    /// Set if readers do not see what was committed a while ago.
    pub hidden: Option<Problem>,
    /// False if it was stopped by a problem, has made no progress for a while with a lag, or what
    /// it has committed is hidden.
    pub healthy: bool,
}

enum Phase {
    Starting,
    Running,
    Standby,
    Waiting(Instant, Problem),
    Stopped(Option<Problem>),
}

/// What all parts of one relay tell each other.
pub(crate) struct Shared {
    phase: Mutex<Phase>,
    progress: Mutex<Instant>,
    position: AtomicU64,
    head: AtomicU64,
    red_after: Duration,
    pub(crate) visible: Visible,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.health().fmt(f)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(crate) fn new(red_after: Duration) -> Self {
        Self {
            phase: Mutex::new(Phase::Starting),
            progress: Mutex::new(Instant::now()),
            position: AtomicU64::new(0),
            head: AtomicU64::new(0),
            red_after,
            visible: Visible::default(),
        }
    }

    pub(crate) fn position(&self) -> Position {
        Position(self.position.load(Ordering::Acquire))
    }

    /// A transaction became visible.
    pub(crate) fn advanced(&self, position: Position) {
        self.position.store(position.0, Ordering::Release);
        self.saw_head(position);
        *lock(&self.progress) = Instant::now();
    }

    /// The ledger is at least so far.
    pub(crate) fn saw_head(&self, head: Position) {
        self.head.fetch_max(head.0, Ordering::AcqRel);
        if self.head.load(Ordering::Acquire) <= self.position.load(Ordering::Acquire) {
            *lock(&self.progress) = Instant::now();
        }
    }

    /// Somebody else's transaction became visible.
    pub(crate) fn saw_position(&self, position: Position) {
        if position > self.position() {
            self.advanced(position);
        }
    }

    pub(crate) fn starting(&self) {
        *lock(&self.phase) = Phase::Starting;
    }

    pub(crate) fn standing_by(&self) {
        *lock(&self.phase) = Phase::Standby;
    }

    pub(crate) fn running(&self) {
        *lock(&self.phase) = Phase::Running;
    }

    pub(crate) fn waiting(&self, problem: Problem) {
        let mut phase = lock(&self.phase);
        let since = match &*phase {
            Phase::Waiting(since, _) => *since,
            _ => Instant::now(),
        };
        *phase = Phase::Waiting(since, problem);
    }

    pub(crate) fn stopped(&self, problem: Option<Problem>) {
        *lock(&self.phase) = Phase::Stopped(problem);
    }

    pub(crate) fn health(&self) -> RelayHealth {
        let position = self.position();
        let head = Position(self.head.load(Ordering::Acquire)).max(position);
        let lag = head.0 - position.0;
        let stuck = lag > 0 && lock(&self.progress).elapsed() > self.red_after;
        let state = match &*lock(&self.phase) {
            Phase::Starting => RelayState::Starting,
            Phase::Running => RelayState::Running,
            Phase::Standby => RelayState::Standby,
            Phase::Waiting(since, problem) => RelayState::Waiting {
                for_ms: u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX),
                problem: problem.clone(),
            },
            Phase::Stopped(problem) => RelayState::Stopped {
                problem: problem.clone(),
            },
        };
        let failed = matches!(state, RelayState::Stopped { problem: Some(_) });
        let hidden = self.visible.problem();
        RelayHealth {
            state,
            position,
            head,
            lag,
            healthy: !stuck && !failed && hidden.is_none(),
            hidden,
        }
    }
}

/// Keeps what readers see current, until stopped.
pub(crate) async fn follow_readers(
    shared: Arc<Shared>,
    port: Arc<dyn RelayPort>,
    mut stopped: watch::Receiver<bool>,
) {
    loop {
        let (unseen, asked) = (shared.visible.unseen(), Instant::now());
        // brokers that do not answer just now show in the lag
        if !unseen.is_empty()
            && let Ok(ends) = port.ends(&unseen).await
        {
            shared.visible.saw(&unseen, &ends, asked);
        }
        let pause = LOOK_AT_READERS_EVERY;
        let over = tokio::time::timeout(pause, stopped.wait_for(|stop| *stop)).await;
        if over.is_ok() {
            return;
        }
    }
}

/// Keeps the lag current, until stopped.
pub(crate) async fn follow(
    shared: Arc<Shared>,
    ledger: Arc<dyn LedgerProbe>,
    mut stopped: watch::Receiver<bool>,
) {
    loop {
        // a ledger that cannot be read just now is reported by its own health
        if let Ok(head) = ledger.head().await {
            shared.saw_head(head.position);
        }
        let health = shared.health();
        Lag {
            events: health.lag,
            healthy: health.healthy,
        }
        .emit();
        let over = tokio::time::timeout(LOOK_EVERY, stopped.wait_for(|stop| *stop)).await;
        if over.is_ok() {
            return;
        }
    }
}
