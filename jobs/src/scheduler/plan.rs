//! Which runs are due: from the events that adopted schedules, and a moment that the caller brings.

use sovereign_aggregates::schedules::{LATE_S, Schedule, Timetable};
use sovereign_schemas::avro::DecodeError;
use sovereign_schemas::events::SchedulesEvent;
use sovereign_schemas::{RecordedEvent, Timestamp, Uuid};

/// A run that is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Of which schedule.
    pub schedule: Schedule,
    /// Since when.
    pub due_at: Timestamp,
    /// The event that adopted the schedule as it is.
    pub cause: Uuid,
}

/// The schedules that hold, and which of their runs were seen to.
///
/// What is due follows from the schedules and the moment alone: the last due time of each that has
/// passed. So a clock that jumps ahead makes one run of each and not all that it jumped over, one
/// that jumps back asks for runs again that the ledger knows, and after a downtime there is one
/// run to make up for.
#[derive(Debug, Default)]
pub struct Plan {
    timetable: Timetable,
    entries: Vec<Entry>,
    /// Sequence of the last event that was taken.
    sequence: u64,
}

#[derive(Debug)]
struct Entry {
    schedule: Schedule,
    cause: Uuid,
    /// Since when it is due at these times; nothing before is made up for.
    since: Timestamp,
    /// The last due time, and the next: they hold from the one to the other.
    around: Option<(Timestamp, Timestamp)>,
    done: Option<Timestamp>,
}

impl Entry {
    /// The last due time that has passed, if it is one of this schedule as it is now.
    fn latest(&mut self, now: Timestamp) -> Option<Timestamp> {
        let timing = &self.schedule.timing;
        let holds = |(last, next): &(Timestamp, Timestamp)| *last <= now && now < *next;
        if !self.around.as_ref().is_some_and(holds) {
            let last = timing.latest_until(now).unwrap_or(Timestamp(i64::MIN));
            let next = timing.next_after(now).unwrap_or(Timestamp(i64::MAX));
            self.around = Some((last, next));
        }
        let (last, _) = self.around?;
        (last >= self.since).then_some(last)
    }
}

impl Plan {
    /// Sequence of the last event that was taken; 0 before the first.
    #[must_use]
    pub const fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The schedules that hold.
    #[must_use]
    pub const fn timetable(&self) -> &Timetable {
        &self.timetable
    }

    /// Takes the next event of the schedules.
    ///
    /// # Errors
    /// If it does not decode.
    pub fn apply(&mut self, event: &RecordedEvent) -> Result<(), DecodeError> {
        let header = &event.header;
        self.timetable.evolve(&event.decode::<SchedulesEvent>()?);
        self.sequence = header.sequence;
        let mut before = std::mem::take(&mut self.entries);
        for schedule in self.timetable.schedules() {
            let same = |e: &Entry| {
                e.schedule.name == schedule.name && e.schedule.timing == schedule.timing
            };
            let kept = before
                .iter()
                .position(same)
                .map(|at| before.swap_remove(at));
            let (since, done) = match kept {
                Some(kept) => (kept.since, kept.done),
                None => (header.recorded_at, None),
            };
            self.entries.push(Entry {
                schedule: schedule.clone(),
                cause: header.event_id,
                since,
                around: None,
                done,
            });
        }
        Ok(())
    }

    /// The runs that are due at this moment and were not seen to: at most one of each schedule.
    pub fn due(&mut self, now: Timestamp) -> Vec<Run> {
        let mut runs = Vec::new();
        for entry in &mut self.entries {
            let Some(due_at) = entry.latest(now).filter(|due| entry.done != Some(*due)) else {
                continue;
            };
            let late_us = now.0.saturating_sub(due_at.0);
            if !entry.schedule.catch_up && late_us >= LATE_S * 1_000_000 {
                continue;
            }
            runs.push(Run {
                schedule: entry.schedule.clone(),
                due_at,
                cause: entry.cause,
            });
        }
        runs
    }

    /// A run was seen to: the ledger has its job, or will never have it.
    pub fn done(&mut self, run: &Run) {
        let of = |e: &&mut Entry| e.schedule.name == run.schedule.name;
        if let Some(entry) = self.entries.iter_mut().find(of) {
            entry.done = Some(run.due_at);
        }
    }

    /// When something is due next.
    #[must_use]
    pub fn next(&self, now: Timestamp) -> Option<Timestamp> {
        let next = self.entries.iter().filter_map(|e| match e.around {
            Some((_, next)) if next > now => Some(next),
            _ => e.schedule.timing.next_after(now),
        });
        next.min()
    }
}
