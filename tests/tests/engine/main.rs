//! The real binary with servers of its own: what the command line promises, held to it.
//!
//! `cargo build --workspace && cargo test -p sovereign-tests --test engine`. Three engines are
//! shared: a small one that tests look into and tamper with, one that is stopped and killed, and
//! one that does the main job. `SOVEREIGN_TEST_SEED` repeats the moments of its kills.

#![allow(clippy::unwrap_used)]
#![allow(clippy::disallowed_methods)] // these threads only wait for processes

use sovereign_librdkafka as _;

mod acting;
mod addresses;
mod api;
mod approvals;
mod broker;
mod browser;
mod cluster;
mod commands;
mod contract;
mod csv;
mod fairness;
mod following;
mod future;
mod harness;
mod import;
mod import_refusals;
mod job;
mod jobs;
mod letters;
mod lies;
mod lifecycle;
#[path = "../../../agents/tests/cases/ledger.rs"]
#[allow(dead_code)]
mod memory;
mod offline;
mod policy;
mod programs;
mod records;
mod refusals;
mod rights;
mod schedules;
mod secrets;
mod stakes;
mod superuser;
mod tampering;
