use sovereign_replay::export;
use sovereign_schemas::{ErrorCode, Position, Problem};

use super::source::{Named, Opened, failure};
use crate::args::ExportArgs;
use crate::failure::Result;
use crate::location::Location;
use crate::output::{Output, Tone};

/// Writes a recorded file from the ledger; whole or not at all.
pub(crate) async fn run(location: &Location, output: Output, args: ExportArgs) -> Result<()> {
    if args.file.exists() {
        return Err(Problem::new(
            ErrorCode::InvalidUsage,
            "file exists; nothing is overwritten",
        )
        .found(args.file.display().to_string())
        .remedy("choose another name, or remove the file")
        .into());
    }
    let mut opened = Opened::open(location, &Named::Ledger).await?;
    let head = opened.end().await?.unwrap_or_default();
    let first = Position(args.range.from.unwrap_or(1));
    let last = args.range.to.map_or(head, Position);
    if last > head || first.0 > head.0 + 1 || first > last.next() {
        return Err(
            Problem::new(ErrorCode::InvalidRange, "the ledger has no such range")
                .found(format!("{first} to {last}"))
                .expected(format!("positions from 1 to {head}"))
                .into(),
        );
    }
    let bar = output.bar(last.0 + 1 - first.0, "exporting");
    let mut progress = |p: Position| bar.set_position(p.0 + 1 - first.0);
    let info = export(opened.log(), &args.file, first, last, &mut progress)
        .await
        .map_err(|e| failure(e, &Named::Ledger))?;
    bar.finish_and_clear();
    let bytes = std::fs::metadata(&args.file)
        .map(|m| m.len())
        .unwrap_or_default();
    if output.json {
        return output.object(&serde_json::json!({
            "file": args.file, "first": info.first, "last": info.last,
            "previous_hash": info.previous_hash, "last_hash": info.last_hash, "bytes": bytes,
        }));
    }
    output.line(format!(
        "{} {}: positions {} to {}, {bytes} bytes",
        output.paint(Tone::Good, "exported"),
        args.file.display(),
        info.first,
        info.last,
    ))
}
