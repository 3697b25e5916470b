//! Views: pure folds with their tables.
//!
//! A [`View`] folds events into rows and does nothing else: no clock, random number, network or
//! database (I6). The [`Projector`] runs one task a view, which takes events from a
//! [`sovereign_schemas::Tail`], folds them, and writes changed rows and the view's checkpoint in
//! one transaction (I5). [`ViewsStore`] owns the tables, [`ViewsReader`] reads them, and
//! [`check_view_equals_fold`] says whether a view is what the log says it must be.
//!
//! Tables carry the version of their view (`views.agents_v1`); `views.agents` and its like show
//! the version that serves.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod database;
mod error;
mod invariant;
mod port;
mod projector;
mod reader;
mod set;
mod store;
#[doc(hidden)]
pub mod table;
mod view;
mod views;

#[cfg(test)]
#[path = "../tests/support/chain.rs"]
mod chain;

pub use error::{DatabaseError, DatabaseFault, ProjectionError};
pub use invariant::{CheckError, ViewDifference, check_view_equals_fold, fold_log};
pub use port::{Checkpoint, Role, ViewDatabase};
pub use projector::{
    Activity, Progress, Projector, ProjectorHandle, ViewHealth, ViewWatch, ViewsHealth,
    ViewsOptions, run_view,
};
pub use reader::{
    ApprovalsFilter, Listing, Page, PasskeysFilter, TradeTotals, TradesFilter, ViewsReader,
    ViewsSnapshot,
};
pub(crate) use set::Definition;
pub use set::ViewSet;
pub use store::{Build, Switched, ViewsStore};
pub use view::{FoldError, View};
pub use views::{
    AgentRow, Agents, ApprovalRow, ApprovalStatus, Approvals, DepartmentRow, Departments,
    PasskeyRow, Passkeys, TradeRow, TradeStatus, Trades, VIEW_NAMES,
};
