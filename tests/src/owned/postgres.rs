//! A PostgreSQL of a test's own.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection as _, Executor as _, PgConnection};

use super::ports::free_ports;
use super::process::{Account, Launch, Process, tail};
use crate::certificates::Pair;

const INITDB_LIMIT: Duration = Duration::from_secs(240);
const READY_LIMIT: Duration = Duration::from_secs(180);

const FIXED: &str = "\
listen_addresses = '127.0.0.1'
unix_socket_permissions = 0700
password_encryption = 'scram-sha-256'
max_connections = 120
shared_buffers = '64MB'
wal_level = replica
lc_messages = 'C'
timezone = 'UTC'
log_destination = 'stderr'
logging_collector = off
log_statement = 'none'
log_min_error_statement = 'panic'
log_error_verbosity = 'terse'
";

/// What to start.
#[derive(Debug, Clone)]
pub struct PostgresSetup {
    /// Where its files go; the servers' user must be able to reach it.
    pub folder: PathBuf,
    /// The folder of `initdb` and `postgres`.
    pub programs: PathBuf,
    /// With TLS, and then only with TLS.
    pub pair: Option<Pair>,
    /// Further lines of `postgresql.conf`.
    pub settings: String,
}

/// A running server, or one that was killed.
#[derive(Debug)]
pub struct Postgres {
    launch: Launch,
    process: Process,
    folder: PathBuf,
    port: u16,
    account: Account,
}

impl Postgres {
    /// Makes a database cluster, starts it and waits until it answers.
    ///
    /// # Errors
    /// With the end of its log.
    pub fn start(setup: &PostgresSetup) -> anyhow::Result<Self> {
        let account = Account::choose()?;
        account.folder(&setup.folder)?;
        let log = setup.folder.with_extension("log");
        let data = setup.folder.join("data");
        let socket = setup.folder.join("run");
        account.folder(&socket)?;
        let text = |path: &Path| path.display().to_string();
        let initdb = Launch {
            program: setup.programs.join("initdb"),
            args: [
                "--username=postgres",
                "--encoding=UTF8",
                "--data-checksums",
                "--no-sync",
                "--locale=C",
                "--pgdata",
            ]
            .map(str::to_owned)
            .into_iter()
            .chain([text(&data)])
            .collect(),
            log: log.clone(),
            account: Some(account),
        };
        initdb.run(INITDB_LIMIT)?;
        let port = free_ports(1)?[0];
        let config = format!(
            "{FIXED}port = {port}\nunix_socket_directories = '{}'\n{}",
            text(&socket),
            setup.settings
        );
        std::fs::write(data.join("postgresql.conf"), config)?;
        let launch = Launch {
            program: setup.programs.join("postgres"),
            args: vec!["-D".to_owned(), text(&data)],
            log,
            account: Some(account),
        };
        let mut host = "host";
        if let Some(pair) = &setup.pair {
            host = "hostssl";
            install(&data, pair, account)?;
            let ssl = "ssl = on\nssl_cert_file = 'server.crt'\nssl_key_file = 'server.key'\n";
            append(&data.join("postgresql.conf"), ssl)?;
        }
        let rules = format!("local all all trust\n{host} all all 127.0.0.1/32 scram-sha-256\n");
        std::fs::write(data.join("pg_hba.conf"), rules)?;
        let process = launch.start()?;
        let mut postgres = Self {
            launch,
            process,
            folder: setup.folder.clone(),
            port,
            account,
        };
        postgres.ready()?;
        Ok(postgres)
    }

