//! The queue of jobs: claims, leases, floods, dependencies, and that it is only an index.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use sovereign_aggregates::job::{Abort, Cancel, JobCommand, Start, Step, Submit, Then, effect_id};
use sovereign_aggregates::{AnyCommand, CommandPort as _};
use sovereign_event_store::{Decided, JobQueueStore, Ledger};
use sovereign_guard::admit;
use sovereign_guard::scrub::Scrubber;
use sovereign_schemas::events::{JobQueue, Verdict};
use sovereign_schemas::{EventLog as _, Position, RawText, RecordedEvent, Status, Text};

use crate::common::{Database, request};

const LEASE: Duration = Duration::from_secs(10);

fn text(words: &str) -> Text {
    admit::plain(admit::clean(&Scrubber::standard(), &RawText::new(words)).unwrap())
}

fn submit(queue: JobQueue, after: &[&str]) -> JobCommand {
    JobCommand::Submit(Submit {
        kind: "plan".parse().unwrap(),
        queue,
        arguments: text("{}"),
        planned: None,
        run_at: None,
        after: after.iter().map(|id| id.parse().unwrap()).collect(),
        unique_key: None,
        attempts_max: 5,
        backoff_ms: 1_000,
        amount: None,
        currency: None,
        schedule: None,
    })
}

async fn send(ledger: &Ledger, job: &str, command: JobCommand) {
    let outcome = ledger.send(request(job, AnyCommand::Job(command))).await;
    assert_eq!(outcome.status, Status::Accepted, "{job}: {outcome:?}");
}

/// A job that a worker begins and ends at once.
async fn end(ledger: &Ledger, job: &str, verdict: Verdict) {
    let start = Start {
        attempt: 1,
        takes_over: false,
        worker: "worker-1".parse().unwrap(),
        lease_ms: 10_000,
        then: Then::Finish {
            verdict,
            result: None,
        },
    };
    send(ledger, job, JobCommand::Start(start)).await;
}

/// A worker begins, with an effect that takes long.
fn begin() -> JobCommand {
    JobCommand::Start(Start {
        attempt: 1,
        takes_over: false,
        worker: "worker-1".parse().unwrap(),
        lease_ms: 60_000,
        then: Then::Effect {
            kind: "timer".parse().unwrap(),
            effect: text("{}"),
            repeatable: true,
            compensates: None,
        },
    })
}

fn abort() -> JobCommand {
    JobCommand::Abort(Abort {
        reason: "operator".parse().unwrap(),
        approval_id: None,
    })
}

/// Feeds all that is in the ledger.
async fn feed(ledger: &Ledger, queue: &JobQueueStore) {
    loop {
        let after = queue.fed().await.unwrap();
        let (events, cursor) = ledger
            .reader()
            .log()
            .read(after.into(), 2_000)
            .await
            .unwrap();
        if events.is_empty() {
            return;
        }
        let own: Vec<Arc<RecordedEvent>> = events
            .into_iter()
            .filter(|e| e.header.aggregate_type == "job")
            .map(Arc::new)
            .collect();
        assert!(queue.feed(after, cursor.position, &own).await.unwrap());
    }
}

async fn flood(ledger: &Ledger, queue: JobQueue, count: usize) {
    let sent = futures::stream::iter(0..count).map(|number| {
        let job = format!("flood-{number}");
        async move { send(ledger, &job, submit(queue, &[])).await }
    });
    sent.buffer_unordered(256).for_each(|()| async {}).await;
}

