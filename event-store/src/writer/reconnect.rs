//! From no session to one: what the database holds is the truth, memory is rebuilt.

use sovereign_schemas::chain::Head;
use sovereign_schemas::{Position, Timestamp, Uuid};

use super::batch::Tip;
use super::first::First;
use super::session::Session;
use crate::port::{Backend, Database};
use crate::{LedgerReader, StoreError};

/// A fresh session, and what the database knows.
#[derive(Debug)]
pub(crate) struct Connected {
    pub(crate) session: Session,
    pub(crate) tip: Tip,
    /// The asked command ids that took effect or were refused, durably.
    pub(crate) found: Vec<(Uuid, First)>,
}

/// Connects, waits until no transaction of ours can still be under way, and looks up the commands
/// whose fate is unknown.
pub(crate) async fn connect(
    reader: &LedgerReader,
    previous: Option<&Backend>,
    unknown: &[Uuid],
) -> Result<Connected, StoreError> {
    // before the head is read: what others append meanwhile is followed, and shown, meanwhile
    let known = reader.shared.flushed();
    let mut opened = reader.database.open(previous, unknown).await?;
    let tip = tip(&*reader.database, opened.head).await?;
    // whatever was found may not be on disk yet, and answers rest on it
    opened.flusher.flush().await?;
    let shared = std::sync::Arc::clone(&reader.shared);
    rewind_is_refused(known, tip.head)?;
    shared.advance(tip.head);
    shared.database_answers();
    let found = opened.known.into_iter();
    Ok(Connected {
        found: found.map(|(id, known)| (id, First::known(known))).collect(),
        session: Session::start(opened.writer, opened.flusher, opened.backend, shared),
        tip,
    })
}

/// The tip at `head`, whose event must be there and carry its hash.
pub(crate) async fn tip(database: &dyn Database, head: Head) -> Result<Tip, StoreError> {
    if head.position == Position::START {
        return Ok(Tip {
            head,
            recorded_at: Timestamp(i64::MIN),
        });
    }
    let Some(last) = database.event(head.position).await? else {
        return Err(StoreError::Internal(format!(
            "ledger.head stands at {}, and no event is there",
            head.position
        )));
    };
    if last.hash != head.hash {
        return Err(StoreError::Internal(format!(
            "ledger.head and the event at {} carry different hashes",
            head.position
        )));
    }
    Ok(Tip {
        head,
        recorded_at: last.header.recorded_at,
    })
}

/// A database that was put back to an older state must not be written by an engine that has
/// already shown newer events.
fn rewind_is_refused(known: Head, found: Head) -> Result<(), StoreError> {
    if found.position >= known.position {
        return Ok(());
    }
    Err(StoreError::Internal(format!(
        "the ledger ended at {} and now ends at {}; it was restored from an older copy, \
         restart the engine to go on from there",
        known.position, found.position
    )))
}
