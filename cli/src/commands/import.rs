use sovereign_event_store::{
    Import, ImportMode, ImportOptions, ImportProgress, ImportReport, Ledger, LedgerOptions,
};
use sovereign_schemas::DepartmentId;

use super::source::{departments, state};
use crate::args::{ImportCommand, PostgresEsArgs};
use crate::failure::{Failure, Result};
use crate::location::Location;
use crate::output::{Output, Table, Tone};
use crate::reveal::key_store;

/// Brings the events of another store into the ledger. Writes as a process of its own, beside the
/// engine if one runs: any number of them may write to one ledger.
pub(crate) async fn run(location: &Location, output: Output, command: ImportCommand) -> Result<()> {
    let ImportCommand::PostgresEs(args) = command;
    let report = postgres_es(location, output, args).await?;
    if output.json {
        output.object(&report)?;
    } else {
        print(output, &report)?;
    }
    // what could not be understood weighs more than what stands otherwise in the ledger
    match (report.has_invalid(), report.is_complete()) {
        (true, _) => Err(Failure::Exit(2)),
        (false, false) => Err(Failure::Exit(1)),
        (false, true) => Ok(()),
    }
}

async fn postgres_es(
    location: &Location,
    output: Output,
    args: PostgresEsArgs,
) -> Result<ImportReport> {
    let state = state(location)?;
    let departments = departments(&state)?;
    let foreign_department = match &args.department {
        Some(name) => departments.find(name)?.id,
        None => DepartmentId::HISTORIAN,
    };
    let keys = key_store(location, &state)?;
    let mode = if args.dry_run {
        ImportMode::DryRun
    } else {
        let mut options = LedgerOptions::new(&state.database, departments.clone());
        // nobody follows this process
        options.ring_events_max = 0;
        options.ring_bytes_max = 0;
        ImportMode::Write(Ledger::open(options).await.map_err(|e| e.problem())?)
    };
    let options = ImportOptions {
        ledger: state.database.clone(),
        database: args.database,
        table: args.table,
        foreign: args.foreign,
        foreign_department,
        departments,
        batch_rows: args.batch as usize,
    };
    let import = Import::open(options, keys, mode.clone()).await?;
    let bar = output.bar(0, "checking");
    let mut progress = |at: ImportProgress| {
        bar.set_message(if at.writing { "importing" } else { "checking" });
        bar.set_length(at.of);
        bar.set_position(at.rows);
    };
    let report = import.run(&mut progress).await;
    bar.finish_and_clear();
    if let ImportMode::Write(ledger) = mode {
        ledger.close().await;
    }
    Ok(report?)
}

fn print(output: Output, report: &ImportReport) -> Result<()> {
    let imported = if report.dry_run {
        "to import"
    } else {
        "imported"
    };
    let mut table = Table::new([
        "type",
        "kind",
        "aggregates",
        "rows",
        imported,
        "already",
        "conflict",
        "invalid",
    ]);
    for of in &report.types {
        table.row([
            of.source_type.clone(),
            if of.native { "native" } else { "foreign" }.to_owned(),
            of.aggregates.to_string(),
            of.rows.to_string(),
            of.imported.to_string(),
            of.already_imported.to_string(),
            of.conflict.to_string(),
            of.invalid.to_string(),
        ]);
    }
    table.print(&output)?;
    for problem in &report.problems {
        output.line(format!(
            "{} {}/{} at sequence {}: {}",
            output.paint(Tone::Bad, "left out"),
            problem.aggregate_type,
            problem.aggregate_id,
            problem.sequence,
            problem.problem,
        ))?;
    }
    if report.problems_left_out > 0 {
        output.line(format!("and {} more", report.problems_left_out))?;
    }
    for (label, count) in &report.secrets {
        output.line(format!("cut out: {label} {count}"))?;
    }
    if report.metadata_left_out > 0 {
        output.line(format!(
            "metadata left out: {} rows of native aggregates",
            report.metadata_left_out
        ))?;
    }
    if !report.columns_left_out.is_empty() {
        output.line(format!(
            "columns left out: {}",
            report.columns_left_out.join(", ")
        ))?;
    }
    let (tone, word) = match (report.is_complete(), report.dry_run) {
        (true, true) => (Tone::Good, "ok, nothing written"),
        (true, false) => (Tone::Good, "ok"),
        (false, true) => (Tone::Bad, "incomplete, nothing written"),
        (false, false) => (Tone::Bad, "incomplete"),
    };
    let written = match report.positions {
        Some((first, last)) => format!(", positions {first} to {last}"),
        None => String::new(),
    };
    output.line(format!(
        "{} {}: {} rows{written}",
        output.paint(tone, word),
        report.table,
        report.rows
    ))
}
