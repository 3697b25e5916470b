use std::collections::HashMap;
use std::sync::Arc;

use sovereign_schemas::Position;
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};

use super::carry::Carrier;
use super::outstanding::Outstanding;
use crate::logic::Reaction;
use crate::{RawRequest, RunnerError};

/// The reactions to one event.
struct Job {
    lane: String,
    /// None for what no event of this pass caused.
    position: Option<Position>,
    reactions: Vec<Reaction>,
}

/// Instruments at work side by side: within a lane one event's reactions after the other's,
/// across lanes in parallel. All of it ends when this is dropped.
pub(super) struct Lanes {
    tasks: JoinSet<()>,
    senders: Vec<mpsc::Sender<Job>>,
    expiry: mpsc::Sender<Job>,
    assigned: HashMap<String, usize>,
}

impl Lanes {
    pub(super) fn new(
        lanes: usize,
        lane_events: usize,
        carrier: &Arc<Carrier>,
        outstanding: &Arc<Outstanding>,
    ) -> Self {
        let mut tasks = JoinSet::new();
        let mut open = || {
            let (sender, jobs) = mpsc::channel(lane_events.max(1));
            tasks.spawn(run(jobs, carrier.clone(), outstanding.clone()));
            sender
        };
        let expiry = open();
        let senders = (0..lanes.max(1)).map(|_| open()).collect();
        Self {
            tasks,
            senders,
            expiry,
            assigned: HashMap::new(),
        }
    }

    /// Hands the reactions to the instrument's lane; waits while it is full.
    pub(super) async fn hand_over(
        &mut self,
        slug: String,
        position: Position,
        reactions: Vec<Reaction>,
    ) -> Result<(), RunnerError> {
        let next = self.assigned.len() % self.senders.len();
        let lane = *self.assigned.entry(slug.clone()).or_insert(next);
        let job = Job {
            lane: slug,
            position: Some(position),
            reactions,
        };
        self.senders[lane].send(job).await.map_err(|_| {
            RunnerError::Panicked("a lane has ended; the log names the cause".to_owned())
        })
    }

    /// Has overdue approvals ended; false if there is no room just now.
    pub(super) fn expire(&self, requests: Vec<RawRequest>) -> bool {
        let reactions = requests
            .into_iter()
            .map(|r| Reaction::Command(Box::new(r)))
            .collect();
        let job = Job {
            lane: "expiry".to_owned(),
            position: None,
            reactions,
        };
        self.expiry.try_send(job).is_ok()
    }

    /// Resolves when a lane has ended, which only a panic can do.
    pub(super) async fn failed(&mut self) -> RunnerError {
        match self.tasks.join_next().await {
            Some(Err(cause)) => RunnerError::Panicked(panic_text(cause)),
            _ => RunnerError::Panicked("a lane has ended".to_owned()),
        }
    }
}

fn panic_text(cause: JoinError) -> String {
    match cause.try_into_panic() {
        // the panic's own words may quote a payload
        Ok(_) => "it panicked".to_owned(),
        Err(cause) => cause.to_string(),
    }
}

async fn run(mut jobs: mpsc::Receiver<Job>, carrier: Arc<Carrier>, outstanding: Arc<Outstanding>) {
    while let Some(job) = jobs.recv().await {
        carrier.carry_out(&job.lane, job.reactions).await;
        if let Some(position) = job.position {
            outstanding.close(position);
        }
    }
}
