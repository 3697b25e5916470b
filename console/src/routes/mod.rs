//! One file per route, except the schema registry's.

pub(crate) mod commands;
pub(crate) mod digest;
pub(crate) mod health;
pub(crate) mod metrics;
pub(crate) mod openapi;
pub(crate) mod shutdown;
pub(crate) mod status;
pub(crate) mod tasks;
pub(crate) mod v1;
pub(crate) mod views;
