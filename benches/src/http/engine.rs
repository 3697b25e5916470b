//! The engine as people run it: the release binary `sovereign` in a process of its own, with its
//! own PostgreSQL and Kafka, relay, views and agents at work.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};
use tokio::process::Command;

/// How long relay and views may take to have everything.
const SETTLE: Duration = Duration::from_secs(300);

pub(crate) struct Engine {
    binary: PathBuf,
    folder: tempfile::TempDir,
    pub(crate) addr: SocketAddr,
    running: bool,
}

/// One that was not stopped, because something went wrong, goes with its servers all the same.
impl Drop for Engine {
    fn drop(&mut self) {
        if self.running {
            let _ = std::process::Command::new(&self.binary)
                .args(["down", "--quiet", "--data"])
                .arg(self.folder.path())
                .current_dir("/")
                .status();
        }
    }
}

impl Engine {
    /// Starts one on an empty data folder. The binary lies beside this one; `make bench` builds it.
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let binary = std::env::current_exe()?.with_file_name("sovereign");
        ensure!(
            binary.exists(),
            "{} is missing: cargo build --release --bin sovereign",
            binary.display()
        );
        let folder = tempfile::Builder::new()
            .prefix("sovereign-bench-")
            .tempdir()?;
        // the servers run as another user if root starts them
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o711))?;
        let mut engine = Self {
            binary,
            folder,
            addr: ([127, 0, 0, 1], 0).into(),
            running: true,
        };
        eprintln!("bench engine: starting");
        engine.cli(&["up", "--quiet"]).await?;
        let status: Value = serde_json::from_str(&engine.cli(&["status", "--json"]).await?)?;
        let url = status["console"].as_str().context("no address")?;
        let addr = url.strip_prefix("http://").context("another scheme")?;
        engine.addr = addr.parse()?;
        Ok(engine)
    }

    /// What a command of the command line prints.
    async fn cli(&self, words: &[&str]) -> anyhow::Result<String> {
        let done = Command::new(&self.binary)
            .args(words)
            .arg("--data")
            .arg(self.folder.path())
            .current_dir("/")
            .stdin(Stdio::null())
            .output()
            .await?;
        ensure!(
            done.status.success(),
            "sovereign {}: {}",
            words.join(" "),
            String::from_utf8_lossy(&done.stderr)
        );
        Ok(String::from_utf8(done.stdout)?)
    }

    /// A token of an operator with a name of its own; each actor may send 20,000 commands a second.
    pub(crate) async fn operator(&self, name: &str) -> anyhow::Result<String> {
        let made = self
            .cli(&["tokens", "create", name, "--role", "operator", "--quiet"])
            .await?;
        Ok(made.trim().to_owned())
    }

    /// Waits until relay and views have everything, so that they are idle when the next arm runs,
    /// and tells where the ledger stands.
    pub(crate) async fn settle(&self) -> anyhow::Result<u64> {
        let started = Instant::now();
        loop {
            let status: Value = serde_json::from_str(&self.cli(&["status", "--json"]).await?)?;
            let head = &status["head"];
            let views = status["projections"].as_object().context("no views")?;
            let views = views.values().all(|view| view["position"] == *head);
            if views && status["relay"]["position"] == *head {
                return head.as_u64().context("no head");
            }
            if started.elapsed() > SETTLE {
                bail!("relay and views do not come to the end: {status}");
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Checks the whole chain, and stops it.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        let verified = self.cli(&["verify", "--quiet"]).await;
        self.cli(&["down", "--quiet"]).await?;
        self.running = false;
        verified.map(drop)
    }
}

/// A command as the API takes it.
pub(crate) fn command(agent: usize, command: &str, data: &Value) -> Vec<u8> {
    json!({ "aggregate": "agent", "id": format!("agent_{agent:06}"), "command": command,
        "data": data, "department": "trader" })
    .to_string()
    .into_bytes()
}
