//! Timers, random numbers and orders.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sovereign_effects::{EffectId, Exchange, Filled, Request};
use sovereign_schemas::Timestamp;
use sovereign_sinks::{Live, LiveOptions, Sink as _};
use tokio_util::sync::CancellationToken;

use crate::server::{live, request, result, run, word};

#[tokio::test]
async fn a_timer_waits_until_its_moment_and_not_for_one_that_is_past() {
    let live = Live::new(LiveOptions::default()).unwrap();
    let started = Instant::now();
    assert_eq!(
        word(&run(&live, json!({"kind": "timer", "until": "2000-01-01"})).await),
        "done"
    );
    assert!(started.elapsed() < Duration::from_secs(1));
    let until = Timestamp(Timestamp::now().0 + 200_000);
    let outcome = run(&live, json!({"kind": "timer", "until": until})).await;
    let reached: Timestamp = result(&outcome)["reached_at"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!(reached >= until);
}

#[tokio::test]
async fn a_timer_can_be_called_off_and_then_nothing_happened() {
    let live = Live::new(LiveOptions::default()).unwrap();
    let cancel = CancellationToken::new();
    let wanted = request(json!({"kind": "timer", "until": "2999-01-01"}));
    let abort = async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        cancel.cancel();
    };
    assert_eq!(
        word(&tokio::join!(live.run(&wanted, &cancel), abort).0),
        "cancelled"
    );
    let mut short = wanted.clone();
    short.time_ms_max = Some(50);
    assert_eq!(
        word(&live.run(&short, &CancellationToken::new()).await),
        "again busy"
    );
}

#[tokio::test]
async fn random_numbers_are_of_the_wanted_form_and_differ() {
    let live = Live::new(LiveOptions::default()).unwrap();
    let bytes =
        async || result(&run(&live, json!({"kind": "random", "bytes": 16})).await)["bytes"].clone();
    let (one, two) = (bytes().await, bytes().await);
    assert_eq!(one.as_str().unwrap().len(), 32);
    assert_ne!(one, two);
    for (low, high) in [(1, 6), (i64::MIN, i64::MAX), (-3, -3)] {
        let effect =
            json!({"kind": "random", "integers": {"count": 200, "low": low, "high": high}});
        let outcome = run(&live, effect).await;
        let drawn: Vec<i64> = serde_json::from_value(result(&outcome)["integers"].clone()).unwrap();
        assert_eq!(drawn.len(), 200);
        assert!(
            drawn.iter().all(|n| (low..=high).contains(n)),
            "{low} to {high}"
        );
    }
}

fn order(quantity: &str) -> Value {
    json!({"kind": "order", "exchange": "e", "instrument": "AAPL", "side": "BUY",
        "quantity": quantity, "price": "100", "at": "2000-03-02"})
}

const EXCHANGE: &str =
    "[exchanges.e]\nseed = 3\nslippage_bps_max = 20\nlatency_ms_min = 20\nlatency_ms_max = 30\n";

#[tokio::test]
async fn an_order_is_filled_once_for_an_id_and_a_repeat_is_answered_alike() {
    let first = live(EXCHANGE);
    let started = Instant::now();
    let outcome = run(&first, order("5")).await;
    assert!(started.elapsed() >= Duration::from_millis(20));
    assert_eq!(run(&first, order("5")).await, outcome);
    // by another process too
    assert_eq!(run(&live(EXCHANGE), order("5")).await, outcome);
    assert_eq!(
        word(&run(&first, order("6")).await),
        "failed idempotency-key-reused"
    );
    let filled: Filled = serde_json::from_value(result(&outcome).clone()).unwrap();
    assert!(filled.price > "100".parse().unwrap() && filled.price <= "100.2".parse().unwrap());
    assert_eq!(
        filled.order_id.as_str(),
        format!("order_{}", request(order("5")).id)
    );
}

#[tokio::test]
async fn the_exchange_mock_is_always_there_and_others_must_be_named() {
    let live = live("");
    let mut wanted = order("5.25");
    assert_eq!(
        word(&run(&live, wanted.clone()).await),
        "failed effect-refused"
    );
    wanted["exchange"] = json!("mock");
    let outcome = run(&live, wanted.clone()).await;
    let Request { effect, .. } = request(wanted);
    let sovereign_effects::Effect::Order(order) = effect else {
        panic!("an order")
    };
    let expected = Exchange::default()
        .fill(EffectId::of("job", 7), &order)
        .unwrap();
    assert_eq!(result(&outcome), &json!(expected));
}