async fn claimed(queue: &JobQueueStore, number: u8, most: usize, worker: &str) -> Vec<String> {
    let claims = queue.claim(number, most, worker, LEASE).await.unwrap();
    claims.into_iter().map(|claim| claim.job_id).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn several_workers_never_claim_the_same_job() {
    let database = Database::create().await;
    let (ledger, queue) = (
        database.open().await,
        JobQueueStore::connect(&database.url).unwrap(),
    );
    flood(&ledger, JobQueue::Default, 400).await;
    feed(&ledger, &queue).await;
    let workers: Vec<_> = (0..4)
        .map(|number| {
            let queue = JobQueueStore::connect(&database.url).unwrap();
            tokio::spawn(async move {
                let (name, mut own) = (format!("worker-{number}"), Vec::new());
                loop {
                    let more = claimed(&queue, 1, 7, &name).await;
                    if more.is_empty() {
                        return own;
                    }
                    own.extend(more);
                }
            })
        })
        .collect();
    let mut all = Vec::new();
    for worker in workers {
        all.extend(worker.await.unwrap());
    }
    let distinct: HashSet<&String> = all.iter().collect();
    assert_eq!((all.len(), distinct.len()), (400, 400));
    database.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_is_kept_by_renewal_and_lost_by_silence() {
    let database = Database::create().await;
    let (ledger, queue) = (
        database.open().await,
        JobQueueStore::connect(&database.url).unwrap(),
    );
    send(&ledger, "a", submit(JobQueue::Low, &[])).await;
    feed(&ledger, &queue).await;
    let short = Duration::from_millis(400);
    assert_eq!(queue.claim(2, 9, "one", short).await.unwrap().len(), 1);
    assert!(claimed(&queue, 2, 9, "two").await.is_empty());
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let kept = queue.renew(&["a".to_owned()], "one", short).await.unwrap();
        assert_eq!(kept, ["a"]);
        assert!(claimed(&queue, 2, 9, "two").await.is_empty());
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(claimed(&queue, 2, 9, "two").await, ["a"]);
    let kept = queue.renew(&["a".to_owned()], "one", short).await.unwrap();
    assert!(kept.is_empty(), "another has it");
    // who has lost it gives nothing back
    queue.give_back("a", "one", Duration::ZERO).await.unwrap();
    assert!(claimed(&queue, 2, 9, "three").await.is_empty());
    queue.give_back("a", "two", Duration::ZERO).await.unwrap();
    assert_eq!(claimed(&queue, 2, 9, "three").await, ["a"]);
    database.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_sees_which_of_its_jobs_were_given_up() {
    let database = Database::create().await;
    let (ledger, queue) = (
        database.open().await,
        JobQueueStore::connect(&database.url).unwrap(),
    );
    for job in ["a", "b", "c"] {
        send(&ledger, job, submit(JobQueue::Low, &[])).await;
    }
    feed(&ledger, &queue).await;
    assert_eq!(claimed(&queue, 2, 2, "one").await, ["a", "b"]);
    for job in ["a", "b"] {
        send(&ledger, job, begin()).await;
    }
    feed(&ledger, &queue).await;
    assert!(queue.given_up("one").await.unwrap().is_empty());
    send(&ledger, "a", abort()).await;
    send(&ledger, "c", abort()).await;
    feed(&ledger, &queue).await;
    assert_eq!(queue.given_up("one").await.unwrap(), ["a"]);
    assert!(queue.given_up("two").await.unwrap().is_empty());
    // the same from the first event on, where all comes in one batch
    queue.rebuild().await.unwrap();
    feed(&ledger, &queue).await;
    sqlx::query("update ledger.jobs set claimed_by = 'one'")
        .execute(&mut database.connect().await)
        .await
        .unwrap();
    assert_eq!(queue.given_up("one").await.unwrap(), ["a"]);
    database.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_low_jobs_keeps_no_high_job_waiting_and_low_goes_on() {
    let count = std::env::var("SOVEREIGN_TEST_FLOOD").ok();
    let count: usize = count.and_then(|n| n.parse().ok()).unwrap_or(10_000);
    let database = Database::create().await;
    let (ledger, queue) = (
        database.open().await,
        JobQueueStore::connect(&database.url).unwrap(),
    );
    let began = Instant::now();
    flood(&ledger, JobQueue::Low, count).await;
    let submitted = began.elapsed();
    feed(&ledger, &queue).await;
    let fed = began.elapsed() - submitted;
    // low is under way, and many of its jobs have leases
    let mut low = claimed(&queue, 2, 200, "worker-1").await;
    assert_eq!(low.len(), 200);
    let asked = Instant::now();
    send(&ledger, "alert", submit(JobQueue::High, &[])).await;
    feed(&ledger, &queue).await;
    assert_eq!(claimed(&queue, 0, 1, "worker-1").await, ["alert"]);
    let waited = asked.elapsed();
    let mut slowest = Duration::ZERO;
    for _ in 0..200 {
        let asked = Instant::now();
        low.extend(claimed(&queue, 2, 1, "worker-1").await);
        slowest = slowest.max(asked.elapsed());
    }
    assert_eq!(low.iter().collect::<HashSet<_>>().len(), 400);
    eprintln!(
        "{count} jobs: submitted in {submitted:?}, fed in {fed:?}; high began after {waited:?}; \
         slowest claim {slowest:?}"
    );
    assert!(waited < Duration::from_secs(2), "{waited:?}");
    let queues = queue.queues().await.unwrap();
    assert_eq!(queues[2].queued, i64::try_from(count).unwrap());
    database.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_goes_on_only_if_all_it_waits_for_are_green() {
    let database = Database::create().await;
    let (ledger, queue) = (
        database.open().await,
        JobQueueStore::connect(&database.url).unwrap(),
    );
    for job in ["green", "red"] {
        send(&ledger, job, submit(JobQueue::High, &[])).await;
    }
    send(&ledger, "early", submit(JobQueue::High, &["late"])).await;
    send(&ledger, "late", submit(JobQueue::High, &["early"])).await;
    send(&ledger, "one", submit(JobQueue::High, &["green"])).await;
    send(&ledger, "both", submit(JobQueue::High, &["green", "red"])).await;
    send(&ledger, "behind", submit(JobQueue::High, &["both"])).await;
    feed(&ledger, &queue).await;
    let cancel = |job: &str, because: &str, reason: &str| Decided::Cancel {
        job: job.parse().unwrap(),
        because: because.to_owned(),
        reason: reason.to_owned(),
    };
    // what comes later in the ledger cannot be waited for: there are no circles
    let unknown = cancel("early", "late", "dependency-unknown");
    assert_eq!(
        queue.decided().await.unwrap(),
        std::slice::from_ref(&unknown)
    );
    end(&ledger, "green", Verdict::Green).await;
    end(&ledger, "red", Verdict::Red).await;
    feed(&ledger, &queue).await;
    let decided = queue.decided().await.unwrap();
    let unblock = Decided::Unblock("one".parse().unwrap());
    let red = cancel("both", "red", "dependency-red");
    assert_eq!(decided, [unknown, unblock, red.clone()]);
    send(&ledger, "one", JobCommand::Unblock).await;
    for decided in [&decided[0], &red] {
        let Decided::Cancel {
            job,
            because,
            reason,
        } = decided
        else {
            panic!("{decided:?}")
        };
        let cancel = JobCommand::Cancel(Cancel {
            because: because.parse().unwrap(),
            reason: reason.parse().unwrap(),
        });
        send(&ledger, job.as_str(), cancel).await;
    }
    feed(&ledger, &queue).await;
    assert_eq!(
        queue.decided().await.unwrap(),
        [
            cancel("late", "early", "dependency-cancelled"),
            cancel("behind", "both", "dependency-cancelled")
        ]
    );
    assert_eq!(claimed(&queue, 0, 9, "worker").await, ["one"]);
    database.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tables_are_only_an_index_and_paused_queues_give_nothing() {
    let database = Database::create().await;
    let (ledger, queue) = (
        database.open().await,
        JobQueueStore::connect(&database.url).unwrap(),
    );
    for job in ["a", "b", "c"] {
        send(&ledger, job, submit(JobQueue::Default, &[])).await;
    }
    send(&ledger, "d", submit(JobQueue::Default, &["a"])).await;
    end(&ledger, "a", Verdict::Green).await;
    send(&ledger, "b", begin()).await;
    feed(&ledger, &queue).await;
    let before = queue.list(0, 100, true).await.unwrap();
    let statuses: Vec<&str> = before.iter().map(|row| row.status.as_str()).collect();
    assert_eq!(statuses, ["green", "running", "queued", "blocked"]);
    queue.rebuild().await.unwrap();
    assert_eq!(queue.fed().await.unwrap(), Position::START);
    feed(&ledger, &queue).await;
    assert_eq!(queue.list(0, 100, true).await.unwrap(), before);
    // two feeders: the second finds that it is late, and changes nothing
    let fed = queue.fed().await.unwrap();
    assert!(!queue.feed(Position(0), fed, &[]).await.unwrap());

    queue.pause(1, "operator").await.unwrap();
    assert!(claimed(&queue, 1, 9, "worker-2").await.is_empty());
    assert_eq!(
        queue.queues().await.unwrap()[1].paused_by.as_deref(),
        Some("operator")
    );
    queue.resume(1).await.unwrap();
    // what runs has its lease, also after a rebuild
    assert_eq!(claimed(&queue, 1, 9, "worker-2").await, ["c"]);
    let effect = effect_id(&"b".parse().unwrap(), 0);
    assert_eq!(effect.get_version_num(), 5);
    let step = Step {
        attempt: 1,
        ended: None,
        then: Then::Retry,
    };
    send(&ledger, "b", JobCommand::Step(step)).await;
    feed(&ledger, &queue).await;
    assert!(
        claimed(&queue, 1, 9, "worker-2").await.is_empty(),
        "not due yet"
    );
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    assert_eq!(claimed(&queue, 1, 9, "worker-2").await, ["b"]);
    database.remove().await;
}
