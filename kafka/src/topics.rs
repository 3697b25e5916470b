use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::types::RDKafkaErrorCode as Code;
use sovereign_schemas::Departments;

use crate::client::{Context, Error, KafkaOptions};
use crate::reach;

/// Topic names that scripts rely on, without the namespace.
pub mod names {
    /// Commands as records.
    pub const COMMANDS: &str = "commands";
    /// Their outcomes.
    pub const COMMANDS_REPLY: &str = "commands.reply";
    /// Records that a consumer group could not decode or process.
    pub const DEAD_LETTER: &str = "dead-letter";
    /// What became of each of them: compacted, one partition.
    pub const DEAD_LETTER_STATE: &str = "dead-letter.state";
    /// Those that are given back to their groups.
    pub const DEAD_LETTER_RETRY: &str = "dead-letter.retry";
    /// The relay's checkpoint: compacted, one partition.
    pub const RELAY: &str = "sovereign.relay";
    /// Never written to: its partitions are the work that engines divide among them.
    pub const WORK: &str = "sovereign.work";
    /// Never written to: its partitions are the lanes of agents that workers divide among them.
    pub const LANES: &str = "sovereign.lanes";
}

/// At most so many bytes in one record: a payload of 1 MiB, its headers and room to spare; 4 MiB.
pub(crate) const RECORD_BYTES_MAX: &str = "4194304";
/// At most so many bytes in a dead letter, which may be of a topic that takes more than ours: 16 MiB.
const LETTER_BYTES_MAX: &str = "16777216";

/// How topics are created; existing ones are left as they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSettings {
    /// Partitions of a department's topic; 3 by default.
    pub partitions: i32,
    /// Copies of each partition; 1 by default, 3 on a real cluster.
    pub replication: i32,
    /// How long to wait for the brokers; 10 s by default.
    pub timeout: Duration,
}

impl Default for TopicSettings {
    fn default() -> Self {
        Self {
            partitions: 3,
            replication: 1,
            timeout: Duration::from_secs(10),
        }
    }
}

/// What [`ensure_topics`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TopicsReport {
    /// Created now.
    pub created: Vec<String>,
    /// There already, whatever their partition count.
    pub existing: Vec<String>,
}

type Config = &'static [(&'static str, &'static str)];

/// Creates what is missing of the departments' topics, `commands`, `commands.reply`, the three
/// topics of dead letters and the relay's checkpoint topic, and returns once the brokers show all
/// of them: a subscription opened earlier would read those that happen to be shown. Safe to repeat.
///
/// Events stay for ever (`retention.ms=-1`): a topic is a copy that the ledger can be compared
/// with.
///
/// # Errors
/// [`Error::Unreachable`], [`Error::Tls`], [`Error::Auth`]; [`Error::TopicMissing`],
/// [`Error::Rights`] or [`Error::Internal`] naming the topic.
pub async fn ensure_topics(
    options: &KafkaOptions,
    departments: &Departments,
    settings: &TopicSettings,
) -> Result<TopicsReport, Error> {
    let context = Context::of(options);
    let wanted = wanted(options, departments, settings);
    let names: Vec<String> = wanted.iter().map(|(name, ..)| name.clone()).collect();
    let (reached, looked_for) = (options.clone(), names.clone());
    let all_shown = tokio::task::spawn_blocking(move || reach::shown(&reached, &looked_for))
        .await
        .map_err(|e| Error::internal("connect", e))??;
    if all_shown {
        return Ok(TopicsReport {
            created: Vec::new(),
            existing: names,
        });
    }
    let admin: AdminClient<Context> = options
        .config()?
        .create_with_context(context.clone())
        .map_err(|e| Error::kafka("admin client", &e))?;
    let topics: Vec<NewTopic<'_>> = wanted
        .iter()
        .map(|(name, partitions, config)| {
            let replication = TopicReplication::Fixed(settings.replication);
            let topic = NewTopic::new(name, *partitions, replication);
            config
                .iter()
                .fold(topic, |topic, (key, value)| topic.set(key, value))
        })
        .collect();
    let times = AdminOptions::new()
        .request_timeout(Some(settings.timeout))
        .operation_timeout(Some(settings.timeout));
    let results = admin
        .create_topics(&topics, &times)
        .await
        .map_err(|e| context.explain("create topics", &e))?;
    let mut report = TopicsReport::default();
    let mut not_allowed = Vec::new();
    for result in results {
        match result {
            Ok(name) => report.created.push(name),
            Err((name, Code::TopicAlreadyExists)) => report.existing.push(name),
            Err((name, Code::TopicAuthorizationFailed)) => not_allowed.push(name),
            Err((name, code)) => return Err(refused(&context, &name, code)),
        }
    }
    let seen: Vec<String> = report
        .created
        .iter()
        .chain(&report.existing)
        .cloned()
        .collect();
    let wait = settings.timeout;
    if let Some(name) = missing(options, seen, wait).await? {
        return Err(Error::TopicMissing(name));
    }
    // who may not create is told so also about topics that are there, which is all we need
    if let Some(name) = missing(options, not_allowed.clone(), Duration::ZERO).await? {
        return Err(refused(&context, &name, Code::TopicAuthorizationFailed));
    }
    report.existing.append(&mut not_allowed);
    Ok(report)
}

/// Name, partitions and settings of each topic that must be there.
fn wanted(
    options: &KafkaOptions,
    departments: &Departments,
    settings: &TopicSettings,
) -> Vec<(String, i32, Config)> {
    let kept: Config = &[
        ("retention.ms", "-1"),
        ("cleanup.policy", "delete"),
        ("max.message.bytes", RECORD_BYTES_MAX),
    ];
    // a small segment keeps the compacted topic short: it grows by one record a transaction
    let compacted: Config = &[
        ("cleanup.policy", "compact"),
        ("segment.bytes", "16777216"),
        ("min.cleanable.dirty.ratio", "0.1"),
    ];
    let mut wanted: Vec<(String, i32, Config)> = departments
        .iter()
        .map(|d| (options.topic(&d.topic()), settings.partitions, kept))
        .collect();
    let letters: Config = &[
        ("retention.ms", "-1"),
        ("cleanup.policy", "delete"),
        ("max.message.bytes", LETTER_BYTES_MAX),
    ];
    for name in [names::COMMANDS, names::COMMANDS_REPLY] {
        wanted.push((options.topic(name), settings.partitions, kept));
    }
    for name in [names::DEAD_LETTER, names::DEAD_LETTER_RETRY] {
        wanted.push((options.topic(name), settings.partitions, letters));
    }
    for name in [names::DEAD_LETTER_STATE, names::RELAY] {
        wanted.push((options.topic(name), 1, compacted));
    }
    wanted
}

async fn missing(
    options: &KafkaOptions,
    names: Vec<String>,
    wait: Duration,
) -> Result<Option<String>, Error> {
    let options = options.clone();
    tokio::task::spawn_blocking(move || reach::missing(&options, &names, wait))
        .await
        .map_err(|e| Error::internal("metadata", e))?
}

fn refused(context: &Context, name: &str, code: Code) -> Error {
    let what = format!("create topic {name}");
    context.explain(&what, &rdkafka::error::KafkaError::AdminOp(code))
}
