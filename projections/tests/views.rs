//! Views against a real Postgres; see `support` for the server they need.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use sovereign_projections::{
    Activity, ApprovalStatus, ApprovalsFilter, CheckError, Page, ProjectionError, Projector,
    TradeStatus, TradesFilter, VIEW_NAMES, ViewsOptions,
};
use sovereign_schemas::events::{AgentRegistered, TradeFilled, TradeProposed};
use sovereign_schemas::{
    Decimal, DepartmentId, ErrorCode, EventType, MemoryLog, Position, Timestamp, avro,
};
use sqlx::{Executor as _, Row as _};

use support::chain::{Chain, decimal};
use support::{Ledger, until, until_at, with_database};

#[test]
fn rows_equal_the_fold_and_keep_every_value_exactly() {
    with_database(|database| async move {
        database.store().migrate().await.unwrap();
        database.store().migrate().await.unwrap();
        let mut chain = Chain::busy(100);
        let largest: Decimal = "9999999999999999999.999999999".parse().unwrap();
        for (id, filled_at) in [
            ("min", i64::MIN),
            ("odd", 1_770_206_460_000_001),
            ("max", i64::MAX),
        ] {
            chain.propose(id, "trader-9", 1);
            chain.trade(
                id,
                TradeFilled {
                    order_id: "o".to_owned(),
                    price: largest,
                    quantity: decimal("0.000000001"),
                    commission: decimal("0"),
                    filled_at: Timestamp(filled_at),
                },
            );
        }
        let ledger = Ledger::new(&chain.events);
        let views = database.start(&ledger);
        until_at(&views, ledger.head()).await;
        database.check(&ledger).await;
        let health = serde_json::to_value(views.health(Some(ledger.head()))).unwrap();
        assert_eq!(health["healthy"], true);
        assert_eq!(health["projections"]["trades"]["position"], ledger.head().0);
        assert_eq!(health["projections"]["trades"]["lag"], 0);
        let sql = "SELECT amount::text, fill_price::text, filled_at::text FROM views.trades \
                   WHERE trade_id = ANY(ARRAY['min', 'odd', 'max']) ORDER BY trade_id";
        let mut connection = database.connect().await;
        connection.execute("SET timezone = 'UTC'").await.unwrap();
        let rows = connection.fetch_all(sql).await.unwrap();
        let moments: Vec<String> = rows.iter().map(|r| r.get(2)).collect();
        assert_eq!(
            moments,
            ["infinity", "-infinity", "2026-02-04 12:01:00.000001+00"]
        );
        assert_eq!(rows[0].get::<String, _>(1), largest.to_string());
        assert_eq!(rows[0].get::<String, _>(0), "11.010000000");
        views.stop().await;
    });
}

#[test]
fn a_projector_that_is_killed_again_and_again_ends_with_the_same_rows() {
    with_database(|database| async move {
        database.store().migrate().await.unwrap();
        let ledger = Ledger::new(&Chain::busy(400).events);
        let mut before = Position::START;
        let mut kills_underway = 0;
        for round in 0..40_u64 {
            let options = ViewsOptions {
                batch_events_max: 16,
                ..database.options()
            };
            let views = Projector::start(options, ledger.tails()).unwrap();
            // each life moves on a little, so that the kill falls somewhere else in a batch
            until(&views, "trades", |h| {
                h.position > before || h.position == ledger.head()
            })
            .await;
            tokio::time::sleep(Duration::from_micros(round * 137 % 2_000)).await;
            views.abort().await;
            let now = database
                .store()
                .checkpoint("trades")
                .await
                .unwrap()
                .position;
            assert!(now >= before);
            kills_underway += u32::from(now < ledger.head());
            before = now;
        }
        assert!(
            kills_underway > 3,
            "killed {kills_underway} times only, which proves nothing"
        );
        let views = database.start(&ledger);
        until_at(&views, ledger.head()).await;
        database.check(&ledger).await;
    });
}

#[test]
fn connections_cut_in_the_middle_cost_nothing_but_time() {
    with_database(|database| async move {
        database.store().migrate().await.unwrap();
        let ledger = Ledger::new(&Chain::busy(400).events);
        let views = database.start(&ledger);
        let mut cuts = 0;
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_millis(5)).await;
            let cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                       WHERE application_name = 'sovereign-views' AND datname = current_database()";
            let row = database.connect().await.fetch_one(cut).await.unwrap();
            cuts += row.get::<i64, _>(0);
        }
        assert!(cuts > 5, "{cuts} connections cut, which proves nothing");
        until_at(&views, ledger.head()).await;
        database.check(&ledger).await;
        views.stop().await;
    });
}

