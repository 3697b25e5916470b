//! The console over real sockets, with services that the tests steer.
#![allow(clippy::unwrap_used, missing_docs)]

mod access;
mod acting;
mod commands;
mod document;
mod events;
mod guards;
mod pages;
mod passkeys;
mod registry;
mod routes;
mod sessions;
mod smuggling;
mod support;
mod v1;
