use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::logs;

const POLL: Duration = Duration::from_millis(50);

/// Runs a package client to its end within `limit`; its output goes to `log` and is quoted when it
/// fails.
#[expect(
    clippy::disallowed_methods,
    reason = "runs on a blocking thread of its own"
)]
pub(super) fn run(command: &mut Command, what: &str, log: &Path, limit: Duration) -> Result<()> {
    let failed = |why: String| Error::Fetch {
        what: what.to_owned(),
        why,
        tail: logs::tail(log),
    };
    let out = File::create(log).map_err(Error::io("creating", log))?;
    let err = out
        .try_clone()
        .map_err(Error::io("duplicating the handle of", log))?;
    command.stdin(Stdio::null()).stdout(out).stderr(err);
    let program = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .spawn()
        .map_err(|error| failed(format!("{program} does not start: {error}")))?;
    let started = Instant::now();
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if started.elapsed() < limit => thread::sleep(POLL),
            Ok(None) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(failed(format!(
                    "{program} had no end after {} s",
                    limit.as_secs()
                )));
            }
            Err(error) => return Err(failed(format!("waiting for {program}: {error}"))),
        }
    };
    if !status.success() {
        return Err(failed(format!("{program} ended with {status}")));
    }
    fs::remove_file(log).map_err(Error::io("removing", log))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn failure_quotes_the_last_lines_and_time_is_bounded() {
        let base = tempfile::tempdir().unwrap();
        let log = base.path().join("log");
        let limit = Duration::from_secs(20);
        let mut command = Command::new("sh");
        command.args(["-c", "echo no such package >&2; exit 3"]);
        let text = run(&mut command, "x 1", &log, limit)
            .unwrap_err()
            .to_string();
        assert!(
            text.contains("no such package") && text.contains("exit status: 3"),
            "{text}"
        );
        let mut command = Command::new("sleep");
        let text = run(command.arg("30"), "x 1", &log, POLL)
            .unwrap_err()
            .to_string();
        assert!(text.contains("no end"), "{text}");
    }
}