#[test]
fn a_poisoned_event_stops_its_own_view_only_and_the_view_goes_on_after_the_fix() {
    with_database(|database| async move {
        database.store().migrate().await.unwrap();
        let good = Chain::busy(40);
        let proposed = |e: &&_| -> bool {
            let e: &sovereign_schemas::RecordedEvent = e;
            e.header.event_type == EventType::TradeProposed.as_str()
        };
        let at = good
            .events
            .iter()
            .filter(proposed)
            .nth(20)
            .unwrap()
            .position();
        let ledger = Ledger::new(&good.with_payload(at, vec![255]).events);
        let views = database.start(&ledger);
        let stopped = until(&views, "trades", |h| h.stopped_at.is_some()).await;
        assert_eq!((stopped.healthy, stopped.stopped_at), (false, Some(at)));
        assert_eq!(stopped.position.next(), at);
        let problem = stopped.problem.unwrap();
        assert_eq!(problem.code, ErrorCode::ProjectionFailed);
        assert!(
            problem
                .message
                .contains(&format!("view trades stops at position {at}"))
        );
        for other in ["agents", "approvals", "departments", "passkeys"] {
            until(&views, other, |h| h.healthy && h.position == ledger.head()).await;
        }
        assert!(!views.health(None).healthy);
        // what came before it is there
        let mut log = MemoryLog::new(ledger.events());
        let checkpoint = database.reader().verify("trades", &mut log).await.unwrap();
        assert_eq!(checkpoint.position.next(), at);
        // it stays red while it tries again
        views.rebuild("agents").await.unwrap();
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(
            views.health(None).projections["trades"].stopped_at,
            Some(at)
        );
        // the fix; the others' checkpoints belong to the bad ledger, so they are built again
        ledger.replace(&good.events);
        until(&views, "trades", |h| {
            h.healthy && h.position == ledger.head()
        })
        .await;
        for other in ["agents", "approvals", "departments", "passkeys"] {
            views.rebuild(other).await.unwrap();
            until(&views, other, |h| h.building.is_some()).await;
            until(&views, other, |h| h.building.is_none()).await;
        }
        until_at(&views, ledger.head()).await;
        database.check(&ledger).await;
        views.stop().await;
    });
}

#[test]
fn an_event_whose_row_postgres_refuses_is_found_and_named() {
    with_database(|database| async move {
        database.store().migrate().await.unwrap();
        let mut chain = Chain::busy(10);
        // the guard lets no NUL through, but a ledger may come from elsewhere
        chain.agent(
            "odd",
            AgentRegistered {
                role: "a\0b".to_owned(),
            },
        );
        let at = Position(chain.events.len() as u64);
        chain.agent(
            "even",
            AgentRegistered {
                role: "b".to_owned(),
            },
        );
        let ledger = Ledger::new(&chain.events);
        let views = database.start(&ledger);
        let stopped = until(&views, "agents", |h| h.stopped_at.is_some()).await;
        assert_eq!(
            (stopped.stopped_at, stopped.position.next()),
            (Some(at), at)
        );
        assert_eq!(stopped.problem.unwrap().code, ErrorCode::ProjectionFailed);
        until(&views, "trades", |h| {
            h.healthy && h.position == ledger.head()
        })
        .await;
        views.stop().await;
    });
}

#[test]
fn a_rebuilt_view_equals_the_fold_again_whoever_asked_for_it() {
    with_database(|database| async move {
        database.store().migrate().await.unwrap();
        let ledger = Ledger::new(&Chain::busy(60).events);
        let views = database.start(&ledger);
        until_at(&views, ledger.head()).await;
        // rows that no fold made, and one that is gone
        database
            .execute("UPDATE views.trades SET profit = 7 WHERE profit IS NOT NULL")
            .await;
        database
            .execute("DELETE FROM views.agents WHERE agent_id = 'trader-1'")
            .await;
        let mut log = MemoryLog::new(ledger.events());
        let error = database
            .reader()
            .verify("trades", &mut log)
            .await
            .unwrap_err();
        assert!(matches!(&error, CheckError::Difference(d) if d.what == "differs in profit"));
        assert_eq!(error.code(), ErrorCode::VerificationDifference);
        let error = database
            .reader()
            .verify("agents", &mut log)
            .await
            .unwrap_err();
        assert!(
            error.to_string().contains("\"trader-1\" is missing"),
            "{error}"
        );
        // once through the handle, once as another process would, while the task is idle
        views.rebuild("trades").await.unwrap();
        database.store().rebuild("agents").await.unwrap();
        for view in ["trades", "agents"] {
            let serving = async || database.store().checkpoint(view).await.unwrap();
            while serving().await.generation != 1 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            assert_eq!(serving().await.position, ledger.head());
        }
        database.check(&ledger).await;
        let error = views.rebuild("nothing").await.unwrap_err();
        assert_eq!(error.problem().expected.unwrap(), VIEW_NAMES.join(", "));
        views.stop().await;
    });
}

