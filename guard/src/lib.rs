//! Pure admission: scrubber, sealed text, keys.
//!
//! Nothing in this room does I/O or reads a clock or a random number; callers bring them.

pub mod access;
pub mod admit;
pub mod scrub;
pub mod seal;
