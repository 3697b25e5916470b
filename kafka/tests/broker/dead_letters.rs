//! Bad records on topics: each becomes a letter with the right code, and the partition goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sovereign_kafka::dead_letters::{LetterCounts, Summary};
use sovereign_kafka::{
    DeadLetters, Delivery, KafkaOptions, LetterError, LetterState, LetterWatch, RegistryOptions,
    Rejected, RetryPolicy, Start, Subscription, SubscriptionBuilder,
};
use sovereign_schemas::avro;
use sovereign_schemas::events::AgentEvent;
use sovereign_schemas::{ErrorCode, Position, Timestamp, catalog};

use crate::bad::{self, Raw, TOPIC, good, market_v1, records, registry, write_raw};
use crate::support::{kafka_with_topics, until};

fn quick() -> RetryPolicy {
    RetryPolicy {
        attempts_max: 3,
        pause: Duration::from_millis(20),
        pause_max: Duration::from_millis(100),
    }
}

fn group(kafka: &KafkaOptions, name: &str) -> SubscriptionBuilder {
    Subscription::builder(kafka.clone())
        .group(format!("{}{name}", kafka.namespace))
        .start(Start::Beginning)
        .dead_letters(quick())
}

async fn next(subscription: &mut Subscription) -> Delivery {
    let wait = Duration::from_secs(120);
    let next = tokio::time::timeout(wait, subscription.next()).await;
    next.expect("an event within 120 s").unwrap()
}

async fn positions(subscription: &mut Subscription, count: usize) -> Vec<u64> {
    let mut found = Vec::new();
    while found.len() < count {
        found.push(next(subscription).await.event.position().0);
    }
    found
}

async fn letters(kafka: &KafkaOptions) -> Vec<Summary> {
    DeadLetters::new(kafka.clone()).list().await.unwrap()
}

