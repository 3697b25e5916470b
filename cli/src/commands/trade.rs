use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sovereign_schemas::ErrorCode;

use super::trade_report;
use crate::args::TradeArgs;
use crate::client::Client;
use crate::failure::{Failure, Result, file};
use crate::location::Location;
use crate::output::Output;

/// How long an engine that went away is waited for.
const ENGINE_WAIT: Duration = Duration::from_secs(120);

/// Has the built-in agents work through a market file, shows how far they are, then reports. The
/// engine does the work: interrupting this command does not stop it, and running it again looks
/// on, or only reports when the file was worked through before.
pub(crate) async fn run(location: &Location, output: Output, args: TradeArgs) -> Result<()> {
    let path = args.file.canonicalize().map_err(|e| file(&args.file, &e))?;
    let mut client = Client::connect(location)?;
    let started = client.post("/api/tasks", &json!({ "file": path })).await?;
    let outcome = started["outcome"].as_str().unwrap_or_default().to_owned();
    if outcome == "already_done" {
        output.hint("this file was worked through before; nothing is done twice");
    }
    let begun = Instant::now();
    let first = client.get("/api/status").await?["head"]
        .as_u64()
        .unwrap_or_default();
    let bar = output.bar(
        started["bars"].as_u64().unwrap_or_default(),
        "bars worked through",
    );
    let mut told = 0;
    let mut silent_since: Option<Instant> = None;
    loop {
        match client.get("/api/status").await {
            Ok(status) => {
                silent_since = None;
                let task = &status["task"];
                let (done, total) = (number(&task["done"]), number(&task["total"]));
                bar.set_position(done);
                // where no bar can be drawn, a line now and then
                if bar.is_hidden() && total > 0 && done * 10 / total > told {
                    told = done * 10 / total;
                    output.hint(format!("  {done} of {total} bars worked through"));
                }
                let ended = status["agents"]["caught_up"] == true && task["running"] == false;
                if ended && settled(&status) {
                    break;
                }
                stopped(&status)?;
            }
            Err(Failure::Problem(problem)) if problem.code == ErrorCode::EngineNotRunning => {
                let since = *silent_since.get_or_insert_with(Instant::now);
                if since.elapsed() > ENGINE_WAIT {
                    return Err(Failure::Problem(problem));
                }
                if let Ok(again) = Client::connect(location) {
                    client = again;
                }
            }
            Err(failure) => return Err(failure),
        }
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    bar.finish_and_clear();
    let head = client.get("/api/status").await?["head"]
        .as_u64()
        .unwrap_or_default();
    let written = head.saturating_sub(first);
    let rate = (written > 0 && outcome == "started")
        .then(|| written as f64 / begun.elapsed().as_secs_f64());
    trade_report::print(location, output, &client, rate).await
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_default()
}

/// Views and topics have caught up, so that the report is of one moment.
fn settled(status: &Value) -> bool {
    let head = status["head"].as_u64();
    // an end of the task may have been the last word of a worker, and not of the agents
    let answered = status["task"]["pending"] == 0 && status["task"]["orders"] == 0;
    let at_head = |value: &Value| value["position"].as_u64() == head;
    answered
        && at_head(&status["relay"])
        && at_head(&status["agents"])
        && status["projections"]
            .as_object()
            .is_some_and(|all| all.values().all(at_head))
}

/// An agent runner that has ended needs a person.
fn stopped(status: &Value) -> Result<()> {
    if status["agents"]["ended"] != true {
        return Ok(());
    }
    let problems = status["agents"]["problems"].as_object();
    let problem = problems
        .and_then(|all| all.values().next())
        .cloned()
        .unwrap_or_default();
    match serde_json::from_value::<sovereign_schemas::Problem>(problem) {
        Ok(problem) => Err(problem.into()),
        Err(_) => Err(Failure::new(ErrorCode::Internal, "agents have stopped")),
    }
}
