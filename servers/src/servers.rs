use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::data_folder::{DataFolder, require_room};
use crate::error::{Error, Result};
use crate::fetch::{Installation, Wanted, default_cache, fetch};
use crate::home::Home;
use crate::kafka::{self, Kafka};
use crate::launch::Launcher;
use crate::ports;
use crate::postgres::{self, Postgres, Urls};
use crate::secret::SecretUrl;
use crate::state::{KafkaState, PostgresState, State, StateFile};
use crate::supervisor::{ServerHealth, Supervised};

/// How long a server may take until it answers for the first time.
const READY_LIMIT: Duration = Duration::from_secs(120);

/// Receives one short line per long step of a start.
pub type Progress = Arc<dyn Fn(&str) + Send + Sync>;

/// What to start and with what.
#[derive(Clone)]
pub struct Options {
    /// Which servers; one whose address the user gave is left out.
    pub wanted: Wanted,
    /// Where the programs are kept.
    pub cache: PathBuf,
    /// Program whose subcommand `child` calls [`crate::child_main`]; our own binary if `None`.
    pub shim: Option<PathBuf>,
    /// Told about long steps.
    pub progress: Progress,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            wanted: Wanted::ALL,
            cache: default_cache(),
            shim: None,
            progress: Arc::new(|step| tracing::info!(step, "local servers")),
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            wanted,
            cache,
            shim,
            progress: _,
        } = self;
        let mut debug = formatter.debug_struct("Options");
        debug
            .field("wanted", wanted)
            .field("cache", cache)
            .field("shim", shim);
        debug.finish_non_exhaustive()
    }
}

/// Health of the local servers; `None` for one that was left out.
#[derive(Clone, Debug, Serialize)]
pub struct ServersHealth {
    /// PostgreSQL.
    pub postgres: Option<ServerHealth>,
    /// Apache Kafka.
    pub kafka: Option<ServerHealth>,
}

/// The running local servers.
///
/// They end with the process that started them, however it ends: by [`Servers::stop`] in order, or
/// by the parent-death signal, which is a clean shutdown for both.
#[derive(Debug)]
pub struct Servers {
    home: Home,
    state: Arc<StateFile>,
    installation: Installation,
    postgres: Option<Supervised>,
    kafka: Option<Supervised>,
    urls: Option<Urls>,
    brokers: Option<String>,
}

impl Servers {
    /// Fetches what is missing, heals what an interrupted start left, starts the wanted servers
    /// and waits until they answer.
    ///
    /// # Errors
    /// What [`fetch`] returns; [`Error::Unreachable`], [`Error::NoAccount`] when root has nobody to
    /// run them as; [`Error::StillRunning`]; [`Error::NotReady`] quotes the server's log. Nothing
    /// keeps running after an error.
    pub async fn start(folder: &DataFolder, options: Options) -> Result<Self> {
        let plan = Plan::make(folder, &options).await?;
        let mut servers = Self {
            home: plan.home.clone(),
            state: plan.state.clone(),
            installation: plan.installation.clone(),
            postgres: None,
            kafka: None,
            urls: None,
            brokers: None,
        };
        if let Err(error) = servers.start_planned(&plan).await {
            servers.stop().await;
            return Err(error);
        }
        Ok(servers)
    }

    async fn start_planned(&mut self, plan: &Plan) -> Result<()> {
        let progress = &*plan.progress;
        let (postgres, kafka) = tokio::join!(
            async {
                match &plan.postgres {
                    Some(server) => server.prepare_files(progress).await,
                    None => Ok(()),
                }
            },
            async {
                match &plan.kafka {
                    Some(server) => server.prepare_files(&plan.launcher, progress).await,
                    None => Ok(()),
                }
            },
        );
        postgres.and(kafka)?;
        let supervise = (plan.launcher.clone(), plan.state.clone());
        if let Some(server) = plan.postgres.clone() {
            let (launcher, state) = supervise.clone();
            self.postgres = Some(Supervised::start(server, launcher, state));
        }
        if let Some(server) = plan.kafka.clone() {
            let (launcher, state) = supervise;
            self.brokers = Some(format!("127.0.0.1:{}", server.port));
            self.kafka = Some(Supervised::start(server, launcher, state));
        }
        progress("waiting until the servers answer");
        let (postgres, kafka) = tokio::join!(ready(&self.postgres), ready(&self.kafka));
        postgres.and(kafka)?;
        if let Some(server) = &plan.postgres {
            let passwords = server.passwords()?;
            server.bootstrap(&passwords).await?;
            self.urls = Some(server.urls(&passwords));
        }
        Ok(())
    }

