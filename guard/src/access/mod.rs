//! Who may come in, and how often: hashes of credentials, and rate limits.

mod credential;
mod rate;

pub use credential::CredentialKey;
pub use rate::{Rate, RateLimiter};
