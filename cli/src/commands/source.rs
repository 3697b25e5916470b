//! Opening the log that a command names: the ledger, Kafka, or a recorded file.

use std::path::{Path, PathBuf};

use sovereign_event_store::LedgerReader;
use sovereign_kafka::{KafkaLog, KafkaOptions};
use sovereign_replay::{Difference, FileLog, Options, ReplayError, Source};
use sovereign_schemas::chain::Head;
use sovereign_schemas::{Departments, ErrorCode, EventLog, LogError, Position, Problem};

use crate::args::Work;
use crate::config;
use crate::failure::{Failure, Result};
use crate::location::{EngineState, Location};

/// What `--source` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Named {
    Ledger,
    Kafka,
    File(PathBuf),
}

impl Named {
    pub(crate) fn parse(text: &str) -> Self {
        match text {
            "ledger" => Self::Ledger,
            "kafka" => Self::Kafka,
            path => Self::File(PathBuf::from(path)),
        }
    }

    /// What an error or a report calls it.
    pub(crate) fn label(&self) -> String {
        match self {
            Self::Ledger => "ledger".to_owned(),
            Self::Kafka => "kafka".to_owned(),
            Self::File(path) => path.display().to_string(),
        }
    }
}

/// A log that is open.
pub(crate) enum Opened {
    Ledger(LedgerReader, sovereign_event_store::LedgerLog),
    Kafka(KafkaLog),
    File(Box<FileLog>),
}

impl Opened {
    pub(crate) async fn open(location: &Location, named: &Named) -> Result<Self> {
        Ok(match named {
            Named::Ledger => {
                let reader = ledger(&state(location)?).await?;
                let log = reader.log();
                Self::Ledger(reader, log)
            }
            Named::Kafka => {
                let state = state(location)?;
                Self::Kafka(KafkaLog::new(kafka_options(&state), departments(&state)?))
            }
            Named::File(path) => Self::File(Box::new(open_file(path)?)),
        })
    }

    pub(crate) fn source(&mut self) -> Source<'_> {
        match self {
            Self::Ledger(_, log) => Source::Log(log),
            Self::Kafka(log) => Source::Log(log),
            Self::File(log) => Source::File(log),
        }
    }

    pub(crate) fn log(&mut self) -> &mut dyn EventLog {
        match self {
            Self::Ledger(_, log) => log,
            Self::Kafka(log) => log,
            Self::File(log) => log.as_mut(),
        }
    }

    /// The end that the copy itself claims; for Kafka only the position is known before reading.
    pub(crate) async fn end(&mut self) -> Result<Option<Position>> {
        Ok(match self {
            Self::Ledger(reader, _) => Some(reader.head().await.map_err(|e| e.problem())?.position),
            Self::Kafka(log) => Some(log.end().await.map_err(|e| e.problem())?),
            Self::File(log) => Some(log.info().last),
        })
    }

    /// The head that the ledger claims, with its hash.
    pub(crate) async fn claimed_head(&self) -> Result<Option<Head>> {
        match self {
            Self::Ledger(reader, _) => Ok(Some(reader.head().await.map_err(|e| e.problem())?)),
            _ => Ok(None),
        }
    }
}

/// The engine's addresses: of a running engine, or of the last one that ran here (external servers
/// answer also while no engine runs).
pub(crate) fn state(location: &Location) -> Result<EngineState> {
    location.state()?.ok_or_else(|| location.not_running())
}

/// For reading, once the database has answered.
pub(crate) async fn ledger(state: &EngineState) -> Result<LedgerReader> {
    sovereign_event_store::reach(&state.database)
        .await
        .map_err(|e| e.problem())?;
    Ok(LedgerReader::connect(&state.database, 2).map_err(|e| e.problem())?)
}

pub(crate) fn kafka_options(state: &EngineState) -> KafkaOptions {
    let mut options = KafkaOptions::new(&state.brokers);
    options.properties.clone_from(&state.kafka_properties);
    options
}

pub(crate) fn departments(state: &EngineState) -> Result<Departments> {
    Ok(config::load(state.config.as_deref())?.departments)
}

fn open_file(path: &Path) -> Result<FileLog> {
    FileLog::open(path).map_err(|e| failure(e, &Named::File(path.to_owned())))
}

pub(crate) fn options(work: &Work) -> Options {
    Options {
        threads: usize::from(work.threads),
        batch: work.batch as usize,
    }
}

/// A failed verification or replay, as everybody reports it: exit 3 names the position.
pub(crate) fn failure(error: ReplayError, named: &Named) -> Failure {
    match error {
        ReplayError::Difference(difference) => difference_problem(&difference, named).into(),
        ReplayError::Log(error) => log_failure(&error, named),
        other => Problem::new(other.code(), other.to_string()).into(),
    }
}

pub(crate) fn difference_problem(difference: &Difference, named: &Named) -> Problem {
    let Difference {
        position,
        what,
        expected,
        found,
    } = difference;
    Problem::new(
        ErrorCode::VerificationDifference,
        format!("{} differs at position {position}: {what}", named.label()),
    )
    .field(format!("position {position}"))
    .expected(expected)
    .found(found)
}

fn log_failure(error: &LogError, named: &Named) -> Failure {
    let code = match (error, named) {
        (LogError::Unreachable(_), Named::Kafka) => ErrorCode::BrokerUnreachable,
        (LogError::Unreachable(_), _) => ErrorCode::DatabaseUnreachable,
        (LogError::Internal(_), _) => ErrorCode::Internal,
        _ => ErrorCode::VerificationDifference,
    };
    Problem::new(code, format!("{}: {error}", named.label())).into()
}
