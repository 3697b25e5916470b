//! Dead letters: records that a consumer group could not decode or process.
//!
//! Each lies on the topic `dead-letter` with its original key, value and headers. What became of it
//! is a record on the compacted topic `dead-letter.state`; a retry travels on `dead-letter.retry`
//! to the group that failed. A letter belongs to that group alone: other groups that fail on the
//! same record write letters of their own.

mod book;
mod letter;
mod watch;
mod writer;

use std::time::Duration;

use sovereign_schemas::{ErrorCode, Problem, RecordedEvent, Timestamp, Uuid};

use crate::client::{Error, KafkaOptions};
use crate::record::{self, RecordCause};
use crate::topics::names;

pub use book::Summary;
pub use letter::{Failing, Letter, Origin, RawRecord, headers};
pub use watch::{LetterCounts, LetterWatch};

pub(crate) use book::fetch_source;
pub(crate) use writer::{LetterWriter, Post};

/// For letters of the engine's own views: the "topic" of their origin.
pub const LEDGER: &str = "ledger";

/// How long a command waits until what it wrote is durable.
const PATIENCE: Duration = Duration::from_secs(30);

/// What became of a letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LetterState {
    /// Nobody has dealt with it.
    Open,
    /// It was given back to its group, which has not answered yet.
    Retrying,
    /// Its group has worked through it.
    Done,
    /// Somebody decided that it is not needed.
    Dropped,
}

impl LetterState {
    /// As `list` prints it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Retrying => "retrying",
            Self::Done => "done",
            Self::Dropped => "dropped",
        }
    }

    /// Whether somebody has to act.
    #[must_use]
    pub const fn waits(self) -> bool {
        matches!(self, Self::Open | Self::Retrying)
    }
}

/// The last word on a letter, as it stands on `dead-letter.state`. A letter without one is open.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Standing {
    /// Which letter.
    pub id: Uuid,
    /// What became of it.
    pub state: LetterState,
    /// The last failure, with all attempts so far.
    pub failing: Failing,
    /// When this was written.
    pub changed_at: Timestamp,
    /// Why it was dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Why a command on a letter failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LetterError {
    /// There is no such letter.
    #[error("no dead letter {0}")]
    NotFound(Uuid),
    /// Its state does not allow it.
    #[error("dead letter {id} is {}", state.as_str())]
    WrongState {
        /// Which.
        id: Uuid,
        /// How it stands.
        state: LetterState,
    },
    /// It is an event that one of the engine's views could not take.
    #[error("dead letter {id} is of {group}, which tries by itself")]
    OfView {
        /// Which.
        id: Uuid,
        /// The view.
        group: String,
    },
    /// It is a command, and its sender was told what is wrong with it.
    #[error("dead letter {id} is a command that was answered")]
    OfCommand {
        /// Which.
        id: Uuid,
    },
    /// This build cannot decode it either; the attempt was counted.
    #[error("dead letter {id} still does not decode: {cause}")]
    StillBroken {
        /// Which.
        id: Uuid,
        /// Why not.
        cause: RecordCause,
    },
    /// Its value was left at the source and is not there any more, or is another.
    #[error("value of dead letter {id} is not at its source any more")]
    SourceGone {
        /// Which.
        id: Uuid,
    },
    /// The brokers.
    #[error(transparent)]
    Kafka(#[from] Error),
}

impl LetterError {
    /// The stable name.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::NotFound(_) => ErrorCode::NotFound,
            Self::WrongState { .. } | Self::OfView { .. } | Self::OfCommand { .. } => {
                ErrorCode::WrongState
            }
            Self::StillBroken { cause, .. } => cause.code(),
            Self::SourceGone { .. } => ErrorCode::VerificationDifference,
            Self::Kafka(error) => error.code(),
        }
    }

    /// As callers see it.
    #[must_use]
    pub fn problem(&self) -> Problem {
        if let Self::Kafka(error) = self {
            return error.problem();
        }
        let problem = Problem::new(self.code(), self.to_string()).field("id");
        match self {
            Self::NotFound(_) => problem.remedy("sovereign dead-letters list --all shows the ids"),
            Self::WrongState {
                state: LetterState::Retrying,
                ..
            } => {
                problem.remedy("let its consumer group run, or give it back once more with --again")
            }
            Self::WrongState { .. } => problem.remedy("nothing is left to do"),
            Self::OfView { .. } => problem.remedy("correct the cause; the view goes on by itself"),
            Self::OfCommand { .. } => problem.remedy(
                "send the command again, corrected, as a record of its own; then drop this",
            ),
            _ => problem,
        }
    }
}

/// All letters of one cluster and namespace. Cheap to clone.
#[derive(Debug, Clone)]
pub struct DeadLetters {
    options: KafkaOptions,
}

async fn blocking<T: Send + 'static, E: From<Error> + Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, E> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| Error::internal("dead letters", e))?
}

fn write(options: &KafkaOptions, post: Post) -> Result<(), Error> {
    let mut writer = LetterWriter::open(options)?;
    writer.add(post);
    writer.flush(PATIENCE)
}

impl DeadLetters {
    /// Connects when first used.
    #[must_use]
    pub const fn new(options: KafkaOptions) -> Self {
        Self { options }
    }

    /// All letters, oldest failure first, those that are done and dropped as well.
    ///
    /// # Errors
    /// [`Error`] if the brokers or the topics are not there.
    pub async fn list(&self) -> Result<Vec<Summary>, Error> {
        let options = self.options.clone();
        blocking(move || book::list(&options)).await
    }

