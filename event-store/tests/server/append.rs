use std::collections::HashSet;

use sovereign_schemas::{Position, Status};

use crate::common::{Database, all, at_once, bar, register, send, verified};

#[tokio::test(flavor = "multi_thread")]
async fn two_engines_and_128_senders_make_one_dense_chain() {
    let database = Database::create().await;
    let ledgers = [database.open().await, database.open().await];
    let each = 20;
    let senders = {
        let ledgers = ledgers.clone();
        at_once(128, move |n| {
            let ledger = ledgers[n % 2].clone();
            async move {
                // half of the senders have an aggregate of their own, the others share eight
                let agent = if n < 64 {
                    format!("own-{n}")
                } else {
                    format!("shared-{}", n % 8)
                };
                let mut taken = Vec::new();
                send(&ledger, &register(&agent)).await;
                for number in 0..each {
                    let outcome = send(&ledger, &bar(&agent, number)).await;
                    match outcome.status {
                        Status::Accepted => taken.push(outcome.positions.unwrap().0),
                        // another sender of the same agent was ahead with this bar
                        Status::Refused => assert!(n >= 64, "{outcome:?}"),
                        _ => panic!("{outcome:?}"),
                    }
                }
                taken
            }
        })
    };
    let taken: Vec<Position> = senders.await.into_iter().flatten().collect();
    let unique: HashSet<Position> = taken.iter().copied().collect();
    assert_eq!(unique.len(), taken.len());
    let head = verified(&ledgers[0].reader()).await;
    assert_eq!(head, verified(&ledgers[1].reader()).await);
    // 64 own agents with all bars, 8 shared ones with at least one each
    assert!(head.position.0 >= 64 * 21 + 16);
    assert_eq!(taken.len() as u64, head.position.0 - 72);

    // what both hold in memory is what the ledger says
    let (at, states) = ledgers[0].live_states().await.unwrap();
    let (_, others) = ledgers[1].live_states().await.unwrap();
    assert_eq!((at, states.len()), (head, 72));
    let digest = |states: &[sovereign_event_store::LiveState]| -> Vec<_> {
        states
            .iter()
            .map(|s| (s.0, s.1.clone(), s.2, s.3.canonical()))
            .collect()
    };
    assert_eq!(digest(&states), digest(&others));
    let fresh = database.open().await;
    assert_eq!(
        digest(&states),
        digest(&fresh.live_states().await.unwrap().1)
    );
    for ledger in ledgers {
        ledger.close().await;
    }
    database.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn recorded_times_never_fall_and_ids_grow() {
    let database = Database::create().await;
    let ledger = database.open().await;
    send(&ledger, &register("a")).await;
    for number in 0..50 {
        send(&ledger, &bar("a", number)).await;
    }
    let events = all(&ledger.reader()).await;
    assert_eq!(events.len(), 51);
    for pair in events.windows(2) {
        assert!(pair[0].header.recorded_at <= pair[1].header.recorded_at);
        assert!(pair[0].header.event_id < pair[1].header.event_id);
    }
    database.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_aggregate_is_read_in_pages_after_a_restart() {
    let database = Database::create().await;
    let ledger = database.open().await;
    send(&ledger, &register("a")).await;
    for chunk in 0..11_u32 {
        for outcome in
            futures::future::join_all((chunk * 100..chunk * 100 + 100).map(|n| bar("a", n)).map(
                |r| {
                    let ledger = ledger.clone();
                    async move { send(&ledger, &r).await }
                },
            ))
            .await
        {
            assert_eq!(outcome.status, Status::Accepted, "{outcome:?}");
        }
    }
    ledger.close().await;
    let ledger = database.open().await;
    let outcome = send(&ledger, &bar("a", 1_100)).await;
    assert_eq!(outcome.positions, Some((Position(1_102), Position(1_102))));
    verified(&ledger.reader()).await;
    database.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn appends_with_a_flush_in_each_commit_as_well() {
    let database = Database::create().await;
    let mut options = database.options();
    options.durability = sovereign_event_store::Durability::SynchronousCommit;
    let ledger = sovereign_event_store::Ledger::open(options).await.unwrap();
    let outcomes = {
        let ledger = ledger.clone();
        at_once(32, move |n| {
            let ledger = ledger.clone();
            async move { send(&ledger, &register(&format!("a-{n}"))).await }
        })
        .await
    };
    assert!(
        outcomes.iter().all(|o| o.status == Status::Accepted),
        "{outcomes:?}"
    );
    assert_eq!(verified(&ledger.reader()).await.position, Position(32));
    assert_eq!(ledger.flushed().position, Position(32));
    assert!(ledger.health().healthy);
    database.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_waiting_commands_are_all_decided() {
    let database = Database::create().await;
    let ledger = database.open().await;
    // enough for one turn of the deciding task to use up its share, which must not refuse any
    let outcomes = {
        let ledger = ledger.clone();
        at_once(1_000, move |n| {
            let ledger = ledger.clone();
            async move { send(&ledger, &register(&format!("a-{n}"))).await }
        })
        .await
    };
    let accepted = outcomes
        .iter()
        .filter(|o| o.status == Status::Accepted)
        .count();
    assert_eq!(accepted, 1_000);
    assert_eq!(verified(&ledger.reader()).await.position, Position(1_000));
    database.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_caller_sends_together_is_decided_in_its_order() {
    let database = Database::create().await;
    let ledger = database.open().await;
    let sender = ledger.clone();
    // in waves, so that batches form while others are answered
    let outcomes = at_once(200, move |n| {
        let ledger = sender.clone();
        async move {
            let mut outcomes = Vec::new();
            for wave in 0..5 {
                let agent = format!("a-{n}-{wave}");
                let commands = [register(&agent), bar(&agent, 1), bar(&agent, 2)];
                let sends = commands.iter().map(|command| send(&ledger, command));
                outcomes.extend(futures::future::join_all(sends).await);
            }
            outcomes
        }
    })
    .await;
    for outcome in outcomes.into_iter().flatten() {
        assert_eq!(outcome.status, Status::Accepted, "{outcome:?}");
    }
    assert_eq!(verified(&ledger.reader()).await.position, Position(3_000));
    database.remove().await;
}
