//! The built-in agents, one file each. Every agent is a function of (state, event) to reactions:
//! no clock, no random number, no I/O (I6).
//!
//! Nothing here crosses from one instrument to another: what an agent does about one instrument
//! depends only on the order of that instrument's events, and those wait for each other. So the
//! trades are the same however fast or slow the ledger answers.

pub mod auditor;
mod defined;
pub mod exchange;
pub mod guardian;
pub mod historian;
pub mod hunter;
pub mod jobs;
mod reactions;
pub mod trader;

use std::sync::Arc;

use sovereign_aggregates::AnyEvent;
use sovereign_schemas::avro::DecodeError;
use sovereign_schemas::{
    AggregateId, CommandContext, Decimal, DepartmentId, Digest, EventHeader, IdError, Identifier,
    RecordedEvent, Timestamp, Uuid,
};

pub(crate) use defined::definition;
pub(crate) use reactions::{Reactions, code, start_request};

use crate::RawRequest;
use crate::market::slug;

/// An event that an agent sees: as recorded, and decoded.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Header and payload as they stand in the ledger.
    pub recorded: Arc<RecordedEvent>,
    /// The payload, brought up to its newest version.
    pub event: AnyEvent,
}

impl Seen {
    /// Decodes an event of any known version.
    ///
    /// # Errors
    /// If its type or version is unknown, or its payload is not exactly one datum.
    pub fn decode(recorded: Arc<RecordedEvent>) -> Result<Self, DecodeError> {
        let event = AnyEvent::decode(&recorded)?;
        Ok(Self { recorded, event })
    }

    /// The event's header.
    #[must_use]
    pub fn header(&self) -> &EventHeader {
        &self.recorded.header
    }

    /// Which aggregate it happened to.
    #[must_use]
    pub fn aggregate_id(&self) -> &str {
        &self.recorded.header.aggregate_id
    }
}

/// What an agent wants done about an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reaction {
    /// Send this command.
    Command(Box<RawRequest>),
    /// Do this outside; the result comes back as a command.
    Effect(Effect),
}

/// Something that only the runner can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Read the next bar of a market file: it is observed, or the task is finished if there is
    /// none.
    NextBar(Box<NextBar>),
}

/// Data of [`Effect::NextBar`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NextBar {
    /// SHA-256 of the file.
    pub input: Digest,
    /// The instrument, as in ids.
    pub slug: String,
    /// Bars up to and including this moment are known already.
    pub after: Option<Timestamp>,
    /// The work that is finished when there is no further bar.
    pub task: Identifier,
    /// Who observes.
    pub hunter: AggregateId,
    /// For the resulting command. Its correlation id is for finishing; an observation starts a
    /// new one, its own command id.
    pub context: CommandContext,
}

/// The names that belong to one instrument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// The instrument as it stands in ids.
    pub slug: String,
    /// The agent that observes it.
    pub hunter: AggregateId,
    /// The agent that trades it.
    pub trader: AggregateId,
}

impl Names {
    /// For an instrument, or for a slug.
    ///
    /// # Errors
    /// If the instrument cannot be part of an id.
    pub fn of(instrument: &str) -> Result<Self, IdError> {
        let slug = slug(instrument);
        // the actor of commands is the agent, so the name has to be short enough for both
        let _: Identifier = format!("hunter-{slug}").parse()?;
        Ok(Self {
            hunter: format!("hunter-{slug}").parse()?,
            trader: format!("trader-{slug}").parse()?,
            slug,
        })
    }
}

/// Namespace of the ids of agents' commands.
pub const COMMANDS_NAMESPACE: Uuid = Uuid::from_u128(0x5e0f_e1a5_7c3b_4d0a_9b1e_0b5f_2d6c_a002);

/// The id of the `index`-th command with which `agent` answers the event: the same whenever and
/// however often it is computed.
#[must_use]
pub fn command_id(agent: &str, event_id: Uuid, index: usize) -> Uuid {
    Uuid::new_v5(
        &COMMANDS_NAMESPACE,
        format!("{agent}/{event_id}/{index}").as_bytes(),
    )
}

/// Department and name of an agent that serves all instruments.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Role {
    pub(crate) name: &'static str,
    pub(crate) department: DepartmentId,
}

/// The agents that serve all instruments.
pub(crate) const SHARED: [Role; 4] = [
    auditor::ROLE,
    exchange::ROLE,
    guardian::ROLE,
    historian::ROLE,
];

/// `part` of `whole` in percent, rounded half-even to 4 digits.
pub(crate) fn percent(part: Decimal, whole: Decimal) -> Option<Decimal> {
    part.checked_mul(Decimal::from_int(100))?
        .div_rounded(whole, 4)
}

/// The day (or the minute, for shorter bars) in words.
pub(crate) fn moment(opened_at: Timestamp, interval_s: i32) -> String {
    let text = opened_at.to_string();
    match text.split_once('T') {
        Some((day, _)) if interval_s >= 86_400 => day.to_owned(),
        Some((day, time)) => format!("{day} {}", time.get(..5).unwrap_or(time)),
        None => text,
    }
}
