//! Effects: what agents and jobs want done in the world, as data.
//!
//! An [`Effect`] says what is wanted, an [`Outcome`] what became of it. Nothing here does I/O or
//! reads a clock: the crate `sinks` carries effects out. [`Tools`] say what may be reached,
//! [`Script`] answers instead of the world (mock), [`Recording`] from what a log holds (recorded).

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod calls;
mod effect;
mod exchange;
mod luck;
mod outcome;
mod parse;
mod path;
mod recording;
mod script;
pub mod tools;

pub use calls::{
    HttpCall, Integers, Message, MessageRole, Method, ModelCall, Order, ProcessRun, RandomDraw,
    Side, TimerWait,
};
pub use effect::{EFFECT_BYTES_MAX, Effect, EffectId, Request};
pub use exchange::{Exchange, Filled};
pub use outcome::{Outcome, RESULT_BYTES_MAX};
pub use path::{Base, Path, PathError};
pub use recording::Recording;
pub use script::Script;
pub use tools::{Programs, Tools};
