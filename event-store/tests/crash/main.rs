//! Crashes the server under load. In a binary of its own: whoever else uses the server meanwhile
//! loses connections. `SOVEREIGN_TEST_DATABASE` must name a superuser here.

#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::{Database, all, at_once, bar, register, send, server, verified};
use sovereign_event_store::{Ledger, LedgerReader, LedgerTail};
use sovereign_schemas::{Digest, ErrorCode, Outcome, Position, Status, Tail as _, Uuid};
use sqlx::{Connection as _, Executor as _, PgConnection};
use tokio::time::sleep;

const SENDERS: usize = 64;
const CRASHES: usize = 5;
/// A crashed server has recovered and the engine has noticed.
const WRITABLE_WITHIN: Duration = Duration::from_secs(25);

/// SIGKILL of one backend: the server throws all sessions and its shared memory away, the
/// unflushed end of the write-ahead log with it, and recovers.
async fn crash(round: usize) {
    let (mut connection, victim) = loop {
        let mut connection = connect().await;
        let victim: Result<Option<i32>, _> = sqlx::query_scalar(
            "select pid from pg_stat_activity where application_name like 'sovereign writer%' \
             or application_name like 'sovereign flusher%' order by random() limit 1",
        )
        .fetch_optional(&mut connection)
        .await;
        match victim {
            Ok(Some(victim)) => break (connection, victim),
            _ => sleep(Duration::from_millis(100)).await,
        }
    };
    let kill = format!("copy (select 1) to program 'kill -9 {victim}'");
    // the answer may be lost together with the server
    let killed = connection.execute(kill.as_str()).await;
    assert!(
        killed
            .as_ref()
            .err()
            .is_none_or(|e| !e.to_string().contains("permission")),
        "crash {round}: {killed:?}"
    );
}

async fn connect() -> PgConnection {
    for _ in 0..100 {
        if let Ok(connection) = PgConnection::connect(&server()).await {
            return connection;
        }
        sleep(Duration::from_millis(100)).await;
    }
    panic!("the server does not come back")
}

async fn until_writable(ledger: &Ledger) {
    let probe = async {
        let agent = format!("probe-{}", Uuid::now_v7().simple());
        while send(ledger, &register(&agent)).await.status != Status::Accepted {
            sleep(Duration::from_millis(100)).await;
        }
    };
    let done = tokio::time::timeout(WRITABLE_WITHIN, probe).await;
    assert!(done.is_ok(), "not writable: {:?}", ledger.health());
}

struct Acknowledged {
    request: sovereign_aggregates::CommandRequest,
    outcome: Outcome,
}

/// Sends bars until told to stop, and again under the same id while the outcome is unknown.
async fn sender(ledger: Ledger, n: usize, stop: Arc<AtomicBool>) -> Vec<Acknowledged> {
    let agent = format!("agent-{n}");
    let mut acknowledged = Vec::new();
    for number in 0..u32::MAX {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let request = if number == 0 {
            register(&agent)
        } else {
            bar(&agent, number)
        };
        loop {
            let outcome = send(&ledger, &request).await;
            let code = outcome.error.as_ref().map(|e| e.code);
            match (outcome.status, code) {
                (Status::Accepted | Status::Duplicate, _) => {
                    acknowledged.push(Acknowledged { request, outcome });
                    break;
                }
                (_, Some(ErrorCode::Busy | ErrorCode::TimedOut)) => {
                    sleep(Duration::from_millis(20)).await;
                }
                _ => panic!("{outcome:?}"),
            }
        }
    }
    acknowledged
}

/// What a follower was shown, by position.
async fn follower(mut tail: LedgerTail, stop: Arc<AtomicBool>) -> HashMap<Position, Digest> {
    let mut shown = HashMap::new();
    let mut after = Position::START;
    while !stop.load(Ordering::Relaxed) {
        // a lost connection is tried again; what was shown must never change
        let Ok(events) = tail.next(after, 256, Duration::from_millis(50)).await else {
            sleep(Duration::from_millis(20)).await;
            continue;
        };
        for event in events {
            assert_eq!(event.position(), after.next());
            after = event.position();
            shown.insert(after, event.hash);
        }
    }
    shown
}

async fn check(reader: &LedgerReader, acknowledged: &[Acknowledged]) {
    let events = all(reader).await;
    let mut by_command: HashMap<Uuid, Vec<Position>> = HashMap::new();
    for event in &events {
        by_command
            .entry(event.header.command_id)
            .or_default()
            .push(event.position());
    }
    assert!(
        by_command.values().all(|positions| positions.len() == 1),
        "an id took effect twice"
    );
    for Acknowledged { request, outcome } in acknowledged {
        let (first, last) = outcome.positions.unwrap();
        assert_eq!(first, last);
        assert_eq!(
            by_command.get(&request.context.command_id),
            Some(&vec![first])
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_or_shown_is_lost_when_the_server_crashes() {
    let database = Database::create().await;
    let ledgers = [database.open().await, database.open().await];
    let stop = Arc::new(AtomicBool::new(false));
    let followers: Vec<_> = [
        ledgers[0].tail(),
        ledgers[1].tail(),
        LedgerTail::remote(&database.url).unwrap(),
    ]
    .into_iter()
    .map(|tail| tokio::spawn(follower(tail, Arc::clone(&stop))))
    .collect();
    let senders = {
        let (ledgers, stop) = (ledgers.clone(), Arc::clone(&stop));
        tokio::spawn(at_once(SENDERS, move |n| {
            sender(ledgers[n % 2].clone(), n, Arc::clone(&stop))
        }))
    };
    for round in 0..CRASHES {
        for ledger in &ledgers {
            until_writable(ledger).await;
        }
        sleep(Duration::from_millis(300 + 137 * round as u64)).await;
        crash(round).await;
    }
    for ledger in &ledgers {
        until_writable(ledger).await;
    }
    sleep(Duration::from_millis(500)).await;
    stop.store(true, Ordering::Relaxed);
    let acknowledged: Vec<Acknowledged> = senders.await.unwrap().into_iter().flatten().collect();
    let mut shown = Vec::new();
    for follower in followers {
        shown.push(follower.await.unwrap());
    }

    let reader = ledgers[0].reader();
    let head = verified(&reader).await;
    check(&reader, &acknowledged).await;
    let events = all(&reader).await;
    for (position, hash) in shown.iter().flatten() {
        let at = usize::try_from(position.0).unwrap() - 1;
        assert_eq!(
            events[at].hash, *hash,
            "position {position} was shown and then changed"
        );
    }
    println!(
        "{} acknowledged, head {}, shown {:?}",
        acknowledged.len(),
        head.position,
        shown.iter().map(HashMap::len).collect::<Vec<_>>()
    );
    // memory is what the ledger says, and a repeat is recognised
    assert_eq!(ledgers[1].live_states().await.unwrap().0, head);
    for Acknowledged { request, outcome } in acknowledged.iter().rev().take(200) {
        let again = send(&ledgers[1], request).await;
        assert_eq!(
            (again.status, again.positions),
            (Status::Duplicate, outcome.positions)
        );
    }
    database.remove().await;
}
