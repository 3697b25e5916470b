//! Schedules of jobs: listed, shown, checked, replaced.

use std::path::Path;

use serde_json::{Value, json};
use sovereign_aggregates::schedules::{SCHEDULES_ID, Schedule, TEXT_BYTES_MAX, parse};
use sovereign_schemas::{ErrorCode, Outcome, Problem, Status, Timestamp, Uuid};

use crate::args::SchedulesCommand;
use crate::client::Client;
use crate::failure::{Failure, Result, file, internal};
use crate::location::Location;
use crate::output::{Output, Table};

/// Due times that a check shows.
const SHOWN: usize = 3;

pub(crate) async fn run(
    location: &Location,
    output: Output,
    command: Option<SchedulesCommand>,
) -> Result<()> {
    match command {
        None => list(location, output).await,
        Some(SchedulesCommand::Show) => show(location, output).await,
        Some(SchedulesCommand::Check { file }) => check(output, &file),
        Some(SchedulesCommand::Adopt { file }) => adopt(location, output, &file).await,
    }
}

async fn held(location: &Location) -> Result<Value> {
    let held = Client::connect(location)?.get("/api/v1/schedules").await?;
    if held["readable"] == false {
        let message = "the engine cannot read the schedules that hold; none of them runs";
        return Err(Problem::new(ErrorCode::InvalidSchedule, message)
            .remedy("run the build that adopted them, or adopt others")
            .into());
    }
    Ok(held)
}

async fn list(location: &Location, output: Output) -> Result<()> {
    let held = held(location).await?;
    let mut table = Table::new(["schedule", "cron", "zone", "next due", "last job", "status"]);
    for schedule in held["schedules"].as_array().into_iter().flatten() {
        if output.json {
            output.object(schedule)?;
            continue;
        }
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        table.row([
            text(&schedule["name"]),
            text(&schedule["cron"]),
            text(&schedule["zone"]),
            text(&schedule["next_at"]),
            text(&schedule["last_job"]["job_id"]),
            text(&schedule["last_job"]["status"]),
        ]);
    }
    if output.json {
        return Ok(());
    }
    table.print(&output)
}

async fn show(location: &Location, output: Output) -> Result<()> {
    let held = Client::connect(location)?.get("/api/v1/schedules").await?;
    if output.json {
        return output.object(&json!({ "version": held["version"], "text": held["text"] }));
    }
    if held["version"] == 0 {
        output.hint("none were adopted yet; the first have version 1");
    }
    output.line(held["text"].as_str().unwrap_or_default().trim_end())
}

/// The text of a file, what it says, and that its jobs can be done as far as that is known here.
fn read(path: &Path) -> Result<(String, i32, Vec<Schedule>)> {
    let size = std::fs::metadata(path).map_err(|e| file(path, &e))?.len();
    // a device or a picture is no schedule; the parser names the limit
    let text = if size > TEXT_BYTES_MAX as u64 {
        " ".repeat(TEXT_BYTES_MAX + 1)
    } else {
        std::fs::read_to_string(path).map_err(|e| file(path, &e))?
    };
    let (version, schedules) = parse(&text)?;
    for schedule in &schedules {
        let job = &schedule.job;
        let known = sovereign_jobs::arguments(job.kind.as_str(), &job.arguments);
        known.map_err(|mut problem| {
            problem.message = format!("schedule {}: {}", schedule.name, problem.message);
            problem.line(schedule.line)
        })?;
    }
    Ok((text, version, schedules))
}

fn check(output: Output, path: &Path) -> Result<()> {
    let (_, version, schedules) = read(path)?;
    let next = |schedule: &Schedule| {
        let first = schedule.timing.next_after(Timestamp::now());
        let then = |last: &Timestamp| schedule.timing.next_after(*last);
        std::iter::successors(first, then)
            .take(SHOWN)
            .collect::<Vec<_>>()
    };
    if output.json {
        let all = schedules.iter().map(|schedule| {
            json!({
                "name": schedule.name,
                "cron": schedule.timing.cron().as_str(),
                "zone": schedule.timing.zone(),
                "next": next(schedule),
            })
        });
        let all: Vec<Value> = all.collect();
        return output.object(&json!({ "version": version, "schedules": all }));
    }
    let mut table = Table::new(["schedule", "cron", "zone", "due next, in UTC"]);
    for schedule in &schedules {
        let due: Vec<String> = next(schedule).iter().map(ToString::to_string).collect();
        table.row([
            schedule.name.to_string(),
            schedule.timing.cron().as_str().to_owned(),
            schedule.timing.zone().to_owned(),
            due.join(", "),
        ]);
    }
    table.print(&output)
}

async fn adopt(location: &Location, output: Output, path: &Path) -> Result<()> {
    let (text, version, _) = read(path)?;
    let client = Client::connect(location)?;
    let command = json!({ "aggregate": "schedules", "id": SCHEDULES_ID, "command": "adopt",
        "data": { "text": text }, "command_id": Uuid::now_v7(), "actor": "operator" });
    let mut body = serde_json::to_vec(&command).map_err(internal)?;
    body.push(b'\n');
    let response = client.commands(body).await?;
    let answer = response.bytes().await;
    let answer = answer.map_err(|e| crate::client::unreachable(&e))?;
    let mut outcome: Outcome = serde_json::from_slice(&answer).map_err(internal)?;
    match (outcome.status, outcome.error.take()) {
        (Status::Accepted | Status::Duplicate, _) if output.json => output.object(&outcome),
        (Status::Accepted | Status::Duplicate, _) => {
            output.line(format!("schedules {version} hold from now on"))
        }
        (_, Some(mut error)) => {
            // of the command's line, not of the file
            error.line = None;
            Err(error.into())
        }
        (_, None) => Err(Failure::new(ErrorCode::Internal, "engine gave no reason")),
    }
}
