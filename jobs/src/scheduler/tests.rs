use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use sovereign_schemas::avro::EventGroup as _;
use sovereign_schemas::events::{SchedulesAdopted, SchedulesEvent};
use sovereign_schemas::{AggregateType, Digest, EventHeader, Outcome, Position, Text, Timestamp};

use super::*;
use crate::Reveal;

const HOUR_US: i64 = 3_600_000_000;

fn at(moment: &str) -> Timestamp {
    moment.parse().unwrap()
}

fn adopted(version: i32, recorded_at: &str, schedules: &str) -> RecordedEvent {
    let text = format!("version = {version}\n{schedules}");
    let event = SchedulesEvent::from(SchedulesAdopted {
        version,
        digest: Digest::of(&[text.as_bytes()]),
        text,
    });
    let (event_type, mut payload) = (event.event_type(), Vec::new());
    event.encode(&mut payload);
    let sequence = u64::try_from(version).unwrap();
    RecordedEvent {
        header: EventHeader {
            position: Position(sequence),
            event_id: Uuid::now_v7(),
            aggregate_type: AggregateType::Schedules.as_str().into(),
            aggregate_id: "main".into(),
            sequence,
            event_type: event_type.as_str().into(),
            event_version: event_type.latest_version(),
            department: DepartmentId::ORCHESTRATOR,
            actor: "operator".into(),
            command_id: Uuid::now_v7(),
            correlation_id: Uuid::now_v7(),
            causation_id: None,
            recorded_at: at(recorded_at),
            schema_fingerprint: [0; 8],
        },
        payload: payload.into(),
        hash: Digest::ZERO,
        traceparent: None,
    }
}

fn every(name: &str, cron: &str, more: &str) -> String {
    format!(
        "[[schedules]]\nname = \"{name}\"\ncron = \"{cron}\"\nzone = \"UTC\"\n{more}\
         job = {{ kind = \"plan\", arguments = {{ steps = [{{ effect = {{ kind = \"timer\", \
         until = \"2026-01-01T00:00:00Z\" }} }}] }} }}\n"
    )
}

/// A ledger that takes a command once and a job once, and remembers refusals.
#[derive(Default)]
struct Ledger {
    log: Mutex<Vec<RecordedEvent>>,
    jobs: Mutex<Vec<String>>,
    outcomes: Mutex<HashMap<Uuid, Outcome>>,
    away: AtomicBool,
}

#[async_trait]
impl Reveal for Ledger {
    async fn reveal(&self, _: &Text) -> Result<String, Problem> {
        Err(Problem::new(ErrorCode::Internal, "has no keys"))
    }
}

#[async_trait]
impl JobLedger for Ledger {
    async fn events(&self, _: &AggregateId) -> Result<Vec<RecordedEvent>, Problem> {
        Ok(Vec::new())
    }

    fn scrub(&self, text: &str) -> String {
        text.to_owned()
    }

    async fn submit(&self, request: JobRequest) -> Outcome {
        if self.away.load(Ordering::Relaxed) {
            let problem = Problem::new(ErrorCode::Busy, "too much to do");
            return Outcome::failed(Status::Invalid, problem);
        }
        let mut outcomes = self.outcomes.lock().unwrap();
        let id = request.context.command_id;
        if let Some(known) = outcomes.get(&id) {
            return match known.error.clone() {
                None => Outcome::effective(Status::Duplicate, None),
                Some(problem) => Outcome::failed(known.status, problem),
            };
        }
        let job = request.job.to_string();
        let mut jobs = self.jobs.lock().unwrap();
        let outcome = if jobs.contains(&job) {
            let problem = Problem::new(ErrorCode::AlreadyExists, "the job was submitted before");
            Outcome::failed(Status::Refused, problem)
        } else {
            jobs.push(job);
            Outcome::effective(Status::Accepted, None)
        };
        outcomes.insert(id, outcome.clone());
        outcome
    }
}

#[async_trait]
impl ScheduleLog for Ledger {
    async fn adopted(&self, after: u64, limit: usize) -> Result<Vec<RecordedEvent>, Problem> {
        let log = self.log.lock().unwrap();
        let behind = log.iter().filter(|e| e.header.sequence > after);
        Ok(behind.take(limit).cloned().collect())
    }
}

