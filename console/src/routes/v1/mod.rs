//! The API, version 1: one file for each resource.

pub(crate) mod acting;
pub(crate) mod agents;
pub(crate) mod approvals;
pub(crate) mod commands;
pub(crate) mod enrolment;
pub(crate) mod events;
pub(crate) mod gate;
pub(crate) mod giving;
pub(crate) mod invitations;
pub(crate) mod jobs;
pub(crate) mod passkeys;
pub(crate) mod session;
pub(crate) mod socket;
pub(crate) mod stream;
pub(crate) mod tokens;
