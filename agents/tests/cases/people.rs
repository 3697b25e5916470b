//! What others do while the agents work, and what the agents make of it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use sovereign_agents::{
    CheckpointStore, Gateway, RawRequest, Runner, RunnerError, RunnerHandle, RunnerOptions,
};
use sovereign_aggregates::AnyCommand;
use sovereign_schemas::{
    CommandContext, DepartmentId, ErrorCode, IMPORT_ACTOR, Outcome, Position, RecordedEvent, Status,
};

use crate::ledger::{self, Checkpoints, Ledger, OneFile};

fn send(ledger: &Ledger, aggregate: &str, id: &str, command: &str, data: Value) -> Outcome {
    send_as(ledger, "operator", aggregate, id, command, data)
}

fn send_as(
    ledger: &Ledger,
    actor: &str,
    aggregate: &str,
    id: &str,
    command: &str,
    data: Value,
) -> Outcome {
    let command = AnyCommand::parse(aggregate, command, data).unwrap();
    let context = CommandContext::fresh(actor.parse().unwrap(), DepartmentId::ORCHESTRATOR);
    ledger.decide(RawRequest {
        aggregate_id: id.parse().unwrap(),
        command,
        context,
    })
}

fn bar(ledger: &Ledger, day: &str, price: &str) {
    let data = json!({"instrument": "ETH", "opened_at": day, "open": price, "high": price,
        "low": price, "close": price, "volume": "1"});
    assert_eq!(
        send(ledger, "agent", "hunter-eth", "observe_market", data).status,
        Status::Accepted
    );
}

fn propose(ledger: &Ledger, id: &str, instrument: &str, quantity: &str, price: &str, day: &str) {
    let data = json!({"agent_id": "bob", "instrument": instrument, "side": "BUY",
        "quantity": quantity, "price": price, "decided_on": day, "rationale": "I like it"});
    assert_eq!(
        send(ledger, "trade", id, "propose", data).status,
        Status::Accepted
    );
}

/// The event types of one aggregate.
fn story(ledger: &Ledger, id: &str) -> Vec<String> {
    let events = ledger.events();
    let own = events.iter().filter(|e| e.header.aggregate_id == id);
    own.map(|e| e.header.event_type.to_string()).collect()
}

