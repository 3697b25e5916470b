//! Topics, relay, subscriptions and the schema registry client.
//!
//! The only room that speaks to Kafka and to the registry. What goes onto a topic is the ledger's
//! very bytes ([`record`]); [`Relay`] puts it there exactly once, [`KafkaLog`] and
//! [`Subscription`] read it back.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod checkpoint;
mod client;
mod copies;
mod log;
mod offsets;
mod partitions;
pub mod record;
mod registry;
mod relay;
mod subscription;
mod telemetry;
mod topics;

pub use client::{Error, KafkaOptions};
pub use copies::verify_schema_ids;
pub use log::KafkaLog;
pub use record::{RecordError, SchemaIdSeen};
pub use registry::{RegistryAuth, RegistryError, RegistryOptions, SchemaIds};
pub use relay::{LedgerProbe, Relay, RelayHandle, RelayHealth, RelayOptions, RelayState};
pub use subscription::{Delivery, Start, Subscription, SubscriptionBuilder, SubscriptionError};
pub use topics::{TopicSettings, TopicsReport, ensure_topics, names};
