use serde_json::{Value, json};
use sovereign_event_store::check_indexes;
use sovereign_replay::{Difference, Expectations, Range, ReplayError, What, verify};
use sovereign_schemas::{ErrorCode, Position, Problem};

use super::source::{Named, Opened, difference_problem, failure, options, state};
use crate::args::VerifyArgs;
use crate::failure::{Failure, Result};
use crate::location::Location;
use crate::output::{Output, Tone};

/// Density, order, chain; equality with a second copy. Exit 3 names the first bad position.
pub(crate) async fn run(location: &Location, output: Output, args: VerifyArgs) -> Result<()> {
    let named = Named::parse(&args.source);
    if args.indexes && named != Named::Ledger {
        return Err(Problem::new(
            ErrorCode::InvalidUsage,
            "only the ledger has indexes to compare",
        )
        .field("--indexes")
        .found(named.label())
        .into());
    }
    let range = Range::new(args.range.from.map(Position), args.range.to.map(Position))
        .map_err(|e| failure(e, &named))?;
    let mut opened = Opened::open(location, &named).await?;
    let end = opened.end().await?;
    // the ledger's head row is a second statement about where it ends
    let head = match args.range.to {
        None => opened.claimed_head().await?,
        Some(_) => None,
    };
    let other = args.against.as_deref().map(Named::parse);
    let mut copy = match &other {
        Some(other) => Some(Opened::open(location, other).await?),
        None => None,
    };
    let length = args.range.to.map(Position).or(end).unwrap_or_default();
    let bar = output.bar(length.0, "verifying");
    let mut progress = |p: Position| bar.set_position(p.0);
    let expectations = Expectations {
        previous_hash: None,
        head,
        noted: args.head.clone(),
        copy: copy.as_mut().map(Opened::log),
    };
    let work = options(&args.work);
    let mut verified = verify(opened.source(), range, expectations, work, &mut progress).await;
    bar.finish_and_clear();
    if let Ok(report) = &verified
        && let Some(difference) = beyond(location, &opened, &args, report.last).await?
    {
        verified = Err(ReplayError::Difference(difference));
    }
    match verified {
        Ok(report) => {
            if output.json {
                let mut value = serde_json::to_value(&report).map_err(crate::failure::internal)?;
                value["ok"] = true.into();
                value["source"] = named.label().into();
                return output.object(&value);
            }
            output.line(format!(
                "{} {}: positions {} to {}, {} aggregates, chain whole, head {}",
                output.paint(Tone::Good, "ok"),
                named.label(),
                report.first,
                report.last,
                report.aggregates,
                report.head.hash,
            ))
        }
        Err(ReplayError::Difference(difference)) => {
            let problem = difference_problem(&difference, &named);
            if output.json {
                let value: Value = json!({ "ok": false, "source": named.label(),
                    "position": difference.position, "what": difference.what.to_string(),
                    "expected": difference.expected, "found": difference.found });
                output.object(&value)?;
                return Err(Failure::Exit(problem.code.exit_code()));
            }
            Err(problem.into())
        }
        Err(error) => Err(failure(error, &named)),
    }
}

/// What only the ledger can be asked, once its chain is whole: where its head row says it ends, and
/// whether its indexes have all rows.
async fn beyond(
    location: &Location,
    opened: &Opened,
    args: &VerifyArgs,
    last: Position,
) -> Result<Option<Difference>> {
    let Opened::Ledger(reader, _) = opened else {
        return Ok(None);
    };
    // head and rows are committed together, so a head that is read later cannot be behind
    let head = reader.head().await.map_err(|e| e.problem())?.position;
    if head < last {
        return Ok(Some(Difference::new(
            head.next(),
            What::Head,
            format!("nothing: the head row ends at {head}"),
            format!("events up to {last}"),
        )));
    }
    if !args.indexes {
        return Ok(None);
    }
    let found = check_indexes(&state(location)?.database)
        .await
        .map_err(|e| e.problem())?;
    Ok(found.map(|found| {
        Difference::new(
            found.position,
            What::Index,
            format!("{}, as the rows say", found.by_scan),
            format!("{}: {}", found.index, found.by_index),
        )
    }))
}
