use std::path::Path;

use sovereign_schemas::{Digest, EventLog, LogError, Position, RecordedEvent};

use crate::{FileInfo, FileWriter, ReplayError};

/// Events in one read.
const BATCH: usize = 4_096;

async fn one(log: &mut dyn EventLog, position: Position) -> Result<RecordedEvent, ReplayError> {
    let (events, _) = log.read(Position(position.0 - 1).into(), 1).await?;
    match events.into_iter().next() {
        Some(event) if event.position() == position => Ok(event),
        Some(event) => Err(LogError::Gap {
            expected: position,
            found: event.position(),
        }
        .into()),
        None => Err(LogError::Gap {
            expected: position,
            found: position,
        }
        .into()),
    }
}

/// Writes positions `first` to `last` of a log into a recorded file, which replaces one of the same
/// name once it is complete. A `last` of one before `first` makes a file without events.
/// `progress` is told the last position written. Writes block the calling thread for the time of a
/// disk write.
///
/// # Errors
/// [`ReplayError::Range`] for a range that cannot exist; [`ReplayError::Difference`] if the log is
/// damaged there, which [`crate::verify`] looks into; [`ReplayError::File`] if the file cannot be
/// written. No file is left behind then, and one that was there stays.
pub async fn export(
    log: &mut dyn EventLog,
    path: &Path,
    first: Position,
    last: Position,
    progress: &mut (dyn FnMut(Position) + Send),
) -> Result<FileInfo, ReplayError> {
    if first == Position::START || last.0 < first.0 - 1 || last.0 >= i64::MAX.cast_unsigned() {
        return Err(ReplayError::Range { first, last });
    }
    let before = Position(first.0 - 1);
    let previous_hash = match before {
        Position::START => Digest::ZERO,
        before => one(log, before).await?.hash,
    };
    let last_hash = if last == before {
        previous_hash
    } else {
        one(log, last).await?.hash
    };
    let info = FileInfo {
        first,
        last,
        previous_hash,
        last_hash,
    };
    let mut writer = FileWriter::create(path, info)?;
    let mut written = before;
    while written < last {
        let left = usize::try_from(last.0 - written.0).unwrap_or(usize::MAX);
        let (events, _) = log.read(written.into(), BATCH.min(left)).await?;
        if events.is_empty() {
            return Err(LogError::Gap {
                expected: written.next(),
                found: last,
            }
            .into());
        }
        for event in events.iter().take(left) {
            writer.push(event)?;
            written = event.position();
        }
        progress(written);
    }
    writer.finish()
}
