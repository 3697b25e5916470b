use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sovereign_schemas::{ErrorCode, Problem};
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::args::{Global, UpArgs};
use crate::client::Client;
use crate::engine;
use crate::failure::{Failure, Result, internal};
use crate::location::Location;
use crate::output::{Output, Tone};

/// How long a start may take; the first one fetches the servers.
const START_LIMIT: Duration = Duration::from_secs(15 * 60);

/// Starts the engine and waits until it is healthy.
pub(crate) async fn run(
    location: &Location,
    output: Output,
    global: &Global,
    args: UpArgs,
) -> Result<()> {
    if args.foreground {
        return engine::run(location, output, args).await;
    }
    if args.ensure && already_up(location).await {
        output.hint("engine is running already");
        return print(location, output).await;
    }
    std::fs::create_dir_all(location.path("logs")).map_err(|error| unusable(location, &error))?;
    let log_path = location.path("logs").join("engine.log");
    let mut child = spawn(location, global, &log_path)?;
    let started = follow(&mut child, output, &log_path).await;
    if let Err(failure) = started {
        // a start that failed has stopped what it had started before it reported
        end(&mut child).await;
        return Err(failure);
    }
    print(location, output).await
}

async fn already_up(location: &Location) -> bool {
    let Ok(client) = Client::connect(location) else {
        return false;
    };
    // one that is still starting or just recovering gets a little time
    for _ in 0..50 {
        if client
            .get("/health")
            .await
            .is_ok_and(|h| h["healthy"] == true)
        {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    false
}

fn unusable(location: &Location, error: &std::io::Error) -> Failure {
    let code = match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => ErrorCode::DiskFull,
        _ => ErrorCode::DataFolderUnusable,
    };
    Problem::new(code, format!("data folder cannot be used: {error}"))
        .found(location.folder.display().to_string())
        .into()
}

/// The same command line again, in the foreground of a session of its own.
fn spawn(location: &Location, global: &Global, log: &Path) -> Result<Child> {
    let log = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(log)
        .map_err(|error| unusable(location, &error))?;
    let program = std::env::current_exe().map_err(internal)?;
    let mut command = Command::new(program);
    command
        .args(std::env::args_os().skip(1))
        .args(["--foreground", "--report"]);
    if global.data.is_none() {
        command.arg("--data").arg(&location.folder);
    }
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .map_err(|e| internal(format!("engine cannot be started: {e}")))
}

/// Shows the steps that the engine reports, until it is ready or says why not.
async fn follow(child: &mut Child, output: Output, log: &Path) -> Result<()> {
    let stdout = child
        .stdout
        .take()
        .ok_or_else(|| internal("no pipe to the engine"))?;
    let stdout = tokio::process::ChildStdout::from_std(stdout).map_err(internal)?;
    let mut lines = BufReader::new(stdout).lines();
    let spinner = output.spinner();
    let deadline = tokio::time::Instant::now() + START_LIMIT;
    loop {
        let line = match tokio::time::timeout_at(deadline, lines.next_line()).await {
            Err(_) => {
                return Err(Failure::new(
                    ErrorCode::TimedOut,
                    "engine has not started in 15 min",
                ));
            }
            Ok(Err(error)) => return Err(internal(error)),
            Ok(Ok(None)) => return Err(ended(log)),
            Ok(Ok(Some(line))) => line,
        };
        let Ok(report) = serde_json::from_str::<Value>(&line) else {
            continue;
        };
        if let Some(step) = report["step"].as_str() {
            if spinner.is_hidden() {
                output.hint(format!("  {step}"));
            }
            spinner.set_message(step.to_owned());
        } else if report.get("problem").is_some() {
            spinner.finish_and_clear();
            let problem: Problem =
                serde_json::from_value(report["problem"].clone()).map_err(internal)?;
            return Err(problem.into());
        } else if report["ready"] == true {
            spinner.finish_and_clear();
            return Ok(());
        }
    }
}

fn ended(log: &Path) -> Failure {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let tail: Vec<&str> = text.lines().rev().take(3).collect();
    let tail: Vec<&str> = tail.into_iter().rev().collect();
    Problem::new(
        ErrorCode::Internal,
        format!("engine ended while it started: {}", tail.join(" | ")),
    )
    .remedy(format!("read {}", log.display()))
    .into()
}

/// Waits for a child that gave up; ends it if it does not go by itself.
async fn end(child: &mut Child) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while matches!(child.try_wait(), Ok(None)) {
        if Instant::now() > deadline {
            let _ = child.kill();
            let _ = child.wait();
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn print(location: &Location, output: Output) -> Result<()> {
    let state = location.running()?;
    if output.json {
        return output.object(&json!({ "pid": state.pid, "console": state.console,
            "approvals": { "page": state.page }, "brokers": state.brokers, "registry": state.registry, "data": location.folder }));
    }
    output.line(format!(
        "{} process {}, API {}, Kafka {}",
        output.paint(Tone::Good, "engine is up:"),
        state.pid,
        state.console,
        state.brokers,
    ))?;
    output.line(format!("approvals: {}", state.page))
}
