//! The schedules that hold, as an aggregate: each version is an event, and nobody can take one
//! back.

use std::sync::Arc;

use cqrs_es::Aggregate;
use cqrs_es::event_sink::EventSink;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sovereign_schemas::borrowed::ToBorrowed as _;
use sovereign_schemas::events::{SchedulesAdopted, SchedulesEvent, SchedulesEventRef};
use sovereign_schemas::{Digest, ErrorCode, Problem};

use super::{Schedule, file};
use crate::{Decision, Refusal, parse};

/// The id of the one aggregate of this type.
pub const SCHEDULES_ID: &str = "main";

/// What can be asked of the schedules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SchedulesCommand {
    /// Let others hold, in the place of all that hold now.
    Adopt(Adopt),
    /// Take these events, which were decided elsewhere. It has no form in JSON.
    Recorded(Vec<SchedulesEvent>),
}

/// Data of [`SchedulesCommand::Adopt`].
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Adopt {
    /// TOML, as [`super::parse`] reads it.
    pub text: String,
}

impl SchedulesCommand {
    /// The commands by name.
    pub const NAMES: &'static str = "adopt";

    pub(crate) fn parse(command: &str, data: Value) -> Result<Self, Problem> {
        match command {
            "adopt" => Ok(Self::Adopt(parse::data(data)?)),
            other => Err(
                Problem::new(ErrorCode::UnknownCommand, "schedules have no such command")
                    .field("command")
                    .found(other)
                    .expected(Self::NAMES),
            ),
        }
    }

    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Adopt(_) => "adopt",
            Self::Recorded(_) => "recorded",
        }
    }

    pub(crate) fn identifiers(&self) -> Vec<(&'static str, &str)> {
        match self {
            // it is not free text: every engine has to read it for ever
            Self::Adopt(Adopt { text }) => vec![("data.text", text)],
            Self::Recorded(_) => vec![],
        }
    }
}

/// The schedules that hold; none before the first are adopted.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(from = "Stored", into = "Stored")]
pub struct Timetable {
    version: i32,
    text: String,
    /// What the text says; nothing if a newer build took it and this one cannot read it.
    schedules: Option<Arc<[Schedule]>>,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    version: i32,
    text: String,
}

impl From<Timetable> for Stored {
    fn from(Timetable { version, text, .. }: Timetable) -> Self {
        Self { version, text }
    }
}

impl From<Stored> for Timetable {
    fn from(Stored { version, text }: Stored) -> Self {
        Self::read(version, &text)
    }
}

impl Timetable {
    fn read(version: i32, text: &str) -> Self {
        Self {
            version,
            text: text.to_owned(),
            schedules: file::parse(text).ok().map(|(_, all)| all.into()),
        }
    }

    /// Version; 0 before the first schedules are adopted.
    #[must_use]
    pub const fn version(&self) -> i32 {
        self.version
    }

    /// As it was written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The schedules, in their order; none if this build cannot read them.
    #[must_use]
    pub fn schedules(&self) -> &[Schedule] {
        self.schedules.as_deref().unwrap_or_default()
    }

    /// Whether this build cannot read them: none of them runs then.
    #[must_use]
    pub const fn unreadable(&self) -> bool {
        self.version > 0 && self.schedules.is_none()
    }

    /// Which events follow from `command`, if it may happen.
    ///
    /// # Errors
    /// Why it may not.
    pub fn decide(
        &self,
        command: SchedulesCommand,
        decision: &Decision,
    ) -> Result<Vec<SchedulesEvent>, Refusal> {
        let Adopt { text } = match command {
            SchedulesCommand::Recorded(events) => return Ok(events),
            SchedulesCommand::Adopt(adopt) => adopt,
        };
        if decision.aggregate_id.as_str() != SCHEDULES_ID {
            return Err(
                Problem::new(ErrorCode::NotFound, "all schedules are kept together")
                    .field("id")
                    .found(decision.aggregate_id.as_str())
                    .expected(SCHEDULES_ID)
                    .into(),
            );
        }
        let (version, _) = file::parse(&text)?;
        let next = self.version.saturating_add(1);
        if version != next {
            return Err(Problem::new(
                ErrorCode::InvalidSchedule,
                "the schedules have another version than the next",
            )
            .field("version")
            .found(version.to_string())
            .expected(next.to_string())
            .remedy("start from those that hold (sovereign jobs schedules show) and raise their version by one")
            .into());
        }
        let digest = Digest::of(&[text.as_bytes()]);
        Ok(vec![
            SchedulesAdopted {
                version,
                digest,
                text,
            }
            .into(),
        ])
    }

