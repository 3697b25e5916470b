use std::time::Instant;

use serde::Serialize;
use sovereign_aggregates::AnyState;
use sovereign_schemas::Position;
use sovereign_schemas::chain::Head;

use crate::check::{self, printable};
use crate::digest::{AggregateDigest, combine, digests};
use crate::pipeline::{Compare, Own, Visitor, run};
use crate::source::aggregate_type;
use crate::table::{Table, WINDOW};
use crate::{Difference, Digests, Options, Range, ReplayError, RunManifest, Source, What};

/// What a replay found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReplayReport {
    /// First position.
    pub first: Position,
    /// Last position; one before `first` if the range was empty.
    pub last: Position,
    /// Events folded.
    pub events: u64,
    /// The end of the chain.
    pub head: Head,
    /// The states' digests.
    pub digests: Digests,
    /// Aggregates met.
    pub aggregates: u64,
    /// The range does not start at position 1: states started empty, and the digests compare only
    /// with those of the same range.
    pub partial: bool,
    /// What it rested on.
    pub manifest: RunManifest,
    /// How long it took, milliseconds.
    pub duration_ms: u64,
    /// Events in a second.
    pub events_per_s: u64,
}

struct Fold {
    states: Table<AnyState>,
}

/// Something of a state that lies behind its first cache line.
fn touch(state: &AnyState) -> u64 {
    match state {
        AnyState::Agent(agent) => agent.thoughts ^ agent.observed.len() as u64,
        AnyState::Trade(trade) => trade.status as u64,
        AnyState::Approval(_)
        | AnyState::Imported(_)
        | AnyState::Policy(_)
        | AnyState::Approver(_)
        | AnyState::Schedules(_) => 0,
        AnyState::Job(job) => job.effects.len() as u64,
    }
}

impl Visitor for Fold {
    type Output = Vec<AggregateDigest>;

    fn visit(&mut self, events: &Own<'_>) -> Result<(), Difference> {
        for window in events.windows(WINDOW) {
            let found = self.states.find_window(window.aggregates(), touch);
            for ((event, key), found) in window.events().zip(found) {
                let new = || {
                    let known = aggregate_type(event.aggregate_type).map(AnyState::new);
                    known.ok_or_else(|| {
                        Difference::new(
                            event.position,
                            What::Undecodable,
                            "an aggregate type that this build knows",
                            printable(event.aggregate_type),
                        )
                    })
                };
                self.states
                    .advance(found, key, &event, new)?
                    .apply_datum(event.event_type, event.event_version, event.payload)
                    .map_err(|error| check::undecodable(&event, &error))?;
            }
        }
        Ok(())
    }

    fn finish(self) -> Self::Output {
        let entries = self.states.into_entries().into_iter();
        digests(entries.map(|e| (e.name, e.sequence, e.value)))
    }
}

/// Events in a second, for reports.
pub(crate) fn rate(events: u64, started: Instant) -> (u64, u64) {
    let elapsed = started.elapsed();
    let per_s = events as f64 / elapsed.as_secs_f64().max(1e-9);
    (
        u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
        per_s as u64,
    )
}

/// Folds a range into states and reports their digests, which are the same for any source, number
/// of threads and batch size. Each event's link and sequence are checked before it is folded.
/// `progress` is told the last position read.
///
/// # Errors
/// [`ReplayError::Difference`] names the first event that is missing, does not continue the chain
/// or cannot be decoded.
pub async fn replay(
    source: impl Into<Source<'_>>,
    range: Range,
    options: Options,
    progress: &mut (dyn FnMut(Position) + Send),
) -> Result<ReplayReport, ReplayError> {
    let started = Instant::now();
    let make = |first: Position| Fold {
        states: Table::new(first != Position(1)),
    };
    let mut source = source.into();
    let done = run(
        &mut source,
        range,
        None,
        options,
        Compare::default(),
        make,
        progress,
    )
    .await?;
    let aggregates: Vec<_> = done.outputs.into_iter().flatten().collect();
    let count = aggregates.len() as u64;
    let digests = combine(aggregates);
    let (first, head) = (done.first, done.head);
    let events = head.position.0 + 1 - first.0;
    let (duration_ms, events_per_s) = rate(events, started);
    Ok(ReplayReport {
        first,
        last: head.position,
        events,
        head,
        digests,
        aggregates: count,
        partial: first != Position(1),
        manifest: RunManifest::new(first, head.position, head.hash),
        duration_ms,
        events_per_s,
    })
}
