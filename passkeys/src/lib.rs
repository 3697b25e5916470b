//! Passkeys: verifies registrations and assertions as W3C Web Authentication Level 3 describes
//! them (sections 7.1 and 7.2), and derives the challenge that makes an authenticator sign an
//! exact action.
//!
//! Pure: no clock, no network, no state. Who verifies says which relying party, which challenge
//! and which credential are expected; whatever is remembered between two assertions (the sign
//! counter, that an approval was used) is the caller's.
//!
//! # Examples
//! ```
//! use sovereign_passkeys::{RelyingParty, Terms};
//! let party = RelyingParty::new("localhost", &["http://localhost:8080"])?;
//! let terms = Terms {
//!     approval_id: "approval_1",
//!     action_digest: [7; 32],
//!     policy_version: 2,
//!     expires_at_us: 1_700_000_000_000_000,
//! };
//! // one cent more is another action, so another challenge
//! let other = Terms { action_digest: [8; 32], ..terms };
//! assert_ne!(terms.challenge(), other.challenge());
//! assert_eq!(party.id(), "localhost");
//! # Ok::<(), sovereign_passkeys::RelyingPartyError>(())
//! ```

mod assertion;
mod authenticator;
mod bytes;
mod client;
mod key;
mod party;
mod registration;
#[cfg(any(test, feature = "soft"))]
#[allow(clippy::unwrap_used, clippy::missing_panics_doc)]
pub mod soft;
mod terms;
#[cfg(test)]
mod tests;

pub use assertion::{Assertion, AssertionError, Verified};
pub use authenticator::AuthenticatorDataError;
pub use bytes::Base64Url;
pub use client::ClientDataError;
pub use key::{Algorithm, KeyError, PublicKey};
pub use party::{RelyingParty, RelyingPartyError};
pub use registration::{Credential, Registration, RegistrationError};
pub use terms::{Challenge, Terms};
