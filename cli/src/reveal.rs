//! Reading sealed texts, for whoever owns the data folder with its master key.

use sovereign_event_store::KeyStore;
use sovereign_guard::seal::MasterKey;
use sovereign_schemas::{ErrorCode, Problem, Text};

use crate::failure::Result;
use crate::location::{EngineState, Location};

/// Opens texts with the keys of one engine.
#[derive(Debug)]
pub(crate) struct Revealer {
    keys: KeyStore,
}

/// Reads the master key of the data folder.
pub(crate) fn master_key(location: &Location) -> Result<MasterKey> {
    let path = location.path("master.key");
    let text = std::fs::read_to_string(&path).map_err(|error| {
        Problem::new(
            ErrorCode::KeyMissing,
            format!("master key cannot be read: {error}"),
        )
        .found(path.display().to_string())
    })?;
    Ok(MasterKey::from_hex(&text).map_err(|error| {
        Problem::new(
            ErrorCode::KeyMissing,
            format!("master key is damaged: {error}"),
        )
        .found(path.display().to_string())
    })?)
}

pub(crate) fn key_store(location: &Location, state: &EngineState) -> Result<KeyStore> {
    let master = master_key(location)?;
    Ok(KeyStore::connect(&state.keys_database, master).map_err(|e| e.problem())?)
}

impl Revealer {
    /// `None` for a reader who has no master key: texts stay sealed.
    pub(crate) async fn open(location: &Location, state: &EngineState) -> Result<Option<Self>> {
        if !location.path("master.key").exists() {
            return Ok(None);
        }
        Ok(Some(Self {
            keys: key_store(location, state)?,
        }))
    }

    /// The words, if the key is here.
    pub(crate) async fn reveal(&mut self, text: &Text) -> Option<String> {
        match self.keys.reveal(text).await {
            Ok(words) => Some(words),
            Err(error) => {
                tracing::debug!(%error, "text stays sealed");
                None
            }
        }
    }
}
