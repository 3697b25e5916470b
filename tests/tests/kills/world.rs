//! The servers and engines, and what is done to them.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::process::Signal;
use sovereign_servers::{Wanted, default_cache, fetch};
use sovereign_tests::owned::{
    Engine, EngineHandle, EngineSetup, Kafka, KafkaSetup, Postgres, PostgresSetup, free_ports,
    signal,
};
use sqlx::{Executor as _, PgConnection};

use crate::plan::{Fault, Kind};
use crate::watchers::Shown;

pub(crate) const DATABASE: &str = "sovereign";
const PASSWORD: &str = "kills";
/// Room for the database; a file of the same size fills it.
const DISK: &str = "1536m";
/// The write-ahead log stays small, so that it has to grow into the full disk.
const SETTINGS: &str = "max_wal_size = '96MB'\nmin_wal_size = '32MB'\nwal_recycle = off\n";
/// How long the successor of a relay may take.
pub(crate) const TAKE_OVER_MAX: Duration = Duration::from_secs(10);

pub(crate) struct World {
    pub(crate) folder: PathBuf,
    pub(crate) postgres: Postgres,
    pub(crate) kafka: Kafka,
    pub(crate) engines: [Engine; 2],
    locked: Option<PgConnection>,
    stopped: Option<u32>,
    killed: Option<usize>,
    /// Where the database lives, if it has a disk of its own. Goes last.
    disk: Option<Disk>,
}

/// What came of one fault.
#[derive(Debug, Clone, serde::Serialize)]
pub(crate) struct Struck {
    pub(crate) kind: Kind,
    #[serde(skip)]
    pub(crate) at: Instant,
    /// How long the other engine took to relay what was appended after the fault.
    pub(crate) take_over_ms: Option<u64>,
}

impl World {
    pub(crate) async fn start(folder: &Path) -> anyhow::Result<Self> {
        let files = fetch(&default_cache(), Wanted::ALL, |step| eprintln!("{step}"))?;
        let disk = small_disk(&folder.join("disk"))?;
        let setup = KafkaSetup {
            folder: folder.join("kafka"),
            files: files.kafka.context("kafka was asked for")?,
            listeners: Vec::new(),
            users: Vec::new(),
        };
        let kafka = std::thread::spawn(move || Kafka::start(&setup));
        let postgres = Postgres::start(&PostgresSetup {
            folder: disk
                .as_ref()
                .map_or(folder, |disk| &disk.0)
                .join("postgres"),
            programs: files.postgres.context("postgres was asked for")?,
            pair: None,
            settings: SETTINGS.to_owned(),
        })?;
        let kafka = kafka
            .join()
            .map_err(|_| anyhow::anyhow!("kafka panicked"))??;
        let role = format!("create role sovereign login password '{PASSWORD}'");
        postgres.sql("postgres", &role).await?;
        for name in [DATABASE, "sovereign_keys"] {
            let sql = format!("create database {name} owner sovereign");
            postgres.sql("postgres", &sql).await?;
        }
        let ports = free_ports(2)?;
        let setup = |index: usize| EngineSetup {
            data: folder.join(format!("engine-{index}")),
            database: url(&postgres, DATABASE),
            keys_database: url(&postgres, "sovereign_keys"),
            brokers: kafka.brokers(),
            port: ports[index],
        };
        let first = Engine::start(&setup(0))?;
        until_green(first.handle(), "first engine", first.log()).await?;
        // engines that share a ledger share the key that wraps its subjects' keys
        let key = "master.key";
        std::fs::create_dir_all(setup(1).data)?;
        std::fs::copy(setup(0).data.join(key), setup(1).data.join(key))?;
        std::fs::set_permissions(
            setup(1).data.join(key),
            std::fs::Permissions::from_mode(0o600),
        )?;
        let second = Engine::start(&setup(1))?;
        until_green(second.handle(), "second engine", second.log()).await?;
        Ok(Self {
            folder: folder.to_owned(),
            disk,
            postgres,
            kafka,
            engines: [first, second],
            locked: None,
            stopped: None,
            killed: None,
        })
    }

    pub(crate) fn url(&self) -> String {
        url(&self.postgres, DATABASE)
    }

    pub(crate) fn handles(&self) -> [EngineHandle; 2] {
        [0, 1].map(|index: usize| self.engines[index].handle().clone())
    }

    /// Faults that are impossible here.
    pub(crate) fn without(&self) -> Vec<Kind> {
        if self.disk.is_some() {
            Vec::new()
        } else {
            vec![Kind::DiskFull]
        }
    }

    /// Lets a fault happen.
    pub(crate) async fn strike(&mut self, fault: &Fault, topics: &Shown) -> anyhow::Result<Struck> {
        let at = Instant::now();
        let mut take_over_ms = None;
        match fault.kind {
            Kind::EngineKilled => {
                let victim = (fault.victim % 2) as usize;
                self.engines[victim].kill();
                self.killed = Some(victim);
            }
            Kind::RelayingEngineKilled | Kind::RelayingEngineRevived => {
                let took = self.replace_relay(fault.kind, topics).await?;
                take_over_ms = Some(u64::try_from(took.as_millis())?);
            }
            Kind::BrokerKilled => self.kafka.kill(),
            Kind::BrokerPaused | Kind::BrokerPausedLong => self.kafka.signal(Signal::STOP),
            Kind::DatabaseKilled => self.postgres.kill(),
            Kind::SessionKilled => {
                if let Some(pid) = self.session("sovereign%", fault.victim).await {
                    signal(pid, Signal::KILL);
                }
            }
            Kind::SessionStopped => {
                self.stopped = self.session("sovereign writer%", fault.victim).await;
                if let Some(pid) = self.stopped {
                    signal(pid, Signal::STOP);
                }
            }
            Kind::HeadLocked | Kind::HeadLockedLong => {
                let mut connection = self.postgres.superuser(DATABASE).await?;
                let lock = "begin; select position from ledger.head for update";
                connection.execute(sqlx::raw_sql(lock)).await?;
                self.locked = Some(connection);
            }
            Kind::DiskFull => self.fill()?,
        }
        Ok(Struck {
            kind: fault.kind,
            at,
            take_over_ms,
        })
    }