async fn only_letter(kafka: &KafkaOptions) -> Summary {
    let mut all = letters(kafka).await;
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_bad_record_becomes_a_letter_with_its_code_and_the_partition_goes_on() {
    let kafka = bad::kafka_with_large_topic().await;
    let cases = bad::cases();
    let (url, _server) = registry().await;
    // a good event before, between and behind all the bad ones, on one partition
    let mut expected = Vec::new();
    for (index, (_, _, raw)) in cases.iter().enumerate() {
        let position = 2 * index as u64 + 1;
        write_raw(&kafka, &[&good(position), raw]);
        expected.push(position);
    }
    let last = 2 * cases.len() as u64 + 1;
    write_raw(&kafka, &[&good(last)]);
    expected.push(last);

    let builder = group(&kafka, "risk").registry(RegistryOptions::new(url));
    let mut subscription = builder.open().await.unwrap();
    let found = positions(&mut subscription, expected.len()).await;
    assert_eq!(found, expected, "the partition goes on, in order");
    subscription.commit().await.unwrap();

    let all = letters(&kafka).await;
    let by_offset: BTreeMap<i64, &Summary> = all.iter().map(|s| (s.origin.offset, s)).collect();
    assert_eq!(by_offset.len(), cases.len(), "{all:#?}");
    let show = DeadLetters::new(kafka.clone());
    for (index, (name, code, raw)) in cases.iter().enumerate() {
        let letter = by_offset[&(2 * index as i64 + 1)];
        assert_eq!(letter.failing.code, code.as_str(), "{name}: {letter:?}");
        assert_eq!(letter.origin.topic, kafka.topic(TOPIC), "{name}");
        assert_eq!(
            (letter.state, letter.failing.attempts),
            (LetterState::Open, 1)
        );
        assert!(!letter.failing.message.is_empty() && letter.failing.message.len() <= 300);
        let (_, whole) = show.show(letter.id).await.unwrap();
        assert_eq!(whole.record.key.as_deref(), raw.key.as_deref(), "{name}");
        assert_eq!(
            whole.record.value.as_deref(),
            raw.value.as_deref(),
            "{name}"
        );
        let headers: Vec<(String, Option<Vec<u8>>)> = whole
            .record
            .headers
            .iter()
            .map(|(name, value)| (name.clone(), value.as_ref().map(|v| v.to_vec())))
            .collect();
        assert_eq!(headers, raw.headers, "{name}");
    }
    // and the group's place is behind all of them
    drop(subscription);
    let committed = bad::committed(&kafka, "risk");
    assert_eq!(committed, 2 * cases.len() as i64 + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_read_again_after_a_crash_makes_no_second_letter() {
    let kafka = kafka_with_topics().await;
    write_raw(&kafka, &[&good(1), &Raw::text("not an event"), &good(2)]);
    for _ in 0..2 {
        let mut subscription = group(&kafka, "risk").open().await.unwrap();
        assert_eq!(positions(&mut subscription, 2).await, [1, 2]);
        // handed to the brokers, and nothing committed: as after a crash
        until("letter is there", 20, || {
            bad::count(&kafka, "dead-letter") > 0
        })
        .await;
        drop(subscription);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    until("two copies", 20, || bad::count(&kafka, "dead-letter") == 2).await;
    let letter = only_letter(&kafka).await;
    assert_eq!(letter.failing.code, "not-an-event");
    // another group that fails on it has a letter of its own
    let mut other = group(&kafka, "other").open().await.unwrap();
    assert_eq!(positions(&mut other, 2).await, [1, 2]);
    other.commit().await.unwrap();
    let groups: BTreeSet<String> = letters(&kafka).await.into_iter().map(|s| s.group).collect();
    assert_eq!(groups.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_commit_moves_over_a_letter_that_is_not_durable() {
    let kafka = kafka_with_topics().await;
    write_raw(&kafka, &[&good(1), &Raw::text("not an event"), &good(2)]);
    bad::delete_topic(&kafka, "dead-letter").await;
    let mut subscription = group(&kafka, "risk").open().await.unwrap();
    assert_eq!(positions(&mut subscription, 2).await, [1, 2]);
    let error = subscription.commit().await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::BrokerUnreachable, "{error}");
    assert!(bad::committed(&kafka, "risk") <= 0, "nothing is committed");
    // the topic comes back, and so does the letter
    sovereign_kafka::ensure_topics(&kafka, &Default::default(), &Default::default())
        .await
        .unwrap();
    subscription.commit().await.unwrap();
    assert_eq!(bad::committed(&kafka, "risk"), 3);
    assert_eq!(only_letter(&kafka).await.failing.code, "not-an-event");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rejected_event_is_tried_again_and_then_buried() {
    let kafka = kafka_with_topics().await;
    write_raw(&kafka, &[&good(1), &good(2), &good(3)]);
    let mut subscription = group(&kafka, "risk").open().await.unwrap();
    let mut seen = Vec::new();
    let mut buried = None;
    while !seen.contains(&(3, 1)) {
        let delivery = next(&mut subscription).await;
        seen.push((delivery.event.position().0, delivery.attempt));
        if delivery.event.position() == Position(2) {
            let rejected = subscription.reject(delivery, "no-price", "there is no price yet");
            match rejected.await.unwrap() {
                // a commit between two attempts must not go over it
                Rejected::Again { .. } => {
                    subscription.commit().await.unwrap();
                    assert_eq!(bad::committed(&kafka, "risk"), 1);
                }
                Rejected::Dead { letter } => buried = Some(letter),
            }
        }
    }
    assert_eq!(seen, [(1, 1), (2, 1), (2, 2), (2, 3), (3, 1)]);
    subscription.commit().await.unwrap();
    assert_eq!(bad::committed(&kafka, "risk"), 3);
    let letter = only_letter(&kafka).await;
    assert_eq!(Some(letter.id), buried);
    assert_eq!(
        (letter.failing.code.as_str(), letter.failing.attempts),
        ("no-price", 3)
    );
    assert!(letter.failing.first_failed_at < letter.failing.last_failed_at);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retried_letter_comes_to_its_group_alone_and_is_done_once_it_is_worked_through() {
    let kafka = kafka_with_topics().await;
    // an old version, which comes to its reader upcast
    write_raw(&kafka, &[&market_v1(1), &good(2)]);
    let (mut risk, mut other) = (
        group(&kafka, "risk").open().await.unwrap(),
        group(&kafka, "other").open().await.unwrap(),
    );
    assert_eq!(positions(&mut other, 2).await, [1, 2]);
    let mut rejected = 0;
    while rejected < 3 {
        let delivery = next(&mut risk).await;
        if delivery.event.position() == Position(1) {
            risk.reject(delivery, "down", "the other side is away")
                .await
                .unwrap();
            rejected += 1;
        }
    }
    assert_eq!(positions(&mut risk, 1).await, [2]);
    risk.commit().await.unwrap();
    let id = only_letter(&kafka).await.id;
    let admin = DeadLetters::new(kafka.clone());
    let watch = LetterWatch::start(kafka.clone()).unwrap();

    for again in [false, true] {
        admin.retry(id, again, Timestamp::now()).await.unwrap();
    }
    let twice = admin.retry(id, false, Timestamp::now()).await.unwrap_err();
    assert_eq!(twice.code(), ErrorCode::WrongState, "{twice}");
    until("retrying", 20, || {
        watch.state(id) == Some(LetterState::Retrying)
    })
    .await;

    // the first time it fails again: it is open again, with all attempts
    for _ in 0..3 {
        let delivery = next(&mut risk).await;
        assert_eq!(
            (delivery.letter, delivery.event.position()),
            (Some(id), Position(1))
        );
        risk.reject(delivery, "down", "still away").await.unwrap();
    }
    until("open", 20, || watch.state(id) == Some(LetterState::Open)).await;
    let letter = only_letter(&kafka).await;
    assert_eq!(
        (letter.failing.attempts, letter.failing.message.as_str()),
        (6, "still away")
    );

    // the second time it works
    let delivery = next(&mut risk).await;
    assert_eq!(delivery.letter, Some(id));
    let AgentEvent::MarketObserved(bar) = delivery.event.decode::<AgentEvent>().unwrap() else {
        panic!("{delivery:?}")
    };
    assert_eq!(bar.interval_s, 86_400, "upcast");
    assert_eq!(
        only_letter(&kafka).await.state,
        LetterState::Open,
        "not before the commit"
    );
    risk.commit().await.unwrap();
    until("done", 20, || watch.state(id) == Some(LetterState::Done)).await;
    let counts = LetterCounts {
        done: 1,
        ..LetterCounts::default()
    };
    assert_eq!(watch.counts(), Some(counts));
    let closed = admin.retry(id, true, Timestamp::now()).await.unwrap_err();
    assert_eq!(
        closed,
        LetterError::WrongState {
            id,
            state: LetterState::Done
        }
    );

    // nobody else saw it
    let nothing = tokio::time::timeout(Duration::from_secs(2), other.next()).await;
    assert!(nothing.is_err(), "{nothing:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_still_does_not_decode_stays_open_and_can_be_dropped() {
    let kafka = kafka_with_topics().await;
    write_raw(&kafka, &[&records(1).1, &good(2)]);
    let mut subscription = group(&kafka, "risk").open().await.unwrap();
    assert_eq!(positions(&mut subscription, 1).await, [2]);
    subscription.commit().await.unwrap();
    let letter = only_letter(&kafka).await;
    assert_eq!(letter.failing.code, "event-unknown");
    let admin = DeadLetters::new(kafka.clone());
    let error = admin
        .retry(letter.id, false, Timestamp::now())
        .await
        .unwrap_err();
    assert_eq!(error.code(), ErrorCode::EventUnknown);
    assert_eq!(only_letter(&kafka).await.failing.attempts, 2);
    let now = Timestamp::now();
    admin
        .drop_letter(letter.id, "nobody needs it", now)
        .await
        .unwrap();
    let dropped = only_letter(&kafka).await;
    assert_eq!(
        (dropped.state, dropped.reason.as_deref()),
        (LetterState::Dropped, Some("nobody needs it"))
    );
    let twice = admin
        .drop_letter(letter.id, "again", now)
        .await
        .unwrap_err();
    assert_eq!(twice.code(), ErrorCode::WrongState);
    let nothing = sovereign_schemas::Uuid::from_u128(1);
    let missing = admin.show(nothing).await.unwrap_err();
    assert_eq!(missing, LetterError::NotFound(nothing));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_that_no_letter_can_hold_stays_where_it_lies_and_is_found_there() {
    let kafka = bad::kafka_with_large_topic().await;
    let mut large = good(1);
    large.value = Some(vec![0; (15 << 20) + 1]);
    write_raw(&kafka, &[&large, &good(2)]);
    let mut subscription = group(&kafka, "risk").open().await.unwrap();
    assert_eq!(positions(&mut subscription, 1).await, [2]);
    subscription.commit().await.unwrap();
    let letter = only_letter(&kafka).await;
    assert_eq!(letter.failing.code, "payload-too-large");
    assert_eq!(letter.value_bytes, Some((15 << 20) + 1));
    let (_, whole) = DeadLetters::new(kafka).show(letter.id).await.unwrap();
    assert!(whole.left_at_source.is_some());
    assert_eq!(whole.record.value.as_deref(), large.value.as_deref());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_need_a_group() {
    let kafka = kafka_with_topics().await;
    let builder = Subscription::builder(kafka.clone()).dead_letters(RetryPolicy::default());
    let error = builder.open().await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::InvalidConfig, "{error}");
    write_raw(&kafka, &[&good(1)]);
    let mut plain = Subscription::builder(kafka).open().await.unwrap();
    let delivery = next(&mut plain).await;
    let error = plain.reject(delivery, "x", "y").await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::InvalidConfig, "{error}");
}

/// The codec that the cases rest on: what they call good is good.
#[test]
fn the_cases_begin_from_a_good_event() {
    let (event, _) = records(1);
    assert!(event.decode::<AgentEvent>().is_ok());
    let schema = catalog::find("AgentRegistered", 1).unwrap();
    assert_eq!(event.header.schema_fingerprint, schema.fingerprint);
    let again = avro::encode(
        &avro::decode::<sovereign_schemas::events::AgentRegistered>(&event.payload).unwrap(),
    );
    assert_eq!(again, event.payload);
}
