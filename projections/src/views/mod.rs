//! The views that ship.

mod agents;
mod approvals;
mod departments;
mod trades;

pub use agents::{AgentRow, Agents};
pub use approvals::{ApprovalRow, ApprovalStatus, Approvals};
pub use departments::{DepartmentRow, Departments};
pub use trades::{TradeRow, TradeStatus, Trades};

use crate::View as _;

/// The views, in the order in which people list them.
pub const VIEW_NAMES: [&str; 4] = [
    Agents::NAME,
    Trades::NAME,
    Approvals::NAME,
    Departments::NAME,
];

/// Calls a generic function for the view of a name.
macro_rules! with_view {
    ($name:expr, $view:ident => $body:expr) => {{
        use $crate::View as _;
        match $name {
            $crate::Agents::NAME => {
                type $view = $crate::Agents;
                Ok($body)
            }
            $crate::Trades::NAME => {
                type $view = $crate::Trades;
                Ok($body)
            }
            $crate::Approvals::NAME => {
                type $view = $crate::Approvals;
                Ok($body)
            }
            $crate::Departments::NAME => {
                type $view = $crate::Departments;
                Ok($body)
            }
            other => Err($crate::ProjectionError::UnknownView(other.to_owned())),
        }
    }};
}
pub(crate) use with_view;

#[cfg(test)]
mod tests;