    /// Stops Kafka, then PostgreSQL, cleanly within 30 s each, else by force; again is no error.
    pub async fn stop(&self) {
        for server in [&self.kafka, &self.postgres].into_iter().flatten() {
            server.stop().await;
        }
        self.home.remove_short_socket_folder(&self.state.get());
        let stopped = self.state.update(|state| state.engine_pid = None);
        if let Err(error) = stopped {
            tracing::warn!(%error, "state cannot be written");
        }
    }

    /// What the servers are doing now.
    #[must_use]
    pub fn health(&self) -> ServersHealth {
        ServersHealth {
            postgres: self.postgres.as_ref().map(Supervised::health),
            kafka: self.kafka.as_ref().map(Supervised::health),
        }
    }

    /// Database of ledger and views, as its owner `sovereign`; `None` without PostgreSQL.
    #[must_use]
    pub fn database_url(&self) -> Option<&SecretUrl> {
        self.urls.as_ref().map(|urls| &urls.database)
    }

    /// Database of the sealing keys, as its owner `sovereign`; `None` without PostgreSQL.
    #[must_use]
    pub fn keys_database_url(&self) -> Option<&SecretUrl> {
        self.urls.as_ref().map(|urls| &urls.keys)
    }

    /// Database of ledger and views as `sovereign_api`, which may connect to it and has no right that
    /// the owner does not grant, and none on the keys; `None` without PostgreSQL.
    #[must_use]
    pub fn api_database_url(&self) -> Option<&SecretUrl> {
        self.urls.as_ref().map(|urls| &urls.api)
    }

    /// Database of ledger and views as `sovereign_worker`; `None` without PostgreSQL.
    #[must_use]
    pub fn worker_database_url(&self) -> Option<&SecretUrl> {
        self.urls.as_ref().map(|urls| &urls.worker)
    }

    /// Database of the sealing keys as `sovereign_worker`; `None` without PostgreSQL.
    #[must_use]
    pub fn worker_keys_database_url(&self) -> Option<&SecretUrl> {
        self.urls.as_ref().map(|urls| &urls.worker_keys)
    }

    /// Database of the ledger as superuser over the private socket; `None` without PostgreSQL.
    #[must_use]
    pub fn superuser_url(&self) -> Option<&SecretUrl> {
        self.urls.as_ref().map(|urls| &urls.superuser)
    }

    /// Bootstrap list for Kafka clients; `None` without Kafka.
    #[must_use]
    pub fn brokers(&self) -> Option<&str> {
        self.brokers.as_deref()
    }

    /// Folder of the servers' files: the data folder, or one below `/var/lib/sovereign` when root
    /// keeps its data folder where the servers' account cannot reach it.
    #[must_use]
    pub fn home(&self) -> &Path {
        &self.home.path
    }

    /// Where the programs are (psql, pg_dump, Kafka's own tools).
    #[must_use]
    pub fn installation(&self) -> &Installation {
        &self.installation
    }

    /// What `servers.json` says now.
    #[must_use]
    pub fn state(&self) -> State {
        self.state.get()
    }
}

async fn ready(server: &Option<Supervised>) -> Result<()> {
    match server {
        Some(server) => server.ready(READY_LIMIT).await,
        None => Ok(()),
    }
}

