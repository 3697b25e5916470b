//! The built-in agents run in workers: each instrument belongs to a lane, and workers divide the
//! lanes as a consumer group. An engine that was asked for no workers takes part itself.

use std::sync::Arc;

use sovereign_agents::{Duties, LANES, Runner, RunnerHandle, RunnerOptions, SystemClock};
use sovereign_event_store::{Artifacts, Checkpoints, Ledger};
use sovereign_kafka::{KafkaOptions, WorkGroup, WorkOptions, names};
use sovereign_schemas::{Problem, Uuid};
use tokio::sync::watch;

use super::gateway::Door;
use super::market::SharedMarket;
use super::services::AgentCheckpoints;
use super::work;
use crate::location::{EngineState, Location};

/// A membership in the group that divides the lanes.
#[derive(Debug)]
pub(super) struct Lanes(WorkGroup);

impl Lanes {
    /// `member` names this process for good, or as long as it lives.
    pub(super) async fn join(
        kafka: KafkaOptions,
        ledger: Uuid,
        member: &str,
    ) -> Result<Self, Problem> {
        let group = format!("{}.agents", work::group(ledger));
        let units = (0..LANES).map(work::lane).collect();
        let mut options = WorkOptions::new(kafka, group, member, units);
        names::LANES.clone_into(&mut options.topic);
        Ok(Self(
            WorkGroup::join(options).await.map_err(|e| e.problem())?,
        ))
    }

    pub(super) async fn leave(&self) {
        self.0.leave().await;
    }
}

/// What the runner of this process does: the lanes that it was given, if it takes part, and the
/// expiry of approvals, where `own` says so.
pub(super) fn duties(
    lanes: Option<&Lanes>,
    own: Option<watch::Receiver<Duties>>,
) -> watch::Receiver<Duties> {
    let mut assigned = lanes.map(|lanes| lanes.0.assigned());
    let mut own = own;
    let (tell, told) = watch::channel(Duties::default());
    tokio::spawn(async move {
        loop {
            let units = assigned
                .as_mut()
                .map(|a| a.borrow_and_update().clone().units);
            let expiry = own.as_mut().is_some_and(|o| o.borrow_and_update().expiry);
            let lanes = units.map(|units| work::duties(&units).lanes);
            tell.send_replace(Duties {
                lanes: lanes.unwrap_or_default(),
                expiry,
            });
            let changed = tokio::select! {
                changed = changed(&mut assigned) => changed,
                changed = changed(&mut own) => changed,
            };
            if !changed {
                return;
            }
        }
    });
    told
}

/// Whether it changed, or nothing changes any more; never resolves where there is nothing.
async fn changed<T>(watched: &mut Option<watch::Receiver<T>>) -> bool {
    match watched {
        Some(watched) => watched.changed().await.is_ok(),
        None => std::future::pending().await,
    }
}

/// The agents of a worker.
#[derive(Debug)]
pub(crate) struct Agents {
    lanes: Lanes,
    runner: RunnerHandle,
}

impl Agents {
    /// Joins the group and works on the lanes that it gives.
    ///
    /// # Errors
    /// If brokers or database cannot be used.
    pub(crate) async fn start(
        location: &Location,
        state: &EngineState,
        member: &str,
        ledger: &Ledger,
        door: Arc<Door>,
    ) -> Result<Self, Problem> {
        let mut kafka = KafkaOptions::new(&state.brokers);
        kafka.properties.clone_from(&state.kafka_properties);
        let identity = ledger.reader().identity().await.map_err(|e| e.problem())?;
        let lanes = Lanes::join(kafka, identity, member).await?;
        let database = &state.worker_database;
        let artifacts = Artifacts::connect(database).map_err(|e| e.problem())?;
        let checkpoints = Checkpoints::connect(database).map_err(|e| e.problem())?;
        let options = RunnerOptions {
            duties: duties(Some(&lanes), None),
            ..RunnerOptions::default()
        };
        let runner = Runner::start(
            options,
            Box::new(ledger.tail()),
            door,
            Arc::new(AgentCheckpoints(checkpoints)),
            Arc::new(SharedMarket::new(location.path("market"), artifacts)),
            Arc::new(SystemClock),
        );
        Ok(Self { lanes, runner })
    }

    /// Stops after what is under way; the next owner of the lanes goes on there.
    pub(crate) async fn stop(&self) {
        self.runner.stop().await;
        self.lanes.leave().await;
    }
}
