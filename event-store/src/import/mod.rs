//! Brings the table of a `postgres-es` repository into the ledger.
//!
//! The table has no global order, so the import gives it one: by aggregate type, aggregate id (both
//! in the order of their bytes) and sequence. It is read twice in one snapshot: first everything is
//! checked, then what can be taken is written through the ordinary append path. An aggregate is
//! taken whole or not at all; one bad row leaves out its aggregate and no other.
//!
//! A command id is hashed from the table's name, the aggregate, the first sequence and the content
//! of the rows that go into one command. So an import that was cut off or is repeated finds what it
//! has written by its ids alone, goes on behind it, and notices if the rows have been changed since.

mod json;
mod known;
mod report;
mod send;
mod source;
mod take;
mod walk;

use std::collections::HashSet;
use std::fmt;
use std::time::Instant;

use sovereign_schemas::{DepartmentId, Departments, Problem};
use sqlx::PgPool;

pub use report::{ImportProblem, ImportProgress, ImportReport, ImportedType};

use crate::{KeyStore, Ledger, connect};
use source::Source;
use take::Taker;
use walk::Walk;

/// Most rows of one window.
pub(crate) const BATCH_ROWS_MAX: usize = 5_000;

/// What is brought in, and how.
#[derive(Clone)]
pub struct ImportOptions {
    /// `postgres://` URL of the ledger.
    pub ledger: String,
    /// `postgres://` URL of the source.
    pub database: String,
    /// Its table, as `name` or `schema.name`.
    pub table: String,
    /// Aggregate types of the source that are foreign although their names are ours.
    pub foreign: Vec<String>,
    /// Where events of foreign aggregates go.
    pub foreign_department: DepartmentId,
    /// The configured departments.
    pub departments: Departments,
    /// Rows that are looked at together, 1 to 5,000.
    pub batch_rows: usize,
}

/// Without the URL, which can hold a password.
impl fmt::Debug for ImportOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ImportOptions")
            .field("table", &self.table)
            .field("foreign", &self.foreign)
            .field("batch_rows", &self.batch_rows)
            .finish_non_exhaustive()
    }
}

/// Whether anything is written.
#[derive(Debug, Clone)]
pub enum ImportMode {
    /// Only looks.
    DryRun,
    /// Writes.
    Write(Ledger),
}

/// An import that is ready to run.
pub struct Import {
    source: Source,
    taker: Taker,
    /// To look up what is there already.
    known: PgPool,
    mode: ImportMode,
    batch_rows: usize,
}

impl fmt::Debug for Import {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Import")
            .field("table", &self.source.name)
            .field("rows", &self.source.rows)
            .finish_non_exhaustive()
    }
}

impl Import {
    /// Connects to the source and looks at its table.
    ///
    /// # Errors
    /// `invalid-source` if there is no such table or its columns are others; the database's own
    /// codes if it cannot be reached or refuses.
    pub async fn open(
        options: ImportOptions,
        keys: KeyStore,
        mode: ImportMode,
    ) -> Result<Self, Problem> {
        let ImportOptions {
            ledger,
            database,
            table,
            foreign,
            foreign_department,
            departments,
            batch_rows,
        } = options;
        Ok(Self {
            source: Source::open(&database, &table).await?,
            taker: Taker::new(keys, departments, foreign, foreign_department),
            known: connect::pool(&ledger, "sovereign import", 1).map_err(|e| e.problem())?,
            mode,
            batch_rows: batch_rows.clamp(1, BATCH_ROWS_MAX),
        })
    }

    /// Checks everything, then writes what can be taken. Safe to cut off and to repeat.
    ///
    /// # Errors
    /// If a database fails or does not answer for two minutes. What was written until then stays;
    /// the next run goes on behind it. Rows that cannot be taken are no error: the report has them.
    pub async fn run(
        mut self,
        progress: &mut (dyn FnMut(ImportProgress) + Send),
    ) -> Result<ImportReport, Problem> {
        let started = Instant::now();
        let table = self.source.name.clone();
        let pool = self.known.clone();
        let ledger = match &self.mode {
            ImportMode::DryRun => None,
            ImportMode::Write(ledger) => Some(ledger.clone()),
        };
        let mut bad = HashSet::new();
        let checked = {
            let walk = Walk::new(&self.taker, &pool, None, &table, &mut bad);
            walk.run(&mut self.source, self.batch_rows, progress)
                .await?
        };
        let open = checked.types.iter().any(|t| t.imported > 0);
        let mut report = match ledger.as_ref().filter(|_| open) {
            None => checked,
            Some(ledger) => {
                let walk = Walk::new(&self.taker, &pool, Some(ledger), &table, &mut bad);
                let written = walk
                    .run(&mut self.source, self.batch_rows, progress)
                    .await?;
                ImportReport {
                    secrets: checked.secrets,
                    metadata_left_out: checked.metadata_left_out,
                    ..written
                }
            }
        };
        report.table = table;
        report.dry_run = ledger.is_none();
        report.rows = self.source.rows;
        report.columns_left_out = std::mem::take(&mut self.source.columns_left_out);
        report.duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        Ok(report)
    }
}
