//! The checks of single events that verification and replay share.

use sovereign_schemas::avro::{DecodeError, EventGroup as _};
use sovereign_schemas::events::{AgentEvent, ApprovalEvent, TradeEvent};
use sovereign_schemas::{AggregateType, Digest, chain};

use crate::source::View;
use crate::{Difference, What};

/// I3 for one event after one with hash `previous`.
pub(crate) fn link(
    previous: &Digest,
    event: &View<'_>,
    scratch: &mut Vec<u8>,
) -> Result<(), Difference> {
    let hash = chain::hash(previous, event.header.bytes(scratch), event.payload);
    if hash == event.hash {
        return Ok(());
    }
    Err(Difference::new(
        event.position,
        What::Hash,
        hash.to_string(),
        event.hash.to_string(),
    ))
}

/// Whether the payload is one event of an aggregate type.
pub(crate) fn decodes(aggregate_type: AggregateType, event: &View<'_>) -> Result<(), DecodeError> {
    let View {
        event_type,
        event_version,
        payload,
        ..
    } = *event;
    match aggregate_type {
        AggregateType::Agent => AgentEvent::decode(event_type, event_version, payload).map(drop),
        AggregateType::Trade => TradeEvent::decode(event_type, event_version, payload).map(drop),
        AggregateType::Approval => {
            ApprovalEvent::decode(event_type, event_version, payload).map(drop)
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
        format!(
            "{} of version {event_version}",
            printable(event_type.as_bytes())
        ),
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
