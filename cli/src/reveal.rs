//! Reading sealed texts, for whoever owns the data folder with its master key.

use std::path::{Path, PathBuf};

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

fn path(location: &Location, state: &EngineState) -> PathBuf {
    let elsewhere = state.master_key.clone();
    elsewhere.unwrap_or_else(|| location.path("master.key"))
}

/// Reads a master key.
pub(crate) fn master_key(path: &Path) -> Result<MasterKey> {
    let text = std::fs::read_to_string(path).map_err(|error| {
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
    let master = master_key(&path(location, state))?;
    Ok(KeyStore::connect(&state.keys_database, master).map_err(|e| e.problem())?)
}

/// The same under the role of workers, which makes keys of new subjects too.
pub(crate) fn worker_key_store(location: &Location, state: &EngineState) -> Result<KeyStore> {
    let master = master_key(&path(location, state))?;
    Ok(KeyStore::connect(&state.worker_keys_database, master).map_err(|e| e.problem())?)
}

impl Revealer {
    /// `None` for a reader who has no master key: texts stay sealed.
    pub(crate) async fn open(location: &Location, state: &EngineState) -> Result<Option<Self>> {
        if !path(location, state).exists() {
            return Ok(None);
        }
        Ok(Some(Self {
            keys: key_store(location, state)?,
        }))
    }

    /// For whoever holds the keys already.
    pub(crate) const fn with(keys: KeyStore) -> Self {
        Self { keys }
    }

    /// The words, if the key is here.
    pub(crate) async fn reveal(&self, text: &Text) -> Option<String> {
        match self.keys.reveal(text).await {
            Ok(words) => Some(words),
            Err(error) => {
                tracing::debug!(%error, "text stays sealed");
                None
            }
        }
    }
}
