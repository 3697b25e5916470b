//! Everything that needs a real broker. `SOVEREIGN_TEST_BROKERS` names it; each test has topics
//! and transactional ids of its own, so they can share one.

#![allow(clippy::unwrap_used, missing_docs)]

mod bad;
mod commands;
mod dead_letters;
mod log;
mod relay;
mod subscription;
mod support;
mod topics;
mod work;
