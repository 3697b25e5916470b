//! An Apache Kafka of a test's own: one node, with as many TLS listeners as wanted.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use sovereign_servers::KafkaFiles;

use super::acl::{self, Rule};
use super::ports::free_ports;
use super::process::{Account, Launch, Process, tail};
use crate::certificates::Pair;

const FORMAT_LIMIT: Duration = Duration::from_secs(240);
const READY_LIMIT: Duration = Duration::from_secs(240);

const FIXED: &str = "\
process.roles=broker,controller
node.id=1
inter.broker.listener.name=INTERNAL
controller.listener.names=CONTROLLER
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=1
group.initial.rebalance.delay.ms=0
message.max.bytes=4194304
replica.fetch.max.bytes=4194304
log.cleaner.dedupe.buffer.size=16777216
num.network.threads=2
num.io.threads=4
# a broker that was killed is let in again as soon as it comes back
broker.session.timeout.ms=6000
broker.heartbeat.interval.ms=1500
";

/// Rights are checked, and whoever comes through the inner listener has all of them.
const RIGHTS: &str = "\
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
allow.everyone.if.no.acl.found=false
";

/// A listener that wants TLS and a SCRAM login.
#[derive(Debug, Clone)]
pub struct Listener {
    /// Its name, in capitals.
    pub name: String,
    /// What it shows.
    pub pair: Pair,
}

/// What to start.
#[derive(Debug, Clone)]
pub struct KafkaSetup {
    /// Where its files go; the servers' user must be able to reach it.
    pub folder: PathBuf,
    /// Java and the jars.
    pub files: KafkaFiles,
    /// Listeners beside the inner one, which is plain and without a login.
    pub listeners: Vec<Listener>,
    /// Users with SCRAM-SHA-512 passwords. If there are any, rights are checked.
    pub users: Vec<(String, String)>,
}

/// A running broker, or one that was killed.
#[derive(Debug)]
pub struct Kafka {
    launch: Launch,
    process: Process,
    inner: u16,
    ports: Vec<(String, u16)>,
}

impl Kafka {
    /// Formats its storage, starts it and waits until it answers.
    ///
    /// # Errors
    /// With the end of its log.
    pub fn start(setup: &KafkaSetup) -> anyhow::Result<Self> {
        let account = Account::choose()?;
        account.folder(&setup.folder)?;
        let ports = free_ports(2 + setup.listeners.len())?;
        let names = setup.listeners.iter().map(|listener| listener.name.clone());
        let named: Vec<(String, u16)> = names.zip(ports[2..].iter().copied()).collect();
        let properties = setup.folder.join("server.properties");
        let text = properties_text(setup, ports[0], ports[1], &named);
        std::fs::write(&properties, text)?;
        account.own(&properties)?;
        for listener in &setup.listeners {
            account.own(&listener.pair.both)?;
        }
        format(setup, account, &properties)?;
        let launch = java(setup, account, "kafka.Kafka", [path(&properties)]);
        let process = launch.start()?;
        let mut kafka = Self {
            launch,
            process,
            inner: ports[0],
            ports: named,
        };
        kafka.ready()?;
        Ok(kafka)
    }

