//! From a waiting command to an outcome and rows, in memory.

use bytes::Bytes;
use sovereign_aggregates::{AnyEvent, AnyState};
use sovereign_schemas::{
    AggregateType, Departments, Digest, ErrorCode, EventHeader, Outcome, PAYLOAD_BYTES_MAX,
    Position, Problem, RecordedEvent, Status, Timestamp, Uuid, catalog, event_id_with_source,
};

use super::batch::{Batch, Known, Waiting};
use super::cache::Cached;
use super::first::{First, Recent};
use crate::port::{AggregateKey, Clock, Refused};

/// Longest trace context that is recorded: version 00 has 55 characters, later ones may add to it.
const TRACEPARENT_BYTES_MAX: usize = 128;

/// What the decision did to the cached aggregate.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// It stands as its events say.
    Consistent,
    /// It took events that are not recorded, and must be loaded again.
    Spoiled(AggregateKey),
}

/// An answer that needs no aggregate: a repeat, or a command that cannot be for this ledger.
pub(crate) fn without_aggregate(
    waiting: &Waiting,
    recent: &mut Recent,
    departments: &Departments,
) -> Option<Outcome> {
    let context = &waiting.request.context;
    if let Some(first) = recent.get(&context.command_id) {
        return Some(first.repeated());
    }
    if context.command_id.is_nil() {
        let problem = Problem::new(ErrorCode::InvalidId, "command id is the nil uuid");
        return Some(Outcome::failed(
            Status::Invalid,
            problem.field("command_id"),
        ));
    }
    if departments.get(context.department).is_none() {
        let names: Vec<&str> = departments.iter().map(|d| d.name.as_str()).collect();
        let problem = Problem::new(ErrorCode::UnknownDepartment, "no such department")
            .field("department")
            .found(context.department.to_string())
            .expected(names.join(", "));
        return Some(Outcome::failed(Status::Invalid, problem));
    }
    None
}

/// Decides one command on its aggregate and puts what follows into the batch.
pub(crate) fn on_aggregate(
    waiting: Waiting,
    cached: &mut Cached,
    known: &Known,
    recent: &mut Recent,
    batch: &mut Batch,
    clock: &dyn Clock,
) -> Effect {
    if let Some(expected) = waiting.request.expected_sequence
        && expected != cached.sequence
    {
        metrics::counter!("sovereign_ledger_conflicts_total").increment(1);
        let problem = Problem::new(ErrorCode::VersionConflict, "the aggregate has moved on")
            .field("expected_sequence")
            .found(cached.sequence.to_string())
            .expected(expected.to_string());
        batch.answer_without_events(waiting, Outcome::failed(Status::Conflict, problem));
        return Effect::Consistent;
    }
    // the moment is what will be recorded, so that a replay decides the same
    let at = clock.now().max(batch.after.recorded_at);
    let command = waiting.request.command.clone();
    let handled = cached.state.handle(command, &waiting.decision(at, known));
    match handled {
        Ok(events) => accept(waiting, events, at, cached, recent, batch, clock),
        Err(refusal) if refusal.problem.code == ErrorCode::Internal => {
            // a fault of ours is no decision: a repeat must get another chance
            tracing::error!(problem = %refusal.problem, "aggregate fails to decide");
            batch.answer_without_events(waiting, Outcome::failed(Status::Invalid, refusal.problem));
            Effect::Consistent
        }
        Err(refusal) => {
            let (command_id, problem) = (waiting.command_id(), refusal.problem);
            recent.put(command_id, First::Refused(Box::new(problem.clone())));
            batch.refuse(Refused {
                command_id,
                problem: problem.clone(),
                at,
            });
            batch.answer_without_events(waiting, Outcome::failed(Status::Refused, problem));
            Effect::Consistent
        }
    }
}

fn accept(
    waiting: Waiting,
    events: Vec<AnyEvent>,
    at: Timestamp,
    cached: &mut Cached,
    recent: &mut Recent,
    batch: &mut Batch,
    clock: &dyn Clock,
) -> Effect {
    if events.is_empty() {
        batch.answer_without_events(waiting, Outcome::effective(Status::Accepted, None));
        return Effect::Consistent;
    }
    let mut encoded = Vec::with_capacity(1_024);
    let payloads: Vec<Bytes> = events
        .iter()
        .map(|event| {
            encoded.clear();
            event.encode(&mut encoded);
            // exactly as much memory as it takes: followers keep it
            Bytes::copy_from_slice(&encoded)
        })
        .collect();
    if let Some(large) = payloads.iter().find(|p| p.len() > PAYLOAD_BYTES_MAX) {
        let problem = Problem::new(ErrorCode::PayloadTooLarge, "an event would be too large")
            .found(format!("{} bytes", large.len()))
            .expected(format!("at most {PAYLOAD_BYTES_MAX} bytes"));
        let key = waiting.key.clone();
        batch.answer_without_events(waiting, Outcome::failed(Status::Invalid, problem));
        return Effect::Spoiled(key);
    }
    let count = events.len();
    let first = batch.after.head.position.next();
    let last = Position(batch.after.head.position.0 + count as u64);
    let aggregate_type = AnyState::aggregate_type(&cached.state);
    let mut source = waiting.request.source;
    for (event, payload) in events.iter().zip(payloads) {
        cached.sequence += 1;
        let fresh = clock.event_id();
        let place = Place {
            // of the first event only: two of one moment would have the same id
            event_id: source
                .take()
                .map_or(fresh, |s| event_id_with_source(fresh, s)),
            aggregate_type,
            sequence: cached.sequence,
            at,
        };
        batch.push(record(&waiting, event, payload, place));
    }
    let refusal = events[0].recorded_refusal().map(|r| Box::new(r.problem));
    let outcome = match refusal {
        Some(problem) => First::RefusedOnRecord(first, last, problem),
        None => First::Effective(first, last),
    };
    let answer = outcome.answer();
    recent.put(waiting.command_id(), outcome);
    batch.answer_with_events(waiting, answer);
    Effect::Consistent
}

struct Place {
    event_id: Uuid,
    aggregate_type: AggregateType,
    sequence: u64,
    at: Timestamp,
}

/// The event but for its position and hash, which the batch sets.
fn record(waiting: &Waiting, event: &AnyEvent, payload: Bytes, place: Place) -> RecordedEvent {
    let (request, context) = (&waiting.request, &waiting.request.context);
    let schema = catalog::latest(event.event_type());
    let header = EventHeader {
        position: Position::START,
        event_id: place.event_id,
        aggregate_type: place.aggregate_type.as_str().into(),
        aggregate_id: request.aggregate_id.as_str().to_owned(),
        sequence: place.sequence,
        event_type: schema.name.into(),
        event_version: schema.version,
        department: context.department,
        actor: context.actor.as_str().to_owned(),
        command_id: context.command_id,
        correlation_id: context.correlation_id,
        causation_id: context.causation_id,
        recorded_at: place.at,
        schema_fingerprint: schema.fingerprint,
    };
    let traceparent = context.traceparent.as_ref().filter(|t| {
        // outside the chain and not ours: taken only if it can be a trace context
        t.len() <= TRACEPARENT_BYTES_MAX && t.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')
    });
    RecordedEvent {
        header,
        payload,
        hash: Digest::ZERO,
        traceparent: traceparent.cloned(),
    }
}
