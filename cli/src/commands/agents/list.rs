use sovereign_projections::Page;

use crate::commands::views::reader;
use crate::failure::Result;
use crate::location::Location;
use crate::output::{Output, Table};

/// All agents, with the state of their machines.
pub(crate) async fn run(location: &Location, output: Output) -> Result<()> {
    let reader = reader(location)?;
    let mut snapshot = reader.snapshot().await.map_err(|e| e.problem())?;
    let mut page = Page {
        after: None,
        limit: 1_000,
    };
    let mut table = Table::new([
        "agent",
        "department",
        "role",
        "state",
        "thoughts",
        "observations",
        "refused",
    ]);
    loop {
        let listing = snapshot.agents(&page).await.map_err(|e| e.problem())?;
        for row in &listing.rows {
            if output.json {
                output.object(row)?;
                continue;
            }
            table.row([
                row.agent_id.clone(),
                row.department.to_string(),
                row.role.clone(),
                row.state.to_string(),
                row.thoughts.to_string(),
                row.observations.to_string(),
                row.transitions_refused.to_string(),
            ]);
        }
        page.after = listing
            .rows
            .last()
            .filter(|_| listing.more)
            .map(|r| r.agent_id.clone());
        if page.after.is_none() {
            break;
        }
    }
    if output.json {
        Ok(())
    } else {
        table.print(&output)
    }
}
