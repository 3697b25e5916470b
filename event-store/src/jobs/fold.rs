//! What a batch of events changes in the queue's tables, folded in memory first: one statement for
//! many rows.

use std::collections::HashMap;

use sovereign_aggregates::job::JobStatus;
use sovereign_schemas::events::{JobEvent, JobQueue, Verdict};
use sovereign_schemas::{AggregateType, RecordedEvent, Timestamp};

use crate::StoreError;

/// From when on a job may be claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Claimable {
    /// At once, if the database's clock is not before it.
    At(Timestamp),
    /// When its worker has been silent for so many milliseconds; earlier claims stay.
    Leased(i32),
    /// Now, whoever had it.
    Now,
}

/// A job that is new in this batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NewJob {
    pub(super) position: u64,
    pub(super) submitted_at: Timestamp,
    pub(super) kind: String,
    pub(super) queue: i16,
    pub(super) unique_key: Option<String>,
    pub(super) after: Vec<String>,
    pub(super) run_at: Option<Timestamp>,
    pub(super) schedule: Option<String>,
}

/// What happened to one job.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Change {
    pub(super) new: Option<NewJob>,
    /// Where it stands now; `None` if only [`Self::aborts`] is known.
    pub(super) status: Option<JobStatus>,
    /// It is to be aborted: it is queued unless a worker has it.
    pub(super) aborts: bool,
    /// Somebody gave it up, whatever came behind that.
    pub(super) given_up: bool,
    pub(super) attempt: Option<i32>,
    pub(super) claimable: Option<Claimable>,
    pub(super) ended_at: Option<Timestamp>,
}

/// Number of a queue: the most urgent is 0.
pub(super) const fn number_of(queue: JobQueue) -> i16 {
    match queue {
        JobQueue::High => 0,
        JobQueue::Default => 1,
        JobQueue::Low => 2,
    }
}

/// Adds what an event changes. Events of other aggregates change nothing.
pub(super) fn fold(
    changes: &mut HashMap<String, Change>,
    event: &RecordedEvent,
) -> Result<(), StoreError> {
    let header = &event.header;
    if header.aggregate_type != AggregateType::Job.as_str() {
        return Ok(());
    }
    let decoded: JobEvent = event.decode().map_err(|error| StoreError::Decode {
        position: event.position(),
        cause: error.to_string(),
    })?;
    if let JobEvent::JobSubmitted(e) = decoded {
        let after: Vec<String> = e.after.split_whitespace().map(str::to_owned).collect();
        let status = if after.is_empty() {
            JobStatus::Queued
        } else {
            JobStatus::Blocked
        };
        let new = NewJob {
            position: header.position.0,
            submitted_at: header.recorded_at,
            kind: e.kind,
            queue: number_of(e.queue),
            unique_key: e.unique_key,
            after,
            run_at: e.run_at,
            schedule: e.schedule,
        };
        let change = Change {
            new: Some(new),
            status: Some(status),
            claimable: Some(Claimable::At(e.run_at.unwrap_or(header.recorded_at))),
            ..Change::default()
        };
        changes.insert(header.aggregate_id.clone(), change);
        return Ok(());
    }
    let change = changes.entry(header.aggregate_id.clone()).or_default();
    if let JobEvent::JobAbortRequested(_) = decoded {
        change.given_up = true;
        match change.status {
            Some(JobStatus::Running) => {}
            Some(_) => {
                change.status = Some(JobStatus::Queued);
                change.claimable = Some(Claimable::Now);
            }
            None => change.aborts = true,
        }
        return Ok(());
    }
    let Some((status, claimable)) = moved(&decoded) else {
        return Ok(());
    };
    (change.status, change.aborts) = (Some(status), false);
    if let JobEvent::JobStarted(e) = &decoded {
        change.attempt = Some(e.attempt);
    }
    if claimable.is_some() {
        change.claimable = claimable;
    }
    change.ended_at = status.ended().then_some(header.recorded_at);
    Ok(())
}

/// Where an event moves a job; `None` if it stays.
fn moved(event: &JobEvent) -> Option<(JobStatus, Option<Claimable>)> {
    use Claimable::{At, Leased, Now};
    Some(match event {
        JobEvent::JobUnblocked(_) | JobEvent::EffectResolved(_) => (JobStatus::Queued, Some(Now)),
        JobEvent::JobHeld(_) => (JobStatus::Held, None),
        JobEvent::JobAuthorized(e) if e.blocked => (JobStatus::Blocked, None),
        // what is due later stays so
        JobEvent::JobAuthorized(_) => (JobStatus::Queued, None),
        JobEvent::JobForced(_) => (JobStatus::Queued, Some(Now)),
        JobEvent::JobStarted(e) => (JobStatus::Running, Some(Leased(e.lease_ms))),
        JobEvent::EffectInDoubt(_) => (JobStatus::InDoubt, None),
        // a worker that undoes goes on past what is in doubt
        JobEvent::EffectStarted(_) => (JobStatus::Running, None),
        JobEvent::JobRetryScheduled(e) => (JobStatus::Queued, Some(At(e.due_at))),
        // one whose lease ended is started or in doubt in the same command
        JobEvent::JobLost(e) => (JobStatus::Queued, e.released.then_some(Now)),
        JobEvent::JobFinished(e) => match e.verdict {
            Verdict::Green => (JobStatus::Green, None),
            Verdict::Red => (JobStatus::Red, None),
        },
        JobEvent::JobFailed(_) => (JobStatus::Failed, None),
        JobEvent::JobAborted(_) => (JobStatus::Aborted, None),
        JobEvent::JobCancelled(_) => (JobStatus::Cancelled, None),
        JobEvent::JobSubmitted(_)
        | JobEvent::JobAbortRequested(_)
        | JobEvent::EffectIntended(_)
        | JobEvent::EffectFinished(_)
        | JobEvent::OrderFilled(_)
        | JobEvent::EffectCompensated(_) => return None,
    })
}
