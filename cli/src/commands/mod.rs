//! One file per command.

pub(crate) mod agents;
pub(crate) mod approvals;
mod approvals_verify;
pub(crate) mod approvers;
pub(crate) mod dead_letters;
pub(crate) mod down;
pub(crate) mod export;
pub(crate) mod import;
pub(crate) mod jobs;
pub(crate) mod keys;
pub(crate) mod log;
pub(crate) mod policy;
pub(crate) mod replay;
mod rerun;
pub(crate) mod schedules;
pub(crate) mod scrub;
pub(crate) mod send;
pub(crate) mod source;
pub(crate) mod status;
pub(crate) mod tokens;
pub(crate) mod trade;
mod trade_report;
pub(crate) mod up;
pub(crate) mod verify;
pub(crate) mod views;
pub(crate) mod worker;
