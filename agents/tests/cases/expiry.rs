use std::sync::Arc;
use std::time::Duration;

use sovereign_agents::logic::Seen;
use sovereign_aggregates::AnyEvent;
use sovereign_schemas::events::{ApprovalEvent, TradeEvent};

use crate::ledger::{self, Ledger};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn approvals_nobody_answered_expire_once_and_their_trades_are_cancelled() {
    let file = ledger::market(Some(300));
    let ledger = Ledger::new();
    let checkpoints = Arc::default();
    let (runner, handle) = ledger::runner(&ledger, &checkpoints, &file);
    let running = tokio::spawn(runner.run());
    handle.start_task(file.clone()).await.unwrap();
    ledger::done(&ledger, &handle).await;
    let waiting = handle.progress().approvals_waiting;
    assert!(waiting > 0);
    let before = ledger.len();
    assert!(handle.stop().await);
    running.await.unwrap().unwrap();

    // the engine is down while the time passes
    ledger.advance_clock(3_601);
    let (runner, handle) = ledger::runner(&ledger, &checkpoints, &file);
    let running = tokio::spawn(runner.run());
    ledger.reaches(before + 2 * waiting).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(handle.progress().approvals_waiting, 0);
    assert!(handle.stop().await);
    running.await.unwrap().unwrap();

    let after: Vec<Seen> = ledger
        .events()
        .into_iter()
        .skip(before)
        .map(|e| Seen::decode(e).unwrap())
        .collect();
    let expired = after
        .iter()
        .filter(|s| {
            matches!(
                s.event,
                AnyEvent::Approval(ApprovalEvent::ApprovalExpired(_))
            )
        })
        .count();
    let cancelled = after
        .iter()
        .filter(|s| matches!(&s.event, AnyEvent::Trade(TradeEvent::TradeCancelled(e)) if e.reason == "approval_expired"))
        .count();
    assert_eq!(
        (expired, cancelled, after.len()),
        (waiting, waiting, 2 * waiting)
    );
}
