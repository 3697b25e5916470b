//! The contract: ids, envelope, departments, events and their Avro schemas. No I/O and no clock.
//!
//! Everything that two rooms must agree on lives here: what an event is ([`RecordedEvent`]), how
//! its bytes are written ([`avro`]), how events are chained ([`chain`]), how they are read
//! ([`EventLog`]) and how a failure is named ([`ErrorCode`]).

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod avro;
pub mod borrowed;
pub mod catalog;
pub mod chain;
mod command_record;
pub mod compatibility;
mod decimal;
mod department;
mod digest;
mod error;
mod header;
mod ids;
mod intake;
mod log;
mod outcome;
mod text;
mod time;
mod upcast;

/// The structs generated from `avro/*.avsc`.
pub mod events {
    // an event may have no fields
    #![allow(unused_variables, unused_mut)]
    #![allow(clippy::too_many_lines, clippy::redundant_closure)]
    include!(concat!(env!("OUT_DIR"), "/events.rs"));

    /// FNV-1a, as in `build.rs`.
    const fn fnv1a(bytes: &[u8]) -> u64 {
        let (mut hash, mut at) = (0xcbf2_9ce4_8422_2325_u64, 0);
        while at < bytes.len() {
            hash = (hash ^ bytes[at] as u64).wrapping_mul(0x0100_0000_01b3);
            at += 1;
        }
        hash
    }

    // structs that were generated from other files do not compile
    const _: () = {
        let mut at = 0;
        while at < SCHEMA_FILES.len() {
            assert!(
                fnv1a(SCHEMA_FILES[at].3.as_bytes()) == GENERATED_FROM[at],
                "the generated code is of other schema files; touch schemas/build.rs"
            );
            at += 1;
        }
    };
}

pub use command_record::CommandRecord;
pub use decimal::{Decimal, DecimalError};
pub use department::{Department, DepartmentId, Departments, DepartmentsError};
pub use digest::{Digest, DigestError, hex};
pub use error::{ErrorCode, Problem};
pub use events::EventType;
pub use header::{AggregateType, EventHeader, IMPORT_ACTOR, RecordedEvent, TYPES_NAMESPACE};
pub use ids::{
    AggregateId, IdError, Identifier, bears_source, command_id_from_text, event_id_with_source,
};
pub use intake::{FromJson, Intake};
pub use log::{Cursor, EventLog, LogError, MemoryLog, Tail};
pub use outcome::{CommandContext, Outcome, Status};
pub use text::{RawText, Text};
pub use time::{Date, Timestamp, TimestampError};
pub use uuid::Uuid;

/// A place in the ledger: dense, starts at 1; 0 means "before the first event".
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Default,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(transparent)]
pub struct Position(pub u64);

impl Position {
    /// Before the first event.
    pub const START: Self = Self(0);

    /// The position that must follow.
    ///
    /// # Examples
    /// ```
    /// use sovereign_schemas::Position;
    /// assert_eq!(Position::START.next(), Position(1));
    /// ```
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// At most so many bytes of Avro payload in one event: 1 MiB.
pub const PAYLOAD_BYTES_MAX: usize = 1 << 20;
/// At most so many bytes of UTF-8 in one free text: 256 KiB.
pub const TEXT_BYTES_MAX: usize = 256 << 10;
