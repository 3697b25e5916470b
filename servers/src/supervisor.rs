//! One server under supervision: started, watched, restarted with back-off, stopped.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde::Serialize;
use tokio::process::Child;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::clock::unix_s;
use crate::error::{Error, Result};
use crate::launch::{Launch, Launcher};
use crate::logs;
use crate::processes;
use crate::state::StateFile;

const BACKOFF_FIRST: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// A server that lived that long starts again without delay.
const HEALTHY_AFTER: Duration = Duration::from_secs(60);
const PROBE_EVERY: Duration = Duration::from_millis(100);
const PROBE_LIMIT: Duration = Duration::from_secs(2);
const LOG_CHECK_EVERY: Duration = Duration::from_secs(10);
/// How long each signal of a stop may take.
const STOP_LIMIT: Duration = Duration::from_secs(30);
/// Exits in a row before a first start is given up.
const EARLY_EXITS_MAX: u64 = 6;

/// What a server is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Activity {
    /// Its process runs and does not answer yet.
    Starting,
    /// It answers.
    Running,
    /// Its process died; the next one is started after a delay.
    Restarting,
    /// It was stopped on request.
    Stopped,
}

/// Health of one server.
#[derive(Clone, Debug, Serialize)]
pub struct ServerHealth {
    /// What it is doing.
    pub activity: Activity,
    /// Since when, seconds since 1970.
    pub since: u64,
    /// Its process, while there is one.
    pub pid: Option<u32>,
    /// How often it had to be started again since this engine started.
    pub restarts: u64,
    /// How its last process ended, while this engine ran.
    pub last_exit: Option<String>,
}

impl ServerHealth {
    fn set(&mut self, activity: Activity, pid: Option<u32>) {
        (self.activity, self.pid, self.since) = (activity, pid, unix_s());
    }
}

/// What supervision needs to know about a server.
pub(crate) trait Server: Send + Sync + 'static {
    fn name(&self) -> &'static str;
    fn log(&self) -> PathBuf;
    fn launch(&self) -> Launch;
    /// Removes what a dead predecessor left in the way.
    fn prepare(&self) {}
    /// Whether it answers; the text says what was seen instead.
    fn probe(&self) -> impl Future<Output = std::result::Result<(), String>> + Send;
    /// Signals of a stop, each given [`STOP_LIMIT`]; KILL follows the last.
    fn stop_signals(&self) -> &'static [Signal];
}

/// A supervised server.
#[derive(Debug)]
pub(crate) struct Supervised {
    name: &'static str,
    log: PathBuf,
    health: watch::Receiver<ServerHealth>,
    stop: watch::Sender<bool>,
    task: tokio::sync::Mutex<Option<JoinHandle<()>>>,
}

impl Supervised {
    pub(crate) fn start<S: Server>(server: S, launcher: Launcher, state: Arc<StateFile>) -> Self {
        let mut first = ServerHealth {
            activity: Activity::Starting,
            since: 0,
            pid: None,
            restarts: 0,
            last_exit: None,
        };
        first.set(Activity::Starting, None);
        let (health_sender, health) = watch::channel(first);
        let (stop, stopping) = watch::channel(false);
        let (name, log) = (server.name(), server.log());
        let keeper = Keeper {
            server,
            launcher,
            state,
            health: health_sender,
            stopping,
        };
        let task = tokio::sync::Mutex::new(Some(tokio::spawn(keeper.run())));
        Self {
            name,
            log,
            health,
            stop,
            task,
        }
    }

    pub(crate) fn health(&self) -> ServerHealth {
        self.health.borrow().clone()
    }

    /// Waits until the server answers for the first time.
    pub(crate) async fn ready(&self, limit: Duration) -> Result<()> {
        let started = Instant::now();
        let mut health = self.health.clone();
        let done = health
            .wait_for(|now| now.activity == Activity::Running || now.restarts >= EARLY_EXITS_MAX);
        let why = match tokio::time::timeout(limit, done).await {
            Ok(Ok(now)) if now.activity == Activity::Running => return Ok(()),
            Ok(Ok(now)) => {
                let exit = now.last_exit.as_deref().unwrap_or("unknown").to_owned();
                format!("it ended {EARLY_EXITS_MAX} times, last with {exit}")
            }
            Ok(Err(_)) => "its supervision ended".to_owned(),
            Err(_) => "it runs and does not answer".to_owned(),
        };
        Err(Error::NotReady {
            server: self.name,
            waited_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
            why,
            tail: logs::tail(&self.log),
            log: self.log.clone(),
        })
    }