    /// Shows another certificate from now on.
    ///
    /// # Errors
    /// If its files cannot be written.
    pub async fn show(&self, pair: &Pair) -> anyhow::Result<()> {
        install(&self.folder.join("data"), pair, self.account)?;
        let before = self.loaded_at().await?;
        self.process.signal(Signal::HUP);
        for _ in 0..200 {
            // by a new connection: it shows what the postmaster knows
            if self.loaded_at().await? != before {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        anyhow::bail!("the server does not read its files again")
    }

    async fn loaded_at(&self) -> anyhow::Result<String> {
        let mut connection = self.superuser("postgres").await?;
        let asked = sqlx::query_scalar("select pg_conf_load_time()::text");
        Ok(asked.fetch_one(&mut connection).await?)
    }

    #[allow(clippy::disallowed_methods)] // this thread only waits for the server
    fn ready(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + READY_LIMIT;
        let pid_file = self.folder.join("data/postmaster.pid");
        loop {
            let status = std::fs::read_to_string(&pid_file).unwrap_or_default();
            let ours = status.lines().next() == Some(&self.process.pid().to_string());
            // its eighth line says what it does
            if ours && status.lines().nth(7).map(str::trim) == Some("ready") {
                return Ok(());
            }
            if !self.process.runs() && Instant::now() < deadline {
                // what it left in shared memory may still be in use by processes that are ending
                std::thread::sleep(Duration::from_millis(100));
                self.process = self.launch.start()?;
            }
            anyhow::ensure!(
                Instant::now() < deadline,
                "postgres does not answer: {}",
                tail(&self.launch.log)
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Its port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// How a superuser connects, over the private socket.
    #[must_use]
    pub fn superuser_options(&self, database: &str) -> PgConnectOptions {
        PgConnectOptions::new_without_pgpass()
            .socket(self.folder.join("run"))
            .port(self.port)
            .username("postgres")
            .database(database)
            .application_name("test superuser")
    }

    /// A superuser's connection.
    ///
    /// # Errors
    /// If the server does not answer.
    pub async fn superuser(&self, database: &str) -> anyhow::Result<PgConnection> {
        Ok(PgConnection::connect_with(&self.superuser_options(database)).await?)
    }

    /// Runs SQL as the superuser.
    ///
    /// # Errors
    /// What the server says.
    pub async fn sql(&self, database: &str, sql: &str) -> anyhow::Result<()> {
        let mut connection = self.superuser(database).await?;
        let done = connection.execute(sqlx::raw_sql(sql)).await;
        done.with_context(|| sql.to_owned())?;
        connection.close().await?;
        Ok(())
    }

    /// SIGKILL of the server and of all its processes at once: what lay in its shared memory, the
    /// unflushed end of the write-ahead log among it, is gone.
    pub fn kill(&mut self) {
        let children = children(self.process.pid());
        self.process.signal(Signal::KILL);
        for child in children {
            signal(child, Signal::KILL);
        }
        self.process.kill();
    }

    /// Starts it again on the same files, and waits until it has recovered.
    ///
    /// # Errors
    /// With the end of its log.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        self.process = self.launch.start()?;
        self.ready()
    }

    /// Whether its postmaster runs.
    pub fn runs(&mut self) -> bool {
        self.process.runs()
    }

    /// Where its log is.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.launch.log
    }
}

/// Sends a signal to one process of the server; that it has ended already is no error.
pub fn signal(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    if let Some(pid) = pid {
        let _ = kill_process(pid, signal);
    }
}

fn children(pid: u32) -> Vec<u32> {
    let tasks = format!("/proc/{pid}/task/{pid}/children");
    let text = std::fs::read_to_string(tasks).unwrap_or_default();
    text.split_whitespace()
        .filter_map(|child| child.parse().ok())
        .collect()
}

fn append(path: &Path, text: &str) -> anyhow::Result<()> {
    let before = std::fs::read_to_string(path)?;
    Ok(std::fs::write(path, before + text)?)
}

/// Puts a certificate where the server reads it; it refuses keys that others can read.
fn install(data: &Path, pair: &Pair, account: Account) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    for (from, name) in [(&pair.certificate, "server.crt"), (&pair.key, "server.key")] {
        let to = data.join(name);
        let new = data.join(format!("{name}.new"));
        std::fs::copy(from, &new)?;
        std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o600))?;
        account.own(&new)?;
        std::fs::rename(&new, &to)?;
    }
    Ok(())
}
