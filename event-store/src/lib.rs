//! The ledger in Postgres: append, dispatch, read port, tail, subject keys, schema registry.
//!
//! [`Ledger`] takes admitted commands and answers once their events are durable; [`LedgerReader`]
//! and [`LedgerTail`] read what is durable; [`KeyStore`] holds the keys of sealed texts apart from
//! the ledger, and [`Gate`] turns what a caller sent into an admitted command.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod checkpoints;
mod connect;
mod error;
mod flush;
mod gate;
mod keys;
mod migrate;
mod read;
mod registry;
mod ring;
mod row;
mod shared;
mod tail;
mod writer;

pub use checkpoints::Checkpoints;
pub use error::StoreError;
pub use flush::Durability;
pub use gate::{Gate, RawCommand};
pub use keys::KeyStore;
pub use read::{Filter, LedgerLog, LedgerReader};
pub use registry::{SchemaRegistry, Setting, StoredSchema};
pub use shared::LedgerHealth;
pub use tail::LedgerTail;
pub use writer::{Ledger, LedgerOptions, LiveState};
