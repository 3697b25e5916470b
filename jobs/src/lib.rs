//! Jobs: handlers as pure functions ([`Handler`]), the worker that runs their effects
//! ([`Worker`]), the feeder that keeps the queue's tables up with the ledger ([`Feeder`]), and what
//! submits the jobs of schedules when they are due ([`Scheduler`]).
//!
//! A handler sees arguments and outcomes and says which effect comes next; it reads no clock,
//! random number, network or model. What may happen is decided by the aggregate `job`; the worker
//! proposes, and drops a job that the ledger says is not its own any more.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod feeder;
mod handlers;
mod history;
mod next;
mod port;
mod rerun;
mod scheduler;
mod semantic;
mod turns;
mod view;
mod worker;

pub use feeder::Feeder;
pub use handlers::{Handler, Seen, Wanted, arguments, handler};
pub use history::{EffectHistory, History};
pub use next::Reach;
pub use port::{JobLedger, JobRequest, Reveal};
pub use rerun::{Differs, Recorder, Rerun, RerunReport};
pub use scheduler::{Plan, Run, ScheduleLog, Scheduler};
pub use semantic::{name_of, numbered};
pub use turns::Turns;
pub use view::view;
pub use worker::{Worker, WorkerOptions};

/// Longest arguments of a job, bytes of JSON: one sealed text.
pub const ARGUMENTS_BYTES_MAX: usize = sovereign_schemas::TEXT_BYTES_MAX;
