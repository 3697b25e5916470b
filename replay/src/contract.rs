//! What every [`EventLog`] must do, as functions that panic where one does not: run them against
//! each implementation.

use sovereign_schemas::{Cursor, EventLog, LogError, Position, RecordedEvent};

/// More reads than any log of these tests needs.
const READS_MAX: usize = 1_000_000;

async fn read(log: &mut dyn EventLog, after: Position, limit: usize) -> Vec<RecordedEvent> {
    let read = log.read(after.into(), limit).await;
    let (events, cursor) = match read {
        Ok(read) => read,
        Err(error) => panic!("read {limit} after {after}: {error}"),
    };
    assert!(
        events.len() <= limit,
        "at most {limit} after {after}, got {}",
        events.len()
    );
    let expected = events.last().map_or(after, RecordedEvent::position);
    assert_eq!(
        cursor,
        Cursor::from(expected),
        "the cursor stands after the last event"
    );
    events
}

async fn read_to_end(log: &mut dyn EventLog, after: Position, limit: usize) -> Vec<RecordedEvent> {
    let mut all: Vec<RecordedEvent> = Vec::new();
    for _ in 0..READS_MAX {
        let cursor = all.last().map_or(after, RecordedEvent::position);
        let events = read(log, cursor, limit).await;
        if events.is_empty() {
            return all;
        }
        all.extend(events);
    }
    panic!("no end after {READS_MAX} reads");
}

/// Holds a log to its contract: any limit gives the same sequence, nothing comes at the end, any
/// cursor can be read from again, the cursor stands after the last event, and events come back
/// equal in all parts. `make` gives a log that holds exactly `events`, at least three, dense, from
/// any position on.
///
/// # Panics
/// Where the log does not do so.
pub async fn event_log_contract<F>(make: F, events: &[RecordedEvent])
where
    F: AsyncFn() -> Box<dyn EventLog>,
{
    assert!(
        events.len() >= 3,
        "the contract needs at least three events"
    );
    let before = Position(events[0].position().0 - 1);
    let end = Position(before.0 + events.len() as u64);
    for limit in [1, 2, 7, 100, events.len(), events.len() + 1, usize::MAX] {
        let mut log = make().await;
        // one event at a time only for short logs
        if limit < 7 && events.len() > 10_000 {
            continue;
        }
        let all = read_to_end(&mut *log, before, limit).await;
        assert_eq!(all.len(), events.len(), "number of events read by {limit}");
        for (found, expected) in all.iter().zip(events) {
            assert_eq!(
                found,
                expected,
                "position {} read by {limit}",
                expected.position()
            );
        }
        assert!(
            read(&mut *log, end, limit).await.is_empty(),
            "nothing at the end"
        );
        assert!(
            read(&mut *log, end, limit).await.is_empty(),
            "and again nothing"
        );
    }

    // forwards, backwards and again, in one log
    let mut log = make().await;
    let middle = events.len() / 2;
    for index in [middle, 0, events.len() - 1, 1, middle, middle, 0] {
        let after = Position(events[index].position().0 - 1);
        let found = read(&mut *log, after, 2).await;
        assert!(!found.is_empty(), "something after {after}");
        assert_eq!(
            found[..],
            events[index..][..found.len()],
            "read after {after}"
        );
    }
    let rest = read_to_end(&mut *log, events[middle].position(), 3).await;
    assert_eq!(rest[..], events[middle + 1..], "the rest, after jumps");
}

/// Holds a log with a hole to its contract: the events before the hole come first, then each read
/// reports [`LogError::Gap`] at the missing position. `make` gives a log that holds `events` from
/// position `first` on, but not `missing`.
///
/// # Panics
/// Where the log does not do so.
pub async fn event_log_reports_gap<F>(make: F, first: Position, missing: Position)
where
    F: AsyncFn() -> Box<dyn EventLog>,
{
    for limit in [1, 5, usize::MAX] {
        let mut log = make().await;
        let mut at = Position(first.0 - 1);
        let mut gaps = 0;
        for _ in 0..READS_MAX {
            match log.read(at.into(), limit).await {
                Ok((events, _)) if events.is_empty() => {
                    panic!("the end after {at} although {missing} is missing")
                }
                Ok((_, cursor)) => at = cursor.position,
                Err(LogError::Gap { expected, .. }) => {
                    assert_eq!(expected, missing, "the gap");
                    assert_eq!(at.next(), missing, "the good events came before the gap");
                    gaps += 1;
                    if gaps == 2 {
                        break;
                    }
                }
                Err(error) => panic!("expected a gap at {missing}, got: {error}"),
            }
            assert!(at < missing, "read beyond the gap at {missing}");
        }
        assert_eq!(gaps, 2, "a gap stays a gap");
    }
}
