//! What the benchmarks of the API share: the engine as people run it, and a client that costs next
//! to nothing.

mod connection;
mod engine;

pub(crate) use connection::{Connection, position_of};
pub(crate) use engine::{Engine, command};
