use std::collections::VecDeque;
use std::sync::Arc;

use sovereign_schemas::{Position, RecordedEvent};

/// What an event takes in memory besides its payload, ids included; an estimate.
const EVENT_OVERHEAD_BYTES: usize = 400;

/// The newest durable events, shared by all followers; positions are dense.
#[derive(Debug)]
pub(crate) struct Ring {
    events: VecDeque<Arc<RecordedEvent>>,
    bytes: usize,
    events_max: usize,
    bytes_max: usize,
}

fn bytes_of(event: &RecordedEvent) -> usize {
    event.payload.len() + EVENT_OVERHEAD_BYTES
}

impl Ring {
    pub(crate) const fn new(events_max: usize, bytes_max: usize) -> Self {
        Self {
            events: VecDeque::new(),
            bytes: 0,
            events_max,
            bytes_max,
        }
    }

    /// Takes newer events. Positions that another process wrote in between are missing here, so
    /// what lies before them is dropped: the ring has no holes.
    pub(crate) fn push(&mut self, events: &[Arc<RecordedEvent>]) {
        for event in events {
            if let Some(last) = self.events.back()
                && last.position().next() != event.position()
            {
                self.events.clear();
                self.bytes = 0;
            }
            self.bytes += bytes_of(event);
            self.events.push_back(Arc::clone(event));
        }
        while self.events.len() > self.events_max || self.bytes > self.bytes_max {
            let Some(event) = self.events.pop_front() else {
                break;
            };
            self.bytes -= bytes_of(&event);
        }
    }

    /// The events right after `after`, at most `limit`; none if they are not here.
    pub(crate) fn after(&self, after: Position, limit: usize) -> Vec<Arc<RecordedEvent>> {
        let Some(first) = self.events.front() else {
            return Vec::new();
        };
        let Some(skip) = (after.0 + 1).checked_sub(first.position().0) else {
            return Vec::new();
        };
        let skip = usize::try_from(skip).unwrap_or(usize::MAX);
        self.events.iter().skip(skip).take(limit).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use sovereign_schemas::{DepartmentId, Digest, EventHeader, Timestamp, Uuid};

    use super::*;

    fn event(position: u64) -> Arc<RecordedEvent> {
        Arc::new(RecordedEvent {
            header: EventHeader {
                position: Position(position),
                event_id: Uuid::nil(),
                aggregate_type: "agent".into(),
                aggregate_id: "a".into(),
                sequence: position,
                event_type: "ThoughtRecorded".into(),
                event_version: 1,
                department: DepartmentId::TRADER,
                actor: "a".into(),
                command_id: Uuid::nil(),
                correlation_id: Uuid::nil(),
                causation_id: None,
                recorded_at: Timestamp(0),
                schema_fingerprint: [0; 8],
            },
            payload: vec![0; 100].into(),
            hash: Digest::ZERO,
            traceparent: None,
        })
    }

    fn positions(ring: &Ring, after: u64, limit: usize) -> Vec<u64> {
        ring.after(Position(after), limit)
            .iter()
            .map(|e| e.position().0)
            .collect()
    }

    #[test]
    fn hands_out_what_follows_and_nothing_it_no_longer_holds() {
        let mut ring = Ring::new(3, usize::MAX);
        assert_eq!(positions(&ring, 0, 9), [0; 0]);
        ring.push(&[event(1), event(2), event(3), event(4)]);
        assert_eq!(positions(&ring, 0, 9), [0; 0]);
        assert_eq!(positions(&ring, 1, 9), [2, 3, 4]);
        assert_eq!(positions(&ring, 2, 1), [3]);
        assert_eq!(positions(&ring, 4, 9), [0; 0]);
        assert_eq!(positions(&ring, 9, 9), [0; 0]);
    }

    #[test]
    fn has_no_holes_and_keeps_to_its_bytes() {
        let mut ring = Ring::new(9, 1_000);
        ring.push(&[event(1), event(2)]);
        ring.push(&[event(4)]);
        assert_eq!(positions(&ring, 1, 9), [0; 0]);
        assert_eq!(positions(&ring, 3, 9), [4]);
        ring.push(&[event(5), event(6)]);
        assert_eq!(positions(&ring, 4, 9), [5, 6]);
    }
}
