//! Dead letters as the engine sees them: how many there are, and those of its own views.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Arc, Weak};
use std::time::Duration;

use sovereign_event_store::LedgerReader;
use sovereign_kafka::dead_letters::{Failing, LEDGER, LetterCounts};
use sovereign_kafka::{DeadLetters, KafkaOptions, LetterError, LetterWatch, SchemaIds};
use sovereign_schemas::{
    ErrorCode, EventLog as _, Position, Problem, RecordedEvent, Timestamp, Uuid,
};
use tokio::sync::watch;

use super::parts::Parts;
use crate::failure::Result;

/// How late a letter about a view may be written.
const EVERY: Duration = Duration::from_secs(1);
/// Pause after a failure: the brokers may be away.
const AGAIN_AFTER: Duration = Duration::from_secs(5);

/// The letters of one engine.
#[derive(Debug)]
pub(super) struct Letters {
    watch: LetterWatch,
}

impl Letters {
    /// Counts from now on, and writes one letter for each event that a view stops at.
    pub(super) fn start(
        kafka: KafkaOptions,
        parts: &Arc<Parts>,
        reader: LedgerReader,
        schema_ids: SchemaIds,
        stop: watch::Receiver<bool>,
    ) -> Result<Self> {
        let watch = LetterWatch::start(kafka.clone()).map_err(|e| e.problem())?;
        let views = Views {
            letters: DeadLetters::new(kafka),
            parts: Arc::downgrade(parts),
            reader,
            schema_ids,
            open: None,
        };
        tokio::spawn(views.run(stop));
        Ok(Self { watch })
    }

    /// `None` until those that are there have been counted.
    pub(super) fn counts(&self) -> Option<LetterCounts> {
        self.watch.counts()
    }
}

/// Follows the views' health: a view that stops goes red by itself, the letter says at which event,
/// also to whoever looks at topics only.
struct Views {
    letters: DeadLetters,
    parts: Weak<Parts>,
    reader: LedgerReader,
    schema_ids: SchemaIds,
    /// Letters that are open, by view and position; `None` until they have been read.
    open: Option<BTreeMap<(String, Position), Uuid>>,
}

impl Views {
    async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut pause = EVERY;
        loop {
            tokio::select! {
                // an error means that the engine is gone
                _ = stop.wait_for(|stop| *stop) => return,
                () = tokio::time::sleep(pause) => {}
            }
            pause = match self.look().await {
                Ok(true) => EVERY,
                Ok(false) => return,
                Err(problem) => {
                    tracing::warn!(code = %problem.code, message = %problem.message,
                        "dead letters of views cannot be written; trying again");
                    AGAIN_AFTER
                }
            };
        }
    }

    /// False once the engine is gone.
    async fn look(&mut self) -> Result<bool, Problem> {
        let Some(parts) = self.parts.upgrade() else {
            return Ok(false);
        };
        let views = parts.views.health(None).projections;
        drop(parts);
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.read_open().await?,
        };
        let mut done = Ok(());
        for (name, view) in views {
            if let (Some(at), Some(problem)) = (view.stopped_at, &view.problem) {
                let key = (name.to_owned(), at);
                if let Entry::Vacant(place) = open.entry(key) {
                    match self.write(name, at, problem).await {
                        Ok(id) => {
                            place.insert(id);
                        }
                        Err(problem) => done = Err(problem),
                    }
                }
            }
            let passed: Vec<_> = open
                .keys()
                .filter(|(view_name, at)| view_name == name && *at <= view.position)
                .cloned()
                .collect();
            for key in passed {
                match self.letters.done(open[&key], Timestamp::now()).await {
                    Ok(()) | Err(LetterError::NotFound(_)) => {
                        open.remove(&key);
                    }
                    Err(error) => done = Err(error.problem()),
                }
            }
        }
        self.open = Some(open);
        done.map(|()| true)
    }

    /// Letters that an earlier run of the engine wrote.
    async fn read_open(&self) -> Result<BTreeMap<(String, Position), Uuid>, Problem> {
        let all = self.letters.list().await.map_err(|e| e.problem())?;
        let open = all
            .into_iter()
            .filter(|s| s.state.waits() && s.origin.topic == LEDGER);
        Ok(open
            .filter_map(|s| {
                let name = s.group.strip_prefix("view.")?.to_owned();
                Some(((name, Position(u64::try_from(s.origin.offset).ok()?)), s.id))
            })
            .collect())
    }

    async fn write(&self, view: &str, at: Position, problem: &Problem) -> Result<Uuid, Problem> {
        let event = self.event(at).await?;
        let header = &event.header;
        // an event of a newer build has no id here; 0 is nobody's
        let id = self
            .schema_ids
            .get(&header.event_type, header.event_version);
        let now = Timestamp::now();
        let failing = Failing::new(problem.code.as_str(), &problem.message, 1, now, now);
        let written = self
            .letters
            .write_for_view(view, &event, id.unwrap_or_default(), failing);
        written.await.map_err(|e| e.problem())
    }

    async fn event(&self, at: Position) -> Result<RecordedEvent, Problem> {
        let mut log = self.reader.log();
        let before = Position(at.0.saturating_sub(1));
        let read = log.read(before.into(), 1).await;
        let (events, _) =
            read.map_err(|e| Problem::new(ErrorCode::DatabaseUnreachable, e.to_string()))?;
        let found = events.into_iter().find(|e| e.position() == at);
        found.ok_or_else(|| Problem::new(ErrorCode::NotFound, "event is not in the ledger"))
    }
}
