//! The servers, their users and the ways to reach them.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sovereign_servers::{Wanted, default_cache, fetch};
use sovereign_tests::certificates::{Authority, Flaw, Pair};
use sovereign_tests::owned::{
    Kafka, KafkaSetup, Listener, Operation, Postgres, PostgresSetup, Resource, Rule,
    postgres_with_tls,
};
use tempfile::TempDir;

use crate::harness::{Done, Engine};

/// What each refusal may take until it is said, with time for a slow machine, and for the brokers to
/// miss an engine that was here before.
pub(crate) const LIMIT: Duration = Duration::from_secs(25);
/// No process has this number, not even one that runs: it is above the highest.
const NOBODY: u32 = 4_194_304;
/// Passwords; none may turn up in any message or log.
pub(crate) const DATABASE_SECRET: &str = "pgpw-9f3b7c";
pub(crate) const BROKER_SECRET: &str = "kfpw-41d2aa";
pub(crate) const WRONG_SECRET: &str = "wrong-77e0c1";

pub(crate) struct Site {
    pub(crate) folder: TempDir,
    pub(crate) authority: Authority,
    pub(crate) stranger: Authority,
    pub(crate) good: Pair,
    pub(crate) postgres: Postgres,
    pub(crate) kafka: Kafka,
    /// The ledger whose events are on the topics, and the database of its keys.
    pub(crate) main: [String; 2],
}

/// The servers; one test at a time has them.
pub(crate) fn site() -> MutexGuard<'static, Site> {
    static SITE: LazyLock<Mutex<Site>> = LazyLock::new(|| Mutex::new(Site::start()));
    SITE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn databases() -> String {
    format!(
        "create role sovereign login password '{DATABASE_SECRET}'; \
         create role reader login password '{DATABASE_SECRET}'; \
         create role guest login password '{DATABASE_SECRET}'"
    )
}

/// The rights that docs/OPERATIONS.md lists, for everybody; `no-…` users lack one each.
fn rights() -> Vec<Rule> {
    use Operation::{Create, Describe, IdempotentWrite, Read, Write};
    use Resource::{Cluster, Group, Topic, TransactionalId};
    let rule = |user: &str, resource, name: &str, operation, allow| Rule {
        principal: format!("User:{user}"),
        resource,
        name: name.to_owned(),
        operation,
        allow,
    };
    let mut rules = Vec::new();
    for topic in [
        "dept.*",
        "commands",
        "commands.reply",
        "dead-letter",
        "dead-letter.retry",
        "dead-letter.state",
        "sovereign.relay",
    ] {
        for operation in [Create, Describe, Read, Write] {
            rules.push(rule("*", Topic, topic, operation, true));
        }
    }
    for operation in [Create, Describe, Read] {
        for topic in ["sovereign.work", "sovereign.lanes"] {
            rules.push(rule("*", Topic, topic, operation, true));
        }
    }
    for id in [
        "sovereign.relay.a",
        "sovereign.relay.b",
        "sovereign.commands.*",
    ] {
        for operation in [Describe, Write] {
            rules.push(rule("*", TransactionalId, id, operation, true));
        }
    }
    for operation in [Read, Describe] {
        rules.push(rule("*", Group, "sovereign.*", operation, true));
    }
    rules.push(rule("*", Cluster, "kafka-cluster", IdempotentWrite, true));
    for topic in [
        "dept.*",
        "commands",
        "commands.reply",
        "dead-letter",
        "dead-letter.retry",
        "dead-letter.state",
        "sovereign.relay",
    ] {
        rules.push(rule("no-create", Topic, topic, Create, false));
    }
    rules.push(rule("no-write", Topic, "sovereign.relay", Write, false));
    rules.push(rule("no-read", Topic, "dept.trader", Read, false));
    let id = "sovereign.relay.a";
    rules.push(rule("no-transactions", TransactionalId, id, Write, false));
    rules.push(rule("no-group", Group, "sovereign.audit", Read, false));
    rules
}

impl Site {
    fn start() -> Self {
        let folder = tempfile::Builder::new()
            .prefix("sovereign-test-external-")
            .tempdir_in("/tmp")
            .unwrap();
        let open = std::fs::Permissions::from_mode(0o711);
        std::fs::set_permissions(folder.path(), open).unwrap();
        let at = |name: &str| folder.path().join(name);
        let authority = Authority::new(folder.path(), "authority").unwrap();
        let stranger = Authority::new(folder.path(), "stranger").unwrap();
        let good = authority.server("good", Flaw::None).unwrap();
        let flawed = [
            ("GOOD", good.clone()),
            (
                "EXPIRED",
                authority.server("expired", Flaw::Expired).unwrap(),
            ),
            ("OTHER", authority.server("other", Flaw::OtherHost).unwrap()),
        ];
        let listeners = flawed.map(|(name, pair)| Listener {
            name: name.to_owned(),
            pair,
        });
        let wanted = Wanted {
            postgres: false,
            kafka: true,
        };
        let files = fetch(&default_cache(), wanted, |step| eprintln!("{step}")).unwrap();
        let users = [
            "sovereign",
            "no-create",
            "no-write",
            "no-read",
            "no-transactions",
            "no-group",
        ];
        let setup = KafkaSetup {
            folder: at("kafka"),
            files: files.kafka.unwrap(),
            listeners: listeners.to_vec(),
            users: users
                .map(|user| (user.to_owned(), BROKER_SECRET.to_owned()))
                .to_vec(),
        };
        let kafka = std::thread::spawn(move || Kafka::start(&setup).unwrap());
        let postgres = Postgres::start(&PostgresSetup {
            folder: at("postgres"),
            programs: postgres_with_tls().unwrap(),
            pair: Some(good.clone()),
            settings: String::new(),
        })
        .unwrap();
        wait(postgres.sql("postgres", &databases())).unwrap();
        let kafka = kafka.join().unwrap();
        kafka.add_rules(&rights()).unwrap();
        let mut site = Self {
            folder,
            authority,
            stranger,
            good,
            postgres,
            kafka,
            main: Default::default(),
        };
        site.main = [site.database(), site.database()];
        site
    }

