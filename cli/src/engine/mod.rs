//! The engine: every room put together, started in order, stopped in the opposite one.

mod acting;
mod api;
mod approvals;
mod asked;
pub(crate) mod gateway;
mod health;
pub(crate) mod jobs;
pub(crate) mod lanes;
mod letters;
mod market;
mod parts;
mod programs;
mod records;
mod registry;
mod schedules;
mod servers;
mod services;
mod start;
mod work;
mod workers;

use std::io::Write as _;

use serde_json::{Value, json};
use sovereign_schemas::Problem;
use tokio::sync::watch;

use crate::args::UpArgs;
use crate::failure::{Failure, Result, internal};
use crate::location::Location;
use crate::output::Output;

/// Tells the process that waits for us, or the terminal, how the start goes.
#[derive(Debug, Clone)]
pub(crate) struct Reporter {
    as_json: bool,
    output: Output,
}

impl Reporter {
    pub(crate) fn step(&self, step: &str) {
        tracing::info!(step, "starting");
        self.send(&json!({ "step": step }), step);
    }

    fn ready(&self) {
        self.send(&json!({ "ready": true }), "engine is up");
    }

    fn problem(&self, problem: &Problem) {
        if self.as_json {
            self.send(&json!({ "problem": problem }), "");
        }
    }

    fn send(&self, report: &Value, text: &str) {
        if self.as_json {
            // the waiting process may have been interrupted; the engine goes on
            let mut stdout = std::io::stdout().lock();
            let _ = writeln!(stdout, "{report}").and_then(|()| stdout.flush());
        } else {
            self.output.hint(text);
        }
    }
}

/// Runs the engine until it is asked to stop.
pub(crate) async fn run(location: &Location, output: Output, args: UpArgs) -> Result<()> {
    let reporter = Reporter {
        as_json: args.report,
        output,
    };
    if args.report {
        // a session of its own: closing the terminal does not end the engine
        let _ = rustix::process::setsid();
    }
    logging(output.json || args.report);
    let done = run_reporting(location, &reporter, args).await;
    if let Err(Failure::Problem(problem)) = &done {
        tracing::error!(code = %problem.code, message = %problem.message, "engine failed");
        reporter.problem(problem);
        if reporter.as_json {
            return Err(Failure::Exit(problem.code.exit_code()));
        }
    }
    done
}

async fn run_reporting(location: &Location, reporter: &Reporter, args: UpArgs) -> Result<()> {
    let (stop, mut stopped) = watch::channel(false);
    signals(stop.clone())?;
    let wanted = args.workers;
    let engine = tokio::select! {
        engine = start::start(location, reporter, args, stop) => engine?,
        _ = stopped.wait_for(|stop| *stop) => return Err(Failure::Interrupted),
    };
    let workers = workers::Workers::start(location, wanted);
    reporter.ready();
    // an error means that the sender is gone, which is a request to stop as well
    let _ = stopped.wait_for(|stop| *stop).await;
    tracing::info!("stopping");
    workers.stop().await;
    engine.stop(location).await;
    tracing::info!("stopped");
    Ok(())
}

/// Ctrl-C and SIGTERM ask for a clean stop.
fn signals(stop: watch::Sender<bool>) -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).map_err(internal)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(internal)?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.send_replace(true);
    });
    Ok(())
}

/// `RUST_LOG` chooses what is logged; JSON unless a person looks at it.
pub(crate) fn logging(json: bool) {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    // somebody who installed a subscriber before keeps it
    let _ = if json {
        builder.json().try_init()
    } else {
        builder.try_init()
    };
}
