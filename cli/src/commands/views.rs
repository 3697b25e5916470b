use serde::Serialize;
use serde_json::json;
use sovereign_projections::{
    ApprovalsFilter, Build, Listing, Page, PasskeysFilter, Role, Switched, TradesFilter,
    ViewsReader, ViewsStore,
};

use super::source::state;
use crate::args::{ViewName, ViewsCommand};
use crate::client::Client;
use crate::failure::Result;
use crate::location::Location;
use crate::output::{Output, Table};

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
                "view {name} is built again from position 1; its rows serve until that has caught up"
            ))
        }
        ViewsCommand::List => list(location, output).await,
        ViewsCommand::Rollback { view, stale } => {
            let switched = store(location)?.rollback(name(view), stale).await;
            print_switch(output, &switched.map_err(|e| e.problem())?)
        }
        ViewsCommand::Switch { view, to, stale } => {
            let switched = store(location)?.switch(name(view), to, stale).await;
            print_switch(output, &switched.map_err(|e| e.problem())?)
        }
        ViewsCommand::Drop {
            view,
            only,
            at_once,
        } => {
            let dropped = store(location)?
                .drop_kept(name(view), only, at_once)
                .await
                .map_err(|e| e.problem())?;
            print_dropped(output, name(view), &dropped)
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
        ViewName::Passkeys => "passkeys",
    }
}

pub(crate) fn reader(location: &Location) -> Result<ViewsReader> {
    Ok(ViewsReader::new(&state(location)?.database).map_err(|e| e.problem())?)
}

fn store(location: &Location) -> Result<ViewsStore> {
    Ok(ViewsStore::new(&state(location)?.database).map_err(|e| e.problem())?)
}

const fn role(build: &Build) -> &'static str {
    match build.role {
        Role::Serving => "serving",
        Role::Next => "building",
        Role::Kept => "kept",
    }
}

async fn list(location: &Location, output: Output) -> Result<()> {
    let builds = store(location)?.builds().await.map_err(|e| e.problem())?;
    if output.json {
        return builds.iter().try_for_each(|build| output.object(build));
    }
    let mut table = Table::new(["view", "version", "build", "state", "position"]);
    for build in &builds {
        table.row([
            build.view.clone(),
            build.version.to_string(),
            build.generation.to_string(),
            role(build).to_owned(),
            build.position.to_string(),
        ]);
    }
    table.print(&output)
}

fn print_switch(output: Output, switched: &Switched) -> Result<()> {
    let Switched { from, to } = switched;
    if output.json {
        return output.object(switched);
    }
    output.line(format!(
        "view {}: version {} serves, as of position {}; version {} is kept, as of {}",
        to.view, to.version, to.position, from.version, from.position
    ))
}

fn print_dropped(output: Output, view: &str, dropped: &[Build]) -> Result<()> {
    if output.json {
        return dropped.iter().try_for_each(|build| output.object(build));
    }
    for build in dropped {
        output.line(format!(
            "view {view}: version {} build {} is dropped",
            build.version, build.generation
        ))?;
    }
    if dropped.is_empty() {
        output.line(format!("view {view}: nothing is kept"))?;
    }
    Ok(())
}

/// One snapshot, so that all rows are of one position.
async fn show(location: &Location, output: Output, view: ViewName) -> Result<()> {
    let reader = reader(location)?;
    let mut snapshot = reader.snapshot().await.map_err(|e| e.problem())?;
    let serving = snapshot
        .serving(name(view))
        .await
        .map_err(|e| e.problem())?;
    let mut page = Page {
        after: None,
        limit: 10_000,
    };
    output.hint(format!(
        "version {} as of position {}",
        serving.version, serving.position
    ));
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
            ViewName::Passkeys => {
                let filter = PasskeysFilter {
                    revoked: true,
                    page: page.clone(),
                    ..PasskeysFilter::default()
                };
                let listing = snapshot.passkeys(&filter).await.map_err(|e| e.problem())?;
                print(output, &listing, |row| row.passkey_id.clone())?
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
