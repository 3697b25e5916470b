use std::collections::BTreeMap;

use serde::Serialize;
use sovereign_schemas::{ErrorCode, Position, Problem};

/// Problems that a report lists; more are counted.
const PROBLEMS_MAX: usize = 1_000;
/// Aggregate types of one table.
const TYPES_MAX: usize = 10_000;

/// What an import did, or would do.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ImportReport {
    /// The table, as `schema.name`.
    pub table: String,
    /// Nothing was written.
    pub dry_run: bool,
    /// Rows of the table.
    pub rows: u64,
    /// By aggregate type of the source, in the order of their names.
    pub types: Vec<ImportedType>,
    /// Secrets that were cut out of the rows to import, by label.
    pub secrets: BTreeMap<String, u64>,
    /// Rows of native aggregates whose metadata is left out: their events have no place for it.
    pub metadata_left_out: u64,
    /// Columns that are left out.
    pub columns_left_out: Vec<String>,
    /// Why aggregates were left out; at most 1,000.
    pub problems: Vec<ImportProblem>,
    /// Problems beyond those listed.
    pub problems_left_out: u64,
    /// First and last position that was written; other commands may stand between them.
    pub positions: Option<(Position, Position)>,
    /// How long it took, milliseconds.
    pub duration_ms: u64,
}

/// The rows of one aggregate type of the source. Each row is counted once, under one of
/// `imported`, `already_imported`, `conflict` and `invalid`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ImportedType {
    /// Its name in the source.
    pub source_type: String,
    /// Its events are ours, not foreign ones.
    pub native: bool,
    /// Aggregates.
    pub aggregates: u64,
    /// Rows.
    pub rows: u64,
    /// Rows that were written; in a dry run, that would be.
    pub imported: u64,
    /// Rows that an earlier import has written.
    pub already_imported: u64,
    /// Rows of aggregates whose history in the ledger is another.
    pub conflict: u64,
    /// Rows of aggregates that hold a row which cannot be taken.
    pub invalid: u64,
}

/// Why an aggregate was left out.
#[derive(Debug, Clone, Serialize)]
pub struct ImportProblem {
    /// Its type in the source.
    pub aggregate_type: String,
    /// Its id in the source, scrubbed.
    pub aggregate_id: String,
    /// The first sequence that is wrong.
    pub sequence: i64,
    /// What is wrong: `version-conflict` for another history in the ledger.
    pub problem: Problem,
}

/// How far an import is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImportProgress {
    /// Rows are being written; before, they are being checked.
    pub writing: bool,
    /// Rows done.
    pub rows: u64,
    /// Rows in all.
    pub of: u64,
}

impl ImportReport {
    /// Whether every row is in the ledger now, or would be.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.types.iter().all(|t| t.conflict + t.invalid == 0)
    }

    /// Whether any row could not be taken for what it is.
    #[must_use]
    pub fn has_invalid(&self) -> bool {
        self.types.iter().any(|t| t.invalid > 0)
    }

    /// Index of a type; rows of one type come together.
    pub(super) fn of_type(&mut self, source_type: &str, native: bool) -> Result<usize, Problem> {
        let known = self
            .types
            .last()
            .is_some_and(|t| t.source_type == source_type);
        if !known {
            if self.types.len() == TYPES_MAX {
                return Err(Problem::new(
                    ErrorCode::InvalidSource,
                    format!("the table has more than {TYPES_MAX} aggregate types"),
                ));
            }
            self.types.push(ImportedType {
                source_type: source_type.to_owned(),
                native,
                ..ImportedType::default()
            });
        }
        Ok(self.types.len() - 1)
    }

    pub(super) fn problem(&mut self, problem: ImportProblem) {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(problem);
        } else {
            self.problems_left_out += 1;
        }
    }

    pub(super) fn wrote(&mut self, first: Position, last: Position) {
        let (from, to) = self.positions.unwrap_or((first, last));
        self.positions = Some((from.min(first), to.max(last)));
    }
}
