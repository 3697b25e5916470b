//! The live sinks against real sockets, servers that misbehave, and real programs.

#![allow(clippy::unwrap_used)]

mod addresses;
mod answers;
mod http;
mod model;
mod offline;
mod others;
mod process;
mod redirects;
mod server;
mod tls;
