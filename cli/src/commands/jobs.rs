use std::collections::{HashMap, HashSet};
use std::io::Read as _;
use std::path::Path;

use serde_json::{Value, json};
use sovereign_schemas::{ErrorCode, PAYLOAD_BYTES_MAX, Problem};

use crate::args::JobsCommand;
use crate::client::Client;
use crate::failure::{Result, file};
use crate::location::Location;
use crate::output::{Output, Table};

/// Most jobs of one batch.
const BATCH_MAX: usize = 100_000;

pub(crate) async fn run(location: &Location, output: Output, command: JobsCommand) -> Result<()> {
    if let JobsCommand::Schedules { command } = command {
        return super::schedules::run(location, output, command).await;
    }
    let client = Client::connect(location)?;
    match command {
        JobsCommand::Submit { file } => submit(&client, output, &file).await,
        JobsCommand::List { all } => list(&client, output, all).await,
        JobsCommand::Show { job } => {
            let found = client.get(&place(&job)).await?;
            show(output, &found)
        }
        JobsCommand::ForceStart { job } => {
            let path = format!("{}/force-start", place(&job));
            show(output, &client.post(&path, &json!({})).await?)
        }
        JobsCommand::Abort { job, reason } => {
            let path = format!("{}/abort", place(&job));
            let found = client.post(&path, &json!({ "reason": reason })).await?;
            show(output, &found)
        }
        JobsCommand::Resolve {
            job, index, done, ..
        } => {
            let path = format!("{}/resolve", place(&job));
            let data = json!({ "index": index, "done": done });
            show(output, &client.post(&path, &data).await?)
        }
        JobsCommand::Queues => queues(output, &client.get("/api/v1/queues").await?),
        JobsCommand::Pause { queue } => {
            let path = format!("/api/v1/queues/{}/pause", queue.name());
            queues(output, &client.post(&path, &json!({})).await?)
        }
        JobsCommand::Resume { queue } => {
            let path = format!("/api/v1/queues/{}/resume", queue.name());
            queues(output, &client.post(&path, &json!({})).await?)
        }
        JobsCommand::Drain => drain(&client, output).await,
        // taken above: some of its commands need no engine
        JobsCommand::Schedules { .. } => Ok(()),
    }
}

fn place(job: &str) -> String {
    let job = job.replace('/', "%2F").replace('+', "%2B");
    format!("/api/v1/jobs/{job}")
}

async fn submit(client: &Client, output: Output, path: &Path) -> Result<()> {
    let text = if path == Path::new("-") {
        let mut text = String::new();
        let read = std::io::stdin().read_to_string(&mut text);
        read.map_err(|e| file(path, &e))?;
        text
    } else {
        std::fs::read_to_string(path).map_err(|e| file(path, &e))?
    };
    let jobs = batch(&text)?;
    for (line, job) in jobs {
        let answer = client.post("/api/v1/jobs", &job).await;
        let answer = answer.map_err(|failure| failure.at_line(line))?;
        if output.json {
            output.object(&answer)?;
        } else {
            output.line(answer["job_id"].as_str().unwrap_or_default())?;
        }
    }
    Ok(())
}

/// One job a line, in an order in which each comes behind those of the batch that it waits for.
fn batch(text: &str) -> Result<Vec<(u64, Value)>, Problem> {
    let mut jobs = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        if line.trim().is_empty() {
            continue;
        }
        // an engine that refuses a body has no need to read it to its end, and then cannot say so
        if line.len() > PAYLOAD_BYTES_MAX {
            return Err(
                Problem::new(ErrorCode::PayloadTooLarge, "a job is too large")
                    .line(number)
                    .found(format!("{} bytes", line.len()))
                    .expected(format!("at most {PAYLOAD_BYTES_MAX}"))
                    .remedy("keep large input where an effect can fetch it, and pass its address"),
            );
        }
        let job: Value = serde_json::from_str(line).map_err(|e| {
            let message = format!("is not JSON at column {}", e.column());
            Problem::new(ErrorCode::MalformedJson, message).line(number)
        })?;
        if !job.is_object() {
            return Err(Problem::new(ErrorCode::MalformedJson, "not a JSON object").line(number));
        }
        jobs.push((number, job));
        if jobs.len() > BATCH_MAX {
            return Err(
                Problem::new(ErrorCode::InvalidUsage, "too many jobs at once")
                    .expected(format!("at most {BATCH_MAX}")),
            );
        }
    }
    ordered(jobs)
}

fn waits_for(job: &Value) -> Vec<&str> {
    fn one(value: &Value) -> Option<&str> {
        value.as_str().or_else(|| value["job"].as_str())
    }
    match &job["after"] {
        Value::Array(all) => all.iter().filter_map(one).collect(),
        other => one(other).into_iter().collect(),
    }
}

