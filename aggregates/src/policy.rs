//! The policy that says when a human is asked.

use sovereign_schemas::Decimal;

/// Version of the rules below; recorded with every decision that rests on them.
pub const VERSION: i32 = 1;
/// A request nobody answers expires after so many seconds.
pub const APPROVAL_TTL_S: i64 = 3_600;

/// An amount above this needs approval; up to and including it is automatic.
#[must_use]
pub fn automatic_amount_max() -> Decimal {
    Decimal::from_int(1_000)
}

/// What `TradeAuthorized` and `ExecutionCleared` name when the policy alone authorized.
#[must_use]
pub fn authority() -> String {
    format!("policy:{VERSION}")
}

/// Whether a human must approve this amount.
///
/// # Examples
/// ```
/// use sovereign_aggregates::policy::needs_approval;
/// assert!(!needs_approval("1000".parse()?));
/// assert!(needs_approval("1000.01".parse()?));
/// # Ok::<(), sovereign_schemas::DecimalError>(())
/// ```
#[must_use]
pub fn needs_approval(amount: Decimal) -> bool {
    amount > automatic_amount_max()
}
