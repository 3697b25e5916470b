//! I5: a view's rows equal the fold of events 1 to its checkpoint.

use std::collections::BTreeMap;

use serde_json::Value;
use sovereign_schemas::{Cursor, Digest, ErrorCode, EventLog, LogError, Position, Problem};

use crate::view::Batch;
use crate::{FoldError, View};

/// Events read from the log at a time.
const READ_EVENTS_MAX: usize = 2_000;

/// The first row in which a view differs from the fold. Names columns, never values.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("view {view} at position {position}: row {key} {what}")]
pub struct ViewDifference {
    /// The view.
    pub view: &'static str,
    /// The checkpoint that was checked.
    pub position: Position,
    /// The row.
    pub key: String,
    /// Whether it is missing, is too many, or which columns differ.
    pub what: String,
}

/// Why a check says no, or cannot say anything.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The view is not what it must be.
    #[error(transparent)]
    Difference(#[from] ViewDifference),
    /// The view stands on another event than the log has there.
    #[error("view {view} stands on hash {found} at position {position}; the log has {expected}")]
    Hash {
        /// The view.
        view: &'static str,
        /// Its checkpoint.
        position: Position,
        /// In the log.
        expected: Digest,
        /// In the view's checkpoint.
        found: Digest,
    },
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The fold fails, so there is nothing to compare with.
    #[error("position {position}: {cause}")]
    Fold {
        /// Of the event.
        position: Position,
        /// Why.
        cause: FoldError,
    },
    /// The view cannot be read.
    #[error(transparent)]
    View(#[from] crate::ProjectionError),
}

impl CheckError {
    /// The stable name.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::Difference(_) => ErrorCode::VerificationDifference,
            Self::Hash { .. } => ErrorCode::LedgerDiverged,
            Self::Log(LogError::Unreachable(_)) => ErrorCode::DatabaseUnreachable,
            Self::Log(LogError::Malformed { .. }) => ErrorCode::DecodeFailed,
            Self::Log(_) => ErrorCode::VerificationDifference,
            Self::Fold { .. } => ErrorCode::ProjectionFailed,
            Self::View(cause) => cause.code(),
        }
    }

    /// As callers see it.
    #[must_use]
    pub fn problem(&self) -> Problem {
        let problem = Problem::new(self.code(), self.to_string());
        match self {
            Self::Difference(_) => problem.remedy("verify the ledger, then rebuild the view"),
            _ => problem,
        }
    }
}

/// Folds events 1 to `to` from nothing. Also returns the hash of the last one.
///
/// # Errors
/// [`CheckError::Log`], also if the log ends before `to`, or [`CheckError::Fold`].
pub async fn fold_log<V: View>(
    log: &mut dyn EventLog,
    to: Position,
) -> Result<(BTreeMap<V::Key, V::Row>, Digest), CheckError> {
    let mut rows: BTreeMap<V::Key, V::Row> = BTreeMap::new();
    let mut cursor = Cursor::default();
    let mut hash = Digest::ZERO;
    while cursor.position < to {
        let left = to.0 - cursor.position.0;
        let limit = usize::try_from(left)
            .unwrap_or(usize::MAX)
            .min(READ_EVENTS_MAX);
        let (events, next) = log.read(cursor, limit).await?;
        let Some(last) = events.last() else {
            return Err(LogError::Gap {
                expected: cursor.position.next(),
                found: to,
            }
            .into());
        };
        hash = last.hash;
        let events: Vec<&_> = events.iter().collect();
        let mut batch = Batch::<V>::plan(&events, |key| rows.get(key).cloned());
        if let (folded, Some(cause)) = batch.fold(&events) {
            return Err(CheckError::Fold {
                position: events[folded].position(),
                cause,
            });
        }
        rows.extend(
            batch
                .into_changed()
                .into_iter()
                .map(|row| (V::row_key(&row), row)),
        );
        cursor = next;
    }
    Ok((rows, hash))
}

/// I5: `rows`, which a view holds at checkpoint `position`, equal the fold of events 1 to there.
///
/// # Errors
/// [`CheckError::Difference`] naming the first row, by key, that is missing, too many or
/// different; otherwise as [`fold_log`].
pub async fn check_view_equals_fold<V: View>(
    log: &mut dyn EventLog,
    position: Position,
    rows: &[V::Row],
) -> Result<(), CheckError> {
    let (expected, _) = fold_log::<V>(log, position).await?;
    Ok(compare::<V>(position, expected, rows)?)
}

/// As [`check_view_equals_fold`], with the fold at hand.
pub(crate) fn compare<V: View>(
    position: Position,
    mut expected: BTreeMap<V::Key, V::Row>,
    rows: &[V::Row],
) -> Result<(), ViewDifference> {
    let found: BTreeMap<V::Key, &V::Row> = rows.iter().map(|r| (V::row_key(r), r)).collect();
    let difference = |key: &V::Key, what: String| ViewDifference {
        view: V::NAME,
        position,
        key: format!("{key:?}"),
        what,
    };
    if found.len() != rows.len() {
        let twice = rows.iter().map(V::row_key).min();
        return twice.map_or(Ok(()), |key| {
            Err(difference(&key, "or another stands twice".into()))
        });
    }
    for (key, row) in found {
        match expected.remove(&key) {
            None => return Err(difference(&key, "is too many".to_owned())),
            Some(right) if right != *row => {
                return Err(difference(&key, differing_columns(&right, row)));
            }
            Some(_) => {}
        }
    }
    match expected.into_keys().next() {
        Some(key) => Err(difference(&key, "is missing".to_owned())),
        None => Ok(()),
    }
}

fn differing_columns<R: serde::Serialize>(expected: &R, found: &R) -> String {
    let columns = |row| match serde_json::to_value(row) {
        Ok(Value::Object(columns)) => columns,
        _ => serde_json::Map::new(),
    };
    let found = columns(found);
    let names: Vec<String> = columns(expected)
        .into_iter()
        .filter(|(name, value)| found.get(name) != Some(value))
        .map(|(name, _)| name)
        .collect();
    format!("differs in {}", names.join(", "))
}
