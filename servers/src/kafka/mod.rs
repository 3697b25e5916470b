//! The local Apache Kafka: one KRaft node that is broker and controller.

mod config;
mod probe;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;

use crate::error::{Error, Result};
use crate::fetch::KafkaFiles;
use crate::home::Home;
use crate::launch::{Launch, Launcher};
use crate::processes::Owned;
use crate::staging::{self, Staging};
use crate::state::write_atomically;
use crate::supervisor::Server;

/// Version that `dist/kafka/pom.xml` pins.
pub(crate) const VERSION: &str = "4.3.0";
/// Replaces the options that choose collector and compiler.
const JVM_OPTIONS: &str = "KAFKA_JVM_PERFORMANCE_OPTS";
const FORMAT_LIMIT: Duration = Duration::from_secs(120);
/// On so few cores the optimising compiler of the JVM takes for minutes from the engine what it
/// gives the broker (docs/BENCHMARKS.md, api).
const CORES_FEW: usize = 4;

/// Collector and compiler of the broker: on a large machine what Kafka's own start script chooses.
const fn jvm_options(cores: usize) -> &'static str {
    if cores <= CORES_FEW {
        "-XX:+UseSerialGC -XX:TieredStopAtLevel=1"
    } else {
        "-XX:+UseG1GC -XX:MaxGCPauseMillis=20 -XX:InitiatingHeapOccupancyPercent=35"
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Kafka {
    pub(crate) files: KafkaFiles,
    pub(crate) folder: PathBuf,
    pub(crate) log: PathBuf,
    pub(crate) port: u16,
    pub(crate) controller_port: u16,
}

impl Kafka {
    pub(crate) fn owned(home: &Home) -> Owned {
        Owned::Kafka {
            properties: home.path.join("kafka/server.properties"),
        }
    }

    fn properties(&self) -> PathBuf {
        self.folder.join("server.properties")
    }

    /// Writes the configuration and formats the storage if that was not done before.
    pub(crate) async fn prepare_files(
        &self,
        launcher: &Launcher,
        progress: &(dyn Fn(&str) + Send + Sync),
    ) -> Result<()> {
        let account = &launcher.account;
        crate::account::create_folder(&self.folder, 0o711)?;
        account.folder(&self.folder.join("logs"), 0o700)?;
        // Native libraries that a killed JVM unpacked there.
        let temp = self.folder.join("tmp");
        let _ = fs::remove_dir_all(&temp);
        account.folder(&temp, 0o700)?;
        write_atomically(
            &self.folder.join("log4j2.xml"),
            config::LOG4J2.as_bytes(),
            0o644,
        )?;
        let data = self.folder.join("data");
        staging::sweep(&self.folder);
        if !data.exists() {
            progress("formatting the storage of Apache Kafka");
            let staging = Staging::create(&self.folder, account)?;
            let new = staging.join("data");
            account.folder(&new, 0o700)?;
            self.format(launcher, &staging, &new).await?;
            fs::rename(&new, &data).map_err(Error::io("renaming", &new))?;
        }
        self.write_properties(&self.properties(), &data)
    }

    fn write_properties(&self, path: &Path, data: &Path) -> Result<()> {
        // Settings of the user's own come last, so that they win.
        let local = fs::read_to_string(self.folder.join("local.properties")).unwrap_or_default();
        let text = config::server_properties(self.port, self.controller_port, data) + &local;
        write_atomically(path, text.as_bytes(), 0o644)
    }

    async fn format(&self, launcher: &Launcher, staging: &Staging, data: &Path) -> Result<()> {
        let properties = staging.join("format.properties");
        self.write_properties(&properties, data)?;
        let launch = self
            .java("64m")
            // it runs for a second: compiling it well would take longer
            .args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"])
            .args([
                "kafka.tools.StorageTool",
                "format",
                "--cluster-id",
                &config::cluster_id()?,
            ])
            .arg("--config")
            .arg(&properties);
        launcher.run(&launch, "", FORMAT_LIMIT).await.map(drop)
    }

    fn java(&self, heap: &str) -> Launch {
        let mut launch = Launch::new(self.files.java.clone(), "TERM");
        launch.folder = self.folder.clone();
        let temp = self.folder.join("tmp");
        let log4j2 = self.folder.join("log4j2.xml");
        launch
            .arg(format!("-Xmx{heap}"))
            // No file in /tmp that other users see.
            .args([
                "-XX:-UsePerfData",
                "-Djava.awt.headless=true",
                "-Dfile.encoding=UTF-8",
            ])
            .arg(format!("-Djava.io.tmpdir={}", temp.display()))
            .arg(format!("-Dlog4j2.configurationFile={}", log4j2.display()))
            .arg("-cp")
            .arg(self.files.libs.join("*"))
    }
}

impl Server for Kafka {
    fn name(&self) -> &'static str {
        "kafka"
    }

    fn log(&self) -> PathBuf {
        self.log.clone()
    }

    fn launch(&self) -> Launch {
        let error_file = self.folder.join("logs/hs_err_%p.log");
        let mut launch = self.java("512m");
        // the variable of Kafka's own start script
        let chosen = std::env::var(JVM_OPTIONS).unwrap_or_default();
        let chosen = if chosen.trim().is_empty() {
            let cores = std::thread::available_parallelism();
            jvm_options(cores.map_or(1, std::num::NonZero::get))
        } else {
            chosen.as_str()
        };
        let mut jvm: Vec<String> = chosen.split_whitespace().map(str::to_owned).collect();
        jvm.extend([
            "-XX:+ExitOnOutOfMemoryError".to_owned(),
            format!("-XX:ErrorFile={}", error_file.display()),
        ]);
        launch.args.splice(0..0, jvm.into_iter().map(Into::into));
        launch.arg("kafka.Kafka").arg(self.properties())
    }

    async fn probe(&self) -> std::result::Result<(), String> {
        probe::answers(self.port).await
    }

    fn stop_signals(&self) -> &'static [Signal] {
        &[Signal::TERM]
    }
}
