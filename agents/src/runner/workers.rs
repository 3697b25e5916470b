use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinSet};

use super::carry::Carrier;
use super::pending::{Job, Pending};
use crate::logic::Reaction;
use crate::{RawRequest, RunnerError};

/// Becomes true when a lane is no longer this process'. Shared with the jobs that were handed over.
pub(super) type Over = Arc<watch::Sender<bool>>;

enum Task {
    Job(Arc<Job>, Over),
    Expire(Vec<RawRequest>),
}

/// Instruments at work side by side: within a worker one event's reactions after the other's,
/// across workers in parallel. All of it ends when this is dropped.
pub(super) struct Workers {
    tasks: JoinSet<()>,
    senders: Vec<mpsc::Sender<Task>>,
    expiry: mpsc::Sender<Task>,
    assigned: HashMap<String, usize>,
}

impl Workers {
    pub(super) fn new(
        workers: usize,
        worker_events: usize,
        carrier: &Arc<Carrier>,
        pending: &Arc<Pending>,
    ) -> Self {
        let mut tasks = JoinSet::new();
        let mut open = || {
            let (sender, jobs) = mpsc::channel(worker_events.max(1));
            tasks.spawn(run(jobs, carrier.clone(), pending.clone()));
            sender
        };
        let expiry = open();
        let senders = (0..workers.max(1)).map(|_| open()).collect();
        Self {
            tasks,
            senders,
            expiry,
            assigned: HashMap::new(),
        }
    }

    /// Hands a job to the instrument's worker; waits while it is full.
    pub(super) async fn hand_over(
        &mut self,
        job: &Arc<Job>,
        over: &Over,
    ) -> Result<(), RunnerError> {
        let worker = match self.assigned.get(&job.slug) {
            Some(worker) => *worker,
            None => {
                let next = self.assigned.len() % self.senders.len();
                *self.assigned.entry(job.slug.clone()).or_insert(next)
            }
        };
        let task = Task::Job(Arc::clone(job), Arc::clone(over));
        self.senders[worker].send(task).await.map_err(|_| {
            RunnerError::Panicked("a worker has ended; the log names the cause".to_owned())
        })
    }

    /// Has overdue approvals ended; false if there is no room just now.
    pub(super) fn expire(&self, requests: Vec<RawRequest>) -> bool {
        self.expiry.try_send(Task::Expire(requests)).is_ok()
    }

    /// Resolves when a worker has ended, which only a panic can do.
    pub(super) async fn failed(&mut self) -> RunnerError {
        match self.tasks.join_next().await {
            Some(Err(cause)) => RunnerError::Panicked(panic_text(cause)),
            _ => RunnerError::Panicked("a worker has ended".to_owned()),
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

async fn run(mut tasks: mpsc::Receiver<Task>, carrier: Arc<Carrier>, pending: Arc<Pending>) {
    while let Some(task) = tasks.recv().await {
        match task {
            Task::Job(job, over) => {
                let mut over = over.subscribe();
                tokio::select! {
                    biased;
                    // whoever has the lane now does it, and this process still knows of it; to be
                    // cut off in the middle is like a crash
                    _ = over.wait_for(|over| *over) => carrier.shared.recovered(&job.slug),
                    () = carrier.carry_out(&job.slug, job.reactions.clone()) => pending.close(&job),
                }
            }
            Task::Expire(requests) => {
                let commands = requests.into_iter().map(Box::new).map(Reaction::Command);
                carrier.carry_out("expiry", commands.collect()).await;
            }
        }
    }
}
