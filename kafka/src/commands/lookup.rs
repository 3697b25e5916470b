//! Whether a schema id is that of commands.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use sovereign_schemas::{ErrorCode, Problem, catalog};

use crate::registry::{self, RegistryOptions};

/// Ids that are remembered.
const IDS_MAX: usize = 4_096;
/// How long an id that the registry does not have is not asked for again.
const UNKNOWN_FOR: Duration = Duration::from_secs(10);

/// What is wrong with an id, if anything.
type Found = Result<(), Problem>;

/// Asks the registry, and remembers.
#[derive(Debug)]
pub(super) struct Lookup {
    registry: RegistryOptions,
    /// With the moments of asking.
    ids: Mutex<HashMap<u32, (Found, Instant)>>,
}

impl Lookup {
    pub(super) fn new(registry: RegistryOptions) -> Self {
        Self {
            registry,
            ids: Mutex::default(),
        }
    }

    /// An error if it cannot be known now.
    pub(super) async fn check(&self, id: u32) -> Result<Found, Problem> {
        if let Some(known) = self.known(id) {
            return Ok(known);
        }
        let behind = registry::fingerprint(&self.registry, id).await;
        let found = match behind.map_err(|e| e.problem())? {
            Ok(print) if print == catalog::command_record().fingerprint => Ok(()),
            Ok(_) => Err("another schema"),
            Err(_) => Err("nothing"),
        };
        let found = found.map_err(|found| {
            let message = format!("registry id {id} is not that of commands");
            Problem::new(ErrorCode::SchemaUnknown, message)
                .found(found)
                .expected(catalog::command_record().subject)
                .remedy("write commands with the schema sovereign.CommandRecord, under its id")
        });
        let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        if ids.len() >= IDS_MAX {
            ids.clear();
        }
        ids.insert(id, (found.clone(), Instant::now()));
        Ok(found)
    }

    fn known(&self, id: u32) -> Option<Found> {
        let ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        let (known, asked) = ids.get(&id)?;
        (known.is_ok() || asked.elapsed() < UNKNOWN_FOR).then(|| known.clone())
    }
}
