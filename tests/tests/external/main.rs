//! The engine with servers that it did not start: TLS and SCRAM on the broker, TLS and a password on
//! Postgres, rights on both. Each way in which they can refuse is named.
//!
//! `SOVEREIGN_EXTERNAL_DATABASE`, `_KEYS_DATABASE`, `_BROKERS` and `_KAFKA_PROPERTIES` run the
//! ordinary part against servers that somebody else has started; docs/OPERATIONS.md says how.

#![allow(clippy::unwrap_used)]
#![allow(clippy::disallowed_methods)] // these threads only wait for processes

#[path = "../engine/harness.rs"]
#[allow(dead_code)]
mod harness;

mod broker;
mod database;
mod ordinary;
mod site;
