//! The views that ship.

mod agents;
mod approvals;
mod departments;
mod passkeys;
mod trades;

pub use agents::{AgentRow, Agents};
pub use approvals::{ApprovalRow, ApprovalStatus, Approvals};
pub use departments::{DepartmentRow, Departments};
pub use passkeys::{PasskeyRow, Passkeys};
pub use trades::{TradeRow, TradeStatus, Trades};

use crate::View as _;

/// The views, in the order in which people list them.
pub const VIEW_NAMES: [&str; 5] = [
    Agents::NAME,
    Trades::NAME,
    Approvals::NAME,
    Departments::NAME,
    Passkeys::NAME,
];

#[cfg(test)]
mod tests;
