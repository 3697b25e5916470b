//! What happens to an event that its reader could not process.

use std::time::Duration;

use sovereign_schemas::{Timestamp, Uuid};
use tokio::time::Instant;

use super::worker::Order;
use super::{Delivery, Raw, Subscription, SubscriptionError};
use crate::client::Error;
use crate::dead_letters::{Failing, Letter, LetterState, Origin};

/// How often an event is tried before it becomes a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts, at least 1; 3 by default.
    pub attempts_max: u32,
    /// Pause before the second attempt; 100 ms by default. It doubles from attempt to attempt.
    pub pause: Duration,
    /// Longest pause; 5 s by default. Nothing else is handed out meanwhile.
    pub pause_max: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts_max: 3,
            pause: Duration::from_millis(100),
            pause_max: Duration::from_secs(5),
        }
    }
}

impl RetryPolicy {
    fn pause_after(&self, attempt: u32) -> Duration {
        let doubled = self
            .pause
            .saturating_mul(1 << attempt.saturating_sub(1).min(20));
        doubled.min(self.pause_max)
    }
}

/// What [`Subscription::reject`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejected {
    /// It is handed out again after a pause, before anything else.
    Again {
        /// The pause.
        after: Duration,
    },
    /// It was the last attempt: a dead letter is durable, and the partition goes on behind it.
    Dead {
        /// The letter.
        letter: Uuid,
    },
}

impl Subscription {
    /// Says that an event could not be processed: `code` is a short name of the reason, `message`
    /// says it in words and holds no content of the event (they are cut to 64 and 300 bytes).
    ///
    /// Attempts are counted in memory: after a crash, counting starts anew.
    ///
    /// # Errors
    /// [`SubscriptionError::Kafka`] if the subscription writes no dead letters, or the brokers did
    /// not take the letter: then no commit moves over the record until they have.
    pub async fn reject(
        &mut self,
        mut delivery: Delivery,
        code: &str,
        message: &str,
    ) -> Result<Rejected, SubscriptionError> {
        let (Some(policy), Some(mut raw)) = (self.retry, delivery.raw.take()) else {
            let message = "are not set up: there is nothing to reject into";
            return Err(Error::config("dead_letters", message).into());
        };
        let now = Timestamp::now();
        let first = *raw.first_failed_at.get_or_insert(now);
        if let Some(id) = delivery.letter {
            self.letters.remove(&id);
        }
        if delivery.attempt < policy.attempts_max {
            let after = policy.pause_after(delivery.attempt);
            delivery.attempt += 1;
            delivery.raw = Some(raw);
            self.hold(delivery, Instant::now() + after);
            return Ok(Rejected::Again { after });
        }
        let failing = Failing::new(code, message, delivery.attempt, first, now);
        let (order, letter) = self.bury(delivery, raw, failing);
        self.ask(order).await?;
        Ok(Rejected::Dead { letter })
    }

    /// A new letter, or the last word on the one that it came out of.
    fn bury(&self, delivery: Delivery, raw: Raw, mut failing: Failing) -> (Order, Uuid) {
        if let Some(mut standing) = raw.standing {
            let before = &standing.failing;
            failing.attempts = failing.attempts.saturating_add(before.attempts);
            failing.first_failed_at = before.first_failed_at;
            standing.changed_at = failing.last_failed_at;
            standing.failing = failing;
            standing.state = LetterState::Open;
            let id = standing.id;
            return (Order::Standing(Box::new(standing)), id);
        }
        let origin = Origin {
            topic: delivery.topic,
            partition: delivery.partition,
            offset: delivery.offset,
        };
        let group = self.group.as_deref().unwrap_or_default();
        let letter = Letter::new(group, origin, failing, raw.record);
        let id = letter.id;
        (Order::Bury(Box::new(letter)), id)
    }

    /// Keeps it until `due`; no commit goes over it.
    fn hold(&mut self, delivery: Delivery, due: Instant) {
        let held = self.held.entry(delivery.at()).or_default();
        held.insert(delivery.offset);
        let at = self.again.partition_point(|(other, _)| *other <= due);
        self.again.insert(at, (due, delivery));
    }

    /// It is handed out again.
    pub(super) fn release(&mut self, delivery: &Delivery) {
        let at = delivery.at();
        if let Some(held) = self.held.get_mut(&at) {
            held.remove(&delivery.offset);
            if held.is_empty() {
                self.held.remove(&at);
            }
        }
        self.note_letter(delivery);
    }

    /// A letter that is handed out is done with the next commit, unless it is rejected.
    pub(super) fn note_letter(&mut self, delivery: &Delivery) {
        let standing = delivery.raw.as_ref().and_then(|raw| raw.standing.clone());
        if let Some(mut standing) = standing {
            standing.state = LetterState::Done;
            standing.changed_at = Timestamp::now();
            let attempts = standing.failing.attempts;
            standing.failing.attempts = attempts.saturating_add(delivery.attempt);
            self.letters.insert(standing.id, standing);
        }
    }
}
