use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use sovereign_schemas::{ErrorCode, Position, Problem};

use crate::telemetry::Hints;

/// What callers may set through [`KafkaOptions::properties`]: connection, TLS and SASL. Everything
/// that the guarantees rest on (isolation, acks, idempotence, transactional ids) is not theirs.
const ALLOWED: &[&str] = &[
    "broker.address.family",
    "client.dns.lookup",
    "client.rack",
    "connections.max.idle.ms",
    "enable.sasl.",
    "enable.ssl.",
    "reconnect.backoff",
    "sasl.",
    "security.",
    "socket.",
    "ssl.",
];

/// Where the brokers are and how to speak to them.
#[derive(Clone, Default)]
pub struct KafkaOptions {
    /// `host:port`, separated by commas.
    pub brokers: String,
    /// librdkafka's connection settings: `security.protocol`, `sasl.*`, `ssl.*` and the like. A
    /// value `${env:NAME}` is read from the environment and `${file:/path}` from a file (without
    /// its trailing line break), each time a client is made, so that secrets need not be here and
    /// can be changed.
    pub properties: BTreeMap<String, String>,
    /// Put before every topic name and transactional id, so that several engines can share a
    /// cluster. Empty by default.
    pub namespace: String,
}

impl KafkaOptions {
    /// Plain connections, no namespace.
    #[must_use]
    pub fn new(brokers: impl Into<String>) -> Self {
        Self {
            brokers: brokers.into(),
            ..Self::default()
        }
    }

    /// The name of a topic in this namespace.
    ///
    /// # Examples
    /// ```
    /// let mut options = sovereign_kafka::KafkaOptions::new("localhost:9092");
    /// options.namespace = "blue.".to_owned();
    /// assert_eq!(options.topic("dept.trader"), "blue.dept.trader");
    /// ```
    #[must_use]
    pub fn topic(&self, name: &str) -> String {
        format!("{}{name}", self.namespace)
    }

    /// Checks names and resolves secrets, without connecting.
    ///
    /// # Errors
    /// [`Error::Config`] naming the setting.
    pub fn check(&self) -> Result<(), Error> {
        self.config().map(drop)
    }

    pub(crate) fn config(&self) -> Result<ClientConfig, Error> {
        if self.brokers.trim().is_empty() {
            return Err(Error::config(
                "brokers",
                "is empty; expected host:port,host:port",
            ));
        }
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", "sovereign")
            // a broker that comes back is noticed within a second, not within ten
            .set("reconnect.backoff.ms", "50")
            .set("reconnect.backoff.max.ms", "1000")
            .set("socket.nagle.disable", "true")
            .set("log_level", "4")
            .set_log_level(RDKafkaLogLevel::Warning);
        for (name, value) in &self.properties {
            if !ALLOWED.iter().any(|allowed| name.starts_with(allowed)) {
                let message = "is no connection setting; allowed are security.*, sasl.*, ssl.*, \
                               socket.*, client.rack and the like";
                return Err(Error::config(name, message));
            }
            config.set(name, resolve(name, value)?);
        }
        Ok(config)
    }
}

fn resolve(name: &str, value: &str) -> Result<String, Error> {
    let Some(inner) = value.strip_prefix("${").and_then(|v| v.strip_suffix('}')) else {
        return Ok(value.to_owned());
    };
    if let Some(variable) = inner.strip_prefix("env:") {
        return std::env::var(variable)
            .map_err(|_| Error::config(name, &format!("environment has no {variable}")));
    }
    let Some(path) = inner.strip_prefix("file:") else {
        return Err(Error::config(name, "expected ${env:NAME} or ${file:/path}"));
    };
    read_secret(Path::new(path)).map_err(|cause| Error::config(name, &cause))
}

fn read_secret(path: &Path) -> Result<String, String> {
    let text = std::fs::read_to_string(path)
        .map_err(|e| format!("file {} cannot be read: {e}", path.display()))?;
    Ok(text.trim_end_matches(['\n', '\r']).to_owned())
}

impl fmt::Debug for KafkaOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let masked: BTreeMap<&str, &str> = self
            .properties
            .iter()
            .map(|(name, value)| {
                (
                    name.as_str(),
                    if public(name) { value.as_str() } else { "***" },
                )
            })
            .collect();
        f.debug_struct("KafkaOptions")
            .field("brokers", &self.brokers)
            .field("properties", &masked)
            .field("namespace", &self.namespace)
            .finish()
    }
}

