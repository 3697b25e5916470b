//! Servers of an earlier engine that still run on the same files.
//!
//! They are found by what they are started with, not by a recorded pid: a pid may be of another
//! process by now, and an engine may die before it has written one down.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use crate::error::{Error, Result};

/// How long an earlier server may take to end.
const END_LIMIT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);

/// Which processes belong to one server.
#[derive(Clone, Debug)]
pub(crate) enum Owned {
    /// The postmaster with `-D folder` and any backend in it.
    Postgres { data: PathBuf },
    /// The JVM that runs `kafka.Kafka` with this properties file.
    Kafka { properties: PathBuf },
}

impl Owned {
    fn name(&self) -> &'static str {
        match self {
            Self::Postgres { .. } => "postgres",
            Self::Kafka { .. } => "kafka",
        }
    }

    fn matches(&self, process: &Path) -> bool {
        match self {
            Self::Postgres { data } => {
                let named = fs::read(process.join("comm")).is_ok_and(|name| name == b"postgres\n");
                named
                    && (fs::read_link(process.join("cwd")).is_ok_and(|folder| folder == *data)
                        || arguments(process).iter().any(|arg| Path::new(arg) == data))
            }
            Self::Kafka { properties } => {
                let args = arguments(process);
                args.iter().any(|arg| arg == "kafka.Kafka")
                    && args.iter().any(|arg| Path::new(arg) == properties)
            }
        }
    }

    /// Pids of the processes that run on these files now.
    pub(crate) fn running(&self) -> Vec<u32> {
        let Ok(entries) = fs::read_dir("/proc") else {
            return Vec::new();
        };
        let pids = entries.flatten().filter_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            self.matches(&entry.path()).then_some(pid)
        });
        pids.filter(|pid| *pid != std::process::id()).collect()
    }

    /// Waits for an earlier server to end. The data folder's lock is ours, so nobody supervises
    /// it: it is told to stop cleanly in case it never got its parent-death signal.
    pub(crate) async fn wait_until_gone(
        &self,
        progress: &(dyn Fn(&str) + Send + Sync),
    ) -> Result<()> {
        let started = Instant::now();
        let mut told = false;
        loop {
            let running = self.running();
            let Some(first) = running.first().copied() else {
                return Ok(());
            };
            if !told {
                told = true;
                progress(&format!(
                    "waiting for an earlier {} (process {first}) to end",
                    self.name()
                ));
                let signal = match self {
                    Self::Postgres { .. } => Signal::INT,
                    Self::Kafka { .. } => Signal::TERM,
                };
                send(first, signal);
            }
            if started.elapsed() > END_LIMIT {
                let waited_s = END_LIMIT.as_secs();
                return Err(Error::StillRunning {
                    server: self.name(),
                    pid: first,
                    waited_s,
                });
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

/// Sends a signal; a process that is gone already is what the caller wants anyway.
pub(crate) fn send(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// Whether `pid` is a live process with another name than `name`.
pub(crate) fn is_other_program(pid: u32, name: &str) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim_end() != name)
}

fn arguments(process: &Path) -> Vec<String> {
    let bytes = fs::read(process.join("cmdline")).unwrap_or_default();
    bytes
        .split(|byte| *byte == 0)
        .map(|arg| String::from_utf8_lossy(arg).into_owned())
        .collect()
}
