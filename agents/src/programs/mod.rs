//! Programs of others as agents: NDJSON on their standard input and output. docs/AGENTS.md is the
//! description for those who write one.
//!
//! [`Session`] is the pure machine that says what a program may do next; the keeper starts it, feeds
//! it and ends it. Each program has tasks and queues of its own, so none can hold up another, and
//! whatever it does comes in by the same gateway as everybody's commands.

mod drive;
mod keeper;
mod pipes;
mod program;
mod protocol;
mod session;

pub use keeper::{Environment, ProgramHealth, ProgramState, Programs};
pub use pipes::{Complaints, Launch, Running, Started};
pub use program::{PROGRAMS_MAX, Program, check};
pub use protocol::command_id;
pub use session::Fault;