    /// A fresh database that belongs to `sovereign`; its name.
    pub(crate) fn database(&self) -> String {
        let name = format!("db{}", uuid::Uuid::now_v7().simple());
        let sql = format!("create database {name} owner sovereign");
        wait(self.postgres.sql("postgres", &sql)).unwrap();
        let sql = format!(
            "revoke all on database {name} from public; \
            grant connect on database {name} to reader, guest"
        );
        wait(self.postgres.sql("postgres", &sql)).unwrap();
        name
    }

    pub(crate) fn url(&self, user: &str, password: &str, database: &str) -> String {
        let port = self.postgres.port();
        let ca = self.authority.certificate.display();
        format!(
            "postgresql://{user}:{password}@127.0.0.1:{port}/{database}\
             ?sslmode=verify-full&sslrootcert={ca}"
        )
    }

    pub(crate) fn good_url(&self, database: &str) -> String {
        self.url("sovereign", DATABASE_SECRET, database)
    }

    /// Connection settings of a Kafka user who trusts our authority.
    pub(crate) fn properties(&self, user: &str, password: &str) -> BTreeMap<String, String> {
        let ca = self.authority.certificate.display().to_string();
        [
            ("security.protocol", "SASL_SSL"),
            ("ssl.ca.location", &ca),
            ("sasl.mechanism", "SCRAM-SHA-512"),
            ("sasl.username", user),
            ("sasl.password", password),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
    }

    /// The settings as a file for `--kafka-properties`.
    pub(crate) fn properties_file(&self, properties: &BTreeMap<String, String>) -> PathBuf {
        let name = format!("{}.properties", uuid::Uuid::now_v7().simple());
        let path = self.folder.path().join(name);
        let lines = properties
            .iter()
            .map(|(name, value)| format!("{name}={value}\n"));
        std::fs::write(&path, lines.collect::<String>()).unwrap();
        path
    }
}

/// Runs a future on a thread that has nothing else to do.
pub(crate) fn wait<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(future)
}

/// Where an engine goes.
pub(crate) struct Way {
    pub(crate) database: String,
    pub(crate) keys_database: String,
    pub(crate) brokers: String,
    pub(crate) properties: PathBuf,
    /// With a department whose topic nobody has made.
    pub(crate) one_topic_more: bool,
}

impl Way {
    pub(crate) fn up(&self, engine: &Engine) -> Done {
        // engines on one key database have one master key
        let key = engine.data.join("master.key");
        std::fs::write(&key, "5a".repeat(32)).unwrap();
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
        if self.one_topic_more {
            let own = sovereign_schemas::Departments::default();
            let mut text = String::new();
            for department in own.iter() {
                text += &format!(
                    "[[departments]]\nid = {}\nname = \"{}\"\n",
                    department.id, department.name
                );
            }
            text += "[[departments]]\nid = 99\nname = \"never-made\"\n";
            std::fs::write(engine.data.join("sovereign.toml"), text).unwrap();
        }
        let properties = self.properties.to_str().unwrap();
        engine.run(&[
            "up",
            "--quiet",
            "--json",
            "--database",
            &self.database,
            "--keys-database",
            &self.keys_database,
            "--brokers",
            &self.brokers,
            "--kafka-properties",
            properties,
        ])
    }
}

/// What must be said about one refusal.
pub(crate) struct Expected<'a> {
    pub(crate) exit: i32,
    pub(crate) code: &'a str,
    /// Parts of the message: where, and what.
    pub(crate) says: &'a [&'a str],
}

/// The refusal is said clearly, in time, and tells no secret, neither on the screen nor in a log.
#[track_caller]
pub(crate) fn check(
    case: &str,
    engine: &Engine,
    done: &Done,
    since: Instant,
    expected: &Expected<'_>,
) {
    let took = since.elapsed();
    println!("{case}: {} ms {}", took.as_millis(), done.stderr.trim());
    assert!(took < LIMIT, "{case}: took {took:?}");
    let problem = done.fails(expected.exit, expected.code);
    let message = problem["message"].as_str().unwrap();
    for part in expected.says {
        assert!(
            message.contains(part),
            "{case}: {part:?} is not in {message:?}"
        );
    }
    let mut told = vec![done.stdout.clone(), done.stderr.clone()];
    for log in std::fs::read_dir(engine.data.join("logs"))
        .into_iter()
        .flatten()
    {
        told.push(std::fs::read_to_string(log.unwrap().path()).unwrap());
    }
    for text in told {
        for secret in [DATABASE_SECRET, BROKER_SECRET, WRONG_SECRET] {
            assert!(!text.contains(secret), "{case}: tells {secret}: {text}");
        }
    }
}

/// A data folder as an engine leaves it that was killed: commands go where it went.
pub(crate) fn left_behind(
    database: &str,
    brokers: &str,
    properties: &BTreeMap<String, String>,
) -> Engine {
    let engine = Engine::new("left");
    let state = json!({
        "pid": NOBODY, "started_at": "2026-01-01T00:00:00Z", "console": "http://127.0.0.1:1",
        "database": database, "keys_database": database, "brokers": brokers,
        "kafka_properties": properties, "registry": "http://127.0.0.1:1", "config": Value::Null,
    });
    let path: &Path = &engine.data.join("engine.json");
    std::fs::write(path, state.to_string()).unwrap();
    engine
}