/// Whether a setting's value may be printed: only those known to be harmless.
fn public(name: &str) -> bool {
    let harmless = [
        "security.protocol",
        "sasl.mechanism",
        "sasl.mechanisms",
        "ssl.ca.location",
        "ssl.certificate.location",
        "ssl.endpoint.identification.algorithm",
        "client.rack",
    ];
    harmless.contains(&name) || name.starts_with("socket.") || name.starts_with("reconnect.")
}

/// What can go wrong with Kafka; says who must act.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A setting cannot be used; the operator must act.
    #[error("setting {name}: {message}")]
    Config {
        /// Which setting.
        name: String,
        /// What is wrong with it; never its value.
        message: String,
    },
    /// No broker answers, or not in time; worth another try.
    #[error("{what}: brokers do not answer: {cause}")]
    Unreachable {
        /// What was tried.
        what: String,
        /// librdkafka's words.
        cause: String,
    },
    /// The brokers refuse the login; the operator must act.
    #[error("{what}: login refused by the brokers: {cause}")]
    Auth {
        /// What was tried.
        what: String,
        /// librdkafka's words.
        cause: String,
    },
    /// No TLS connection comes about; the operator must act.
    #[error("{what}: no TLS connection to the brokers: {cause}")]
    Tls {
        /// What was tried.
        what: String,
        /// What is wrong with the certificate, else librdkafka's words.
        cause: String,
    },
    /// The user may not do this; the operator must act.
    #[error("{what}: not allowed by the brokers: {cause}")]
    Rights {
        /// What was tried.
        what: String,
        /// librdkafka's words.
        cause: String,
    },
    /// A topic or partition is not there; create it with [`crate::ensure_topics`].
    #[error("topic {0} does not exist")]
    TopicMissing(String),
    /// The topics hold more than the ledger: a restored or wrong database. Nothing was written.
    #[error("topics stand at position {topics}, the ledger at {ledger}")]
    Ahead {
        /// Last position on the topics.
        topics: Position,
        /// Last position of the ledger.
        ledger: Position,
    },
    /// Topics and ledger hold different events. Nothing was written.
    #[error("topics and ledger differ at position {position}: expected {expected}, found {found}")]
    Diverged {
        /// Where.
        position: Position,
        /// As the ledger has it.
        expected: String,
        /// As the topics have it.
        found: String,
    },
    /// Another relay has taken over the transactional ids; this one must not go on.
    #[error("another relay took over")]
    Fenced,
    /// Anything else.
    #[error("{what}: {cause}")]
    Internal {
        /// What was tried.
        what: String,
        /// What came of it.
        cause: String,
    },
}

impl Error {
    pub(crate) fn config(name: &str, message: &str) -> Self {
        Self::Config {
            name: name.to_owned(),
            message: message.to_owned(),
        }
    }

    pub(crate) fn internal(what: &str, cause: impl fmt::Display) -> Self {
        Self::Internal {
            what: what.to_owned(),
            cause: cause.to_string(),
        }
    }

    /// Sorts librdkafka's error by who must act.
    pub(crate) fn kafka(what: &str, error: &KafkaError) -> Self {
        use RDKafkaErrorCode as Code;
        let (what, cause) = (what.to_owned(), error.to_string());
        let code = match error {
            KafkaError::AdminOp(code) => Some(*code),
            other => other.rdkafka_error_code(),
        };
        match code {
            Some(
                Code::BrokerTransportFailure
                | Code::AllBrokersDown
                | Code::OperationTimedOut
                | Code::RequestTimedOut
                | Code::MessageTimedOut
                | Code::TimedOutQueue
                | Code::Resolve
                | Code::WaitingForCoordinator
                | Code::BrokerNotAvailable
                | Code::LeaderNotAvailable
                | Code::NotLeaderForPartition
                | Code::CoordinatorLoadInProgress
                | Code::CoordinatorNotAvailable
                | Code::NotCoordinator
                | Code::ConcurrentTransactions
                | Code::NetworkException
                | Code::NotEnoughReplicas
                | Code::NotEnoughReplicasAfterAppend
                // a broker that has just come back does not know its epochs yet
                | Code::FencedLeaderEpoch
                | Code::UnknownLeaderEpoch
                | Code::OffsetNotAvailable
                | Code::KafkaStorageError,
            ) => Self::Unreachable { what, cause },
            Some(
                Code::Authentication
                | Code::SaslAuthenticationFailed
                | Code::UnsupportedSASLMechanism,
            ) => Self::Auth { what, cause },
            Some(Code::SSL) => Self::Tls { what, cause },
            Some(
                Code::TopicAuthorizationFailed
                | Code::GroupAuthorizationFailed
                | Code::ClusterAuthorizationFailed
                | Code::TransactionalIdAuthorizationFailed,
            ) => Self::Rights { what, cause },
            Some(Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition) => {
                Self::TopicMissing(what)
            }
            Some(Code::Fenced | Code::ProducerFenced | Code::InvalidProducerEpoch) => Self::Fenced,
            _ => match error {
                KafkaError::ClientConfig(_, text, name, _) => Self::config(name, text),
                _ => Self::Internal { what, cause },
            },
        }
    }