impl Ledger {
    fn with(events: Vec<RecordedEvent>) -> Arc<Self> {
        Arc::new(Self {
            log: Mutex::new(events),
            ..Self::default()
        })
    }

    fn jobs(&self) -> Vec<String> {
        self.jobs.lock().unwrap().clone()
    }

    /// A scheduler as a process that has just started has it.
    fn scheduler(self: &Arc<Self>) -> (Scheduler, Plan) {
        let actor = "orchestrator".parse().unwrap();
        let scheduler = Scheduler::new(self.clone(), self.clone(), Departments::default(), actor);
        (scheduler, Plan::default())
    }
}

#[tokio::test]
async fn each_run_is_one_job_whoever_asks_and_however_often() {
    let ledger = Ledger::with(vec![adopted(
        1,
        "2026-03-01T00:30:00Z",
        &every("report", "0 * * * *", ""),
    )]);
    let (one, mut plan) = ledger.scheduler();
    let (two, mut other) = ledger.scheduler();
    for minute in 20..60 {
        let now = at(&format!("2026-03-01T01:{minute}:00Z"));
        one.tick(&mut plan, now).await.unwrap();
        two.tick(&mut other, now).await.unwrap();
        // and one that was killed and started again
        let (again, mut fresh) = ledger.scheduler();
        again.tick(&mut fresh, now).await.unwrap();
    }
    assert_eq!(ledger.jobs(), ["report_030126_0100"]);
}

#[tokio::test]
async fn after_a_downtime_one_run_is_made_up_for() {
    let late =
        every("late", "0 * * * *", "") + &every("never-late", "0 * * * *", "catch_up = false\n");
    let ledger = Ledger::with(vec![adopted(1, "2026-03-01T00:30:00Z", &late)]);
    let (scheduler, mut plan) = ledger.scheduler();
    scheduler
        .tick(&mut plan, at("2026-03-04T05:59:00Z"))
        .await
        .unwrap();
    assert_eq!(ledger.jobs(), ["late_030426_0500"]);
    scheduler
        .tick(&mut plan, at("2026-03-04T06:00:59Z"))
        .await
        .unwrap();
    assert_eq!(
        ledger.jobs()[1..],
        ["late_030426_0600", "never-late_030426_0600"]
    );
}

#[tokio::test]
async fn nothing_is_made_up_for_from_before_a_schedule_held() {
    let first = adopted(1, "2026-03-01T12:30:00Z", &every("a", "0 12 * * *", ""));
    let ledger = Ledger::with(vec![first]);
    let (scheduler, mut plan) = ledger.scheduler();
    scheduler
        .tick(&mut plan, at("2026-03-01T12:31:00Z"))
        .await
        .unwrap();
    assert_eq!(ledger.jobs(), Vec::<String>::new());
    // another expression begins anew, an unchanged one goes on where it was
    let both = every("a", "30 11 * * *", "") + &every("b", "0 12 * * *", "");
    ledger
        .log
        .lock()
        .unwrap()
        .push(adopted(2, "2026-03-02T12:45:00Z", &both));
    ledger
        .log
        .lock()
        .unwrap()
        .push(adopted(3, "2026-03-03T12:45:00Z", &both));
    scheduler
        .tick(&mut plan, at("2026-03-03T12:46:00Z"))
        .await
        .unwrap();
    assert_eq!(ledger.jobs(), ["a_030326_1130", "b_030326_1200"]);
    ledger
        .log
        .lock()
        .unwrap()
        .push(adopted(4, "2026-03-04T00:00:00Z", ""));
    scheduler
        .tick(&mut plan, at("2026-03-04T13:00:00Z"))
        .await
        .unwrap();
    assert_eq!(
        ledger.jobs().len(),
        2,
        "schedules that were taken away do not run"
    );
}

