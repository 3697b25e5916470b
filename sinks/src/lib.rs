//! Sinks: they carry effects out. Which kind of sink a run uses is chosen in one place, [`Sinks`].

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod mode;
mod sink;

pub use mode::SinkMode;
pub use sink::{Sink, Sinks};
