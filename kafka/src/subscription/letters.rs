//! What a subscription does that writes letters.

use std::time::Duration;

use rdkafka::message::{BorrowedMessage, Message};
use sovereign_schemas::Timestamp;
use tokio::runtime::Handle;

use super::examine::Examiner;
use super::{Delivery, Raw, SubscriptionBuilder, SubscriptionError};
use crate::client::Error;
use crate::dead_letters::{
    Failing, Letter, LetterState, LetterWriter, Origin, Post, RawRecord, Standing, fetch_source,
};
use crate::record::{RecordCause, RecordError};
use crate::telemetry::{DeadLetter, Poison};

/// How long the brokers may take until letters are durable.
const PATIENCE: Duration = Duration::from_secs(30);

/// Everything that records are checked with and written off by.
pub(super) struct Letters {
    group: String,
    writer: LetterWriter,
    examiner: Examiner,
}

impl Letters {
    pub(super) fn open(
        builder: &SubscriptionBuilder,
        group: &str,
        runtime: Handle,
    ) -> Result<Self, Error> {
        Ok(Self {
            group: group.to_owned(),
            writer: LetterWriter::open(&builder.options)?,
            examiner: Examiner::new(builder.registry.clone(), runtime),
        })
    }

    /// Waits until all letters so far are durable.
    pub(super) fn flush(&mut self) -> Result<(), Error> {
        self.writer.flush(PATIENCE)
    }

    /// Room first: what waits for the brokers is bounded.
    pub(super) fn post(&mut self, post: Post) -> Result<(), Error> {
        if self.writer.is_full() {
            self.flush()?;
        }
        self.writer.add(post);
        Ok(())
    }

    /// What the reader gets of a record, if anything; an error if the record can be neither
    /// delivered nor written off.
    pub(super) fn take(
        &mut self,
        builder: &SubscriptionBuilder,
        message: &BorrowedMessage<'_>,
    ) -> Result<Option<Result<Delivery, SubscriptionError>>, SubscriptionError> {
        let record = RawRecord::of(message);
        let origin = Origin {
            topic: message.topic().to_owned(),
            partition: message.partition(),
            offset: message.offset(),
        };
        if builder.is_retry(message.topic()) {
            return match Letter::read(record) {
                Some(letter) if letter.group == self.group => {
                    self.take_back(builder, letter, origin)
                }
                _ => Ok(None),
            };
        }
        match self.examiner.examine(&builder.filter, &record)? {
            Ok(event) => Ok(event.map(|event| {
                Ok(Delivery {
                    event,
                    topic: origin.topic,
                    partition: origin.partition,
                    offset: origin.offset,
                    attempt: 1,
                    letter: None,
                    raw: Some(Raw {
                        record,
                        standing: None,
                        first_failed_at: None,
                    }),
                })
            })),
            Err(cause) => {
                self.write_off(origin, record, cause)?;
                Ok(None)
            }
        }
    }

    fn write_off(
        &mut self,
        origin: Origin,
        record: RawRecord,
        cause: RecordCause,
    ) -> Result<(), Error> {
        let error = RecordError {
            topic: origin.topic.clone(),
            partition: origin.partition,
            offset: origin.offset,
            cause,
        };
        Poison { error: &error }.emit();
        let now = Timestamp::now();
        let failing = Failing::of(&error.cause, 1, now, now);
        let letter = Box::new(Letter::new(&self.group, origin, failing, record));
        DeadLetter { letter: &letter }.emit();
        self.post(Post::Letter(letter))
    }

    /// A letter of this group that somebody gave back.
    fn take_back(
        &mut self,
        builder: &SubscriptionBuilder,
        mut letter: Letter,
        place: Origin,
    ) -> Result<Option<Result<Delivery, SubscriptionError>>, SubscriptionError> {
        let now = Timestamp::now();
        let mut standing = Standing {
            id: letter.id,
            state: LetterState::Retrying,
            failing: letter.failing.clone(),
            changed_at: now,
            reason: None,
        };
        let first = letter.failing.first_failed_at;
        let attempts = letter.failing.attempts.saturating_add(1);
        if letter.left_at_source.is_some() {
            let Some(value) = fetch_source(&builder.options, &letter)? else {
                let code = sovereign_schemas::ErrorCode::VerificationDifference;
                let message = "value is not at its source any more";
                standing.state = LetterState::Open;
                standing.failing = Failing::new(code.as_str(), message, attempts, first, now);
                self.post(Post::Standing(Box::new(standing)))?;
                return Ok(None);
            };
            letter.record.value = Some(value);
        }
        match self.examiner.examine(&builder.filter, &letter.record)? {
            Ok(Some(event)) => Ok(Some(Ok(Delivery {
                event,
                topic: place.topic,
                partition: place.partition,
                offset: place.offset,
                attempt: 1,
                letter: Some(letter.id),
                raw: Some(Raw {
                    record: letter.record,
                    standing: Some(standing),
                    first_failed_at: Some(first),
                }),
            }))),
            Ok(None) => {
                // it decodes now, and this reader does not want it
                standing.state = LetterState::Done;
                standing.failing.attempts = attempts;
                self.post(Post::Standing(Box::new(standing)))?;
                Ok(None)
            }
            Err(cause) => {
                standing.state = LetterState::Open;
                standing.failing = Failing::of(&cause, attempts, first, now);
                self.post(Post::Standing(Box::new(standing)))?;
                Ok(None)
            }
        }
    }
}