fn ordered(jobs: Vec<(u64, Value)>) -> Result<Vec<(u64, Value)>, Problem> {
    let of: HashMap<String, usize> = jobs
        .iter()
        .enumerate()
        .filter_map(|(at, (_, job))| Some((job["id"].as_str()?.to_owned(), at)))
        .collect();
    let mut order = Vec::with_capacity(jobs.len());
    let mut done = vec![false; jobs.len()];
    for start in 0..jobs.len() {
        // the way from a job to those it waits for; no recursion, a chain may be long
        let mut way: Vec<(usize, usize)> = vec![(start, 0)];
        let mut on_way: HashSet<usize> = HashSet::from([start]);
        if done[start] {
            continue;
        }
        while let Some((at, next)) = way.last().copied() {
            let waits = waits_for(&jobs[at].1);
            let Some(id) = waits.get(next) else {
                if !std::mem::replace(&mut done[at], true) {
                    order.push(at);
                }
                on_way.remove(&at);
                way.pop();
                continue;
            };
            if let Some(last) = way.last_mut() {
                last.1 += 1;
            }
            let Some(on) = of.get(*id).copied().filter(|on| !done[*on]) else {
                continue;
            };
            if !on_way.insert(on) {
                let from = way.iter().position(|(at, _)| *at == on).unwrap_or(0);
                let circle: Vec<&str> = way[from..]
                    .iter()
                    .filter_map(|(at, _)| jobs[*at].1["id"].as_str())
                    .collect();
                return Err(Problem::new(
                    ErrorCode::JobDependency,
                    format!(
                        "jobs wait for each other in a circle: {}",
                        circle.join(" → ")
                    ),
                )
                .line(jobs[on].0)
                .field("after"));
            }
            way.push((on, 0));
        }
    }
    let mut jobs: Vec<Option<(u64, Value)>> = jobs.into_iter().map(Some).collect();
    Ok(order.into_iter().filter_map(|at| jobs[at].take()).collect())
}

async fn list(client: &Client, output: Output, all: bool) -> Result<()> {
    let mut table = Table::new(["job", "status", "queue", "kind", "attempt", "worker"]);
    let mut after = Value::from(0);
    loop {
        let path = format!("/api/v1/jobs?after={after}&limit=1000&all={all}");
        let page = client.get(&path).await?;
        for job in page["jobs"].as_array().into_iter().flatten() {
            if output.json {
                output.object(job)?;
                continue;
            }
            let text = |name: &str| job[name].as_str().unwrap_or_default().to_owned();
            table.row([
                text("job_id"),
                text("status"),
                text("queue"),
                text("kind"),
                job["attempt"].to_string(),
                text("worker"),
            ]);
        }
        after = page["next"].clone();
        if after.is_null() {
            break;
        }
    }
    if output.json {
        return Ok(());
    }
    table.print(&output)
}

fn show(output: Output, job: &Value) -> Result<()> {
    if output.json {
        return output.object(job);
    }
    let mut table = Table::new(["field", "value"]);
    for (name, value) in job.as_object().into_iter().flatten() {
        if name == "effects" || value.is_null() {
            continue;
        }
        let text = value.as_str();
        table.row([
            name.clone(),
            text.map_or_else(|| value.to_string(), str::to_owned),
        ]);
    }
    for effect in job["effects"].as_array().into_iter().flatten() {
        let text = |name: &str| effect[name].as_str().unwrap_or_default().to_owned();
        let what = format!("{} {} {}", text("kind"), text("status"), text("code"));
        table.row([format!("effect {}", effect["index"]), what]);
    }
    table.print(&output)
}

fn queues(output: Output, found: &Value) -> Result<()> {
    if output.json {
        return output.object(found);
    }
    let mut table = Table::new([
        "queue",
        "paused by",
        "held",
        "blocked",
        "queued",
        "running",
        "in doubt",
    ]);
    for queue in found["queues"].as_array().into_iter().flatten() {
        let text = |name: &str| queue[name].as_str().unwrap_or_default().to_owned();
        table.row([
            text("queue"),
            text("paused_by"),
            queue["held"].to_string(),
            queue["blocked"].to_string(),
            queue["queued"].to_string(),
            queue["running"].to_string(),
            queue["in_doubt"].to_string(),
        ]);
    }
    table.print(&output)
}

/// Pauses all queues and waits until no worker has a job.
async fn drain(client: &Client, output: Output) -> Result<()> {
    for queue in ["high", "default", "low"] {
        let path = format!("/api/v1/queues/{queue}/pause");
        client.post(&path, &json!({})).await?;
    }
    loop {
        let found = client.get("/api/v1/queues").await?;
        let all = found["queues"].as_array().into_iter().flatten();
        let running: u64 = all.filter_map(|q| q["running"].as_u64()).sum();
        if running == 0 {
            return queues(output, &found);
        }
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(text: &str) -> Vec<String> {
        let jobs = batch(text).unwrap();
        jobs.iter()
            .map(|(_, j)| j["id"].as_str().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn a_batch_is_put_into_an_order_in_which_nobody_waits_for_later_ones() {
        let text = "{\"id\":\"c\",\"after\":[\"b\",{\"job\":\"a\",\"verdict\":\"green\"}]}\n\n\
                    {\"id\":\"b\",\"after\":\"a\"}\n{\"id\":\"a\",\"after\":[\"elsewhere\"]}\n";
        assert_eq!(ids(text), ["a", "b", "c"]);
    }

    #[test]
    fn a_circle_is_refused_and_named() {
        let text = "{\"id\":\"x\"}\n{\"id\":\"a\",\"after\":[\"b\"]}\n{\"id\":\"b\",\"after\":[\"c\"]}\n\
                    {\"id\":\"c\",\"after\":[\"a\"]}\n";
        let problem = batch(text).unwrap_err();
        assert_eq!(problem.code, ErrorCode::JobDependency);
        assert!(problem.message.contains("a → b → c"), "{problem}");
        let itself = batch("{\"id\":\"a\",\"after\":[\"a\"]}").unwrap_err();
        assert_eq!(itself.code, ErrorCode::JobDependency);
        assert_eq!(batch("{\"id\":").unwrap_err().line, Some(1));
    }
}
