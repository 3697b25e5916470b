use std::time::Duration;

use sovereign_aggregates::CommandPort as _;
use sovereign_schemas::{DepartmentId, ErrorCode, Position, Status, Uuid, bears_source};
use sqlx::Executor as _;

use crate::common::{Database, all, at_once, bar, register, send, transition, verified};

#[tokio::test(flavor = "multi_thread")]
async fn the_first_event_of_a_command_bears_what_it_came_in() {
    let database = Database::create().await;
    let ledger = database.open().await;
    let [first, second] = [b"first", b"other"].map(|r| Uuid::new_v5(&Uuid::NAMESPACE_OID, r));
    let mut command = register("a");
    command.source = Some(first);
    assert_eq!(send(&ledger, &command).await.status, Status::Accepted);
    // the same command in another record
    command.source = Some(second);
    assert_eq!(send(&ledger, &command).await.status, Status::Duplicate);
    send(&ledger, &bar("a", 1)).await;
    let events = all(&ledger.reader()).await;
    let bears = |at: usize, source| bears_source(events[at].header.event_id, source);
    assert!(bears(0, first) && !bears(0, second) && !bears(1, first));
    assert!(
        events
            .iter()
            .all(|e| e.header.event_id.get_version_num() == 7)
    );
    database.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_gets_the_first_positions_here_elsewhere_and_after_a_restart() {
    let database = Database::create().await;
    let (here, elsewhere) = (database.open().await, database.open().await);
    let commands = [register("a"), bar("a", 1), bar("a", 2)];
    for (at, command) in commands.iter().enumerate() {
        let position = Some((Position(at as u64 + 1), Position(at as u64 + 1)));
        let first = send(&here, command).await;
        assert_eq!(
            (first.status, first.positions),
            (Status::Accepted, position)
        );
        for ledger in [&here, &elsewhere, &here] {
            let again = send(ledger, command).await;
            assert_eq!(
                (again.status, again.positions),
                (Status::Duplicate, position)
            );
        }
    }
    here.close().await;
    elsewhere.close().await;
    let restarted = database.open().await;
    for (at, command) in commands.iter().enumerate() {
        let again = send(&restarted, command).await;
        assert_eq!(again.status, Status::Duplicate);
        assert_eq!(again.positions.unwrap().0, Position(at as u64 + 1));
    }
    assert_eq!(verified(&restarted.reader()).await.position, Position(3));
    database.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_command_sent_64_times_at_once_through_two_engines_takes_effect_once() {
    let database = Database::create().await;
    let ledgers = [database.open().await, database.open().await];
    for round in 0..5 {
        let command = register(&format!("agent-{round}"));
        let ledgers = ledgers.clone();
        let outcomes = at_once(64, move |n| {
            let (ledger, command) = (ledgers[n % 2].clone(), command.clone());
            async move { send(&ledger, &command).await }
        })
        .await;
        let accepted = outcomes
            .iter()
            .filter(|o| o.status == Status::Accepted)
            .count();
        assert_eq!(accepted, 1, "{outcomes:?}");
        let position = Some((Position(round + 1), Position(round + 1)));
        assert!(
            outcomes.iter().all(|o| o.positions == position),
            "{outcomes:?}"
        );
    }
    assert_eq!(verified(&ledgers[0].reader()).await.position, Position(5));
    database.remove().await;
}

/// More repeats than a batch takes, none of which needs a transaction: the rest must not wait for
/// one.
#[tokio::test(flavor = "multi_thread")]
async fn many_repeats_at_another_engine_are_all_answered() {
    const COUNT: usize = 400;
    let database = Database::create().await;
    let ledgers = [database.open().await, database.open().await];
    for round in 0..3 {
        let id = format!("agent-{round}");
        send(&ledgers[0], &register(&id)).await;
        // each of an instrument of its own, so that their order does not matter
        let commands: Vec<_> = (0..COUNT as u32).map(|n| bar(&id, 336 * n)).collect();
        for (ledger, expected) in [
            (&ledgers[0], Status::Accepted),
            (&ledgers[1], Status::Duplicate),
        ] {
            let (ledger, commands) = (ledger.clone(), commands.clone());
            let sending = at_once(COUNT, move |n| {
                let (ledger, command) = (ledger.clone(), commands[n].clone());
                async move { send(&ledger, &command).await }
            });
            let outcomes = tokio::time::timeout(Duration::from_secs(20), sending).await;
            for outcome in outcomes.expect("all are answered") {
                assert_eq!(outcome.status, expected, "{outcome:?}");
            }
        }
    }
    let head = verified(&ledgers[0].reader()).await.position;
    assert_eq!(head, Position(3 * (COUNT as u64 + 1)));
    database.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conflict_costs_only_the_losing_command() {
    let database = Database::create().await;
    let ledger = database.open().await;
    send(&ledger, &register("a")).await;
    let outcomes = {
        let ledger = ledger.clone();
        at_once(32, move |n| {
            let ledger = ledger.clone();
            async move {
                // all odd ones expect the same sequence; the even ones work on agents of their own
                if n % 2 == 0 {
                    return send(&ledger, &register(&format!("other-{n}"))).await;
                }
                let mut command = transition("a", "SCANNING");
                command.expected_sequence = Some(1);
                send(&ledger, &command).await
            }
        })
        .await
    };
    for even in outcomes.iter().step_by(2) {
        assert_eq!(even.status, Status::Accepted, "{even:?}");
    }
    let odd: Vec<_> = outcomes.iter().skip(1).step_by(2).collect();
    assert_eq!(
        odd.iter().filter(|o| o.status == Status::Accepted).count(),
        1
    );
    let lost = odd.iter().find(|o| o.status == Status::Conflict).unwrap();
    let error = lost.error.as_ref().unwrap();
    assert_eq!(error.code, ErrorCode::VersionConflict);
    assert_eq!(
        (error.expected.as_deref(), error.found.as_deref()),
        (Some("1"), Some("2"))
    );
    verified(&ledger.reader()).await;
    database.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_refusal_is_refused_again_even_if_it_would_be_possible_now() {
    let database = Database::create().await;
    let (ledger, elsewhere) = (database.open().await, database.open().await);
    let early = bar("a", 1);
    let refused = send(&ledger, &early).await;
    assert_eq!(refused.status, Status::Refused);
    assert_eq!(refused.error.as_ref().unwrap().code, ErrorCode::NotFound);
    send(&ledger, &register("a")).await;
    assert_eq!(send(&ledger, &early).await, refused);
    assert_eq!(send(&elsewhere, &early).await, refused);
    ledger.close().await;
    let ledger = database.open().await;
    assert_eq!(send(&ledger, &early).await, refused);
    assert_eq!(send(&ledger, &bar("a", 1)).await.status, Status::Accepted);
    assert_eq!(verified(&ledger.reader()).await.position, Position(2));
    database.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_on_record_has_a_position_and_is_repeated_with_it() {
    let database = Database::create().await;
    let ledger = database.open().await;
    send(&ledger, &register("a")).await;
    let illegal = transition("a", "EXECUTING");
    let first = send(&ledger, &illegal).await;
    assert_eq!(first.status, Status::Refused);
    assert_eq!(first.positions, Some((Position(2), Position(2))));
    assert_eq!(
        first.error.as_ref().unwrap().code,
        ErrorCode::IllegalTransition
    );
    assert_eq!(send(&ledger, &illegal).await, first);
    ledger.close().await;
    let ledger = database.open().await;
    assert_eq!(send(&ledger, &illegal).await, first);
    database.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_says_busy_at_once_and_later_the_outcome_is_unknown() {
    let database = Database::create().await;
    let mut options = database.options();
    options.queue_commands_max = 4;
    options.batch_events_max = 1;
    options.command_deadline = Duration::from_millis(1_500);
    let ledger = sovereign_event_store::Ledger::open(options).await.unwrap();
    send(&ledger, &register("a")).await;
    // somebody holds the head row, so nothing can be committed
    let mut other = database.connect().await;
    other
        .execute("begin; select * from ledger.head for update")
        .await
        .unwrap();
    let started = std::time::Instant::now();
    let outcomes = {
        let ledger = ledger.clone();
        at_once(32, move |n| {
            let ledger = ledger.clone();
            async move {
                let outcome = ledger.send(register(&format!("b-{n}"))).await;
                (outcome, started.elapsed())
            }
        })
        .await
    };
    let code = |o: &sovereign_schemas::Outcome| o.error.as_ref().unwrap().code;
    let busy: Vec<_> = outcomes
        .iter()
        .filter(|(o, _)| code(o) == ErrorCode::Busy)
        .collect();
    assert!(busy.len() >= 20, "{}", busy.len());
    for (outcome, after) in &busy {
        assert_eq!(outcome.status, Status::Invalid);
        assert!(outcome.error.as_ref().unwrap().retry_after_ms.unwrap() > 0);
        assert!(*after < Duration::from_millis(1_000));
    }
    assert!(outcomes.iter().any(|(o, _)| code(o) == ErrorCode::TimedOut));
    other.execute("rollback").await.unwrap();
    let again = send(&ledger, &register("c")).await;
    assert_eq!(again.status, Status::Accepted, "{again:?}");
    verified(&ledger.reader()).await;
    database.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_department_is_invalid() {
    let database = Database::create().await;
    let ledger = database.open().await;
    let mut command = register("a");
    command.context.department = DepartmentId(99);
    let outcome = send(&ledger, &command).await;
    assert_eq!(outcome.error.unwrap().code, ErrorCode::UnknownDepartment);
    ledger.close().await;
    let closed = send(&ledger, &register("a")).await;
    assert_eq!(closed.error.unwrap().code, ErrorCode::EngineNotRunning);
    database.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn repeats_of_a_refusal_do_not_hold_up_the_commands_beside_them() {
    let database = Database::create().await;
    let ledger = database.open().await;
    let early = bar("a", 1);
    let refused = send(&ledger, &early).await;
    assert_eq!(refused.status, Status::Refused);
    let sender = ledger.clone();
    let outcomes = at_once(64, move |n| {
        let (ledger, early) = (sender.clone(), early.clone());
        async move {
            let fresh = register(&format!("b-{n}"));
            send(&ledger, if n % 2 == 0 { &early } else { &fresh }).await
        }
    });
    let outcomes = tokio::time::timeout(Duration::from_secs(10), outcomes).await;
    for (n, outcome) in outcomes.unwrap().into_iter().enumerate() {
        if n % 2 == 0 {
            assert_eq!(outcome, refused);
        } else {
            assert_eq!(outcome.status, Status::Accepted);
        }
    }
    assert_eq!(verified(&ledger.reader()).await.position, Position(32));
    database.remove().await;
}
