//! The witness that a text went through the guard.
//!
//! `sovereign_schemas::Text` can be made of new text only by whoever holds an [`Admitted`]. This
//! crate is the only source of one, and only the rooms `schemas` and `guard` may depend on it
//! (`deny.toml` and the house test refuse any other), so elsewhere such code does not compile.

/// Proof that the caller is the guard.
///
/// # Examples
/// ```
/// let witness = sovereign_admission::Admitted::by_guard();
/// assert_eq!(format!("{witness:?}"), "Admitted");
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct Admitted;

impl Admitted {
    /// To be called by the room `guard` once a text is scrubbed.
    #[must_use]
    pub const fn by_guard() -> Self {
        Self
    }
}