#[test]
fn two_processes_on_one_database_write_each_batch_once() {
    with_database(|database| async move {
        database.store().migrate().await.unwrap();
        let all = Chain::busy(300).events;
        let ledger = Ledger::new(&all[..100]);
        let (one, two) = (database.start(&ledger), database.start(&ledger));
        for end in (100..all.len()).step_by(97) {
            ledger.replace(&all[..end]);
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
        ledger.replace(&all);
        until_at(&one, ledger.head()).await;
        until_at(&two, ledger.head()).await;
        database.check(&ledger).await;
        one.abort().await;
        two.stop().await;
    });
}

#[test]
fn a_view_that_is_not_assigned_is_left_to_another_process() {
    with_database(|database| async move {
        database.store().migrate().await.unwrap();
        let all = Chain::busy(60).events;
        let ledger = Ledger::new(&all[..200]);
        let (one, two) = (database.start(&ledger), database.start(&ledger));
        let names = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
        one.assign(&names(&["agents", "trades"]));
        two.assign(&names(&[
            "approvals",
            "departments",
            "passkeys",
            "no such view",
        ]));
        for _ in 0..1_000 {
            one.assign(&names(&["agents", "trades"]));
        }
        let standby = |h: &sovereign_projections::ViewHealth| h.activity == Activity::Standby;
        until(&one, "departments", standby).await;
        until(&two, "trades", standby).await;
        ledger.replace(&all);
        for views in [&one, &two] {
            until_at(views, ledger.head()).await;
        }
        assert!(standby(&one.health(None).projections["departments"]));
        database.check(&ledger).await;
        // nobody has it: it stays where it is, and that is no failure of this process
        two.assign(&names(&[]));
        until(&two, "departments", standby).await;
        database
            .execute("UPDATE views.checkpoints SET position = 7 WHERE view = 'departments'")
            .await;
        let at_seven = |h: &sovereign_projections::ViewHealth| h.position == Position(7);
        assert!(until(&two, "departments", at_seven).await.healthy);
        assert!(until(&one, "departments", at_seven).await.healthy);
        one.abort().await;
        two.stop().await;
    });
}

#[test]
fn every_snapshot_belongs_to_its_position_even_during_rebuilds() {
    with_database(|database| async move {
        database.store().migrate().await.unwrap();
        let ledger = Ledger::new(&Chain::busy(500).events);
        let options = ViewsOptions {
            batch_events_max: 50,
            ..database.options()
        };
        let views = Projector::start(options, ledger.tails()).unwrap();
        let reader = database.reader();
        let mut seen = std::collections::BTreeSet::new();
        let mut before = Position::START;
        for round in 0..300 {
            if round % 40 == 20 {
                views.rebuild("departments").await.unwrap();
            }
            let mut snapshot = reader.snapshot().await.unwrap();
            let trades = snapshot.trades(&TradesFilter::default()).await.unwrap();
            let departments = snapshot.departments().await.unwrap();
            let events: i64 = departments.rows.iter().map(|d| d.events).sum();
            assert_eq!(events as u64, departments.position.0);
            assert!(
                trades
                    .rows
                    .iter()
                    .all(|t| t.last_position <= trades.position)
            );
            assert!(departments.position >= before, "readers were thrown back");
            before = departments.position;
            seen.insert(before);
        }
        assert!(seen.len() > 5, "saw only {seen:?}");
        until_at(&views, ledger.head()).await;
        views.stop().await;
    });
}

#[test]
fn lists_are_filtered_paged_and_added_up() {
    with_database(|database| async move {
        database.store().migrate().await.unwrap();
        let ledger = Ledger::new(&Chain::busy(50).events);
        let views = database.start(&ledger);
        until_at(&views, ledger.head()).await;
        let reader = database.reader();
        let page = |after, limit| Page { after, limit };
        let first = reader.agents(&page(None, 2)).await.unwrap();
        assert_eq!(
            (first.rows.len(), first.more, first.position),
            (2, true, ledger.head())
        );
        let last_id = first.rows[1].agent_id.clone();
        let rest = reader.agents(&page(Some(last_id), 2)).await.unwrap();
        assert_eq!((rest.rows.len(), rest.more), (1, false));
        assert_eq!(first.rows[0].task_items_done, 50);
        let held = TradesFilter {
            status: Some(TradeStatus::Held),
            ..TradesFilter::default()
        };
        let held = reader.trades(&held).await.unwrap().rows;
        assert!(!held.is_empty() && held.iter().all(|t| t.approval_id.is_some()));
        let of = TradesFilter {
            agent_id: Some("trader-2".to_owned()),
            ..TradesFilter::default()
        };
        assert_eq!(reader.trades(&of).await.unwrap().rows.len(), 25);
        let waiting = ApprovalsFilter {
            status: Some(ApprovalStatus::Waiting),
            page: Page::default(),
        };
        let waiting = reader.approvals(&waiting).await.unwrap().rows;
        let mut snapshot = reader.snapshot().await.unwrap();
        let (position, counts) = snapshot.approval_counts().await.unwrap();
        assert_eq!(
            (position, counts["waiting"]),
            (ledger.head(), waiting.len() as i64)
        );
        assert_eq!(counts.values().sum::<i64>(), 10);
        let totals = snapshot.trade_totals().await.unwrap().rows;
        assert_eq!(totals.iter().map(|t| t.trades).sum::<i64>(), 50);
        let (won, lost): (i64, i64) = totals
            .iter()
            .fold((0, 0), |sum, t| (sum.0 + t.won, sum.1 + t.lost));
        assert_eq!((won, lost), (10, 10));
        let profit = totals
            .iter()
            .try_fold(Decimal::ZERO, |sum, t| sum.checked_add(t.profit));
        assert_eq!(profit, Some(decimal("-33.23456788")));
        views.stop().await;
    });
}

#[test]
fn an_unreachable_database_is_red_with_the_cause_and_named_as_external() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        // nobody listens on port 1
        let url = "postgres://user:open-sesame@127.0.0.1:1/none";
        let options = ViewsOptions {
            retry_min: Duration::from_millis(10),
            ..ViewsOptions::new(url)
        };
        assert!(!format!("{options:?}").contains("sesame"));
        let views = Projector::start(options, Ledger::default().tails()).unwrap();
        for view in VIEW_NAMES {
            let health = until(&views, view, |h| h.problem.is_some()).await;
            let problem = health.problem.unwrap();
            assert_eq!(problem.code, ErrorCode::DatabaseUnreachable);
            assert!(problem.retry_after_ms.is_some());
            assert!(!problem.message.contains("sesame"), "{problem}");
        }
        views.stop().await;
    });
}

