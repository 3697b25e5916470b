//! The ledger in Postgres: append, dispatch, read port, tail, subject keys, schema registry.
//!
//! [`Ledger`] takes admitted commands and answers once their events are durable; [`LedgerReader`]
//! and [`LedgerTail`] read what is durable; [`KeyStore`] holds the keys of sealed texts apart from
//! the ledger, and [`Gate`] turns what a caller sent into an admitted command.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod artifacts;
mod checkpoints;
mod clock;
mod connect;
mod cqrs;
mod error;
mod flush;
mod gate;
mod import;
mod indexes;
mod jobs;
mod keys;
mod migrate;
pub mod port;
mod postgres;
mod read;
mod registry;
pub mod rights;
mod ring;
mod row;
mod shared;
mod stall;
mod stretch;
mod tail;
mod writer;

pub use artifacts::{ARTIFACT_BYTES_MAX, Artifacts};
pub use checkpoints::Checkpoints;
pub use connect::{address_of, reach};
pub use cqrs::{CqrsContext, CqrsStore};
pub use error::StoreError;
pub use flush::Durability;
pub use gate::{Gate, RawCommand};
pub use import::{
    Import, ImportMode, ImportOptions, ImportProblem, ImportProgress, ImportReport, ImportedType,
};
pub use indexes::{IndexDifference, check_indexes};
pub use jobs::{
    Claim, Decided, FEED_EVENTS_MAX, JobQueueStore, JobRow, JobSignal, QUEUE_NAMES, QueueRow,
};
pub use keys::KeyStore;
pub use port::Filter;
pub use read::{LedgerLog, LedgerReader};
pub use registry::{SchemaRegistry, Setting, StoredSchema};
pub use shared::LedgerHealth;
pub use tail::LedgerTail;
pub use writer::{Ledger, LedgerOptions, LiveState};