    #[allow(clippy::disallowed_methods)] // this thread only waits for the server
    fn ready(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + READY_LIMIT;
        while !acl::answers(self.inner) {
            anyhow::ensure!(
                self.process.runs() && Instant::now() < deadline,
                "the broker does not answer: {}",
                tail(&self.launch.log)
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// `host:port` of the inner listener.
    #[must_use]
    pub fn brokers(&self) -> String {
        format!("127.0.0.1:{}", self.inner)
    }

    /// `host:port` of a TLS listener.
    ///
    /// # Panics
    /// If it has no such listener.
    #[must_use]
    pub fn listener(&self, name: &str) -> String {
        let found = self.ports.iter().find(|(found, _)| found == name);
        let (_, port) = found.unwrap_or_else(|| panic!("no listener {name}"));
        format!("127.0.0.1:{port}")
    }

    /// Adds rights, or denials.
    ///
    /// # Errors
    /// If the broker does not take them.
    pub fn add_rules(&self, rules: &[Rule]) -> anyhow::Result<()> {
        acl::add(self.inner, rules)
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Starts it again on the same files, and does not wait until it answers.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        self.process = self.launch.start()?;
        Ok(())
    }

    /// Where its log is.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.launch.log
    }
}

fn path(path: &Path) -> String {
    path.display().to_string()
}

fn properties_text(
    setup: &KafkaSetup,
    inner: u16,
    controller: u16,
    named: &[(String, u16)],
) -> String {
    let at = |name: &str, port: u16| format!("{name}://127.0.0.1:{port}");
    let mut advertised = vec![at("INTERNAL", inner)];
    advertised.extend(named.iter().map(|(name, port)| at(name, *port)));
    let listeners = [advertised.clone(), vec![at("CONTROLLER", controller)]].concat();
    let mut protocols = vec![
        "INTERNAL:PLAINTEXT".to_owned(),
        "CONTROLLER:PLAINTEXT".to_owned(),
    ];
    protocols.extend(named.iter().map(|(name, _)| format!("{name}:SASL_SSL")));
    let mut text = format!(
        "{FIXED}controller.quorum.voters=1@127.0.0.1:{controller}\nlisteners={}\n\
         advertised.listeners={}\nlistener.security.protocol.map={}\nlog.dirs={}\n",
        listeners.join(","),
        advertised.join(","),
        protocols.join(","),
        path(&setup.folder.join("data")),
    );
    if !setup.users.is_empty() {
        text += RIGHTS;
    }
    for listener in &setup.listeners {
        let prefix = format!("listener.name.{}.", listener.name.to_lowercase());
        text += &format!(
            "{prefix}ssl.keystore.type=PEM\n{prefix}ssl.keystore.location={}\n\
             {prefix}sasl.enabled.mechanisms=SCRAM-SHA-512\n\
             {prefix}scram-sha-512.sasl.jaas.config=\
             org.apache.kafka.common.security.scram.ScramLoginModule required;\n",
            path(&listener.pair.both)
        );
    }
    text
}

fn format(setup: &KafkaSetup, account: Account, properties: &Path) -> anyhow::Result<()> {
    let mut args = vec![
        "format".to_owned(),
        "--cluster-id".to_owned(),
        "c292ZXJlaWduLXRlc3RzMQ".to_owned(),
        "--config".to_owned(),
        path(properties),
    ];
    for (name, password) in &setup.users {
        args.push("--add-scram".to_owned());
        args.push(format!("SCRAM-SHA-512=[name={name},password={password}]"));
    }
    java(setup, account, "kafka.tools.StorageTool", args).run(FORMAT_LIMIT)
}

fn java(
    setup: &KafkaSetup,
    account: Account,
    class: &str,
    args: impl IntoIterator<Item = String>,
) -> Launch {
    let log4j2 = setup.folder.join("log4j2.xml");
    // without a configuration log4j2 says so and goes on with errors only, which is what we want
    let _ = std::fs::write(&log4j2, LOG4J2);
    let mut all: Vec<String> = [
        "-Xmx400m",
        "-XX:-UsePerfData",
        // starts in half the time; a test does not run long enough for the better compiler
        "-XX:TieredStopAtLevel=1",
        "-Djava.awt.headless=true",
    ]
    .map(str::to_owned)
    .to_vec();
    all.push(format!("-Dlog4j2.configurationFile={}", path(&log4j2)));
    all.push(format!("-Djava.io.tmpdir={}", path(&setup.folder)));
    all.extend(["-cp".to_owned(), path(&setup.files.libs.join("*"))]);
    all.push(class.to_owned());
    all.extend(args);
    Launch {
        program: setup.files.java.clone(),
        args: all,
        log: setup.folder.with_extension("log"),
        account: Some(account),
    }
}

const LOG4J2: &str = r#"<Configuration status="WARN">
  <Appenders><Console name="stdout"><PatternLayout pattern="%d{ISO8601} %p %m (%c)%n"/></Console></Appenders>
  <Loggers><Root level="WARN"><AppenderRef ref="stdout"/></Root></Loggers>
</Configuration>
"#;
