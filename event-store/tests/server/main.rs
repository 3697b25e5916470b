//! Against a real Postgres: `SOVEREIGN_TEST_DATABASE=postgres://… cargo test`.

#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;

mod append;
mod clock;
mod guard_rails;
mod jobs;
mod outcomes;
mod reading;
