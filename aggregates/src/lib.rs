//! Pure cqrs-es aggregates: [`agent`], [`trade`], [`approval`], [`approver`], [`policy`], [`job`],
//! [`schedules`], [`imported`].
//!
//! A command may be refused, an event never: `decide` looks and says which events follow, `evolve`
//! takes any recorded event. Neither reads a clock, a random number, the network or a model (I6);
//! the moment of the decision comes in with [`Decision`].

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod acting;
pub mod agent;
mod any;
pub mod approval;
pub mod approver;
pub mod imported;
pub mod job;
mod ledger;
mod parse;
pub mod policy;
mod port;
mod reads;
#[cfg(test)]
mod recorded_text;
mod refusal;
pub mod schedules;
pub mod trade;

pub use any::{AnyCommand, AnyEvent, AnyState};
pub use ledger::LedgerAggregate;
pub use port::{CommandPort, CommandRequest};
pub use reads::Read;
pub use refusal::{Decision, Refusal};
