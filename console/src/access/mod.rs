//! Who calls, and what he may do.
//!
//! A request is identified once, by [`identify`]; a handler then says what it needs in its
//! signature, as [`May`] with the right as type: the table of routes takes no handler without.

mod caller;
mod ceremonies;
mod may;
mod role;
mod sessions;
mod tokens;

pub(crate) use caller::{ActsAs, Caller, identify};
pub(crate) use ceremonies::Ceremonies;
pub(crate) use may::{Checks, May, Need, needs};
pub(crate) use role::Right;
pub use role::Role;
pub(crate) use sessions::{COOKIE, Session, Sessions, cookie_of, csrf_matches};
pub(crate) use tokens::IssueToken;
pub use tokens::{TokenBook, TokenRecord, TokenStore};
