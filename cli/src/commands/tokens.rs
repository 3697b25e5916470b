use serde_json::{Value, json};

use crate::args::TokensCommand;
use crate::client::Client;
use crate::failure::Result;
use crate::location::Location;
use crate::output::{Output, Table};

const PATH: &str = "/api/v1/tokens";

/// Tokens of the HTTP API.
pub(crate) async fn run(location: &Location, output: Output, command: TokensCommand) -> Result<()> {
    let client = Client::connect(location)?;
    match command {
        TokensCommand::Create {
            name,
            role,
            actor,
            agents,
            days,
        } => {
            let wanted = json!({ "name": name, "role": role.to_string(), "actor": actor,
                "agents": agents, "expires_in_s": u64::from(days) * 24 * 3_600 });
            let made = client.post(PATH, &wanted).await?;
            if output.json {
                return output.object(&made);
            }
            output.hint(format!(
                "token {} acts as {} with role {} until {}; it is shown this once:",
                text(&made["name"]),
                acts_as(&made),
                text(&made["role"]),
                text(&made["expires_at"])
            ));
            output.line(text(&made["token"]))
        }
        TokensCommand::List { all } => list(&client, output, all).await,
        TokensCommand::Revoke { name } => {
            let ended = client.delete(&format!("{PATH}/{}", encoded(&name))).await?;
            if output.json {
                return output.object(&ended);
            }
            output.line(format!("token {name} is revoked"))
        }
    }
}

/// In whose name a token acts: its agents, or its actor.
fn acts_as(token: &Value) -> String {
    let agents = token["agents"].as_array().into_iter().flatten();
    let agents: Vec<&str> = agents.filter_map(Value::as_str).collect();
    if agents.is_empty() {
        return text(&token["actor"]);
    }
    agents.join(", ")
}

pub(super) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// A name as one segment of a path.
pub(super) fn encoded(name: &str) -> String {
    let mut segment = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() {
            segment.push(char::from(byte));
        } else {
            segment.push_str(&format!("%{byte:02X}"));
        }
    }
    segment
}

async fn list(client: &Client, output: Output, all: bool) -> Result<()> {
    let answer = client.get(PATH).await?;
    let tokens = answer["tokens"].as_array().into_iter().flatten();
    let mut table = Table::new(["token", "role", "actor", "state", "expires"]);
    for token in tokens.filter(|token| all || token["state"] == "valid") {
        if output.json {
            output.object(token)?;
            continue;
        }
        let shown = |name: &str| text(&token[name]);
        table.row([
            shown("name"),
            shown("role"),
            acts_as(token),
            shown("state"),
            shown("expires_at"),
        ]);
    }
    if output.json {
        Ok(())
    } else {
        table.print(&output)
    }
}

#[cfg(test)]
mod tests {
    use super::encoded;

    #[test]
    fn a_name_is_one_segment_of_a_path() {
        assert_eq!(encoded("ci/bot@1"), "ci%2Fbot%401");
        assert_eq!(encoded(".."), "%2E%2E");
    }
}
