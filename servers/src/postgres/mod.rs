//! The local PostgreSQL with pgvector.

mod config;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::Signal;

use self::config::{API, OWNER, Passwords, WORKER};
use crate::error::{Error, Result};
use crate::home::Home;
use crate::launch::{Launch, Launcher};
use crate::processes::{self, Owned};
use crate::secret::SecretUrl;
use crate::staging::{self, Staging};
use crate::state::write_atomically;
use crate::supervisor::Server;

/// Version that `dist/postgres/requirements.txt` pins, with its pgvector.
pub(crate) const VERSION: &str = "18.6 (pgvector 0.8.6)";
/// Content of `PG_VERSION` in a data folder that this version can open.
const MAJOR: &str = "18";
const INITDB_LIMIT: Duration = Duration::from_secs(180);
const SQL_LIMIT: Duration = Duration::from_secs(60);
const PROBE_LIMIT: Duration = Duration::from_secs(5);
/// Database of the ledger and the views.
const DATABASE: &str = "sovereign";
/// Database of the sealing keys, apart from the ledger so that neither dump holds both.
const KEYS_DATABASE: &str = "sovereign_keys";

#[derive(Clone, Debug)]
pub(crate) struct Postgres {
    /// Folder of initdb, postgres and psql.
    pub(crate) programs: PathBuf,
    pub(crate) folder: PathBuf,
    pub(crate) socket_folder: PathBuf,
    pub(crate) log: PathBuf,
    pub(crate) port: u16,
    pub(crate) launcher: Launcher,
}

impl Postgres {
    pub(crate) fn owned(home: &Home) -> Owned {
        Owned::Postgres {
            data: home.path.join("postgres/data"),
        }
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Writes the configuration and initialises the data folder if that was not done before.
    pub(crate) async fn prepare_files(
        &self,
        progress: &(dyn Fn(&str) + Send + Sync),
    ) -> Result<()> {
        let data = self.data();
        staging::sweep(&self.folder);
        match fs::read_to_string(data.join("PG_VERSION")) {
            Ok(version) if version.trim() == MAJOR => {}
            Ok(version) => {
                return Err(Error::DataFolderUnusable {
                    path: data,
                    why: format!("it is of PostgreSQL {}, this is {MAJOR}", version.trim()),
                    remedy: "use the version that made it, or another folder with --data".into(),
                });
            }
            Err(_) => {
                progress("initialising PostgreSQL");
                let staging = Staging::create(&self.folder, &self.launcher.account)?;
                let new = staging.join("data");
                self.initdb(&new).await?;
                // Fails unless `data` is missing or empty, so nothing is ever overwritten.
                fs::rename(&new, &data).map_err(Error::io("renaming", &new))?;
            }
        }
        let local = self.folder.join("local.conf").exists();
        let configuration = config::configuration(&self.socket_folder, self.port, local);
        write_atomically(
            &self.folder.join("postgresql.conf"),
            configuration.as_bytes(),
            0o644,
        )?;
        write_atomically(
            &self.folder.join("pg_hba.conf"),
            config::HBA.as_bytes(),
            0o644,
        )
    }

    async fn initdb(&self, folder: &std::path::Path) -> Result<()> {
        let launch = Launch::new(self.programs.join("initdb"), "TERM")
            .arg("--pgdata")
            .arg(folder)
            .args(["--username=postgres", "--encoding=UTF8", "--data-checksums"])
            .args([
                "--locale-provider=builtin",
                "--builtin-locale=C.UTF-8",
                "--locale=C",
            ])
            .args(["--auth-local=trust", "--auth-host=scram-sha-256"]);
        self.launcher.run(&launch, "", INITDB_LIMIT).await.map(drop)
    }

    /// Brings roles, databases and extension to what the engine expects; doing it again changes
    /// nothing, and heals a start that was killed in between.
    pub(crate) async fn bootstrap(&self, passwords: &Passwords) -> Result<()> {
        let launch = Launch::new(self.programs.join("psql"), "TERM")
            .args([
                "-X",
                "-q",
                "-w",
                "-v",
                "ON_ERROR_STOP=1",
                "-U",
                "postgres",
                "-d",
                "postgres",
            ])
            .args(["-p", &self.port.to_string(), "-f", "-"])
            .arg("-h")
            .arg(&self.socket_folder);
        let sql = config::bootstrap_sql(passwords, DATABASE, KEYS_DATABASE);
        self.launcher.run(&launch, &sql, SQL_LIMIT).await.map(drop)
    }

    /// Passwords of the roles, made at the first start.
    pub(crate) fn passwords(&self) -> Result<Passwords> {
        Ok(Passwords {
            owner: self.password("password")?,
            api: self.password("password.api")?,
            worker: self.password("password.worker")?,
        })
    }

    fn password(&self, file: &str) -> Result<String> {
        let path = self.folder.join(file);
        if let Ok(text) = fs::read_to_string(&path)
            && text.trim().len() == 64
            && text.trim().bytes().all(|byte| byte.is_ascii_hexdigit())
        {
            return Ok(text.trim().to_owned());
        }
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes)
            .map_err(|error| Error::Supervision(format!("no random numbers: {error}")))?;
        let password: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        write_atomically(&path, format!("{password}\n").as_bytes(), 0o600)?;
        Ok(password)
    }

