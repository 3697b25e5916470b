//! Real servers on the real disk, and a fresh database or topic for each run of each arm.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context as _;
use sovereign_servers::{DataFolder, Options, Servers, Wanted};
use sqlx::{Connection as _, Executor as _};

pub(crate) struct BenchServers {
    servers: Servers,
    _folder: tempfile::TempDir,
    made: AtomicU64,
}

impl BenchServers {
    pub(crate) async fn start(wanted: Wanted) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("sovereign-bench-")
            .tempdir()?;
        // the servers run as another user if root starts them
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o711))?;
        let data = DataFolder::open(&folder.path().join("data"))?;
        let options = Options {
            wanted,
            progress: Arc::new(|step: &str| eprintln!("bench servers: {step}")),
            ..Options::default()
        };
        let servers = Servers::start(&data, options).await?;
        Ok(Self {
            servers,
            _folder: folder,
            made: AtomicU64::new(0),
        })
    }

    /// URL of a database that nobody has used.
    pub(crate) async fn database(&self) -> anyhow::Result<String> {
        let root = self
            .servers
            .superuser_url()
            .context("no postgres")?
            .expose()
            .to_owned();
        let name = format!("bench_{}", self.made.fetch_add(1, Ordering::Relaxed));
        let mut connection = sqlx::PgConnection::connect(&root).await?;
        connection
            .execute(format!("create database {name}").as_str())
            .await?;
        // every run starts without dirty pages of the last
        connection.execute("checkpoint").await?;
        connection.close().await?;
        let slash = root.rfind('/').context("url without a database")?;
        let (server, rest) = root.split_at(slash + 1);
        let query = rest.find('?').map_or("", |at| &rest[at..]);
        Ok(format!("{server}{name}{query}"))
    }

    pub(crate) fn brokers(&self) -> anyhow::Result<&str> {
        self.servers.brokers().context("no kafka")
    }

    pub(crate) async fn stop(self) {
        self.servers.stop().await;
    }
}
