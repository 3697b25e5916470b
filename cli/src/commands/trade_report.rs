//! What the main job ends with: numbers from the views, and proof that live and replay agree.

use serde_json::{Value, json};
use sovereign_event_store::LedgerReader;
use sovereign_projections::{
    AgentRow, ApprovalRow, ApprovalStatus, ApprovalsFilter, DepartmentRow, Page, TradeTotals,
};
use sovereign_replay::{Options, Range, ReplayReport, replay};
use sovereign_schemas::{Departments, EventLog, Position};

use super::source::{Named, departments, failure, ledger, state};
use super::views::reader;
use crate::client::Client;
use crate::failure::{Failure, Result, internal};
use crate::location::Location;
use crate::output::{Output, Table, Tone};

struct Report {
    departments: Vec<DepartmentRow>,
    agents: Vec<AgentRow>,
    trades: Vec<TradeTotals>,
    waiting: Vec<ApprovalRow>,
    live: Value,
    replayed: ReplayReport,
    equal: bool,
    events_per_s: Option<f64>,
}

pub(super) async fn print(
    location: &Location,
    output: Output,
    client: &Client,
    events_per_s: Option<f64>,
) -> Result<()> {
    let report = gather(location, client, events_per_s).await?;
    let equal = report.equal;
    if output.json {
        output.object(&json!({
            "departments": report.departments, "agents": report.agents, "trades": report.trades,
            "approvals_waiting": report.waiting, "live": report.live, "replayed": report.replayed,
            "digests_equal": report.equal, "events_per_s": report.events_per_s,
        }))?;
    } else {
        show(location, output, &report)?;
    }
    if equal { Ok(()) } else { Err(Failure::Exit(3)) }
}

async fn gather(location: &Location, client: &Client, events_per_s: Option<f64>) -> Result<Report> {
    let reader = reader(location)?;
    let mut snapshot = reader.snapshot().await.map_err(|e| e.problem())?;
    let page = Page {
        after: None,
        limit: 10_000,
    };
    let departments = snapshot.departments().await.map_err(|e| e.problem())?.rows;
    let agents = snapshot.agents(&page).await.map_err(|e| e.problem())?.rows;
    let trades = snapshot.trade_totals().await.map_err(|e| e.problem())?.rows;
    let filter = ApprovalsFilter {
        status: Some(ApprovalStatus::Waiting),
        page,
    };
    let waiting = snapshot
        .approvals(&filter)
        .await
        .map_err(|e| e.problem())?
        .rows;
    let live = client.get("/api/digest").await?;
    let replayed = replay_to(&ledger(&state(location)?).await?, &live).await?;
    let equal = serde_json::to_value(replayed.digests).map_err(internal)? == live["digests"]
        && serde_json::to_value(replayed.head.hash).map_err(internal)? == live["head_hash"];
    Ok(Report {
        departments,
        agents,
        trades,
        waiting,
        live,
        replayed,
        equal,
        events_per_s,
    })
}

/// Replays from zero to where the live digests stand: events may arrive meanwhile.
async fn replay_to(reader: &LedgerReader, live: &Value) -> Result<ReplayReport> {
    let last = live["position"].as_u64().filter(|p| *p > 0).map(Position);
    let range = Range::new(None, last).map_err(|e| failure(e, &Named::Ledger))?;
    let mut log = reader.log();
    let log: &mut dyn EventLog = &mut log;
    replay(log, range, Options::default(), &mut |_| {})
        .await
        .map_err(|e| failure(e, &Named::Ledger))
}

fn show(location: &Location, output: Output, report: &Report) -> Result<()> {
    let departments: Departments = departments(&state(location)?)?;
    let title = |text: &str| output.line(format!("\n{}", output.paint(Tone::Strong, text)));
    title("Events per department")?;
    let mut table = Table::new(["department", "events", "last position"]);
    for row in &report.departments {
        let name = departments.get(row.department).map(|d| d.name.to_string());
        table.row([
            name.unwrap_or_else(|| row.department.to_string()),
            row.events.to_string(),
            row.last_position.to_string(),
        ]);
    }
    table.print(&output)?;
    title("Agents")?;
    let mut table = Table::new(["agent", "state", "thoughts", "observations"]);
    for row in &report.agents {
        table.row([
            row.agent_id.clone(),
            row.state.to_string(),
            row.thoughts.to_string(),
            row.observations.to_string(),
        ]);
    }
    table.print(&output)?;
    title("Trades")?;
    let mut table = Table::new([
        "agent",
        "intents",
        "red",
        "waiting",
        "positions closed",
        "won",
        "lost",
        "profit",
    ]);
    for row in &report.trades {
        let count = |status: &str| row.by_status.get(status).copied().unwrap_or(0).to_string();
        table.row([
            row.agent_id.clone(),
            row.trades.to_string(),
            count("rejected"),
            count("held"),
            count("concluded"),
            row.won.to_string(),
            row.lost.to_string(),
            format!("{} {}", row.profit, row.currency),
        ]);
    }
    table.print(&output)?;
    title("Approvals waiting")?;
    let shown = 10;
    let mut table = Table::new(["approval", "amount", "expires"]);
    for row in report.waiting.iter().take(shown) {
        table.row([
            row.approval_id.clone(),
            format!("{} {}", row.amount, row.currency),
            row.expires_at.to_string(),
        ]);
    }
    table.print(&output)?;
    if report.waiting.len() > shown {
        output.line(format!(
            "… and {} more: sovereign approvals list",
            report.waiting.len() - shown
        ))?;
    }
    proof(location, output, report)
}

fn proof(location: &Location, output: Output, report: &Report) -> Result<()> {
    let head = &report.replayed.head;
    output.line(format!("\n{}", output.paint(Tone::Strong, "Proof")))?;
    output.line(format!("chain head    {} {}", head.position, head.hash))?;
    output.line(format!(
        "live digest   {}",
        report.live["digests"]["all"].as_str().unwrap_or("-")
    ))?;
    let verdict = if report.equal {
        output.paint(Tone::Good, "equal")
    } else {
        output.paint(Tone::Bad, "DIFFERENT")
    };
    output.line(format!(
        "replay digest {} {verdict}",
        report.replayed.digests.all
    ))?;
    if let Some(rate) = report.events_per_s {
        output.line(format!("events/s      {rate:.0}"))?;
    }
    where_next(location, output)
}

/// Commands as they can be typed here: with the path of this program and its data folder.
fn where_next(location: &Location, output: Output) -> Result<()> {
    let program = std::env::args()
        .next()
        .unwrap_or_else(|| "sovereign".to_owned());
    let own = std::path::absolute(".sovereign").is_ok_and(|own| own == location.folder);
    let data = if own {
        String::new()
    } else {
        format!(" --data {}", location.folder.display())
    };
    output.line(format!(
        "\n{}",
        output.paint(Tone::Strong, "Where to look next")
    ))?;
    output.line(format!("(sovereign is {program})"))?;
    let width = 36 + data.chars().count();
    for (command, what) in [
        ("status", "how every part is"),
        ("log --department trader", "what the traders thought"),
        ("log --follow", "what happens now, from Kafka"),
        ("approvals list", "what waits for a human"),
        (
            "verify --against kafka",
            "ledger and topics, event by event",
        ),
    ] {
        let line = format!("sovereign {command}{data}");
        output.line(format!("  {line:width$}{what}"))?;
    }
    Ok(())
}
