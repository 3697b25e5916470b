//! Topics, relay, subscriptions and the schema registry client.
//!
//! The only room that speaks to Kafka and to the registry. What goes onto a topic is the ledger's
//! very bytes ([`record`]); [`Relay`] puts it there exactly once, [`KafkaLog`] and
//! [`Subscription`] read it back; what cannot be read or processed becomes a dead letter
//! ([`dead_letters`]). What comes in as a record is a command ([`commands`]).

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod checkpoint;
mod client;
pub mod commands;
mod copies;
pub mod dead_letters;
mod log;
mod offsets;
mod partitions;
mod reach;
pub mod record;
mod registry;
mod relay;
mod subscription;
mod telemetry;
mod topics;
mod work;

pub use checkpoint::Checkpoint;
pub use client::{Error, KafkaOptions};
pub use commands::{
    Answer, CommandHandler, CommandLine, Commands, CommandsHandle, CommandsHealth, CommandsOptions,
    CommandsState,
};
pub use copies::verify_schema_ids;
pub use dead_letters::{DeadLetters, LetterError, LetterState, LetterWatch};
pub use log::KafkaLog;
pub use record::{RecordError, SchemaIdSeen};
pub use registry::{RegistryAuth, RegistryError, RegistryOptions, SchemaIds};
pub use relay::port;
pub use relay::{LedgerProbe, Relay, RelayHandle, RelayHealth, RelayOptions, RelayState};
pub use subscription::{
    Delivery, Rejected, RetryPolicy, Start, Subscription, SubscriptionBuilder, SubscriptionError,
};
pub use topics::{TopicSettings, TopicsReport, ensure_topics, names};
pub use work::{Assignment, Turn, Unit, WorkGroup, WorkHealth, WorkOptions};
