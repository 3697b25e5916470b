//! The state file `servers.json`: what runs where, for people, scripts and the next start.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Content of `servers.json` in the data folder. It holds no secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// Folder that holds the servers' files: the data folder, unless their user cannot reach it.
    pub home: PathBuf,
    /// Process that supervises them.
    pub engine_pid: Option<u32>,
    /// Account they run as.
    pub user: String,
    /// PostgreSQL, once it was started here.
    pub postgres: Option<PostgresState>,
    /// Apache Kafka, once it was started here.
    pub kafka: Option<KafkaState>,
}

/// Where the local PostgreSQL is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PostgresState {
    /// Version of server and pgvector.
    pub version: String,
    /// TCP port on 127.0.0.1.
    pub port: u16,
    /// Folder of the Unix socket.
    pub socket_folder: PathBuf,
    /// The postmaster, while it runs.
    pub pid: Option<u32>,
}

/// Where the local Apache Kafka is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KafkaState {
    /// Version of the broker.
    pub version: String,
    /// Port of the broker on 127.0.0.1.
    pub port: u16,
    /// Port of the controller on 127.0.0.1.
    pub controller_port: u16,
    /// The broker, while it runs.
    pub pid: Option<u32>,
}

/// The state file and its current content.
#[derive(Debug)]
pub(crate) struct StateFile {
    path: PathBuf,
    state: Mutex<State>,
}

impl StateFile {
    /// Reads the file; a missing or unreadable one only costs the recorded ports.
    pub(crate) fn open(data_folder: &Path) -> Self {
        let path = data_folder.join("servers.json");
        let state = fs::read(&path)
            .ok()
            .map(|bytes| serde_json::from_slice(&bytes));
        let state = state.transpose().unwrap_or_else(|error| {
            tracing::warn!(file = %path.display(), %error, "state file is ignored");
            None
        });
        Self {
            path,
            state: Mutex::new(state.unwrap_or_default()),
        }
    }

    pub(crate) fn get(&self) -> State {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Changes the state and writes it.
    pub(crate) fn update(&self, change: impl FnOnce(&mut State)) -> Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut state);
        let mut text = serde_json::to_vec_pretty(&*state)
            .map_err(|error| Error::Supervision(format!("encoding the state: {error}")))?;
        text.push(b'\n');
        write_atomically(&self.path, &text, 0o600)
    }

    /// Records a changed pid; the running engine does not depend on the file.
    pub(crate) fn record_pid(&self, server: &str, pid: Option<u32>) {
        let written = self.update(
            |state| match (server, &mut state.postgres, &mut state.kafka) {
                ("postgres", Some(postgres), _) => postgres.pid = pid,
                ("kafka", _, Some(kafka)) => kafka.pid = pid,
                _ => {}
            },
        );
        if let Err(error) = written {
            tracing::warn!(server, %error, "pid cannot be recorded");
        }
    }
}

/// Writes a file so that readers see the old or the new content, whole.
pub(crate) fn write_atomically(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    // A left one of a killed engine; nobody else writes here.
    let _ = fs::remove_file(&new);
    let write = || -> std::io::Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&new)?;
        file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(mode))?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&new, path)
    };
    write().map_err(Error::io("writing", path))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn state_survives_and_is_private_and_garbage_is_ignored() {
        let base = tempfile::tempdir().unwrap();
        let file = StateFile::open(base.path());
        assert_eq!(file.get(), State::default());
        file.update(|state| {
            state.kafka = Some(KafkaState {
                port: 7,
                ..KafkaState::default()
            })
        })
        .unwrap();
        file.record_pid("kafka", Some(42));
        let again = StateFile::open(base.path()).get();
        assert_eq!(again.kafka.as_ref().unwrap().pid, Some(42));
        assert_eq!(again.postgres, None);
        let path = base.path().join("servers.json");
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        fs::write(&path, "{").unwrap();
        assert_eq!(StateFile::open(base.path()).get(), State::default());
    }
}
