use sovereign_replay::{Range, replay};
use sovereign_schemas::{ErrorCode, Position, Problem};

use super::source::{Named, Opened, failure, options};
use crate::args::ReplayArgs;
use crate::failure::Result;
use crate::location::Location;
use crate::output::{Output, Table, Tone};

/// Folds a range through the same code as live, and prints digests and rate.
pub(crate) async fn run(location: &Location, output: Output, args: ReplayArgs) -> Result<()> {
    let named = Named::parse(&args.source);
    if args.offline && !matches!(named, Named::File(_)) {
        return Err(Problem::new(
            ErrorCode::InvalidUsage,
            "--offline needs a recorded file: this source is a server",
        )
        .field("--source")
        .found(&args.source)
        .remedy("write a file with sovereign export FILE, then replay that")
        .into());
    }
    let range = Range::new(args.range.from.map(Position), args.range.to.map(Position))
        .map_err(|e| failure(e, &named))?;
    let mut opened = Opened::open(location, &named).await?;
    let length = match args.range.to {
        Some(to) => to,
        None => opened.end().await?.unwrap_or_default().0,
    };
    let bar = output.bar(length, "replaying");
    let mut progress = |p: Position| bar.set_position(p.0);
    let report = replay(opened.source(), range, options(&args.work), &mut progress)
        .await
        .map_err(|e| failure(e, &named))?;
    bar.finish_and_clear();
    let rerun = match args.sinks {
        Some(_) => {
            let to = Some(report.last);
            Some(super::rerun::run(location, &named, args.offline, to).await?)
        }
        None => None,
    };
    if output.json {
        let mut value = serde_json::to_value(&report).map_err(crate::failure::internal)?;
        value["source"] = named.label().into();
        if let Some(rerun) = &rerun {
            value["jobs"] = serde_json::to_value(rerun).map_err(crate::failure::internal)?;
        }
        return output.object(&value);
    }
    output.line(format!(
        "{} {} to {} of {}, {} aggregates, {} events/s",
        output.paint(Tone::Good, "replayed"),
        report.first,
        report.last,
        named.label(),
        report.aggregates,
        report.events_per_s,
    ))?;
    if report.partial {
        output.hint("the range does not start at 1: states started empty");
    }
    let mut table = Table::new(["digest", "sha-256"]);
    table.row(["agent".into(), report.digests.agent.to_string()]);
    table.row(["trade".into(), report.digests.trade.to_string()]);
    table.row(["approval".into(), report.digests.approval.to_string()]);
    if let Some(imported) = report.digests.imported {
        table.row(["imported".into(), imported.to_string()]);
    }
    if let Some(policy) = report.digests.policy {
        table.row(["policy".into(), policy.to_string()]);
    }
    if let Some(approver) = report.digests.approver {
        table.row(["approver".into(), approver.to_string()]);
    }
    if let Some(job) = report.digests.job {
        table.row(["job".into(), job.to_string()]);
    }
    if let Some(schedules) = report.digests.schedules {
        table.row(["schedules".into(), schedules.to_string()]);
    }
    table.row(["all".into(), report.digests.all.to_string()]);
    table.row(["chain head".into(), report.head.hash.to_string()]);
    if let Some(rerun) = &rerun {
        table.row(["decisions recorded".into(), rerun.recorded.to_string()]);
        table.row(["decisions now".into(), rerun.decided.to_string()]);
        output.hint(format!(
            "{} jobs decided again with recorded sinks: {} effects ({} without a recorded outcome), {} ends",
            rerun.jobs, rerun.effects, rerun.open, rerun.ends
        ));
    }
    table.print(&output)
}
