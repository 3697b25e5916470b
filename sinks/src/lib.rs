//! Sinks: they carry effects out. Which kind of sink a run uses is chosen in one place, [`Sinks`].
//! `docs/EFFECTS.md` says what each kind of effect does, and what keeps it within bounds.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod live;
mod mode;
mod secret;
mod sink;

pub use live::{Live, LiveOptions, Resolve, SystemResolver};
pub use mode::SinkMode;
pub use secret::Secrets;
pub use sink::{Sink, Sinks};
