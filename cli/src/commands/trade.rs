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
/// When nothing has moved for so long, it is said what is waited for.
const STILL: Duration = Duration::from_secs(15);

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
    let mut moves = Moves::new();
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
                if let Some(hint) = moves.still(&status, Instant::now()) {
                    output.hint(hint);
                }
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

/// When something moved last, and whether it was said that nothing does.
struct Moves {
    head: u64,
    since: Instant,
    said: bool,
}

impl Moves {
    fn new() -> Self {
        Self {
            head: 0,
            since: Instant::now(),
            said: false,
        }
    }

    /// What is waited for, once, when nothing has been recorded for a while.
    fn still(&mut self, status: &Value, now: Instant) -> Option<String> {
        let head = number(&status["head"]);
        if head != self.head {
            (self.head, self.since, self.said) = (head, now, false);
        }
        let still = now.saturating_duration_since(self.since) > STILL;
        if !still || std::mem::replace(&mut self.said, true) {
            return None;
        }
        let seconds = STILL.as_secs();
        Some(match number(&status["task"]["orders"]) {
            0 => format!("nothing has happened for {seconds} s: `sovereign status` says why"),
            orders => {
                format!("nothing has happened for {seconds} s, orders wait: {orders}. {WORKERS}")
            }
        })
    }
}

/// Why orders are not carried out.
const WORKERS: &str = "They need a worker (`sovereign worker` starts one) and a queue that is not \
    paused (`sovereign jobs resume high`)";

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_once_what_is_waited_for() {
        let begun = Instant::now();
        let mut moves = Moves::new();
        let at = |head: u64, orders: u64| json!({ "head": head, "task": { "orders": orders } });
        let after = |s: u64| begun + Duration::from_secs(s);
        assert_eq!(moves.still(&at(7, 2), after(1)), None);
        assert_eq!(moves.still(&at(7, 2), after(16)), None);
        let said = moves.still(&at(7, 2), after(17)).unwrap();
        assert!(
            said.contains("orders wait: 2") && said.contains("jobs resume"),
            "{said}"
        );
        assert_eq!(moves.still(&at(7, 2), after(60)), None);
        assert_eq!(moves.still(&at(8, 0), after(61)), None);
        let said = moves.still(&at(8, 0), after(80)).unwrap();
        assert!(said.contains("sovereign status"), "{said}");
    }
}
