//! The checks of single events that verification and replay share.

use sovereign_schemas::AggregateType;
use sovereign_schemas::avro::DecodeError;
use sovereign_schemas::events::{
    AgentEventRef, ApprovalEventRef, ApproverEventRef, ImportedEventRef, JobEventRef,
    PolicyEventRef, SchedulesEventRef, TradeEventRef,
};

use crate::source::View;
use crate::{Difference, What};

/// Whether the payload is one event of an aggregate type.
pub(crate) fn decodes(aggregate_type: AggregateType, event: &View<'_>) -> Result<(), DecodeError> {
    let View {
        event_type,
        event_version,
        payload,
        ..
    } = *event;
    match aggregate_type {
        AggregateType::Agent => AgentEventRef::decode(event_type, event_version, payload).map(drop),
        AggregateType::Trade => TradeEventRef::decode(event_type, event_version, payload).map(drop),
        AggregateType::Approval => {
            ApprovalEventRef::decode(event_type, event_version, payload).map(drop)
        }
        AggregateType::Imported => {
            ImportedEventRef::decode(event_type, event_version, payload).map(drop)
        }
        AggregateType::Policy => {
            PolicyEventRef::decode(event_type, event_version, payload).map(drop)
        }
        AggregateType::Approver => {
            ApproverEventRef::decode(event_type, event_version, payload).map(drop)
        }
        AggregateType::Job => JobEventRef::decode(event_type, event_version, payload).map(drop),
        AggregateType::Schedules => {
            SchedulesEventRef::decode(event_type, event_version, payload).map(drop)
        }
    }
}

/// A payload that cannot be read.
pub(crate) fn undecodable(event: &View<'_>, error: &DecodeError) -> Difference {
    let View {
        event_type,
        event_version,
        ..
    } = event;
    Difference::new(
        event.position,
        What::Undecodable,
        format!("{} of version {event_version}", printable(event_type)),
        error.to_string(),
    )
}

/// A name from a header that may be damaged: short and without control characters.
pub(crate) fn printable(name: &[u8]) -> String {
    let name = String::from_utf8_lossy(name);
    name.chars()
        .take(160)
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}