/// Everything that is decided before the first process is started.
struct Plan {
    home: Home,
    state: Arc<StateFile>,
    launcher: Launcher,
    installation: Installation,
    progress: Progress,
    postgres: Option<Postgres>,
    kafka: Option<Kafka>,
}

impl Plan {
    async fn make(folder: &DataFolder, options: &Options) -> Result<Self> {
        let shim = match &options.shim {
            Some(shim) => shim.clone(),
            None => std::env::current_exe().map_err(Error::io(
                "finding our own program",
                Path::new("/proc/self/exe"),
            ))?,
        };
        let installation = fetch_in_background(options).await?;
        let home = Home::place(folder.path())?;
        require_room(&home.path)?;
        require_reach(&home, &installation)?;
        let launcher = Launcher {
            shim,
            account: home.account.clone(),
        };
        for owned in [Postgres::owned(&home), Kafka::owned(&home)] {
            owned.wait_until_gone(&*options.progress).await?;
        }
        let state = Arc::new(StateFile::open(folder.path()));
        let logs = folder.path().join("logs");
        let mut plan = Self {
            home,
            state,
            launcher,
            installation,
            progress: options.progress.clone(),
            postgres: None,
            kafka: None,
        };
        plan.choose_addresses(&logs)?;
        Ok(plan)
    }

    fn choose_addresses(&mut self, logs: &Path) -> Result<()> {
        let before = self.state.get();
        let [port, broker, controller] = ports::choose([
            before.postgres.as_ref().map(|postgres| postgres.port),
            before.kafka.as_ref().map(|kafka| kafka.port),
            before.kafka.as_ref().map(|kafka| kafka.controller_port),
        ])?;
        let mut state = State {
            home: self.home.path.clone(),
            engine_pid: Some(std::process::id()),
            user: self.home.account.name.clone(),
            ..before
        };
        if let Some(programs) = self.installation.postgres.clone() {
            let folder = self.home.path.join("postgres");
            crate::account::create_folder(&folder, 0o711)?;
            let socket_folder = self.home.socket_folder()?;
            let version = postgres::VERSION.to_owned();
            let launcher = self.launcher.clone();
            let (log, pid) = (logs.join("postgres.log"), None);
            state.postgres = Some(PostgresState {
                version,
                port,
                socket_folder: socket_folder.clone(),
                pid,
            });
            self.postgres = Some(Postgres {
                programs,
                folder,
                socket_folder,
                log,
                port,
                launcher,
            });
        }
        if let Some(files) = self.installation.kafka.clone() {
            let folder = self.home.path.join("kafka");
            let (version, log) = (kafka::VERSION.to_owned(), logs.join("kafka.log"));
            let controller_port = controller;
            state.kafka = Some(KafkaState {
                version,
                port: broker,
                controller_port,
                pid: None,
            });
            self.kafka = Some(Kafka {
                files,
                folder,
                log,
                port: broker,
                controller_port,
            });
        }
        self.state.update(|current| *current = state)
    }
}

async fn fetch_in_background(options: &Options) -> Result<Installation> {
    let (cache, wanted) = (options.cache.clone(), options.wanted);
    let progress = options.progress.clone();
    let fetched = tokio::task::spawn_blocking(move || fetch(&cache, wanted, |step| progress(step)));
    fetched
        .await
        .map_err(|error| Error::Supervision(format!("fetching: {error}")))?
}

/// The account must be able to run what was fetched.
fn require_reach(home: &Home, installation: &Installation) -> Result<()> {
    let remedy = "set SOVEREIGN_CACHE to a folder that it can enter";
    if let Some(programs) = &installation.postgres {
        home.account
            .require_reach(programs, "the programs of PostgreSQL", remedy)?;
    }
    if let Some(files) = &installation.kafka {
        home.account
            .require_reach(&files.libs, "the jars of Apache Kafka", remedy)?;
        let remedy = "install Java for all users: apt-get install -y openjdk-17-jdk-headless";
        home.account
            .require_reach(&files.java, "the Java virtual machine", remedy)?;
    }
    Ok(())
}
