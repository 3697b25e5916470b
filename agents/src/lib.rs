//! Agent logic as pure functions, and the runner that does the I/O.
//!
//! [`logic`] holds one file per agent: `step(&mut State, &Seen) -> Vec<Reaction>`, no clock, no
//! random number, no I/O (I6). [`Floor`] puts the agents of all instruments together. The
//! [`Runner`] feeds it the ledger's events in order of position and carries out what it answers;
//! ids of commands are derived from the event that caused them, so carrying out twice has the
//! effect of once. [`market`] reads the bars that it all starts from.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod duties;
mod error;
pub mod expiry;
mod floor;
pub mod logic;
pub mod market;
mod ports;
pub mod programs;
mod runner;

pub use duties::{Duties, LANES, lane_of};
pub use error::RunnerError;
pub use floor::{DeskProgress, Floor, StartOutcome};
pub use ports::{CheckpointStore, Clock, Gateway, MarketSource, RawRequest, SystemClock};
pub use runner::{Health, Progress, Runner, RunnerHandle, RunnerOptions};
