//! The history of an aggregate of somebody else's: kept and counted, never decided on.

use cqrs_es::Aggregate;
use cqrs_es::event_sink::EventSink;
use serde::{Deserialize, Serialize};
use sovereign_schemas::borrowed::{ToBorrowed as _, Utf8};
use sovereign_schemas::events::{ImportedEvent, ImportedEventRef};
use sovereign_schemas::{ErrorCode, Problem};

use crate::{Decision, Refusal};

/// What can be asked of an imported aggregate: nothing, from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImportedCommand {
    /// Take these events, which were decided elsewhere.
    Recorded(Vec<ImportedEvent>),
}

impl ImportedCommand {
    pub(crate) fn parse(command: &str) -> Problem {
        Problem::new(
            ErrorCode::UnknownCommand,
            "imported aggregates take no commands",
        )
        .field("command")
        .found(command)
        .expected("none")
    }

    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Recorded(_) => "recorded",
        }
    }
}

/// State of one imported aggregate.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Imported {
    /// Its type in the store that it came from.
    pub source_type: Option<String>,
    /// The type of its last event there.
    pub last_event: Option<String>,
}

impl Imported {
    /// Takes one recorded event. Total: never fails, whatever came before.
    pub fn evolve(&mut self, event: &ImportedEvent) {
        self.evolve_borrowed(&event.borrowed());
    }

    /// As [`Self::evolve`], from an event that was not copied out of its datum.
    pub fn evolve_borrowed(&mut self, event: &ImportedEventRef<'_>) {
        let ImportedEventRef::ForeignRecorded(event) = event;
        keep(&mut self.source_type, event.source_type);
        keep(&mut self.last_event, event.event_type);
    }
}

/// Copies a text that is not there yet.
fn keep(kept: &mut Option<String>, new: Utf8<'_>) {
    if kept
        .as_ref()
        .is_none_or(|old| old.as_bytes() != new.as_bytes())
    {
        *kept = Some(new.as_str().to_owned());
    }
}

impl Aggregate for Imported {
    const TYPE: &'static str = "imported";
    type Command = ImportedCommand;
    type Event = ImportedEvent;
    type Error = Refusal;
    type Services = Decision;

    async fn handle(
        &mut self,
        command: ImportedCommand,
        _: &Decision,
        sink: &EventSink<Self>,
    ) -> Result<(), Refusal> {
        let ImportedCommand::Recorded(events) = command;
        for event in events {
            sink.write(event, self).await;
        }
        Ok(())
    }

    fn apply(&mut self, event: ImportedEvent) {
        self.evolve(&event);
    }
}