    /// Ends a fault; what was killed is started, and not waited for.
    pub(crate) fn heal(&mut self, kind: Kind) -> anyhow::Result<()> {
        match kind {
            Kind::EngineKilled | Kind::RelayingEngineKilled => {
                if let Some(killed) = self.killed.take() {
                    self.engines[killed].restart()?;
                }
            }
            Kind::BrokerKilled => self.kafka.restart()?,
            Kind::BrokerPaused | Kind::BrokerPausedLong => self.kafka.signal(Signal::CONT),
            Kind::DatabaseKilled => self.postgres.restart()?,
            Kind::SessionStopped => {
                if let Some(pid) = self.stopped.take() {
                    signal(pid, Signal::CONT);
                }
            }
            // closing the connection ends its transaction
            Kind::HeadLocked | Kind::HeadLockedLong => drop(self.locked.take()),
            Kind::DiskFull => {
                let _ = std::fs::remove_file(self.filler());
            }
            Kind::SessionKilled | Kind::RelayingEngineRevived => {}
        }
        Ok(())
    }

    /// Starts what has ended by itself, as a supervisor does: an engine that could not start, and a
    /// database that found no room to recover in.
    pub(crate) fn supervise(&mut self) -> anyhow::Result<usize> {
        let mut started = 0;
        if !self.postgres.runs() {
            self.postgres.restart()?;
            started += 1;
        }
        for engine in &mut self.engines {
            if !engine.runs() {
                engine.restart()?;
                started += 1;
            }
        }
        Ok(started)
    }

    /// Kills or stops the engine that relays, and waits until the other one does its work.
    async fn replace_relay(&mut self, kind: Kind, topics: &Shown) -> anyhow::Result<Duration> {
        let victim = self.relaying().await?;
        if kind == Kind::RelayingEngineKilled {
            self.engines[victim].kill();
            self.killed = Some(victim);
        } else {
            self.engines[victim].signal(Signal::STOP);
        }
        let at = Instant::now();
        let mut connection = self.postgres.superuser(DATABASE).await?;
        let head: i64 = sqlx::query_scalar("select position from ledger.head")
            .fetch_one(&mut connection)
            .await?;
        while topics.reached(0) <= head.unsigned_abs() && at.elapsed() < 3 * TAKE_OVER_MAX {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let took = at.elapsed();
        if kind == Kind::RelayingEngineRevived {
            self.engines[victim].signal(Signal::CONT);
        }
        Ok(took)
    }

    /// The engine that relays, once one does.
    async fn relaying(&self) -> anyhow::Result<usize> {
        let began = Instant::now();
        while began.elapsed() < 3 * TAKE_OVER_MAX {
            for (index, engine) in self.handles().iter().enumerate() {
                let status = engine.status().await;
                if status.is_some_and(|status| status["relay"]["state"] == "running") {
                    return Ok(index);
                }
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        anyhow::bail!("no engine relays")
    }

    async fn session(&self, name: &str, victim: u64) -> Option<u32> {
        let mut connection = self.postgres.superuser(DATABASE).await.ok()?;
        let query = "select pid from pg_stat_activity where application_name like $1 order by pid";
        let pids: Vec<i32> = sqlx::query_scalar(query)
            .bind(name)
            .fetch_all(&mut connection)
            .await
            .ok()?;
        let index = victim.checked_rem(pids.len() as u64)?;
        Some(pids[index as usize].unsigned_abs())
    }

    fn filler(&self) -> PathBuf {
        let disk = self.disk.as_ref().map_or(&self.folder, |disk| &disk.0);
        disk.join("filler")
    }

    /// Takes all room that is left, byte by byte at the end.
    fn fill(&self) -> anyhow::Result<()> {
        let file = std::fs::File::create(self.filler())?;
        let (mut size, mut step) = (0, 64 << 20);
        while step >= 4_096 {
            match rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), size, step) {
                Ok(()) => size += step,
                Err(_) => step /= 4,
            }
        }
        Ok(())
    }
}

/// A small disk in memory; gone when it is dropped.
struct Disk(PathBuf);

impl Drop for Disk {
    fn drop(&mut self) {
        // also while the database still uses it
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn url(postgres: &Postgres, database: &str) -> String {
    format!(
        "postgresql://sovereign:{PASSWORD}@127.0.0.1:{}/{database}",
        postgres.port()
    )
}

/// Only root can have one.
fn small_disk(at: &Path) -> anyhow::Result<Option<Disk>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    std::fs::create_dir_all(at)?;
    let mounted = Command::new("mount")
        .args([
            "-t",
            "tmpfs",
            "-o",
            &format!("size={DISK},mode=711"),
            "tmpfs",
        ])
        .arg(at)
        .status();
    let mounted = mounted.is_ok_and(|status| status.success());
    Ok(mounted.then(|| Disk(at.to_owned())))
}

async fn until_green(engine: &EngineHandle, what: &str, log: &Path) -> anyhow::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(90);
    while engine
        .health()
        .await
        .is_none_or(|health| health["healthy"] != true)
    {
        let text = || std::fs::read_to_string(log).unwrap_or_default();
        anyhow::ensure!(Instant::now() < deadline, "{what} is not green: {}", text());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}
