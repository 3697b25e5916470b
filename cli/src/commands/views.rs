use serde::Serialize;
use serde_json::json;
use sovereign_projections::{ApprovalsFilter, Listing, Page, TradesFilter, ViewsReader};

use super::source::state;
use crate::args::{ViewName, ViewsCommand};
use crate::client::Client;
use crate::failure::Result;
use crate::location::Location;
use crate::output::Output;

pub(crate) async fn run(location: &Location, output: Output, command: ViewsCommand) -> Result<()> {
    match command {
        ViewsCommand::Rebuild { view } => {
            let name = name(view);
            let client = Client::connect(location)?;
            let answer = client
                .post(&format!("/api/views/{name}/rebuild"), &json!({}))
                .await?;
            if output.json {
                return output.object(&answer);
            }
            output.line(format!(
                "view {name} is empty and folds again from position 1"
            ))
        }
        ViewsCommand::Show { view } => show(location, output, view).await,
    }
}

pub(crate) const fn name(view: ViewName) -> &'static str {
    match view {
        ViewName::Agents => "agents",
        ViewName::Trades => "trades",
        ViewName::Approvals => "approvals",
        ViewName::Departments => "departments",
    }
}

pub(crate) fn reader(location: &Location) -> Result<ViewsReader> {
    Ok(ViewsReader::new(&state(location)?.database).map_err(|e| e.problem())?)
}

/// One snapshot, so that all rows are of one position.
async fn show(location: &Location, output: Output, view: ViewName) -> Result<()> {
    let reader = reader(location)?;
    let mut snapshot = reader.snapshot().await.map_err(|e| e.problem())?;
    let mut page = Page {
        after: None,
        limit: 10_000,
    };
    loop {
        page.after = match view {
            ViewName::Agents => {
                let listing = snapshot.agents(&page).await.map_err(|e| e.problem())?;
                print(output, &listing, |row| row.agent_id.clone())?
            }
            ViewName::Trades => {
                let filter = TradesFilter {
                    page: page.clone(),
                    ..TradesFilter::default()
                };
                let listing = snapshot.trades(&filter).await.map_err(|e| e.problem())?;
                print(output, &listing, |row| row.trade_id.clone())?
            }
            ViewName::Approvals => {
                let filter = ApprovalsFilter {
                    page: page.clone(),
                    ..ApprovalsFilter::default()
                };
                let listing = snapshot.approvals(&filter).await.map_err(|e| e.problem())?;
                print(output, &listing, |row| row.approval_id.clone())?
            }
            ViewName::Departments => {
                let listing = snapshot.departments().await.map_err(|e| e.problem())?;
                print(output, &listing, |row| row.department.to_string())?
            }
        };
        if page.after.is_none() {
            return Ok(());
        }
    }
}

/// Prints rows as NDJSON; the key after which more rows follow.
fn print<R: Serialize>(
    output: Output,
    listing: &Listing<R>,
    key: impl Fn(&R) -> String,
) -> Result<Option<String>> {
    for row in &listing.rows {
        output.object(row)?;
    }
    Ok(listing.rows.last().filter(|_| listing.more).map(key))
}