#[test]
fn views_wait_for_their_tables_and_refuse_those_of_a_newer_build() {
    with_database(|database| async move {
        let ledger = Ledger::new(&Chain::busy(5).events);
        let views = database.start(&ledger);
        until(&views, "agents", |h| h.problem.is_some()).await;
        let migrations = [database.store(), database.store(), database.store()];
        let [a, b, c] = &migrations;
        let (a, b, c) = tokio::join!(a.migrate(), b.migrate(), c.migrate());
        a.and(b).and(c).unwrap();
        until_at(&views, ledger.head()).await;
        database.check(&ledger).await;
        views.stop().await;
        database
            .execute("INSERT INTO views.migrations (version) VALUES (99)")
            .await;
        let error = database.store().migrate().await.unwrap_err();
        assert!(matches!(
            error,
            ProjectionError::SchemaTooNew {
                found: 99,
                known: 2
            }
        ));
        assert_eq!(error.code(), ErrorCode::SchemaTooNew);
    });
}

#[test]
fn a_view_of_another_ledger_stops_instead_of_mixing_the_two() {
    with_database(|database| async move {
        database.store().migrate().await.unwrap();
        let one = Chain::busy(20);
        let views = database.start(&Ledger::new(&one.events[..50]));
        until_at(&views, Position(50)).await;
        views.stop().await;
        let proposal: TradeProposed = avro::decode(
            &one.events
                .iter()
                .find(|e| e.header.event_type == "TradeProposed")
                .unwrap()
                .payload,
        )
        .unwrap();
        let mut other = Chain::default();
        for n in 0..60 {
            let id = format!("other-{n}");
            other.push::<sovereign_schemas::events::TradeEvent>(
                &id,
                DepartmentId::TRADER,
                proposal.clone(),
            );
        }
        let views = database.start(&Ledger::new(&other.events));
        let health = until(&views, "trades", |h| h.problem.is_some()).await;
        assert_eq!(health.problem.unwrap().code, ErrorCode::LedgerDiverged);
        assert_eq!(
            (health.position, health.stopped_at),
            (Position(50), Some(Position(51)))
        );
        views.stop().await;
    });
}
