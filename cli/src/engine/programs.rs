//! Programs of others: how they are started here, and where their complaints go.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use sovereign_agents::programs::{Complaints, Launch, Program, Running, Started};
use sovereign_guard::scrub::Scrubber;
use sovereign_servers::{Limited, LimitedLaunch, Limits};

/// A program's log is begun anew when it has grown to this; the one before is kept beside it.
const LOG_BYTES_MAX: u64 = 4 << 20;

/// Starts programs through this build's own binary.
pub(super) struct Launcher {
    /// The engine's folder, which no other engine has.
    pub(super) folder: PathBuf,
}

struct Process(Limited);

#[async_trait]
impl Launch for Launcher {
    async fn launch(&self, program: &Program, run: &str) -> io::Result<Started> {
        let launch = LimitedLaunch {
            shim: std::env::current_exe()?,
            name: program.name.to_string(),
            owner: self.folder.display().to_string(),
            program: program.command.clone(),
            args: program.arguments.clone(),
            limits: Limits {
                memory_bytes: program.memory_mib << 20,
                cpu_s: program.cpu_s,
                processes: program.processes,
            },
            run: run.to_owned(),
        };
        let mut limited = launch.start().await?;
        let missing = || io::Error::other("a pipe of the program is missing");
        Ok(Started {
            stdin: Box::new(limited.stdin.take().ok_or_else(missing)?),
            stdout: Box::new(limited.stdout.take().ok_or_else(missing)?),
            stderr: Box::new(limited.stderr.take().ok_or_else(missing)?),
            running: Box::new(Process(limited)),
        })
    }
}

#[async_trait]
impl Running for Process {
    async fn ended(&mut self) -> String {
        self.0.ended().await
    }

    async fn end(self: Box<Self>) {
        self.0.end().await;
    }
}

/// Keeps what programs write to standard error, scrubbed, in `logs/program-NAME.log`.
pub(super) fn complaints(folder: PathBuf) -> Complaints {
    let scrubber = Scrubber::standard();
    Arc::new(move |program, line| {
        let line = scrubber.scrub(line);
        // a log that cannot be written must not stop anybody
        if let Err(error) = keep(&folder, program, line.text()) {
            tracing::warn!(program, %error, "log of a program cannot be written");
        }
    })
}

fn keep(folder: &Path, program: &str, line: &str) -> io::Result<()> {
    // a name may hold what a file name may not
    let name: String = program
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '-' || c == '_' {
                c
            } else {
                '_'
            }
        })
        .collect();
    let path = folder.join(format!("program-{name}.log"));
    if std::fs::metadata(&path).is_ok_and(|m| m.len() > LOG_BYTES_MAX) {
        std::fs::rename(&path, folder.join(format!("program-{name}.log.1")))?;
    }
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)?;
    writeln!(file, "{line}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_are_scrubbed_and_a_name_leads_nowhere_else() {
        let folder = tempfile::tempdir().unwrap();
        let keep = complaints(folder.path().to_owned());
        keep("../x", "cannot reach 203.0.113.7");
        let text = std::fs::read_to_string(folder.path().join("program-___x.log")).unwrap();
        assert_eq!(text, "cannot reach [IP_ADDRESS_REDACTED]\n");
    }
}
