//! An engine in the foreground, as a child of the test: its process id is known at once.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::Signal;
use serde_json::Value;

use super::process::{Launch, Process, engine};

/// For one look at health or status.
const LOOK_MAX: Duration = Duration::from_secs(2);

/// Where an engine works.
#[derive(Debug, Clone)]
pub struct EngineSetup {
    /// Its data folder.
    pub data: PathBuf,
    /// Database of the ledger.
    pub database: String,
    /// Database of the keys.
    pub keys_database: String,
    /// Bootstrap list.
    pub brokers: String,
    /// Port of its API, the same over restarts.
    pub port: u16,
}

/// A running engine, or one that was killed.
#[derive(Debug)]
pub struct Engine {
    launch: Launch,
    process: Process,
    handle: EngineHandle,
}

/// How to talk to an engine, whether it runs or not. Cheap to clone.
#[derive(Debug, Clone)]
pub struct EngineHandle {
    client: reqwest::Client,
    url: String,
    data: PathBuf,
}

impl Engine {
    /// Starts it, and does not wait until it is up.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(setup: &EngineSetup) -> anyhow::Result<Self> {
        std::fs::create_dir_all(&setup.data)?;
        let data = setup.data.display().to_string();
        let listen = format!("127.0.0.1:{}", setup.port);
        let args = [
            "up",
            "--foreground",
            "--workers",
            "0",
            "--json",
            "--data",
            &data,
            "--database",
            &setup.database,
            "--keys-database",
            &setup.keys_database,
            "--brokers",
            &setup.brokers,
            "--listen",
            &listen,
        ];
        let launch = Launch {
            program: engine()?,
            args: args.map(str::to_owned).to_vec(),
            log: setup.data.with_extension("log"),
            account: None,
        };
        let process = launch.start()?;
        let handle = EngineHandle {
            client: client()?,
            url: format!("http://{listen}"),
            data: setup.data.clone(),
        };
        Ok(Self {
            launch,
            process,
            handle,
        })
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Starts it again on the same folder, and does not wait until it is up.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        self.process = self.launch.start()?;
        Ok(())
    }

    /// Whether its process runs.
    pub fn runs(&mut self) -> bool {
        self.process.runs()
    }

    /// For talking to it.
    #[must_use]
    pub fn handle(&self) -> &EngineHandle {
        &self.handle
    }

    /// Where its log is.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.launch.log
    }
}

fn client() -> anyhow::Result<reqwest::Client> {
    // a test before may have done it
    let _ = rustls::crypto::ring::default_provider().install_default();
    Ok(reqwest::Client::builder()
        .connect_timeout(Duration::from_secs(1))
        .no_proxy()
        .build()?)
}

impl EngineHandle {
    /// Its data folder.
    #[must_use]
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// What `/health` says; `None` if it does not answer.
    pub async fn health(&self) -> Option<Value> {
        let request = self.client.get(format!("{}/health", self.url));
        let answer = request.timeout(LOOK_MAX).send().await.ok()?;
        answer.json().await.ok()
    }

    /// What `sovereign status --json` prints; `None` if it does not answer.
    pub async fn status(&self) -> Option<Value> {
        let request = self.client.get(format!("{}/api/status", self.url));
        let request = request.bearer_auth(self.token().ok()?);
        let answer = request.timeout(LOOK_MAX).send().await.ok()?;
        answer.json().await.ok()
    }

    fn token(&self) -> anyhow::Result<String> {
        let path = self.data.join("api.token");
        let token = std::fs::read_to_string(&path);
        Ok(token
            .context("the engine has no token yet")?
            .trim()
            .to_owned())
    }

    /// Sends commands as one request; one outcome for each.
    ///
    /// # Errors
    /// If there is no whole answer: what became of the commands is unknown then.
    pub async fn send(&self, commands: &[Value], limit: Duration) -> anyhow::Result<Vec<Value>> {
        let lines: Vec<String> = commands.iter().map(Value::to_string).collect();
        let request = self.client.post(format!("{}/api/commands", self.url));
        let request = request.bearer_auth(self.token()?).timeout(limit);
        let request = request.header("content-type", "application/x-ndjson");
        let answer = request.body(lines.join("\n")).send().await?;
        let answer = answer.error_for_status()?.text().await?;
        let outcomes: Result<Vec<Value>, _> = answer.lines().map(serde_json::from_str).collect();
        let outcomes = outcomes?;
        anyhow::ensure!(outcomes.len() == commands.len(), "the answer was cut");
        Ok(outcomes)
    }
}