#[tokio::test]
async fn a_clock_that_jumps_ahead_makes_one_job_and_one_that_jumps_back_none() {
    let ledger = Ledger::with(vec![adopted(
        1,
        "2026-03-01T00:30:00Z",
        &every("minutely", "* * * * *", ""),
    )]);
    let (scheduler, mut plan) = ledger.scheduler();
    let now = at("2026-03-01T10:00:00Z");
    scheduler.tick(&mut plan, now).await.unwrap();
    // a year ahead, and back
    let year = Timestamp(now.0 + 365 * 24 * HOUR_US);
    scheduler.tick(&mut plan, year).await.unwrap();
    assert_eq!(
        ledger.jobs(),
        ["minutely_030126_1000", "minutely_030127_1000"]
    );
    for second in 0..60 {
        let back = Timestamp(now.0 + second * 1_000_000);
        scheduler.tick(&mut plan, back).await.unwrap();
    }
    assert_eq!(ledger.jobs().len(), 2, "{:?}", ledger.jobs());
    // and it goes on in the present
    scheduler
        .tick(&mut plan, at("2026-03-01T10:01:00Z"))
        .await
        .unwrap();
    assert_eq!(ledger.jobs()[2..], ["minutely_030126_1001"]);
    // an hour back: what ran does not run again
    for minute in 0..3 {
        let again = Timestamp(at("2026-03-01T09:59:00Z").0 + minute * 60_000_000);
        scheduler.tick(&mut plan, again).await.unwrap();
    }
    assert_eq!(ledger.jobs()[3..], ["minutely_030126_0959"]);
}

#[tokio::test]
async fn a_ledger_that_has_too_much_to_do_is_asked_again() {
    let ledger = Ledger::with(vec![adopted(
        1,
        "2026-03-01T00:30:00Z",
        &every("a", "0 * * * *", ""),
    )]);
    let (scheduler, mut plan) = ledger.scheduler();
    ledger.away.store(true, Ordering::Relaxed);
    let waits = scheduler.tick(&mut plan, at("2026-03-01T01:00:00Z")).await;
    assert_eq!(waits.unwrap_err().code, ErrorCode::Busy);
    ledger.away.store(false, Ordering::Relaxed);
    scheduler
        .tick(&mut plan, at("2026-03-01T01:00:01Z"))
        .await
        .unwrap();
    assert_eq!(ledger.jobs(), ["a_030126_0100"]);
}

#[tokio::test]
async fn a_job_of_somebody_else_under_the_same_id_takes_no_run_away() {
    let ledger = Ledger::with(vec![adopted(
        1,
        "2026-03-01T00:30:00Z",
        &every("a", "0 * * * *", ""),
    )]);
    ledger.jobs.lock().unwrap().push("a_030126_0100".to_owned());
    for _ in 0..3 {
        let (scheduler, mut plan) = ledger.scheduler();
        scheduler
            .tick(&mut plan, at("2026-03-01T01:00:00Z"))
            .await
            .unwrap();
    }
    assert_eq!(ledger.jobs(), ["a_030126_0100", "a_030126_0100_2"]);
}

#[tokio::test]
async fn a_run_that_can_never_be_a_job_is_given_up_and_others_go_on() {
    let bad = every("bad", "0 * * * *", "").replace("\"plan\"", "\"magic\"");
    let ledger = Ledger::with(vec![adopted(
        1,
        "2026-03-01T00:30:00Z",
        &(bad + &every("good", "0 * * * *", "")),
    )]);
    let (scheduler, mut plan) = ledger.scheduler();
    scheduler
        .tick(&mut plan, at("2026-03-01T01:00:00Z"))
        .await
        .unwrap();
    assert_eq!(ledger.jobs(), ["good_030126_0100"]);
    assert_eq!(plan.due(at("2026-03-01T01:00:02Z")), []);
    assert_eq!(
        plan.next(at("2026-03-01T01:00:02Z")),
        Some(at("2026-03-01T02:00:00Z"))
    );
}

#[tokio::test]
async fn schedules_of_a_newer_build_do_not_run_and_are_said_to() {
    let ledger = Ledger::with(vec![adopted(1, "2026-03-01T00:30:00Z", "moods = 1\n")]);
    let (scheduler, mut plan) = ledger.scheduler();
    let problem = scheduler
        .tick(&mut plan, at("2026-03-01T01:00:00Z"))
        .await
        .unwrap_err();
    assert_eq!(problem.code, ErrorCode::InvalidSchedule);
}