    /// The stable name.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::Config { .. } => ErrorCode::InvalidConfig,
            Self::Unreachable { .. } | Self::TopicMissing(_) => ErrorCode::BrokerUnreachable,
            Self::Auth { .. } => ErrorCode::BrokerAuth,
            Self::Tls { .. } => ErrorCode::TlsFailed,
            Self::Rights { .. } => ErrorCode::MissingRights,
            Self::Ahead { .. } => ErrorCode::TopicAhead,
            Self::Diverged { .. } => ErrorCode::LedgerDiverged,
            Self::Fenced | Self::Internal { .. } => ErrorCode::Internal,
        }
    }

    /// As callers see it.
    #[must_use]
    pub fn problem(&self) -> Problem {
        let problem = Problem::new(self.code(), self.to_string());
        match self {
            Self::Config { name, .. } => problem.field(name.clone()),
            Self::TopicMissing(_) => problem.remedy(
                "create the topic, or let the engine do it; a user without the right to \
                 describe a topic does not see it",
            ),
            Self::Ahead { topics, ledger } => problem
                .found(topics.to_string())
                .expected(format!("at most {ledger}")),
            Self::Diverged {
                expected, found, ..
            } => problem.found(found).expected(expected),
            Self::Fenced => problem.remedy("let the other engine work, or stop it, then restart"),
            Self::Unreachable { .. }
            | Self::Auth { .. }
            | Self::Tls { .. }
            | Self::Rights { .. }
            | Self::Internal { .. } => problem,
        }
    }

    /// Says which brokers, unless the cause does already.
    fn at(mut self, brokers: &str) -> Self {
        if let Self::Unreachable { cause, .. }
        | Self::Auth { cause, .. }
        | Self::Tls { cause, .. }
        | Self::Rights { cause, .. } = &mut self
            && !brokers
                .split(',')
                .any(|broker| cause.contains(broker.trim()))
        {
            *cause = format!("{brokers}: {cause}");
        }
        self
    }

    /// Whether time alone may heal it.
    pub(crate) const fn passing(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. }
                | Self::Auth { .. }
                | Self::Tls { .. }
                | Self::Rights { .. }
                | Self::TopicMissing(_)
                | Self::Internal { .. }
        )
    }
}

/// Sends librdkafka's log to `tracing` and remembers what it says about its connections, which it
/// reports only here while the call that suffers from it just times out.
#[derive(Debug, Clone, Default)]
pub(crate) struct Context {
    brokers: Arc<str>,
    heard: Arc<Mutex<Heard>>,
}

#[derive(Debug, Default)]
struct Heard {
    /// A refusal of TLS or login.
    refusal: Option<Error>,
    /// Why the last connection ended.
    disconnect: Option<String>,
    /// Not one broker is left.
    all_down: bool,
}

impl Context {
    pub(crate) fn of(options: &KafkaOptions) -> Self {
        Hints.emit();
        Self {
            brokers: options.brokers.as_str().into(),
            heard: Arc::default(),
        }
    }

    fn heard(&self) -> std::sync::MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The error of a call, or the refusal behind it.
    pub(crate) fn explain(&self, what: &str, error: &KafkaError) -> Error {
        let heard = self.heard();
        let error = match (Error::kafka(what, error), &heard.refusal) {
            (Error::Unreachable { what, .. }, Some(refusal)) => refusal.clone().about(what),
            (Error::Unreachable { what, mut cause }, None) => {
                if let Some(disconnect) = &heard.disconnect {
                    cause = format!("{cause}; {disconnect}");
                }
                Error::Unreachable { what, cause }
            }
            (error, _) => error,
        };
        error.at(&self.brokers)
    }

    /// The refusal, once every broker has refused: waiting does not help then.
    pub(crate) fn refused(&self) -> Option<Error> {
        let heard = self.heard();
        let refusal = heard.refusal.clone().filter(|_| heard.all_down)?;
        Some(refusal.at(&self.brokers))
    }
}

