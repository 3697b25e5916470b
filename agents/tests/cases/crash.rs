use std::sync::Arc;
use std::time::Duration;

use sovereign_agents::LANES;
use sovereign_schemas::Position;

use crate::ledger::{self, Checkpoints, Faults, Ledger};

type Story = Vec<(String, u16, Vec<u8>)>;

/// Under retries a thought may be recorded just before the transition that it was sent with.
fn split(story: Story) -> (Story, Story) {
    story
        .into_iter()
        .partition(|(kind, ..)| kind == "ThoughtRecorded")
}

pub(crate) fn assert_same(found: &Ledger, expected: &Ledger, seed: u64) {
    let (mut found, expected) = (ledger::stories(found), ledger::stories(expected));
    assert_eq!(found.len(), expected.len(), "seed {seed}");
    for (aggregate, story) in expected {
        let own = found.remove(&aggregate).unwrap_or_default();
        assert_eq!(split(own), split(story), "seed {seed}, {aggregate}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crashes_and_refused_commands_leave_no_trace() {
    let file = ledger::market(Some(150));
    let expected = ledger::run(&file).await;
    for seed in 1..=8_u64 {
        let ledger = Ledger::new();
        ledger.set_faults(Faults::Some, seed * 7_919);
        let checkpoints = Arc::new(Checkpoints::default());
        for crash in 0..6_usize {
            let (runner, handle) = ledger::runner(&ledger, &checkpoints, &file);
            let (from, to) = (crash * expected.len() / 6, (crash + 1) * expected.len() / 6);
            let at = from + ledger.random((to - from) as u64) as usize;
            let starter = handle.clone();
            let input = file.clone();
            tokio::select! {
                ended = runner.run() => panic!("seed {seed}: {ended:?}"),
                () = async { let _ = starter.start_task(input).await; std::future::pending().await } => {}
                () = ledger.reaches(at) => {}
            }
            // a checkpoint may be old, even lost
            for saved in checkpoints.0.lock().unwrap().values_mut() {
                *saved = match ledger.random(3) {
                    0 => Position::START,
                    1 => Position(saved.0 - ledger.random(saved.0 + 1)),
                    _ => *saved,
                };
            }
        }
        let (runner, handle) = ledger::runner(&ledger, &checkpoints, &file);
        let running = tokio::spawn(runner.run());
        handle.start_task(file.clone()).await.unwrap();
        ledger::done(&ledger, &handle).await;
        assert!(handle.stop().await);
        running.await.unwrap().unwrap();
        assert_same(&ledger, &expected, seed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn goes_on_by_itself_after_a_restart() {
    let file = ledger::market(Some(80));
    let expected = ledger::run(&file).await;
    let ledger = Ledger::new();
    let checkpoints = Arc::new(Checkpoints::default());
    let (runner, handle) = ledger::runner(&ledger, &checkpoints, &file);
    tokio::select! {
        ended = runner.run() => panic!("{ended:?}"),
        () = async { handle.start_task(file.clone()).await.unwrap(); ledger.reaches(700).await } => {}
    }
    let (runner, handle) = ledger::runner(&ledger, &checkpoints, &file);
    let running = tokio::spawn(runner.run());
    ledger::done(&ledger, &handle).await;
    assert!(handle.stop().await);
    running.await.unwrap().unwrap();
    assert_same(&ledger, &expected, 0);
}

#[tokio::test]
async fn a_checkpoint_beyond_the_ledger_is_not_believed() {
    let file = ledger::market(Some(40));
    let expected = ledger::run(&file).await;
    let ledger = Ledger::new();
    let checkpoints = Arc::new(Checkpoints::default());
    let beyond = ("agents/08".to_owned(), Position(1_000_000));
    checkpoints.0.lock().unwrap().extend([beyond]);
    let (runner, handle) = ledger::runner(&ledger, &checkpoints, &file);
    let running = tokio::spawn(runner.run());
    handle.start_task(file.clone()).await.unwrap();
    ledger::done(&ledger, &handle).await;
    assert_same(&ledger, &expected, 0);
    assert!(handle.stop().await);
    running.await.unwrap().unwrap();
    let saved = checkpoints.0.lock().unwrap();
    assert_eq!(saved.len(), LANES);
    assert!(saved.values().all(|p| p.0 == ledger.len() as u64));
}

#[tokio::test]
async fn a_missing_market_file_shows_in_the_health_and_the_work_waits() {
    let file = ledger::market(Some(40));
    let ledger = Ledger::new();
    let other = ledger::market(Some(10));
    let (runner, handle) = ledger::runner(&ledger, &Arc::default(), &other);
    let running = tokio::spawn(runner.run());
    handle.start_task(file).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let health = handle.health();
    assert!(!health.healthy && !health.ended, "{health:?}");
    assert!(health.problems.contains_key("aapl"), "{health:?}");
    assert!(handle.stop().await);
    running.await.unwrap().unwrap();
}
