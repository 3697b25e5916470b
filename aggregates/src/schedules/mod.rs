//! Schedules of jobs: data, with a version, adopted as an event, so that every change has its
//! trace and every engine of a ledger goes by the same.

mod adopted;
mod cron;
mod due;
mod file;

use sovereign_schemas::Identifier;
use sovereign_schemas::events::JobQueue;

pub use adopted::{Adopt, SCHEDULES_ID, SchedulesCommand, Timetable};
pub use cron::{Cron, CronError};
pub use due::Timing;
pub use file::{SCHEDULES_MAX, TEXT_BYTES_MAX, parse};

/// A run that is so many seconds late counts as missed.
pub const LATE_S: i64 = 60;

/// A job that is to be done again and again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    /// Its name; the ids of its jobs begin with it.
    pub name: Identifier,
    /// When it is due.
    pub timing: Timing,
    /// Whether the last run that was missed is made up for, however late; never more than one.
    pub catch_up: bool,
    /// What is to be done.
    pub job: ScheduledJob,
    /// In which line it begins.
    pub line: u64,
}

/// The job of a schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduledJob {
    /// Which handler does it.
    pub kind: Identifier,
    /// What the handler is given, JSON.
    pub arguments: String,
    /// How urgent it is.
    pub queue: JobQueue,
    /// Name of the department whose topic carries its events; that of jobs if there is none.
    pub department: Option<Identifier>,
    /// How often its effects may fail in a way that is worth a retry.
    pub attempts_max: u32,
    /// Pause before the first retry, milliseconds.
    pub backoff_ms: u32,
}
