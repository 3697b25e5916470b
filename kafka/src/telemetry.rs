//! Metrics of this room, reviewed in one place. Never a payload.

use std::time::{Duration, Instant};

use sovereign_schemas::{Outcome, Position, Status};

/// One transaction of the relay became visible.
pub(crate) struct Relayed {
    pub(crate) position: Position,
    pub(crate) events: usize,
    pub(crate) took: Duration,
}

impl Relayed {
    pub(crate) fn emit(&self) {
        metrics::counter!("sovereign_relay_events_total").increment(self.events as u64);
        metrics::gauge!("sovereign_relay_position").set(as_f64(self.position.0));
        metrics::histogram!("sovereign_relay_batch_events").record(as_f64(self.events as u64));
        metrics::histogram!("sovereign_relay_transaction_seconds").record(self.took);
    }
}

/// What brokers said about leaders and librdkafka was not let take; see `sovereign_librdkafka`.
pub(crate) struct Hints;

impl Hints {
    pub(crate) fn emit(&self) {
        let ignored = sovereign_librdkafka::ignored();
        metrics::counter!("sovereign_kafka_leader_hints_ignored_total").absolute(ignored);
    }
}

/// How far the relay is behind the ledger.
pub(crate) struct Lag {
    pub(crate) events: u64,
    pub(crate) healthy: bool,
}

impl Lag {
    pub(crate) fn emit(&self) {
        metrics::gauge!("sovereign_relay_lag_events").set(as_f64(self.events));
        metrics::gauge!("sovereign_relay_healthy").set(f64::from(u8::from(self.healthy)));
    }
}

/// The relay starts over after a failure.
pub(crate) struct Restarted<'a> {
    pub(crate) cause: &'a dyn std::fmt::Display,
    pub(crate) after: Duration,
}

impl Restarted<'_> {
    pub(crate) fn emit(&self) {
        metrics::counter!("sovereign_relay_restarts_total").increment(1);
        let wait_ms = u64::try_from(self.after.as_millis()).unwrap_or(u64::MAX);
        tracing::warn!(cause = %self.cause, wait_ms, "relay starts over");
    }
}

/// The group gave this engine other work.
pub(crate) struct Assigned<'a> {
    pub(crate) units: &'a std::collections::BTreeSet<String>,
}

impl Assigned<'_> {
    pub(crate) fn emit(&self) {
        metrics::gauge!("sovereign_work_units").set(as_f64(self.units.len() as u64));
        metrics::counter!("sovereign_work_changes_total").increment(1);
        tracing::info!(units = ?self.units, "work assigned");
    }
}

/// Commands that came as records were answered.
pub(crate) struct Answered<O> {
    /// Each with the moment at which its record came.
    pub(crate) outcomes: O,
}

impl<'a, O: Iterator<Item = (&'a Outcome, Instant)>> Answered<O> {
    pub(crate) fn emit(self) {
        let mut counts = [("", 0_u64); 5];
        for (outcome, since) in self.outcomes {
            let (at, status) = match outcome.status {
                Status::Accepted => (0, "accepted"),
                Status::Refused => (1, "refused"),
                Status::Duplicate => (2, "duplicate"),
                Status::Conflict => (3, "conflict"),
                Status::Invalid => (4, "invalid"),
            };
            counts[at] = (status, counts[at].1 + 1);
            metrics::histogram!("sovereign_commands_reply_seconds").record(since.elapsed());
        }
        for (status, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
            metrics::counter!("sovereign_commands_replies_total", "status" => status)
                .increment(count);
        }
    }
}

/// Commands that came as records and are not answered yet.
pub(crate) struct CommandsAtWork {
    pub(crate) in_flight: usize,
    pub(crate) lag: u64,
}

impl CommandsAtWork {
    pub(crate) fn emit(&self) {
        metrics::gauge!("sovereign_commands_in_flight").set(as_f64(self.in_flight as u64));
        metrics::gauge!("sovereign_commands_lag_records").set(as_f64(self.lag));
    }
}

/// Commands from records start over after a failure.
pub(crate) struct CommandsRestarted<'a> {
    pub(crate) cause: &'a dyn std::fmt::Display,
    pub(crate) after: Duration,
}

impl CommandsRestarted<'_> {
    pub(crate) fn emit(&self) {
        metrics::counter!("sovereign_commands_restarts_total").increment(1);
        let wait_ms = u64::try_from(self.after.as_millis()).unwrap_or(u64::MAX);
        tracing::warn!(cause = %self.cause, wait_ms, "commands from records start over");
    }
}

/// A record that is no event.
pub(crate) struct Poison<'a> {
    pub(crate) error: &'a crate::RecordError,
}

impl Poison<'_> {
    pub(crate) fn emit(&self) {
        metrics::counter!("sovereign_records_poison_total").increment(1);
        tracing::warn!(error = %self.error, "record is no event");
    }
}

/// A record became a dead letter.
pub(crate) struct DeadLetter<'a> {
    pub(crate) letter: &'a crate::dead_letters::Letter,
}

impl DeadLetter<'_> {
    pub(crate) fn emit(&self) {
        metrics::counter!("sovereign_dead_letters_written_total").increment(1);
        let (origin, failing) = (&self.letter.origin, &self.letter.failing);
        tracing::warn!(
            id = %self.letter.id, group = self.letter.group, topic = origin.topic,
            partition = origin.partition, offset = origin.offset, code = failing.code,
            attempts = failing.attempts, "record becomes a dead letter"
        );
    }
}

#[allow(clippy::cast_precision_loss)] // gauges are floats; exact up to 2^53
fn as_f64(value: u64) -> f64 {
    value as f64
}
