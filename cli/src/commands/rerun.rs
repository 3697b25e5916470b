//! `replay --sinks recorded`: the handlers of all jobs decide again, over what the log holds.

use async_trait::async_trait;
use sovereign_event_store::KeyStore;
use sovereign_jobs::{Differs, Recorder, Rerun, RerunReport, Reveal};
use sovereign_replay::{Difference, What};
use sovereign_schemas::{Cursor, ErrorCode, Position, Problem, RecordedEvent, Text};

use super::source::{Named, Opened, difference_problem};
use crate::failure::Result;
use crate::location::Location;
use crate::reveal;

/// Events that are read at once.
const PAGE: usize = 1_000;

/// The keys of the data folder, or none: plain texts need none.
struct Keys(Option<KeyStore>);

#[async_trait]
impl Reveal for Keys {
    async fn reveal(&self, text: &Text) -> Result<String, Problem> {
        match (text.as_plain(), &self.0) {
            (Some(plain), _) => Ok(plain.to_owned()),
            (None, Some(keys)) => keys.reveal(text).await.map_err(|e| e.problem()),
            (None, None) => Err(Problem::new(
                ErrorCode::KeyMissing,
                "what jobs wanted is sealed, and no key is at hand",
            )),
        }
    }
}

/// Reads the log twice: what was recorded, and what the handlers decide over it.
pub(super) async fn run(
    location: &Location,
    named: &Named,
    offline: bool,
    to: Option<Position>,
) -> Result<RerunReport> {
    // the keys are on a server
    let state = if offline { None } else { location.state()? };
    let keys = match &state {
        Some(state) => reveal::key_store(location, state).ok(),
        None => None,
    };
    let keys = Keys(keys);
    let mut recorder = Recorder::default();
    let mut pages = Pages::open(location, named, to).await?;
    while let Some(events) = pages.next(named).await? {
        for event in &events {
            recorder.take(&keys, event).await?;
        }
    }
    let mut rerun = Rerun::new(&keys, recorder.sinks());
    let mut pages = Pages::open(location, named, to).await?;
    while let Some(events) = pages.next(named).await? {
        for event in &events {
            rerun.take(event).await.map_err(|differs| match differs {
                Differs::Unreadable(problem) => problem,
                Differs::At {
                    position,
                    expected,
                    found,
                } => {
                    let difference = Difference::new(position, What::Decision, expected, found);
                    difference_problem(&difference, named)
                }
            })?;
        }
    }
    Ok(rerun.finish())
}

/// One way through the log.
struct Pages {
    opened: Opened,
    cursor: Cursor,
    to: Option<Position>,
}

impl Pages {
    async fn open(location: &Location, named: &Named, to: Option<Position>) -> Result<Self> {
        Ok(Self {
            opened: Opened::open(location, named).await?,
            cursor: Cursor::default(),
            to,
        })
    }

    async fn next(&mut self, named: &Named) -> Result<Option<Vec<RecordedEvent>>> {
        if self.to.is_some_and(|to| self.cursor.position >= to) {
            return Ok(None);
        }
        let read = self.opened.log().read(self.cursor, PAGE).await;
        let (mut events, cursor) = read.map_err(|e| super::source::failure(e.into(), named))?;
        if events.is_empty() {
            return Ok(None);
        }
        self.cursor = cursor;
        if let Some(to) = self.to {
            events.retain(|event| event.header.position <= to);
        }
        Ok(Some(events))
    }
}