    /// One letter with its original bytes, read from its source where they were left there (if
    /// they still are).
    ///
    /// # Errors
    /// [`LetterError::NotFound`], [`LetterError::Kafka`].
    pub async fn show(&self, id: Uuid) -> Result<(Summary, Letter), LetterError> {
        let options = self.options.clone();
        blocking(move || {
            let (summary, mut letter) = found(&options, id)?;
            if letter.left_at_source.is_some()
                && let Some(value) = fetch_source(&options, &letter)?
            {
                letter.record.value = Some(value);
            }
            Ok((summary, letter))
        })
        .await
    }

    /// Decodes a letter with this build, its upcasters included, and gives it back to its group:
    /// the group's subscription delivers it out of its turn. Returns the letter once that is
    /// durable. `again` also for one that was given back already, which then may come twice.
    ///
    /// # Errors
    /// [`LetterError::StillBroken`] counts as an attempt; see [`LetterError`] for the rest.
    pub async fn retry(
        &self,
        id: Uuid,
        again: bool,
        now: Timestamp,
    ) -> Result<Summary, LetterError> {
        let options = self.options.clone();
        blocking(move || retry(&options, id, again, now)).await
    }

    /// Records that a letter is not needed, and why. Nothing is erased.
    ///
    /// # Errors
    /// [`LetterError::NotFound`], [`LetterError::WrongState`] if it is done or dropped already.
    pub async fn drop_letter(
        &self,
        id: Uuid,
        reason: &str,
        now: Timestamp,
    ) -> Result<Summary, LetterError> {
        let (options, reason) = (self.options.clone(), reason.to_owned());
        blocking(move || {
            let (mut summary, _) = found(&options, id)?;
            if !summary.state.waits() {
                let state = summary.state;
                return Err(LetterError::WrongState { id, state });
            }
            summary.state = LetterState::Dropped;
            summary.reason = Some(reason);
            summary.changed_at = Some(now);
            write(&options, Post::Standing(Box::new(summary.standing(now))))?;
            Ok(summary)
        })
        .await
    }

    /// Writes a letter about an event of the ledger that the view `name` could not take; its group
    /// is `view.<name>`. Writing it again changes nothing.
    ///
    /// # Errors
    /// [`Error`] if it is not durable within 30 s.
    pub async fn write_for_view(
        &self,
        name: &str,
        event: &RecordedEvent,
        schema_id: u32,
        failing: Failing,
    ) -> Result<Uuid, Error> {
        let letter = view_letter(name, event, schema_id, failing);
        let (id, options) = (letter.id, self.options.clone());
        blocking(move || write(&options, Post::Letter(Box::new(letter)))).await?;
        Ok(id)
    }

    /// Records that a letter is done.
    ///
    /// # Errors
    /// [`LetterError::NotFound`], [`LetterError::Kafka`].
    pub async fn done(&self, id: Uuid, now: Timestamp) -> Result<(), LetterError> {
        let options = self.options.clone();
        blocking(move || {
            let (mut summary, _) = found(&options, id)?;
            summary.state = LetterState::Done;
            Ok(write(
                &options,
                Post::Standing(Box::new(summary.standing(now))),
            )?)
        })
        .await
    }
}

/// The letter of a view about an event.
fn view_letter(name: &str, event: &RecordedEvent, schema_id: u32, failing: Failing) -> Letter {
    let origin = Origin {
        topic: LEDGER.to_owned(),
        partition: 0,
        offset: event.position().0.cast_signed(),
    };
    let record = RawRecord::of_event(event, schema_id);
    Letter::new(&format!("view.{name}"), origin, failing, record)
}

fn found(options: &KafkaOptions, id: Uuid) -> Result<(Summary, Letter), LetterError> {
    book::find(options, id)?.ok_or(LetterError::NotFound(id))
}

fn retry(
    options: &KafkaOptions,
    id: Uuid,
    again: bool,
    now: Timestamp,
) -> Result<Summary, LetterError> {
    let (mut summary, letter) = found(options, id)?;
    let state = summary.state;
    if !state.waits() || (state == LetterState::Retrying && !again) {
        return Err(LetterError::WrongState { id, state });
    }
    if letter.origin.topic == LEDGER {
        let group = letter.group;
        return Err(LetterError::OfView { id, group });
    }
    if letter.group == options.topic(crate::commands::GROUP) {
        return Err(LetterError::OfCommand { id });
    }
    let mut whole = letter.record.clone();
    if letter.left_at_source.is_some() {
        let value = fetch_source(options, &letter)?;
        whole.value = Some(value.ok_or(LetterError::SourceGone { id })?);
    }
    let decoded = whole
        .decode()
        .and_then(|decoded| record::check_payload(&decoded.event));
    summary.changed_at = Some(now);
    if let Err(cause) = decoded {
        let first = summary.failing.first_failed_at;
        let attempts = summary.failing.attempts.saturating_add(1);
        summary.failing = Failing::of(&cause, attempts, first, now);
        summary.state = LetterState::Open;
        write(options, Post::Standing(Box::new(summary.standing(now))))?;
        return Err(LetterError::StillBroken { id, cause });
    }
    // in this order: the group's own word on it must be the last
    summary.state = LetterState::Retrying;
    write(options, Post::Standing(Box::new(summary.standing(now))))?;
    let mut letter = letter;
    letter.failing = summary.failing.clone();
    write(options, Post::Retry(Box::new(letter)))?;
    Ok(summary)
}
