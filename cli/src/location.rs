//! Finding the data folder and the engine that holds it.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sovereign_schemas::{ErrorCode, Problem, Timestamp};

use crate::args::Global;
use crate::failure::{Failure, Result, internal};

/// What a running engine leaves in `engine.json` for commands on the same machine. It holds
/// passwords, so only the owner of the folder may read it.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct EngineState {
    pub(crate) pid: u32,
    pub(crate) started_at: Timestamp,
    /// Base URL of the HTTP API.
    pub(crate) console: String,
    /// Where people approve, in a browser.
    #[serde(default)]
    pub(crate) page: String,
    pub(crate) database: String,
    pub(crate) keys_database: String,
    /// `database` under the role of the API.
    #[serde(default)]
    pub(crate) api_database: String,
    /// `database` under the role of workers.
    #[serde(default)]
    pub(crate) worker_database: String,
    /// `keys_database` under the role of workers.
    #[serde(default)]
    pub(crate) worker_keys_database: String,
    pub(crate) brokers: String,
    /// librdkafka properties for TLS and SASL.
    pub(crate) kafka_properties: std::collections::BTreeMap<String, String>,
    pub(crate) registry: String,
    /// The configured departments, as TOML; empty for the defaults.
    pub(crate) config: Option<PathBuf>,
    /// The name under which it shares work with others.
    #[serde(default)]
    pub(crate) engine: String,
    /// A master key elsewhere than in the data folder.
    #[serde(default)]
    pub(crate) master_key: Option<PathBuf>,
}

impl std::fmt::Debug for EngineState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EngineState")
            .field("pid", &self.pid)
            .field("console", &self.console)
            .finish_non_exhaustive()
    }
}

/// A data folder, running or not.
#[derive(Debug, Clone)]
pub(crate) struct Location {
    pub(crate) folder: PathBuf,
}

impl Location {
    /// `--data`, else `$SOVEREIGN_DATA`, else `./.sovereign`.
    pub(crate) fn new(global: &Global) -> Result<Self> {
        let folder = global
            .data
            .clone()
            .unwrap_or_else(|| PathBuf::from(".sovereign"));
        Ok(Self {
            folder: std::path::absolute(folder).map_err(internal)?,
        })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The state of the engine, if one has started here and not stopped cleanly.
    pub(crate) fn state(&self) -> Result<Option<EngineState>> {
        let path = self.path("engine.json");
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                let code = match error.kind() {
                    std::io::ErrorKind::PermissionDenied => ErrorCode::Unauthorized,
                    _ => ErrorCode::DataFolderUnusable,
                };
                return Err(
                    Problem::new(code, format!("engine.json cannot be read: {error}"))
                        .found(path.display().to_string())
                        .into(),
                );
            }
        };
        // a file cut by a full disk means the same as none
        Ok(serde_json::from_slice(&text).ok())
    }

    /// The state of an engine that runs.
    pub(crate) fn running(&self) -> Result<EngineState> {
        match self.state()? {
            Some(state) if is_alive(state.pid) => Ok(state),
            _ => Err(self.not_running()),
        }
    }

    pub(crate) fn not_running(&self) -> Failure {
        Problem::new(
            ErrorCode::EngineNotRunning,
            "no engine runs in this data folder",
        )
        .found(self.folder.display().to_string())
        .into()
    }

    pub(crate) fn token(&self) -> Result<String> {
        let path = self.path("api.token");
        match std::fs::read_to_string(&path) {
            Ok(token) => Ok(token.trim().to_owned()),
            Err(error) => Err(Problem::new(
                ErrorCode::Unauthorized,
                format!("token of the engine cannot be read: {error}"),
            )
            .found(path.display().to_string())
            .into()),
        }
    }
}

/// Whether the process exists.
pub(crate) fn is_alive(pid: u32) -> bool {
    let Some(pid) = i32::try_from(pid)
        .ok()
        .and_then(rustix::process::Pid::from_raw)
    else {
        return false;
    };
    // a process of another user answers EPERM: it exists
    !matches!(
        rustix::process::test_kill_process(pid),
        Err(rustix::io::Errno::SRCH)
    )
}

/// Writes a file that only its owner may read, whole or not at all.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let temporary = path.with_extension("new");
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)
}
