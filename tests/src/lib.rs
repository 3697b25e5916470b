//! What tests with real servers share: servers that a test owns, so that it can kill, stop and
//! starve them, and the certificates that they show.

pub mod certificates;
pub mod owned;