    /// Takes one recorded event. Total: never fails, whatever came before.
    pub fn evolve(&mut self, event: &SchedulesEvent) {
        self.evolve_borrowed(&event.borrowed());
    }

    /// As [`Self::evolve`], from an event that was not copied out of its datum.
    pub fn evolve_borrowed(&mut self, event: &SchedulesEventRef<'_>) {
        let SchedulesEventRef::SchedulesAdopted(event) = event;
        *self = Self::read(event.version, event.text.as_str());
    }
}

impl Aggregate for Timetable {
    const TYPE: &'static str = "schedules";
    type Command = SchedulesCommand;
    type Event = SchedulesEvent;
    type Error = Refusal;
    type Services = Decision;

    async fn handle(
        &mut self,
        command: SchedulesCommand,
        decision: &Decision,
        sink: &EventSink<Self>,
    ) -> Result<(), Refusal> {
        for event in self.decide(command, decision)? {
            sink.write(event, self).await;
        }
        Ok(())
    }

    fn apply(&mut self, event: SchedulesEvent) {
        self.evolve(&event);
    }
}

#[cfg(test)]
mod tests {
    use sovereign_schemas::Timestamp;

    use super::*;

    fn adopt(state: &mut Timetable, id: &str, text: &str) -> Result<(), Refusal> {
        let decision = Decision::new(id.parse().unwrap(), Timestamp(0), "owner".parse().unwrap());
        let command = SchedulesCommand::Adopt(Adopt { text: text.into() });
        let events = state.decide(command, &decision)?;
        events.iter().for_each(|event| state.evolve(event));
        Ok(())
    }

    fn text(version: i32) -> String {
        format!(
            "version = {version}\n[[schedules]]\nname = \"nightly\"\ncron = \"30 2 * * *\"\n\
             zone = \"Europe/Berlin\"\njob = {{ kind = \"plan\", arguments = {{ steps = [] }} }}\n"
        )
    }

    #[test]
    fn versions_follow_each_other() {
        let mut state = Timetable::default();
        assert_eq!((state.version(), state.unreadable()), (0, false));
        let refused = adopt(&mut state, SCHEDULES_ID, &text(2))
            .unwrap_err()
            .problem;
        assert_eq!(refused.expected.as_deref(), Some("1"));
        adopt(&mut state, SCHEDULES_ID, &text(1)).unwrap();
        assert_eq!(state.schedules().len(), 1);
        let stored = serde_json::to_string(&state).unwrap();
        assert_eq!(serde_json::from_str::<Timetable>(&stored).unwrap(), state);
        adopt(&mut state, SCHEDULES_ID, "version = 2\n").unwrap();
        assert!(state.schedules().is_empty() && !state.unreadable());
        let refused = adopt(&mut state, "others", &text(3)).unwrap_err().problem;
        assert_eq!(refused.code, ErrorCode::NotFound);
    }

    #[test]
    fn schedules_that_this_build_cannot_read_do_not_run_and_can_be_replaced() {
        let mut state = Timetable::default();
        let event = SchedulesAdopted {
            version: 1,
            digest: Digest::of(&[b"x"]),
            text: "version = 1\nmoods = 2\n".to_owned(),
        };
        state.evolve(&event.into());
        assert!(state.unreadable() && state.schedules().is_empty());
        adopt(&mut state, SCHEDULES_ID, &text(2)).unwrap();
        assert!(!state.unreadable());
    }
}
