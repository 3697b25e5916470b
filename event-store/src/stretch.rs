//! Long stretches of the log, read ahead by the database.

use sovereign_schemas::{LogError, Position, RecordedEvent};
use tokio::sync::mpsc;

/// Shorter stretches are read page by page.
pub(crate) const STRETCH_MIN: u64 = 2_000;

/// Events in order, or why there are no more.
pub(crate) type Batch = Result<Vec<RecordedEvent>, LogError>;

/// The events of a stretch, in order.
#[derive(Debug)]
pub(crate) struct Stretch {
    batches: mpsc::Receiver<Batch>,
    /// Of a batch that was larger than what was asked for.
    left: std::vec::IntoIter<RecordedEvent>,
    /// The last event handed out, and where the stretch ends.
    pub(crate) after: Position,
    last: Position,
}

impl Stretch {
    /// `batches` are those of the positions behind `after` up to `last`.
    pub(crate) fn new(batches: mpsc::Receiver<Batch>, after: Position, last: Position) -> Self {
        Self {
            batches,
            left: Vec::new().into_iter(),
            after,
            last,
        }
    }

    /// The next events, at most `limit`; none at the end of the stretch.
    pub(crate) async fn next(&mut self, limit: usize) -> Batch {
        let mut events: Vec<_> = self.left.by_ref().take(limit).collect();
        while events.len() < limit && self.after.0 + (events.len() as u64) < self.last.0 {
            let batch = if events.is_empty() {
                self.batches.recv().await
            } else {
                // what is there already; the rest comes with the next call
                match self.batches.try_recv() {
                    Ok(batch) => Some(batch),
                    Err(_) => break,
                }
            };
            match batch {
                Some(Ok(batch)) => {
                    self.left = batch.into_iter();
                    let room = limit - events.len();
                    events.extend(self.left.by_ref().take(room));
                }
                Some(Err(error)) if events.is_empty() => return Err(error),
                Some(Err(_)) => {
                    // the good events go first; the pages behind them meet the damage again
                    self.last = Position(self.after.0 + events.len() as u64);
                }
                None => {
                    return Err(LogError::Internal("reading ahead ended early".to_owned()));
                }
            }
        }
        self.after = Position(self.after.0 + events.len() as u64);
        Ok(events)
    }
}
