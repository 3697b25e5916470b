//! What runs, and how it is stopped.

use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use sovereign_agents::RunnerHandle;
use sovereign_agents::programs::Programs;
use sovereign_event_store::Ledger;
use sovereign_kafka::{CommandsHandle, RelayHandle, RelayState, WorkGroup};
use sovereign_projections::{ProjectorHandle, ViewsReader};
use sovereign_schemas::{ErrorCode, Problem};
use sovereign_servers::Servers;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::lanes::Lanes;
use super::letters::Letters;
use super::market::SharedMarket;
use crate::location::{EngineState, Location};

/// The last requests may take so long once the engine stops.
const CONSOLE_STOP_LIMIT: Duration = Duration::from_secs(10);

/// The parts that others look at. Those that start after the API are set once.
pub(crate) struct Parts {
    pub(super) ledger: Ledger,
    pub(super) servers: Option<Arc<Servers>>,
    pub(super) views: ProjectorHandle,
    /// Their rows, as the API reads them.
    pub(super) view_rows: ViewsReader,
    pub(super) relay: RwLock<Option<RelayHandle>>,
    pub(super) agents: OnceLock<RunnerHandle>,
    /// The agents' lanes, where this engine has no workers.
    pub(super) lanes: OnceLock<Lanes>,
    pub(super) programs: OnceLock<Programs>,
    pub(super) letters: OnceLock<Letters>,
    pub(super) commands: OnceLock<CommandsHandle>,
    /// Why the queue of jobs is not fed, if it should be fed here and is not.
    pub(super) jobs: OnceLock<watch::Receiver<Option<Problem>>>,
    /// Why jobs of schedules are not submitted, if they should be here and are not.
    pub(super) schedules: OnceLock<watch::Receiver<Option<Problem>>>,
    pub(super) market: Arc<SharedMarket>,
    pub(super) work: OnceLock<WorkGroup>,
    pub(super) state: OnceLock<EngineState>,
    pub(super) stop: watch::Sender<bool>,
}

/// How far the relay has come in its start.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum RelayStart {
    /// It runs, or has ended; health says how.
    Done,
    /// It tries.
    Underway,
    /// The brokers refuse it; only the operator can change that.
    Refused(Problem),
}

impl Parts {
    pub(super) fn relay_start(&self) -> RelayStart {
        let relay = self.relay.read().unwrap_or_else(PoisonError::into_inner);
        match relay.as_ref().map(|relay| relay.health().state) {
            None | Some(RelayState::Starting) => RelayStart::Underway,
            Some(RelayState::Waiting { problem, .. }) => match problem.code {
                ErrorCode::MissingRights | ErrorCode::BrokerAuth | ErrorCode::TlsFailed => {
                    RelayStart::Refused(problem)
                }
                _ => RelayStart::Underway,
            },
            Some(_) => RelayStart::Done,
        }
    }
}

/// A running engine.
pub(crate) struct Engine {
    pub(super) parts: Arc<Parts>,
    pub(super) console: JoinHandle<()>,
    /// Held until the end: no second engine may use the folder.
    pub(super) folder: sovereign_servers::DataFolder,
}

impl Engine {
    /// What takes work first, what carries it last; the servers at the very end.
    pub(super) async fn stop(self, location: &Location) {
        let Self {
            parts,
            console,
            folder,
        } = self;
        if let Some(programs) = parts.programs.get() {
            programs.stop().await;
        }
        if let Some(agents) = parts.agents.get() {
            agents.stop().await;
        }
        if tokio::time::timeout(CONSOLE_STOP_LIMIT, console)
            .await
            .is_err()
        {
            tracing::warn!("requests were cut off");
        }
        if let Some(commands) = parts.commands.get() {
            commands.stop().await;
        }
        parts.ledger.close().await;
        let relay = parts
            .relay
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(relay) = relay {
            relay.stop().await;
        }
        parts.views.stop().await;
        if let Some(lanes) = parts.lanes.get() {
            lanes.leave().await;
        }
        if let Some(work) = parts.work.get() {
            work.leave().await;
        }
        if let Some(servers) = &parts.servers {
            servers.stop().await;
        }
        if let Err(error) = std::fs::remove_file(location.path("engine.json")) {
            tracing::warn!(%error, "engine.json stays");
        }
        drop(folder);
    }
}
