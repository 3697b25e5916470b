//! What all routes share: the way from socket to router, and the way back for failures.

pub(crate) mod auth;
pub(crate) mod body;
pub(crate) mod cut;
pub(crate) mod headers;
pub(crate) mod host;
pub(crate) mod place;
pub(crate) mod problem;
pub(crate) mod server;
pub(crate) mod shield;
pub(crate) mod state;
pub(crate) mod uniform;
