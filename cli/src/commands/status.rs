use serde_json::{Value, json};

use crate::client::Client;
use crate::failure::{Failure, Result};
use crate::location::Location;
use crate::output::{Output, Table, Tone};

/// Exit 0 if healthy, 1 if not.
pub(crate) async fn run(location: &Location, output: Output) -> Result<()> {
    let client = Client::connect(location)?;
    let status = client.get("/api/status").await?;
    let healthy = status["healthy"].as_bool() == Some(true);
    if output.json {
        output.object(&status)?;
    } else {
        print(&status, healthy, output)?;
    }
    if healthy {
        Ok(())
    } else {
        Err(Failure::Exit(1))
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    }
}

/// Units of work in a few words: lanes as a number.
fn brief(units: &Value) -> String {
    let names: Vec<&str> = units
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let (lanes, mut rest): (Vec<&str>, Vec<&str>) = names
        .into_iter()
        .partition(|name| name.starts_with("agents-"));
    let lanes = format!("{} lanes of programs", lanes.len());
    rest.push(&lanes);
    rest.join(", ")
}

fn print(status: &Value, healthy: bool, output: Output) -> Result<()> {
    let word = if healthy {
        output.paint(Tone::Good, "healthy")
    } else {
        output.paint(Tone::Bad, "not healthy")
    };
    output.line(format!(
        "engine     {word}, process {}",
        text(&status["pid"])
    ))?;
    output.line(format!(
        "head       {}  {}",
        text(&status["head"]),
        text(&status["head_hash"])
    ))?;
    for name in ["console", "brokers", "registry"] {
        output.line(format!("{name:10} {}", text(&status[name])))?;
    }
    let approvals = &status["approvals"];
    output.line(format!(
        "approvals  {}, {} waiting",
        text(&approvals["page"]),
        text(&approvals["waiting"])
    ))?;
    output.line(format!("database   {}", masked(&text(&status["database"]))))?;
    let waiting = ["open", "retrying"].map(|state| status["dead_letters"][state].as_u64());
    if let [Some(open), Some(retrying)] = waiting
        && open + retrying > 0
    {
        let text = format!("{open} open, {retrying} retrying; see sovereign dead-letters list");
        output.line(format!("letters    {}", output.paint(Tone::Bad, &text)))?;
    }
    for (engine, units) in status["engines"].as_object().into_iter().flatten() {
        let own = if status["engine"] == **engine {
            " (this one)"
        } else {
            ""
        };
        output.line(format!("works on   {}{own}: {}", engine, brief(units)))?;
    }
    let mut parts = Table::new(["part", "position", "lag", "state"]);
    let state = |part: &Value| match part["healthy"].as_bool() {
        Some(true) if part["state"] == "standby" || part["activity"] == "standby" => {
            output.paint(Tone::Good, "standby")
        }
        Some(true) => output.paint(Tone::Good, "ok"),
        _ => output.paint(Tone::Bad, &text(&part["problem"]["message"])),
    };
    let relay = &status["relay"];
    parts.row([
        "relay".into(),
        text(&relay["position"]),
        text(&relay["lag"]),
        state(relay),
    ]);
    let commands = &status["commands"];
    parts.row([
        "commands".into(),
        "-".into(),
        text(&commands["lag"]),
        state(commands),
    ]);
    for (name, part) in status["projections"].as_object().into_iter().flatten() {
        parts.row([
            name.clone(),
            text(&part["position"]),
            text(&part["lag"]),
            state(part),
        ]);
    }
    for (name, part) in status["servers"].as_object().into_iter().flatten() {
        if part.is_null() {
            continue;
        }
        let up = json!({ "healthy": part["activity"] == "running",
            "problem": { "message": part["activity"] } });
        parts.row([name.clone(), "-".into(), "-".into(), state(&up)]);
    }
    output.line("")?;
    parts.print(&output)
}

/// A URL for the screen: without its password, which `--json` shows to the folder's owner.
pub(crate) fn masked(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let Some((login, host)) = rest.rsplit_once('@') else {
        return url.to_owned();
    };
    match login.split_once(':') {
        Some((user, _)) => format!("{scheme}://{user}:****@{host}"),
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::{brief, masked};

    #[test]
    fn lanes_are_counted() {
        let units = serde_json::json!(["agents-00", "agents-07", "relay", "view-trades"]);
        assert_eq!(brief(&units), "relay, view-trades, 2 lanes of programs");
        assert_eq!(brief(&serde_json::Value::Null), "0 lanes of programs");
    }

    #[test]
    fn passwords_do_not_reach_the_screen() {
        assert_eq!(
            masked("postgresql://u:p%40w@h:1/d"),
            "postgresql://u:****@h:1/d"
        );
        assert_eq!(masked("postgresql://u@h/d"), "postgresql://u@h/d");
    }
}
