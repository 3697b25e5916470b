use std::time::{Duration, Instant};

use sovereign_aggregates::{AnyEvent, CommandPort as _};
use sovereign_event_store::{Filter, LedgerTail};
use sovereign_schemas::avro::EventRecord as _;
use sovereign_schemas::chain::{self, Head};
use sovereign_schemas::events::{AgentEvent, MarketObservedV1};
use sovereign_schemas::{
    AggregateType, Cursor, DepartmentId, EventHeader, EventLog as _, LogError, Position, Status,
    Tail as _, Timestamp, Uuid, avro, catalog,
};
use sqlx::Executor as _;

use crate::common::{Database, all, bar, register, send, verified};

#[tokio::test(flavor = "multi_thread")]
async fn followers_see_every_event_once_here_and_in_other_processes() {
    let database = Database::create().await;
    let (ledger, other) = (database.open().await, database.open().await);
    let tails = [
        ledger.tail(),
        other.tail(),
        LedgerTail::remote(&database.url).unwrap(),
    ];
    let count = 400;
    let followers: Vec<_> = tails
        .into_iter()
        .map(|mut tail| {
            tokio::spawn(async move {
                let mut head = Head::EMPTY;
                while head.position.0 < count {
                    let wait = Duration::from_secs(10);
                    let events = tail.next(head.position, 64, wait).await.unwrap();
                    assert!(!events.is_empty(), "nothing after {}", head.position);
                    for event in events {
                        chain::advance(&mut head, &event).unwrap();
                    }
                }
            })
        })
        .collect();
    send(&ledger, &register("a")).await;
    send(&other, &register("b")).await;
    for number in 0..(count as u32 - 2) / 2 {
        assert_eq!(
            send(&ledger, &bar("a", number)).await.status,
            Status::Accepted
        );
        assert_eq!(
            send(&other, &bar("b", number)).await.status,
            Status::Accepted
        );
    }
    for follower in followers {
        follower.await.unwrap();
    }
    let mut tail = ledger.tail();
    let started = Instant::now();
    let wait = Duration::from_millis(100);
    assert!(
        tail.next(Position(count), 1, wait)
            .await
            .unwrap()
            .is_empty()
    );
    assert!(started.elapsed() >= wait);
    database.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn finds_positions_by_time_and_events_by_filter() {
    let database = Database::create().await;
    let ledger = database.open().await;
    let reader = ledger.reader();
    assert_eq!(reader.position_at(Timestamp(0)).await.unwrap(), Position(1));
    for agent in ["a", "b", "c"] {
        send(&ledger, &register(agent)).await;
        for number in 0..5 {
            let mut command = bar(agent, number);
            command.context.department = DepartmentId::HUNTER;
            ledger.send(command).await;
        }
    }
    let events = all(&reader).await;
    for event in &events {
        let first = events
            .iter()
            .find(|e| e.header.recorded_at >= event.header.recorded_at);
        let found = reader.position_at(event.header.recorded_at).await.unwrap();
        assert_eq!(found, first.unwrap().position());
    }
    let after_all = Timestamp(events.last().unwrap().header.recorded_at.0 + 1);
    assert_eq!(reader.position_at(after_all).await.unwrap(), Position(19));

    let hunter = Filter {
        department: Some(DepartmentId::HUNTER),
        ..Filter::default()
    };
    let (found, reached) = reader
        .read_filtered(Position::START, 4, &hunter)
        .await
        .unwrap();
    assert_eq!((found.len(), reached), (4, Position(5)));
    let (found, reached) = reader.read_filtered(reached, 100, &hunter).await.unwrap();
    assert_eq!((found.len(), reached), (11, Position(18)));
    let b = Filter {
        aggregate_type: Some(AggregateType::Agent),
        aggregate_id: Some("b".into()),
        ..Filter::default()
    };
    let (found, _) = reader
        .read_filtered(Position::START, 100, &b)
        .await
        .unwrap();
    assert_eq!(found.len(), 6);
    let around = |agent: &str| Filter {
        around_agent: Some(agent.into()),
        ..Filter::default()
    };
    for (agent, events) in [("b", 6), ("nobody", 0)] {
        let (found, reached) = reader
            .read_filtered(Position::START, 100, &around(agent))
            .await
            .unwrap();
        assert_eq!((found.len(), reached), (events, Position(18)), "{agent}");
    }
    let wanted = ["b", "nobody", "a"].map(|id| (AggregateType::Agent, id.to_owned()));
    let first = reader.read_first(&wanted).await.unwrap();
    let first: Vec<_> = first
        .iter()
        .map(|found| {
            found
                .as_ref()
                .map(|e| (e.header.aggregate_id.as_str(), e.header.sequence))
        })
        .collect();
    assert_eq!(first, [Some(("b", 1)), None, Some(("a", 1))]);
    let page = reader
        .read_aggregate(AggregateType::Agent, "b", 4, 100)
        .await
        .unwrap();
    assert_eq!(
        page.iter().map(|e| e.header.sequence).collect::<Vec<_>>(),
        [5, 6]
    );
    database.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stored_version_1_event_is_read_as_version_2() {
    let database = Database::create().await;
    let ledger = database.open().await;
    send(&ledger, &register("a")).await;
    ledger.close().await;

    // as an older build would have written it
    let price = |text: &str| text.parse().unwrap();
    let old = MarketObservedV1 {
        instrument: "IBM".into(),
        date: "2000-03-01".parse().unwrap(),
        open: price("102"),
        high: price("105.5"),
        low: price("100.06"),
        close: price("100.25"),
        volume: price("10807800"),
    };
    let head = ledger.reader().head().await.unwrap();
    let header = EventHeader {
        position: Position(2),
        event_id: Uuid::now_v7(),
        aggregate_type: "agent".into(),
        aggregate_id: "a".into(),
        sequence: 2,
        event_type: MarketObservedV1::NAME.into(),
        event_version: MarketObservedV1::VERSION,
        department: DepartmentId::HUNTER,
        actor: "importer".into(),
        command_id: Uuid::now_v7(),
        correlation_id: Uuid::now_v7(),
        causation_id: None,
        recorded_at: Timestamp::now(),
        schema_fingerprint: catalog::find("MarketObserved", 1).unwrap().fingerprint,
    };
    let payload = avro::encode(&old);
    let hash = chain::expected_hash(&head.hash, &header, &payload);
    let mut connection = database.connect().await;
    sqlx::query(
        "insert into ledger.events (position, sequence, recorded_at_us, event_version, department, \
         command_events, event_id, command_id, correlation_id, aggregate_type, aggregate_id, \
         event_type, actor, schema_fingerprint, hash, payload) \
         values (2, 2, $1, 1, 7, 1, $2, $3, $4, 'agent', 'a', 'MarketObserved', 'importer', $5, \
         $6, $7)",
    )
    .bind(header.recorded_at.0)
    .bind(header.event_id)
    .bind(header.command_id)
    .bind(header.correlation_id)
    .bind(header.schema_fingerprint.as_slice())
    .bind(hash.0.as_slice())
    .bind(&payload)
    .execute(&mut connection)
    .await
    .unwrap();
    sqlx::query("update ledger.head set position = 2, hash = $1")
        .bind(hash.0.as_slice())
        .execute(&mut connection)
        .await
        .unwrap();

    let ledger = database.open().await;
    let events = all(&ledger.reader()).await;
    let AnyEvent::Agent(AgentEvent::MarketObserved(new)) = AnyEvent::decode(&events[1]).unwrap()
    else {
        panic!("{:?}", events[1])
    };
    assert_eq!(
        (new.interval_s, new.opened_at.to_string().as_str()),
        (86_400, "2000-03-01T00:00:00.000000Z")
    );
    // and the aggregate knows it
    let mut earlier = bar("a", 0);
    earlier.command = crate::common::command(
        "agent",
        "observe_market",
        serde_json::json!({"instrument": "IBM", "opened_at": "2000-02-29", "interval_s": 86400,
            "open": "1", "high": "1", "low": "1", "close": "1", "volume": "1"}),
    );
    assert_eq!(send(&ledger, &earlier).await.status, Status::Refused);
    assert_eq!(send(&ledger, &bar("a", 1)).await.status, Status::Accepted);
    assert_eq!(verified(&ledger.reader()).await.position, Position(3));
    database.remove().await;
}

/// 8 agents with 400 bars each: more than one reads page by page.
async fn long_ledger(database: &Database) -> sovereign_event_store::Ledger {
    let ledger = database.open().await;
    let agents = (0..8).map(|agent| {
        let ledger = &ledger;
        async move {
            let name = format!("agent-{agent}");
            send(ledger, &register(&name)).await;
            for number in 0..400 {
                send(ledger, &bar(&name, number)).await;
            }
        }
    });
    futures::future::join_all(agents).await;
    ledger
}

#[tokio::test(flavor = "multi_thread")]
async fn long_reads_are_read_ahead_and_give_what_pages_give() {
    let database = Database::create().await;
    let ledger = long_ledger(&database).await;
    let reader = ledger.reader();
    let mut pages = Vec::new();
    loop {
        let after = Position(pages.len() as u64);
        let (page, _) = reader.log().read(after.into(), 700).await.unwrap();
        if page.is_empty() {
            break;
        }
        pages.extend(page);
    }
    assert_eq!(pages.len(), 8 * 401);
    for limit in [256, 700, 5_000] {
        let (mut log, mut cursor, mut found) = (reader.log(), Cursor::default(), Vec::new());
        let mut ahead = false;
        loop {
            let (events, next) = log.read(cursor, limit).await.unwrap();
            assert!(events.len() <= limit);
            if events.is_empty() {
                break;
            }
            found.extend(events);
            cursor = next;
            ahead |= format!("{log:?}").contains("stretch: Some");
        }
        assert_eq!(found, pages, "limit {limit}");
        // with 5,000 at once there is nothing to read on
        assert_eq!(ahead, limit < 5_000);
        // from anywhere else afterwards
        let (events, _) = log.read(Position(10).into(), 3).await.unwrap();
        assert_eq!(events, pages[10..13]);
    }
    database.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_missing_far_ahead_is_a_gap_behind_all_good_events() {
    let database = Database::create().await;
    let ledger = long_ledger(&database).await;
    let mut superuser = database.connect().await;
    superuser
        .execute("alter table ledger.events disable trigger user")
        .await
        .unwrap();
    superuser
        .execute("delete from ledger.events where position = 2500")
        .await
        .unwrap();
    let (mut log, mut cursor) = (ledger.reader().log(), Cursor::default());
    let gap = loop {
        match log.read(cursor, 300).await {
            Ok((_, next)) => {
                assert!(next > cursor, "the log ended at {cursor:?}");
                cursor = next;
            }
            Err(error) => break error,
        }
    };
    assert_eq!(cursor.position, Position(2_499));
    assert!(
        matches!(gap, LogError::Gap { expected, found } if expected.0 == 2_500 && found.0 == 2_501),
        "{gap}"
    );
    database.remove().await;
}
