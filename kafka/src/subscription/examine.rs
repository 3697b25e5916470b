//! Everything that a record must meet before its reader gets it, where letters are written.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use sovereign_schemas::RecordedEvent;
use tokio::runtime::Handle;

use super::filter::Filter;
use crate::dead_letters::RawRecord;
use crate::record::{self, Decoded, RecordCause};
use crate::registry::{self, RegistryError, RegistryOptions};

/// Ids that are remembered.
const IDS_MAX: usize = 4_096;
/// How long an id that the registry does not have is not asked for again.
const UNKNOWN_FOR: Duration = Duration::from_secs(10);
/// How long a registry that does not answer is waited for, and the pause between two tries.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(500);

type Behind = Result<[u8; 8], String>;

/// Reads records, with a memory for the registry's answers.
pub(super) struct Examiner {
    registry: Option<RegistryOptions>,
    runtime: Handle,
    ids: HashMap<u32, (Behind, Instant)>,
}

impl Examiner {
    pub(super) fn new(registry: Option<RegistryOptions>, runtime: Handle) -> Self {
        Self {
            registry,
            runtime,
            ids: HashMap::new(),
        }
    }

    /// The event, `None` if it is not wanted, or what is wrong with the record. What is not wanted
    /// is not looked into: its payload is another reader's.
    pub(super) fn examine(
        &mut self,
        filter: &Filter,
        raw: &RawRecord,
    ) -> Result<Result<Option<RecordedEvent>, RecordCause>, RegistryError> {
        let decoded = match raw.decode() {
            Ok(decoded) if filter.event(&decoded.event.header) => decoded,
            Ok(_) => return Ok(Ok(None)),
            Err(cause) => return Ok(Err(cause)),
        };
        if let Err(cause) = self.check_id(&decoded)? {
            return Ok(Err(cause));
        }
        let event = decoded.event;
        Ok(record::check_payload(&event).map(|()| Some(event)))
    }

    fn check_id(&mut self, decoded: &Decoded) -> Result<Result<(), RecordCause>, RegistryError> {
        let Some(registry) = self.registry.clone() else {
            return Ok(Ok(()));
        };
        let id = decoded.schema_id;
        let known = self
            .ids
            .get(&id)
            .filter(|(behind, asked)| behind.is_ok() || asked.elapsed() < UNKNOWN_FOR);
        let behind = match known {
            Some((behind, _)) => behind.clone(),
            None => {
                let behind = self.ask(&registry, id)?;
                if self.ids.len() >= IDS_MAX {
                    self.ids.clear();
                }
                self.ids.insert(id, (behind.clone(), Instant::now()));
                behind
            }
        };
        let found = match behind {
            Ok(print) if print == decoded.event.header.schema_fingerprint => return Ok(Ok(())),
            Ok(print) => format!("fingerprint {:016x}", u64::from_be_bytes(print)),
            Err(_) => "nothing".to_owned(),
        };
        Ok(Err(RecordCause::SchemaId { id, found }))
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "on the subscription's own thread"
    )]
    fn ask(&self, registry: &RegistryOptions, id: u32) -> Result<Behind, RegistryError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.runtime.block_on(registry::fingerprint(registry, id)) {
                Err(error) if Instant::now() < deadline => {
                    tracing::warn!(%error, "subscription waits for the registry");
                    std::thread::sleep(PAUSE);
                }
                answer => return answer,
            }
        }
    }
}