    /// Stops the server and waits for its end; again is no error.
    pub(crate) async fn stop(&self) {
        self.stop.send_replace(true);
        if let Some(task) = self.task.lock().await.take()
            && let Err(error) = task.await
        {
            tracing::error!(server = self.name, %error, "supervision ended badly");
        }
    }
}

/// Delay before the next start.
#[derive(Debug)]
struct Backoff {
    next: Duration,
}

impl Backoff {
    fn after(&mut self, lived: Duration) -> Duration {
        if lived >= HEALTHY_AFTER {
            self.next = BACKOFF_FIRST;
        }
        let delay = self.next;
        self.next = (delay * 2).min(BACKOFF_MAX);
        delay
    }
}

/// Ends when the server is to stop, also when whoever could say so is gone.
async fn stopped(mut stopping: watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stop| *stop).await;
}

enum End {
    Died(String),
    Stopped,
}

struct Keeper<S> {
    server: S,
    launcher: Launcher,
    state: Arc<StateFile>,
    health: watch::Sender<ServerHealth>,
    stopping: watch::Receiver<bool>,
}

impl<S: Server> Keeper<S> {
    async fn run(self) {
        let server = self.server.name();
        let mut backoff = Backoff {
            next: BACKOFF_FIRST,
        };
        while !*self.stopping.borrow() && self.stopping.has_changed().is_ok() {
            let started = Instant::now();
            let exit = match self.live_once().await {
                End::Stopped => break,
                End::Died(exit) => exit,
            };
            let delay = backoff.after(started.elapsed());
            let delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
            tracing::warn!(server, exit, delay_ms, "server ended and is started again");
            self.change(Activity::Restarting, None, Some(exit));
            if tokio::time::timeout(delay, stopped(self.stopping.clone()))
                .await
                .is_ok()
            {
                break;
            }
        }
        self.change(Activity::Stopped, None, None);
    }

    fn change(&self, activity: Activity, pid: Option<u32>, exit: Option<String>) {
        self.health.send_modify(|health| {
            if exit.is_some() {
                health.restarts += 1;
                health.last_exit = exit;
            }
            health.set(activity, pid);
        });
        if activity != Activity::Running {
            self.state.record_pid(self.server.name(), pid);
        }
    }

    async fn live_once(&self) -> End {
        let log = self.server.log();
        logs::bound(&log);
        self.server.prepare();
        let mut child = match self.launcher.server(&self.server.launch(), &log).await {
            Ok(child) => child,
            Err(error) => return End::Died(error.to_string()),
        };
        let pid = child.id();
        self.change(Activity::Starting, pid, None);
        let mut ready = false;
        let mut probe = tokio::time::interval(PROBE_EVERY);
        probe.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut log_check = tokio::time::interval(LOG_CHECK_EVERY);
        let mut stop = std::pin::pin!(stopped(self.stopping.clone()));
        loop {
            tokio::select! {
                exit = child.wait() => {
                    return End::Died(exit.map_or_else(|error| error.to_string(), |exit| exit.to_string()));
                }
                () = &mut stop => {
                    self.end(&mut child).await;
                    return End::Stopped;
                }
                _ = probe.tick(), if !ready => {
                    ready = self.answers().await;
                    if ready {
                        tracing::info!(server = self.server.name(), pid, "server answers");
                        self.change(Activity::Running, pid, None);
                    }
                }
                _ = log_check.tick() => logs::bound(&log),
            }
        }
    }

    async fn answers(&self) -> bool {
        matches!(
            tokio::time::timeout(PROBE_LIMIT, self.server.probe()).await,
            Ok(Ok(()))
        )
    }

    async fn end(&self, child: &mut Child) {
        let kill = [Signal::KILL];
        for signal in self.server.stop_signals().iter().chain(&kill) {
            if let Some(pid) = child.id() {
                processes::send(pid, *signal);
            }
            if tokio::time::timeout(STOP_LIMIT, child.wait()).await.is_ok() {
                return;
            }
            tracing::warn!(server = self.server.name(), ?signal, "server does not stop");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delay_doubles_to_its_bound_and_starts_over_after_a_healthy_life() {
        let mut backoff = Backoff {
            next: BACKOFF_FIRST,
        };
        let delays: Vec<u128> = (0..10)
            .map(|_| backoff.after(Duration::ZERO).as_millis())
            .collect();
        assert_eq!(
            delays,
            [200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30000, 30000]
        );
        assert_eq!(backoff.after(HEALTHY_AFTER).as_millis(), 200);
    }
}
