use serde_json::{Value, json};
use sovereign_guard::scrub::Scrubber;
use sovereign_kafka::DeadLetters;
use sovereign_kafka::dead_letters::{Letter, Summary};
use sovereign_kafka::record;
use sovereign_schemas::{Problem, Timestamp, Uuid, hex};

use super::source::{departments, kafka_options, state};
use crate::args::DeadLettersCommand;
use crate::describe::Describer;
use crate::failure::{Result, internal};
use crate::location::Location;
use crate::output::{Output, Table, Tone};
use crate::reveal::Revealer;

/// Bytes of a value that are printed for people; `--json` prints all.
const SHOWN_BYTES: usize = 256;

pub(crate) async fn run(
    location: &Location,
    output: Output,
    command: DeadLettersCommand,
) -> Result<()> {
    let letters = DeadLetters::new(kafka_options(&state(location)?));
    match command {
        DeadLettersCommand::List { all, group } => {
            let found = letters.list().await.map_err(|e| e.problem())?;
            let wanted = |s: &&Summary| {
                (all || s.state.waits()) && group.as_ref().is_none_or(|group| *group == s.group)
            };
            list(output, found.iter().filter(wanted))
        }
        DeadLettersCommand::Show { id } => {
            let (summary, letter) = letters.show(id).await.map_err(|e| e.problem())?;
            show(location, output, &summary, &letter).await
        }
        DeadLettersCommand::Retry { ids, again } => {
            each(output, &ids, "given back to", async |id| {
                let now = Timestamp::now();
                letters.retry(id, again, now).await.map_err(|e| e.problem())
            })
            .await
        }
        DeadLettersCommand::Drop { ids, reason } => {
            // it is kept for ever on a topic
            let reason = Scrubber::standard().scrub(&reason).into_text();
            each(output, &ids, "dropped for", async |id| {
                let now = Timestamp::now();
                let dropped = letters.drop_letter(id, &reason, now).await;
                dropped.map_err(|e| e.problem())
            })
            .await
        }
    }
}

/// All that can be done is done; the last failure decides the exit code.
async fn each(
    output: Output,
    ids: &[Uuid],
    done: &str,
    act: impl AsyncFn(Uuid) -> Result<Summary, Problem>,
) -> Result<()> {
    let mut failed: Option<Problem> = None;
    for id in ids {
        match act(*id).await {
            Ok(summary) if output.json => output.object(&described(&summary)?)?,
            Ok(summary) => output.line(format!("{id} is {done} {}", summary.group))?,
            Err(problem) => {
                if let Some(first) = failed.replace(problem) {
                    output.failure(&first.into());
                }
            }
        }
    }
    failed.map_or(Ok(()), |problem| Err(problem.into()))
}

/// Seconds since the first failure.
fn age_s(summary: &Summary) -> i64 {
    let age_us = Timestamp::now().0 - summary.failing.first_failed_at.0;
    (age_us / 1_000_000).max(0)
}

/// Messages come from consumers of any make: nothing unscrubbed reaches the screen.
fn described(summary: &Summary) -> Result<Value> {
    let mut summary = summary.clone();
    summary.failing.message = clean(&summary.failing.message);
    let mut value = serde_json::to_value(&summary).map_err(internal)?;
    value["age_s"] = age_s(&summary).into();
    Ok(value)
}

fn clean(text: &str) -> String {
    Scrubber::standard().scrub(text).into_text()
}

fn list<'a>(output: Output, letters: impl Iterator<Item = &'a Summary>) -> Result<()> {
    let mut table = Table::new([
        "letter", "group", "source", "error", "attempts", "age", "state",
    ]);
    for summary in letters {
        if output.json {
            output.object(&described(summary)?)?;
            continue;
        }
        let origin = &summary.origin;
        table.row([
            summary.id.to_string(),
            summary.group.clone(),
            format!("{}/{}@{}", origin.topic, origin.partition, origin.offset),
            summary.failing.code.clone(),
            summary.failing.attempts.to_string(),
            format!("{} s", age_s(summary)),
            summary.state.as_str().to_owned(),
        ]);
    }
    if output.json {
        Ok(())
    } else {
        table.print(&output)
    }
}

/// The event that this build makes of the bytes, or why it makes none.
async fn event(location: &Location, letter: &Letter) -> Result<Value> {
    let decoded = letter.record.decode();
    let decoded = decoded.and_then(|d| record::check_payload(&d.event).map(|()| d.event));
    let event = match decoded {
        Ok(event) => event,
        Err(cause) => {
            return Ok(
                json!({ "undecodable": { "code": cause.code(), "message": cause.to_string() } }),
            );
        }
    };
    let state = state(location)?;
    let describer = Describer {
        departments: departments(&state)?,
        revealer: Revealer::open(location, &state).await?,
    };
    let data = describer.data(&event).await;
    Ok(describer.described(&event, &data))
}

async fn show(
    location: &Location,
    output: Output,
    summary: &Summary,
    letter: &Letter,
) -> Result<()> {
    let record = &letter.record;
    let bytes = |bytes: &Option<bytes::Bytes>| bytes.as_ref().map(|b| hex(b));
    let event = event(location, letter).await?;
    if output.json {
        let mut value = described(summary)?;
        let headers: Vec<Value> = record
            .headers
            .iter()
            .map(|(name, value)| json!({ "name": name, "value_hex": bytes(value) }))
            .collect();
        value["key_hex"] = json!(bytes(&record.key));
        value["headers"] = headers.into();
        value["value_hex"] = json!(bytes(&record.value));
        value["timestamp_ms"] = json!(record.timestamp_ms);
        value["event"] = event;
        return output.object(&value);
    }
    let value = described(summary)?;
    let mut table = Table::new(["field", "value"]);
    for (name, value) in value.as_object().into_iter().flatten() {
        let nested = value.as_object().into_iter().flatten();
        let nested: Vec<_> = nested
            .map(|(inner, v)| (format!("{name}.{inner}"), v))
            .collect();
        let rows = if nested.is_empty() {
            vec![(name.clone(), value)]
        } else {
            nested
        };
        for (name, value) in rows {
            let text = value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned);
            table.row([name, text]);
        }
    }
    table.print(&output)?;
    output.line(output.paint(Tone::Dim, "record, as hexadecimal"))?;
    output.line(format!("key    {}", bytes(&record.key).unwrap_or_default()))?;
    for (name, value) in &record.headers {
        let name = clean(&name.chars().filter(|c| !c.is_control()).collect::<String>());
        output.line(format!(
            "header {name}: {}",
            bytes(value).unwrap_or_default()
        ))?;
    }
    let value = record.value.as_deref().unwrap_or_default();
    let shown = &value[..value.len().min(SHOWN_BYTES)];
    let more = value.len() - shown.len();
    let more = if more > 0 {
        format!(" and {more} bytes more; --json has all")
    } else {
        String::new()
    };
    output.line(format!("value  {}{more}", hex(shown)))?;
    output.line(format!("event  {event}"))
}

/// For the argument parser.
pub(crate) fn id(text: &str) -> std::result::Result<Uuid, String> {
    text.parse()
        .map_err(|_| "expected the UUID of a letter, as list prints it".to_owned())
}
