//! Schedules of jobs: their events as the scheduler reads them, and what the API says of them.

use std::collections::HashMap;

use async_trait::async_trait;
use serde_json::{Value, json};
use sovereign_aggregates::schedules::SCHEDULES_ID;
use sovereign_event_store::JobQueueStore;
use sovereign_jobs::{Plan, ScheduleLog};
use sovereign_schemas::{AggregateType, Problem, RecordedEvent, Timestamp};

use super::gateway::Door;

#[async_trait]
impl ScheduleLog for Door {
    async fn adopted(&self, after: u64, limit: usize) -> Result<Vec<RecordedEvent>, Problem> {
        let reader = self.ledger.reader();
        reader
            .read_aggregate(AggregateType::Schedules, SCHEDULES_ID, after, limit)
            .await
            .map_err(|e| e.problem())
    }
}

/// All schedules, in their order.
pub(super) async fn listed(door: &Door, queue: &JobQueueStore) -> Result<Value, Problem> {
    let mut plan = Plan::default();
    plan.follow(door).await?;
    let timetable = plan.timetable();
    let names: Vec<&str> = timetable
        .schedules()
        .iter()
        .map(|s| s.name.as_str())
        .collect();
    let newest = queue.newest_runs(&names).await.map_err(|e| e.problem())?;
    let mut last: HashMap<String, Value> = newest
        .into_iter()
        .filter_map(|row| {
            let job = json!({ "job_id": row.job_id, "status": row.status });
            Some((row.schedule?, job))
        })
        .collect();
    let now = Timestamp::now();
    let schedules: Vec<Value> = timetable
        .schedules()
        .iter()
        .map(|schedule| {
            json!({
                "name": schedule.name,
                "cron": schedule.timing.cron().as_str(),
                "zone": schedule.timing.zone(),
                "catch_up": schedule.catch_up,
                "kind": schedule.job.kind,
                "queue": schedule.job.queue.as_str().to_lowercase(),
                "next_at": schedule.timing.next_after(now),
                "last_job": last.remove(schedule.name.as_str()),
            })
        })
        .collect();
    Ok(json!({
        "version": timetable.version(),
        "readable": !timetable.unreadable(),
        "text": timetable.text(),
        "schedules": schedules,
    }))
}
