//! The console over real sockets, with services that the tests steer.
#![allow(clippy::unwrap_used, missing_docs)]

mod commands;
mod guards;
mod registry;
mod routes;
mod support;