impl Error {
    fn about(self, what: String) -> Self {
        match self {
            Self::Auth { cause, .. } => Self::Auth { what, cause },
            Self::Tls { cause, .. } => Self::Tls { what, cause },
            other => other,
        }
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg
            | RDKafkaLogLevel::Alert
            | RDKafkaLogLevel::Critical
            | RDKafkaLogLevel::Error => tracing::warn!(facility, message, "kafka client"),
            _ => tracing::debug!(facility, message, "kafka client"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "kafka client error");
        let cause: String = reason.chars().take(300).collect();
        let mut heard = self.heard();
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown) {
            heard.all_down = true;
            return;
        }
        match Error::kafka("", &error) {
            Error::Auth { what, .. } => heard.refusal = Some(Error::Auth { what, cause }),
            Error::Tls { what, .. } => heard.refusal = Some(Error::Tls { what, cause }),
            Error::Unreachable { .. } => heard.disconnect = Some(cause),
            _ => {}
        }
    }
}

impl ConsumerContext for Context {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_masks_secrets() {
        let mut options = KafkaOptions::new("localhost:9092");
        options
            .properties
            .insert("sasl.password".into(), "hunter2".into());
        options
            .properties
            .insert("security.protocol".into(), "SASL_SSL".into());
        let text = format!("{options:?}");
        assert!(!text.contains("hunter2"));
        assert!(text.contains("SASL_SSL"));
    }

    #[test]
    fn settings_that_guarantees_rest_on_are_refused() {
        let mut options = KafkaOptions::new("localhost:9092");
        options
            .properties
            .insert("enable.idempotence".into(), "false".into());
        let error = options.check().unwrap_err();
        assert_eq!(error.code(), ErrorCode::InvalidConfig);
        assert!(error.to_string().contains("enable.idempotence"));
    }

    #[test]
    fn secrets_come_from_files_and_a_missing_one_is_named() {
        let file =
            std::env::temp_dir().join(format!("sovereign-{}", sovereign_schemas::Uuid::now_v7()));
        std::fs::write(&file, "s3cret\n").unwrap();
        let value = format!("${{file:{}}}", file.display());
        assert_eq!(resolve("sasl.password", &value).unwrap(), "s3cret");
        std::fs::remove_file(&file).unwrap();
        let error = resolve("sasl.password", &value).unwrap_err().to_string();
        assert!(error.contains("sasl.password") && error.contains("cannot be read"));
    }

    /// The place of a function in librdkafka that writes behind its memory is taken; and clients
    /// find a partition's new leader without what they are told and do not believe.
    #[test]
    fn hints_at_leaders_are_not_taken_and_leaders_are_found() {
        use rdkafka::Message as _;
        use rdkafka::config::{ClientConfig, FromClientConfig as _};
        use rdkafka::consumer::{BaseConsumer, Consumer as _};
        use rdkafka::mocking::MockCluster;
        use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

        let cluster = MockCluster::new(2).unwrap();
        cluster.create_topic("t", 1, 2).unwrap();
        cluster.partition_leader("t", 0, Some(1)).unwrap();
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", cluster.bootstrap_servers())
            .set("group.id", "g");
        let consumer = BaseConsumer::from_config(&config).unwrap();
        let mut list = rdkafka::TopicPartitionList::new();
        list.add_partition_offset("t", 0, rdkafka::Offset::Beginning)
            .unwrap();
        consumer.assign(&list).unwrap();
        let second = std::time::Duration::from_secs(1);
        let deadline = std::time::Instant::now() + 30 * second;
        let before = sovereign_librdkafka::ignored();
        let mut leader = 1;
        for offset in 0.. {
            let mut config = ClientConfig::new();
            config.set("bootstrap.servers", cluster.bootstrap_servers());
            let producer = BaseProducer::from_config(&config).unwrap();
            let record = BaseRecord::<(), str>::to("t").partition(0).payload("x");
            producer.send(record).unwrap();
            producer.flush(10 * second).unwrap();
            let read = loop {
                assert!(std::time::Instant::now() < deadline, "nothing at {offset}");
                if let Some(Ok(message)) = consumer.poll(second) {
                    break message.offset();
                }
            };
            assert_eq!(read, offset);
            if sovereign_librdkafka::ignored() > before {
                break;
            }
            leader = 3 - leader;
            cluster.partition_leader("t", 0, Some(leader)).unwrap();
        }
    }
}