async fn quiet(ledger: &Ledger) {
    let mut length = usize::MAX;
    while length != ledger.len() {
        length = ledger.len();
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
}

/// Agents without any task, with an ETH market that is fed by hand.
async fn by_hand() -> (Arc<Ledger>, RunnerHandle) {
    let ledger = Ledger::new();
    let (runner, handle) = ledger::runner(&ledger, &Arc::default(), &ledger::market(Some(1)));
    tokio::spawn(runner.run());
    for (id, role) in [("trader-eth", "trader"), ("hunter-eth", "hunter")] {
        send(&ledger, "agent", id, "register", json!({"role": role}));
    }
    (ledger, handle)
}

#[tokio::test]
async fn intents_of_others_are_judged_where_a_market_is_observed() {
    let (ledger, _handle) = by_hand().await;
    bar(&ledger, "2026-01-01", "100");
    quiet(&ledger).await;
    propose(&ledger, "small", "ETH", "2", "100.5", "2026-01-01");
    propose(&ledger, "large", "ETH", "20", "100", "2026-01-01");
    propose(&ledger, "huge", "ETH", "51", "100", "2026-01-01");
    propose(&ledger, "dear", "ETH", "1", "102", "2026-01-01");
    propose(&ledger, "stale", "ETH", "1", "100", "2025-12-31");
    propose(&ledger, "elsewhere", "BTC", "1", "100", "2026-01-01");
    quiet(&ledger).await;
    bar(&ledger, "2026-01-02", "101");
    quiet(&ledger).await;
    let judged = ["TradeProposed", "VerdictGiven"];
    assert_eq!(story(&ledger, "small")[..2], judged);
    assert_eq!(
        story(&ledger, "small")[2..],
        ["TradeAuthorized", "TradePlaced", "TradeFilled"]
    );
    assert_eq!(story(&ledger, "large")[2..], ["TradeHeld"]);
    assert_eq!(story(&ledger, "approval_large"), ["ApprovalRequested"]);
    for red in ["huge", "dear", "stale"] {
        assert_eq!(story(&ledger, red), judged, "{red}");
    }
    assert_eq!(story(&ledger, "elsewhere"), ["TradeProposed"]);

    // a human says no; and bob may not buy twice
    send(
        &ledger,
        "approval",
        "approval_large",
        "deny",
        json!({"reason": "too much"}),
    );
    propose(&ledger, "again", "ETH", "1", "101", "2026-01-02");
    quiet(&ledger).await;
    assert_eq!(story(&ledger, "large")[3..], ["TradeCancelled"]);
    assert_eq!(story(&ledger, "again"), judged);
}

/// An ETH trade of this id that is authorized, and a worker that does nothing.
async fn authorized(id: &str) -> (Arc<Ledger>, RunnerHandle) {
    let (ledger, handle) = by_hand().await;
    ledger.works.store(false, Ordering::Relaxed);
    bar(&ledger, "2026-01-01", "100");
    quiet(&ledger).await;
    propose(&ledger, id, "ETH", "2", "100", "2026-01-01");
    quiet(&ledger).await;
    assert_eq!(story(&ledger, id).last().unwrap(), "TradeAuthorized");
    (ledger, handle)
}

#[tokio::test]
async fn a_trade_whose_order_is_placed_waits_for_the_end_of_its_job_and_cannot_be_cancelled() {
    let (ledger, _handle) = authorized("t").await;
    bar(&ledger, "2026-01-02", "101");
    quiet(&ledger).await;
    assert_eq!(story(&ledger, "order_t"), ["JobSubmitted"]);
    let cancel = || {
        send(
            &ledger,
            "trade",
            "t",
            "cancel",
            json!({"reason": "operator"}),
        )
    };
    assert_eq!(cancel().error.unwrap().code, ErrorCode::WrongState);
    send(
        &ledger,
        "job",
        "order_t",
        "abort",
        json!({"reason": "operator"}),
    );
    quiet(&ledger).await;
    assert_eq!(story(&ledger, "order_t"), ["JobSubmitted", "JobAborted"]);
    let last: Vec<_> = story(&ledger, "t").split_off(3);
    assert_eq!(last, ["TradePlaced", "TradeCancelled"]);
}

#[tokio::test]
async fn a_job_of_somebody_else_under_the_id_of_an_order_fills_no_trade() {
    let forged = json!({"kind": "plan", "arguments": json!({"steps": [{"effect":
        {"kind": "order", "exchange": "mock", "instrument": "ETH", "side": "BUY",
         "quantity": "2", "price": "1", "at": "2026-01-03"}}]}).to_string()});
    for early in [true, false] {
        let (ledger, _handle) = authorized("t").await;
        let submit = || send(&ledger, "job", "order_t", "submit", forged.clone());
        if early {
            ledger.works.store(true, Ordering::Relaxed);
            assert_eq!(submit().status, Status::Accepted);
        }
        bar(&ledger, "2026-01-02", "101");
        quiet(&ledger).await;
        if !early {
            assert_eq!(submit().error.unwrap().code, ErrorCode::AlreadyExists);
        }
        let story = story(&ledger, "t");
        let expected: &[_] = if early {
            &["TradeCancelled"]
        } else {
            &["TradePlaced"]
        };
        assert_eq!(story[3..], *expected, "{early}");
    }
}

#[tokio::test]
async fn what_was_brought_in_from_another_store_is_left_alone() {
    let (ledger, _handle) = by_hand().await;
    bar(&ledger, "2026-01-01", "100");
    quiet(&ledger).await;
    let intent = json!({"agent_id": "bob", "instrument": "ETH", "side": "BUY", "quantity": "2",
        "price": "100", "decided_on": "2026-01-01", "rationale": "long ago"});
    for (actor, id) in [(IMPORT_ACTOR, "old"), ("bob", "new")] {
        send_as(&ledger, actor, "trade", id, "propose", intent.clone());
    }
    quiet(&ledger).await;
    assert_eq!(
        story(&ledger, "new")[..2],
        ["TradeProposed", "VerdictGiven"]
    );
    assert_eq!(story(&ledger, "old"), ["TradeProposed"]);
}

#[tokio::test]
async fn bars_fed_faster_than_they_are_looked_at_do_no_harm() {
    let (ledger, handle) = by_hand().await;
    for day in 1..=28 {
        bar(&ledger, &format!("2026-01-{day:02}"), "100");
    }
    for day in 1..=28 {
        bar(
            &ledger,
            &format!("2026-02-{day:02}"),
            if day < 10 { "100" } else { "104" },
        );
        if day % 3 == 0 {
            quiet(&ledger).await;
        }
    }
    quiet(&ledger).await;
    let trader = story(&ledger, "trader-eth");
    assert!(
        !trader.contains(&"TransitionRefused".to_owned()),
        "{trader:?}"
    );
    let last = ledger
        .events()
        .iter()
        .rfind(|e| e.header.aggregate_id == "trader-eth")
        .cloned();
    assert_eq!(last.unwrap().header.event_type, "StateTransitioned");
    assert!(handle.health().healthy);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_may_cancel_and_interrupt_and_the_work_goes_on() {
    let file = ledger::market(Some(200));
    let ledger = Ledger::new();
    ledger.latency_ms.store(1, Ordering::Relaxed);
    let (runner, handle) = ledger::runner(&ledger, &Arc::default(), &file);
    tokio::spawn(runner.run());
    handle.start_task(file.clone()).await.unwrap();
    let mut at = 0;
    let (mut cancelled, mut interrupted) = (0, 0);
    while handle.progress().running {
        ledger.reaches(at + 1).await;
        let events = ledger.events();
        for event in &events[at..] {
            let id = event.header.aggregate_id.as_str();
            let hit = event.header.position.0 % 3 == 0;
            match event.header.event_type.as_ref() {
                "TradeProposed" | "VerdictGiven" | "TradeAuthorized" if hit => {
                    let data = json!({"reason": "operator"});
                    let outcome = send(&ledger, "trade", id, "cancel", data);
                    cancelled += u32::from(outcome.status == Status::Accepted);
                }
                "StateTransitioned" if event.header.position.0 % 151 == 0 => {
                    let to = |state| json!({"to": state, "reason": "operator"});
                    send(&ledger, "agent", id, "transition", to("SAFE_MODE"));
                    send(&ledger, "agent", id, "transition", to("IDLE"));
                    interrupted += 1;
                }
                _ => {}
            }
        }
        at = events.len();
        if at == ledger.len() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let stuck = tokio::time::timeout(Duration::from_secs(5), async {
            while at == ledger.len() && handle.progress().running {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        let moves = stuck.await.is_ok();
        assert!(moves, "{:?} {:?}", handle.progress(), ledger.refused);
    }
    assert!(
        cancelled > 0 && interrupted > 0,
        "{cancelled} {interrupted}"
    );
    assert!(handle.health().healthy);
}

struct Panics;

#[async_trait]
impl Gateway for Panics {
    async fn submit(&self, _: RawRequest) -> Outcome {
        panic!("the payload must not be repeated")
    }
}

#[tokio::test]
async fn a_panic_while_carrying_out_stops_the_runner_and_is_told() {
    let file = ledger::market(Some(1));
    let ledger = Ledger::new();
    let (first, handle) = ledger::runner(&ledger, &Arc::default(), &file);
    tokio::select! {
        _ = first.run() => {}
        () = async { handle.start_task(file.clone()).await.unwrap(); } => {}
    }
    let (runner, handle) = Runner::new(
        RunnerOptions::default(),
        ledger.tail(),
        Arc::new(Panics),
        Arc::new(Checkpoints::default()),
        Arc::new(OneFile(file)),
        ledger.clone(),
    );
    assert!(matches!(runner.run().await, Err(RunnerError::Panicked(_))));
    let health = handle.health();
    assert!(health.ended && !health.healthy);
    assert_eq!(health.problems["runner"].code, ErrorCode::Internal);
    assert!(!health.problems["runner"].to_string().contains("payload"));
}

#[tokio::test]
async fn an_event_that_does_not_decode_stops_the_runner_at_its_position() {
    let (ledger, handle) = by_hand().await;
    quiet(&ledger).await;
    let checkpoints = Arc::new(Checkpoints::default());
    handle.stop().await;
    let good = ledger.events()[1].as_ref().clone();
    let cut = good.payload.slice(..good.payload.len() - 1);
    ledger.replace(
        1,
        RecordedEvent {
            payload: cut,
            ..good
        },
    );
    let (runner, handle) = ledger::runner(&ledger, &checkpoints, &ledger::market(Some(1)));
    match runner.run().await {
        Err(RunnerError::Decode { position, .. }) => assert_eq!(position, Position(2)),
        other => panic!("{other:?}"),
    }
    assert_eq!(
        handle.health().problems["runner"].code,
        ErrorCode::DecodeFailed
    );
    assert_eq!(checkpoints.load("agents/00").await.unwrap(), Position(1));
}
