//! Servers that a test starts itself, beside the engine: it may kill them, stop and starve them,
//! and they know TLS, SASL and rights. They end with the test's process.

mod acl;
mod engine;
mod fetched;
mod kafka;
mod ports;
mod postgres;
mod process;

pub use acl::{Operation, Resource, Rule};
pub use engine::{Engine, EngineHandle, EngineSetup};
pub use fetched::postgres_with_tls;
pub use kafka::{Kafka, KafkaSetup, Listener};
pub use ports::free_ports;
pub use postgres::{Postgres, PostgresSetup, signal};
pub use process::{Account, Launch, Process, engine as engine_program};
