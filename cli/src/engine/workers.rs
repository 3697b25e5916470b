//! Workers that the engine was asked to start: processes of their own, started again when they die.

use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::location::Location;

/// A worker that died is started again after so long.
const PAUSE: Duration = Duration::from_secs(1);
/// A worker has so long to end by itself: its grace and a little more.
const END_LIMIT: Duration = Duration::from_secs(40);

/// The workers beside an engine.
#[derive(Debug)]
pub(super) struct Workers {
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl Workers {
    pub(super) fn start(location: &Location, count: u8) -> Self {
        let stop = CancellationToken::new();
        let tasks = (0..count)
            .map(|number| tokio::spawn(keep(location.clone(), number, stop.clone())))
            .collect();
        Self { stop, tasks }
    }

    /// Asks them to stop, and waits until they have.
    pub(super) async fn stop(self) {
        self.stop.cancel();
        for task in self.tasks {
            let _ = task.await;
        }
    }
}

async fn keep(location: Location, number: u8, stop: CancellationToken) {
    while !stop.is_cancelled() {
        match spawn(&location, number) {
            Ok(mut child) => {
                tokio::select! {
                    ended = child.wait() => tracing::warn!(?ended, "worker ended"),
                    () = stop.cancelled() => return end(child).await,
                }
            }
            Err(error) => tracing::warn!(%error, "worker cannot be started"),
        }
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            () = stop.cancelled() => return,
        }
    }
}

fn spawn(location: &Location, number: u8) -> std::io::Result<Child> {
    let log = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(location.path("logs").join("worker.log"))?;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("worker").arg("--data").arg(&location.folder);
    command.arg("--parent").arg(std::process::id().to_string());
    if let Ok(Some(state)) = location.state() {
        // it goes on with its lanes when it is started again
        command
            .arg("--member")
            .arg(format!("{}-{number}", state.engine));
    }
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
}

async fn end(mut child: Child) {
    let pid = child.id().and_then(|id| i32::try_from(id).ok());
    if let Some(pid) = pid.and_then(Pid::from_raw) {
        // one that has just ended needs no signal
        let _ = kill_process(pid, Signal::TERM);
    }
    if tokio::time::timeout(END_LIMIT, child.wait()).await.is_err() {
        let _ = child.kill().await;
    }
}
