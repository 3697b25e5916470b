//! Real PostgreSQL and Apache Kafka as supervised children in the data folder.
//!
//! [`DataFolder::open`] takes the folder's lock, [`Servers::start`] fetches the pinned programs once
//! into a cache ([`fetch()`]), starts them as an unprivileged user, watches and restarts them, and
//! [`Servers::stop`] ends them in order. The engine's binary offers a hidden subcommand `child`
//! that calls [`child_main`] before anything else.

mod account;
mod clock;
mod data_folder;
mod error;
mod fetch;
mod home;
mod kafka;
mod launch;
mod limited;
mod logs;
mod ports;
mod postgres;
mod processes;
mod secret;
mod servers;
mod shim;
mod staging;
mod state;
mod supervisor;

pub use data_folder::{DataFolder, FREE_MIB_MIN};
pub use error::{Error, Prerequisite, Result};
pub use fetch::{
    Installation, KafkaFiles, Prerequisites, Wanted, check_prerequisites, default_cache, fetch,
};
pub use limited::{Limited, LimitedLaunch, Limits};
pub use secret::SecretUrl;
pub use servers::{Options, Progress, Servers, ServersHealth};
pub use shim::{CHILD_SUBCOMMAND, child_main};
pub use state::{KafkaState, PostgresState, State};
pub use supervisor::{Activity, ServerHealth};
