use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use sovereign_schemas::chain::Head;
use sovereign_schemas::{Cursor, EventLog as _, LogError, Position, RecordedEvent, Tail};
use tokio::time::Instant;

use crate::port::Database;
use crate::shared::Shared;
use crate::{LedgerReader, StoreError};

/// How often the head row is looked at while other processes write.
const POLL_MIN: Duration = Duration::from_millis(25);
/// How often it is looked at when nothing happens.
const POLL_MAX: Duration = Duration::from_millis(200);

/// Follows the ledger: from memory where this process has written, from the database elsewhere.
#[derive(Debug)]
pub struct LedgerTail {
    reader: LedgerReader,
    /// Lives as long as the poller has to.
    _poller: Option<Arc<Poller>>,
}

impl LedgerTail {
    pub(crate) fn local(reader: LedgerReader) -> Self {
        Self {
            reader,
            _poller: None,
        }
    }

    /// For a process without a writer; looks at the head row every 25 to 200 ms.
    ///
    /// # Errors
    /// [`StoreError::Config`] if the URL is none.
    pub fn remote(database: &str) -> Result<Self, StoreError> {
        let reader = LedgerReader::connect(database, 2)?;
        let poller = Some(Arc::new(Poller::start(&reader)));
        Ok(Self {
            reader,
            _poller: poller,
        })
    }

    /// The last durable event that this process knows of.
    #[must_use]
    pub fn flushed(&self) -> Head {
        self.reader.shared.flushed()
    }
}

impl Clone for LedgerTail {
    fn clone(&self) -> Self {
        Self {
            reader: self.reader.clone(),
            _poller: self._poller.clone(),
        }
    }
}

#[async_trait]
impl Tail for LedgerTail {
    async fn next(
        &mut self,
        after: Position,
        limit: usize,
        wait: Duration,
    ) -> Result<Vec<Arc<RecordedEvent>>, LogError> {
        let until = Instant::now() + wait;
        loop {
            let flushed = self.reader.shared.flushed().position;
            if flushed > after {
                let events = self.reader.shared.ring().after(after, limit);
                if !events.is_empty() {
                    return Ok(events);
                }
                let (events, _) = self.reader.log().read(Cursor::from(after), limit).await?;
                if !events.is_empty() {
                    return Ok(events.into_iter().map(Arc::new).collect());
                }
            }
            let more = self.reader.shared.beyond(flushed.max(after));
            if tokio::time::timeout_at(until, more).await.is_err() {
                return Ok(Vec::new());
            }
        }
    }
}

/// Notices what other processes wrote. Ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Poller {
    task: tokio::task::JoinHandle<()>,
}

impl Poller {
    pub(crate) fn start(reader: &LedgerReader) -> Self {
        let database = Arc::clone(&reader.database);
        let shared = Arc::downgrade(&reader.shared);
        Self {
            task: tokio::spawn(poll(database, shared)),
        }
    }
}

impl Drop for Poller {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn poll(database: Arc<dyn Database>, shared: Weak<Shared>) {
    let mut pause = POLL_MIN;
    loop {
        let Some(shared) = shared.upgrade() else {
            return;
        };
        let before = shared.flushed().position;
        let reader = LedgerReader {
            database: Arc::clone(&database),
            shared: Arc::clone(&shared),
        };
        drop(shared);
        match reader.head().await {
            Ok(head) if head.position > before => pause = POLL_MIN,
            Ok(_) => pause = (pause * 5 / 4).min(POLL_MAX),
            Err(error) => {
                tracing::debug!(%error, "head could not be read");
                pause = POLL_MAX;
            }
        }
        drop(reader);
        tokio::time::sleep(pause).await;
    }
}
