//! Engines divide work and take turns.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use sovereign_kafka::{
    Error, KafkaOptions, RelayOptions, RelayState, Turn, WorkGroup, WorkOptions,
};
use tokio::sync::watch;

use crate::support::{
    Ledger, assert_exactly, events, kafka, kafka_with_topics, start, start_with, until,
};

/// A turn that the test gives and takes.
#[derive(Debug)]
struct Given {
    held: watch::Sender<bool>,
    /// What the brokers would say.
    good: AtomicBool,
}

impl Given {
    fn new(held: bool) -> Arc<Self> {
        Arc::new(Self {
            held: watch::Sender::new(held),
            good: AtomicBool::new(true),
        })
    }
}

#[async_trait]
impl Turn for Given {
    fn held(&self) -> bool {
        *self.held.borrow()
    }

    async fn until_not(&self, held: bool) {
        let mut now = self.held.subscribe();
        let _ = now.wait_for(|now| *now != held).await;
    }

    async fn confirm(&self) -> Result<bool, Error> {
        Ok(self.good.load(Ordering::Relaxed) && self.held())
    }
}

fn options(kafka: &KafkaOptions, turn: &Arc<Given>) -> RelayOptions {
    let mut options = RelayOptions::new(kafka.clone());
    options.batch_events_max = 100;
    options.turn = Some(turn.clone());
    options
}

const EVENTS: u64 = 6_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relays_that_take_turns_show_each_position_once() {
    let kafka = kafka_with_topics().await;
    let (ledger, tell) = Ledger::new(events(EVENTS, 5));
    tell.send_replace(0);
    let turns = [Given::new(true), Given::new(false)];
    let relays = turns
        .each_ref()
        .map(|turn| start_with(options(&kafka, turn), &ledger));
    for round in 0..6_usize {
        let (has, waits) = (round % 2, 1 - round % 2);
        until("a relay runs", 60, || {
            relays[has].health().state == RelayState::Running
        })
        .await;
        let target = EVENTS * (round as u64 + 1) / 6;
        // in the middle of its work
        tell.send_replace(target);
        until("half of it", 60, || {
            relays[has].health().position.0 > target - EVENTS / 12
        })
        .await;
        turns[has].held.send_replace(false);
        turns[waits].held.send_replace(true);
        until("the other one stands by", 60, || {
            relays[has].health().state == RelayState::Standby
        })
        .await;
    }
    until("both know of everything", 60, || {
        relays
            .iter()
            .all(|r| r.health().position.0 == EVENTS && r.health().healthy)
    })
    .await;
    for relay in relays {
        relay.stop().await;
    }
    assert_exactly(&kafka, EVENTS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_turn_that_the_brokers_do_not_confirm_fences_nobody() {
    let kafka = kafka_with_topics().await;
    let (ledger, tell) = Ledger::new(events(EVENTS, 6));
    tell.send_replace(1_000);
    let (rightful, stale) = (Given::new(true), Given::new(true));
    stale.good.store(false, Ordering::Relaxed);
    let relay = start_with(options(&kafka, &rightful), &ledger);
    until("the rightful relay runs", 60, || {
        relay.health().position.0 == 1_000
    })
    .await;
    let other = start_with(options(&kafka, &stale), &ledger);
    until("the stale one stands by", 60, || {
        other.health().state == RelayState::Standby
    })
    .await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    tell.send_replace(EVENTS);
    until("all relayed", 60, || relay.health().position.0 == EVENTS).await;
    assert_eq!(relay.health().state, RelayState::Running);
    assert_eq!(other.health().state, RelayState::Standby);
    relay.stop().await;
    other.stop().await;
    assert_exactly(&kafka, EVENTS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rightful_relay_that_was_thrown_out_comes_back() {
    let kafka = kafka_with_topics().await;
    let (ledger, tell) = Ledger::new(events(EVENTS, 7));
    tell.send_replace(1_000);
    let turn = Given::new(true);
    let relay = start_with(options(&kafka, &turn), &ledger);
    until("the rightful relay runs", 60, || {
        relay.health().position.0 == 1_000
    })
    .await;
    // knows of no turns, as an engine of an older build
    let intruder = start(&kafka, &ledger);
    until("the intruder is thrown out", 60, || {
        // slowly: who has nothing to relay does not notice that he was thrown out
        tell.send_modify(|n| *n = (*n + 1).min(EVENTS));
        matches!(
            intruder.health().state,
            RelayState::Stopped { problem: Some(_) }
        )
    })
    .await;
    tell.send_replace(EVENTS);
    until("all relayed", 60, || relay.health().position.0 == EVENTS).await;
    assert!(relay.health().healthy);
    relay.stop().await;
    assert_exactly(&kafka, EVENTS);
}

fn units() -> Vec<String> {
    (0..8).map(|n| format!("unit-{n}")).collect()
}

async fn join(kafka: &KafkaOptions, engine: &str, units: Vec<String>) -> WorkGroup {
    let options = WorkOptions::new(kafka.clone(), "engines", engine, units);
    WorkGroup::join(options).await.unwrap()
}

fn held(group: &WorkGroup) -> BTreeSet<String> {
    group.assigned().borrow().units.clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_divide_the_work_and_inherit_it() {
    let kafka = kafka();
    let all: BTreeSet<String> = units().into_iter().collect();
    let a = join(&kafka, "a", units()).await;
    until("one has everything", 30, || held(&a) == all).await;
    assert!(a.unit("unit-3").unwrap().confirm().await.unwrap());
    assert!(a.unit("unit-8").is_none());
    let b = join(&kafka, "b", units()).await;
    until("both have a part", 30, || {
        let (a, b) = (held(&a), held(&b));
        a.len() == 4 && b.len() == 4 && a.is_disjoint(&b)
    })
    .await;
    for unit in units() {
        let [a, b] = [&a, &b].map(|g| g.unit(&unit).unwrap());
        assert!(
            a.confirm().await.unwrap() != b.confirm().await.unwrap(),
            "{unit}"
        );
    }
    let own = held(&b);
    b.leave().await;
    drop(b);
    // back within the session: nothing moves
    let b = join(&kafka, "b", units()).await;
    until("the same as before", 30, || held(&b) == own).await;
    assert_eq!(held(&a), all.difference(&own).cloned().collect());
    b.leave().await;
    until("the other one inherits", 60, || held(&a) == all).await;
    a.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_build_brings_more_work_and_a_name_is_one_engines() {
    let kafka = kafka();
    let old = join(&kafka, "old", units()).await;
    until("all old work", 30, || held(&old).len() == 8).await;
    let more: Vec<String> = (0..10).map(|n| format!("unit-{n}")).collect();
    let new = join(&kafka, "new", more.clone()).await;
    until("all old work is somebody's", 60, || {
        let (old, new) = (held(&old), held(&new));
        old.is_disjoint(&new) && units().iter().all(|u| old.contains(u) || new.contains(u))
    })
    .await;
    old.leave().await;
    until("all work is the newer one's", 90, || held(&new).len() == 10).await;
    // a copied data folder: the older one goes on under another name
    let copy = join(&kafka, "new", more).await;
    until("both are members", 60, || {
        let (one, other) = (held(&new), held(&copy));
        one.len() == 5 && other.len() == 5 && one.is_disjoint(&other)
    })
    .await;
    assert!(new.health().member && copy.health().member);
}
