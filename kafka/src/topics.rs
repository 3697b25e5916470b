use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::types::RDKafkaErrorCode as Code;
use sovereign_schemas::Departments;

use crate::client::{Context, Error, KafkaOptions};

/// Topic names that scripts rely on, without the namespace.
pub mod names {
    /// Commands as records.
    pub const COMMANDS: &str = "commands";
    /// Their outcomes.
    pub const COMMANDS_REPLY: &str = "commands.reply";
    /// Records that could not be read.
    pub const DEAD_LETTER: &str = "dead-letter";
    /// The relay's checkpoint: compacted, one partition.
    pub const RELAY: &str = "sovereign.relay";
}

/// At most so many bytes in one record: a payload of 1 MiB, its headers and room to spare; 4 MiB.
pub(crate) const RECORD_BYTES_MAX: &str = "4194304";

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

/// Creates what is missing of the departments' topics, `commands`, `commands.reply`,
/// `dead-letter` and the relay's checkpoint topic. Safe to repeat.
///
/// Events stay for ever (`retention.ms=-1`): a topic is a copy that the ledger can be compared
/// with.
///
/// # Errors
/// [`Error::Unreachable`], [`Error::Auth`], or [`Error::Internal`] naming the topic.
pub async fn ensure_topics(
    options: &KafkaOptions,
    departments: &Departments,
    settings: &TopicSettings,
) -> Result<TopicsReport, Error> {
    let context = Context::default();
    let admin: AdminClient<Context> = options
        .config()?
        .create_with_context(context.clone())
        .map_err(|e| Error::kafka("admin client", &e))?;
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
    for name in [names::COMMANDS, names::COMMANDS_REPLY, names::DEAD_LETTER] {
        wanted.push((options.topic(name), settings.partitions, kept));
    }
    wanted.push((options.topic(names::RELAY), 1, compacted));
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
    for result in results {
        match result {
            Ok(name) => report.created.push(name),
            Err((name, RDKafkaErrorCode::TopicAlreadyExists)) => report.existing.push(name),
            Err((name, code)) => return Err(refused(&name, code)),
        }
    }
    Ok(report)
}

fn refused(name: &str, code: Code) -> Error {
    let what = format!("create topic {name}");
    Error::kafka(&what, &rdkafka::error::KafkaError::AdminOp(code))
}