    pub(crate) fn urls(&self, passwords: &Passwords) -> Urls {
        let port = self.port;
        let url = |role: &str, password: &str, database: &str| {
            SecretUrl::new(format!(
                "postgresql://{role}:{password}@127.0.0.1:{port}/{database}"
            ))
        };
        let socket: String = self
            .socket_folder
            .to_string_lossy()
            .bytes()
            .map(percent)
            .collect();
        Urls {
            database: url(OWNER, &passwords.owner, DATABASE),
            keys: url(OWNER, &passwords.owner, KEYS_DATABASE),
            api: url(API, &passwords.api, DATABASE),
            worker: url(WORKER, &passwords.worker, DATABASE),
            worker_keys: url(WORKER, &passwords.worker, KEYS_DATABASE),
            superuser: SecretUrl::new(format!(
                "postgresql://postgres@localhost:{port}/{DATABASE}?host={socket}"
            )),
        }
    }
}

/// How to connect.
#[derive(Clone, Debug)]
pub(crate) struct Urls {
    pub(crate) database: SecretUrl,
    pub(crate) keys: SecretUrl,
    pub(crate) api: SecretUrl,
    pub(crate) worker: SecretUrl,
    pub(crate) worker_keys: SecretUrl,
    pub(crate) superuser: SecretUrl,
}

fn percent(byte: u8) -> String {
    if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
        char::from(byte).to_string()
    } else {
        format!("%{byte:02X}")
    }
}

impl Server for Postgres {
    fn name(&self) -> &'static str {
        "postgres"
    }

    fn log(&self) -> PathBuf {
        self.log.clone()
    }

    fn launch(&self) -> Launch {
        let setting =
            |name: &str, file: &str| format!("{name}={}", self.folder.join(file).display());
        // The parent-death signal is a fast shutdown: clients are cut, everything is flushed.
        Launch::new(self.programs.join("postgres"), "INT")
            .arg("-D")
            .arg(self.data())
            .args(["-c".to_owned(), setting("config_file", "postgresql.conf")])
            .args(["-c".to_owned(), setting("hba_file", "pg_hba.conf")])
    }

    /// A pid file names the process that wrote it; after a crash or a reboot that number may be of
    /// any other program of the same user, which Postgres would take for itself and not start.
    fn prepare(&self) {
        let path = self.data().join("postmaster.pid");
        let text = fs::read_to_string(&path).unwrap_or_default();
        let pid = text
            .lines()
            .next()
            .and_then(|line| line.trim().parse::<u32>().ok());
        let running = Owned::Postgres { data: self.data() }.running();
        if let Some(pid) = pid
            && running.is_empty()
            && processes::is_other_program(pid, "postgres")
        {
            tracing::warn!(
                pid,
                "pid file of an earlier server names another program; removed"
            );
            let _ = fs::remove_file(&path);
        }
    }

    async fn probe(&self) -> std::result::Result<(), String> {
        let launch = Launch::new(self.programs.join("psql"), "KILL")
            .args([
                "-X", "-q", "-A", "-t", "-w", "-U", "postgres", "-d", "postgres",
            ])
            .args(["-p", &self.port.to_string(), "-c", "select 1"])
            .arg("-h")
            .arg(&self.socket_folder);
        let answer = self.launcher.run(&launch, "", PROBE_LIMIT).await;
        answer.map(drop).map_err(|error| error.to_string())
    }

    fn stop_signals(&self) -> &'static [Signal] {
        // Fast, then immediate shutdown.
        &[Signal::INT, Signal::QUIT]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn socket_folder_is_percent_encoded_in_the_url() {
        let text: String = "/tmp/a b".bytes().map(percent).collect();
        assert_eq!(text, "%2Ftmp%2Fa%20b");
    }
}
