use sovereign_schemas::{ErrorCode, Problem};

use super::source::state;
use crate::args::KeysCommand;
use crate::failure::Result;
use crate::location::Location;
use crate::output::{Output, Table};
use crate::reveal::key_store;

/// Hands out the key of one subject; docs/FORMATS.md says what to do with it.
pub(crate) async fn run(location: &Location, output: Output, command: KeysCommand) -> Result<()> {
    let KeysCommand::Show { subject } = command;
    let store = key_store(location, &state(location)?)?;
    let found = store.show(&subject).await.map_err(|e| e.problem())?;
    let Some((key_id, key)) = found else {
        return Err(
            Problem::new(ErrorCode::KeyMissing, "subject has no key here")
                .field("--subject")
                .found(&subject)
                .into(),
        );
    };
    if output.json {
        return output.object(&serde_json::json!({
            "subject": subject, "key_id": key_id, "key": key.to_hex().as_str(),
        }));
    }
    let mut table = Table::new(["field", "value"]);
    table.row(["subject".into(), subject]);
    table.row(["key_id".into(), key_id.to_string()]);
    table.row(["key".into(), key.to_hex().to_string()]);
    table.print(&output)
}
