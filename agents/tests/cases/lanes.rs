//! Several runners on one ledger, as several processes would be.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sovereign_agents::market::MarketFile;
use sovereign_agents::{Duties, LANES, RunnerHandle, RunnerOptions};
use sovereign_schemas::Position;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::crash::assert_same;
use crate::ledger::{self, Checkpoints, Ledger};

fn only(lanes: impl IntoIterator<Item = usize>) -> Duties {
    Duties {
        lanes: lanes.into_iter().collect(),
        expiry: false,
    }
}

struct One {
    duties: watch::Sender<Duties>,
    handle: RunnerHandle,
    running: JoinHandle<()>,
}

impl One {
    fn start(
        ledger: &Arc<Ledger>,
        checkpoints: &Arc<Checkpoints>,
        file: &Arc<MarketFile>,
        duties: Duties,
    ) -> Self {
        let (duties, receiver) = watch::channel(duties);
        let options = RunnerOptions {
            duties: receiver,
            ..RunnerOptions::default()
        };
        let (runner, handle) = ledger::runner_with(options, ledger, checkpoints, file);
        let running = tokio::spawn(async move { runner.run().await.unwrap() });
        Self {
            duties,
            handle,
            running,
        }
    }

    /// Like a crash.
    async fn kill(self) {
        self.running.abort();
        let _ = self.running.await;
    }
}

const BARS: usize = 150;

fn sent(ledger: &Ledger) -> u64 {
    ledger.submitted.load(Ordering::Relaxed)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lanes_that_move_between_runners_leave_the_stories_of_one_runner() {
    let file = ledger::market(Some(BARS));
    let expected = ledger::run(&file).await;
    for seed in 1..=4_u64 {
        let ledger = Ledger::new();
        ledger.set_faults(ledger::Faults::Some, seed * 104_729);
        let checkpoints = Arc::new(Checkpoints::default());
        let a = One::start(&ledger, &checkpoints, &file, Duties::all());
        let mut b = One::start(&ledger, &checkpoints, &file, Duties::default());
        // whoever gets the task need not be the one who does it
        b.handle.start_task(file.clone()).await.unwrap();
        for step in 1..=8_usize {
            ledger.reaches(step * expected.len() / 10).await;
            let split: BTreeSet<usize> = (0..LANES).filter(|_| ledger.random(2) == 0).collect();
            if step % 3 == 0 {
                b.kill().await;
                // in between nobody has its lanes
                tokio::time::sleep(Duration::from_millis(ledger.random(20))).await;
                b = One::start(&ledger, &checkpoints, &file, only(split.iter().copied()));
            } else if step % 3 == 1 {
                // for a moment both have them
                b.duties.send_replace(only(split.iter().copied()));
            }
            let rest = (0..LANES).filter(|lane| !split.contains(lane));
            a.duties.send_replace(only(rest));
            b.duties.send_replace(only(split.iter().copied()));
        }
        ledger::done(&ledger, &a.handle).await;
        assert_same(&ledger, &expected, seed);
        let [of_a, of_b] = [&a, &b].map(|one| {
            let mut progress = one.handle.progress();
            // both are of the moment
            progress.events_per_s = 0.0;
            progress.pending = 0;
            progress
        });
        assert_eq!(of_a, of_b);
        assert!(a.handle.stop().await && b.handle.stop().await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lane_goes_on_at_the_checkpoint_of_its_last_owner_and_not_before() {
    let file = ledger::market(Some(BARS));
    let ledger = Ledger::new();
    let checkpoints = Arc::new(Checkpoints::default());
    let a = One::start(&ledger, &checkpoints, &file, Duties::all());
    let b = One::start(&ledger, &checkpoints, &file, Duties::default());
    a.handle.start_task(file.clone()).await.unwrap();
    ledger::done(&ledger, &a.handle).await;
    let saved = checkpoints.0.lock().unwrap().clone();
    assert!(
        saved.values().all(|p| p.0 == ledger.len() as u64),
        "{saved:?}"
    );
    let before = sent(&ledger);
    a.duties.send_replace(Duties::default());
    b.duties.send_replace(Duties::all());
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(b.handle.health().lanes.len(), LANES);
    assert!(a.handle.health().lanes.is_empty());
    assert_eq!(sent(&ledger), before, "nothing was sent a second time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lane_too_far_behind_is_folded_again() {
    let file = ledger::market(None);
    let ledger = Ledger::new();
    let checkpoints = Arc::new(Checkpoints::default());
    let a = One::start(&ledger, &checkpoints, &file, Duties::all());
    a.handle.start_task(file.clone()).await.unwrap();
    ledger::done(&ledger, &a.handle).await;
    a.kill().await;
    let (before, submitted) = (ledger.len(), sent(&ledger));
    // as if nobody had ever saved anything: each lane has more to do again than is kept
    let empty = Arc::new(Checkpoints::default());
    let b = One::start(&ledger, &empty, &file, Duties::default());
    let caught_up = async {
        while !b.handle.health().caught_up {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), caught_up)
        .await
        .unwrap();
    assert_eq!(sent(&ledger), submitted);
    b.duties.send_replace(Duties::all());
    // the ledger does not grow by what it knows: only what is sent tells that it goes on
    let mut last = 0;
    while sent(&ledger) <= submitted + 30_000 || sent(&ledger) != last {
        last = sent(&ledger);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    ledger::done(&ledger, &b.handle).await;
    assert!(b.handle.stop().await);
    assert_eq!(ledger.len(), before, "all of it was known");
    assert!(sent(&ledger) > submitted + 30_000, "and all of it was sent");
    let saved = empty.0.lock().unwrap();
    assert!(saved.values().all(|p| *p == Position(ledger.len() as u64)));
}
