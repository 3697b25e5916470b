//! Several versions of one view at a time, against a real Postgres; see `support`.
#![allow(clippy::unwrap_used)]

mod support;

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sovereign_projections::{
    Activity, Agents, Build, Departments, ProjectionError, Projector, ProjectorHandle, Role, View,
    ViewsReader, ViewsStore, check_view_equals_fold,
};
use sovereign_schemas::{ErrorCode, MemoryLog, Position};
use sqlx::{Executor as _, Row as _};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use support::chain::Chain;
use support::versions::{DepartmentsV2, DepartmentsV3, set};
use support::{Database, Ledger, until, until_at, with_database};

const VIEW: &str = "departments";

/// A process of the program that has this version.
fn program(database: &Database, ledger: &Ledger, version: u32) -> ProjectorHandle {
    let options = sovereign_projections::ViewsOptions {
        views: set(version),
        ..database.options()
    };
    Projector::start(options, ledger.tails()).unwrap()
}

fn store(database: &Database, version: u32) -> ViewsStore {
    ViewsStore::with_views(&database.url, set(version)).unwrap()
}

async fn builds(database: &Database) -> Vec<Build> {
    let all = database.store().builds().await.unwrap();
    all.into_iter().filter(|b| b.view == VIEW).collect()
}

async fn until_serves(database: &Database, version: u32, generation: i64) -> Build {
    let started = std::time::Instant::now();
    loop {
        let all = builds(database).await;
        let serving: Vec<&Build> = all.iter().filter(|b| b.role == Role::Serving).collect();
        assert_eq!(serving.len(), 1, "{all:?}");
        if (serving[0].version, serving[0].generation) == (version, generation) {
            return serving[0].clone();
        }
        assert!(started.elapsed() < Duration::from_secs(60), "still {all:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// What a reader saw: versions in the order in which they served.
type Seen = watch::Sender<Vec<u32>>;

/// Waits until each reader has compared rows of the version, which serves, with the ledger.
async fn until_read(readers: &[(Arc<Seen>, JoinHandle<()>)], version: u32) {
    for (seen, reading) in readers {
        let read = async |mut seen: watch::Receiver<Vec<u32>>| {
            seen.wait_for(|all| all.last() == Some(&version))
                .await
                .unwrap();
        };
        let read = tokio::time::timeout(Duration::from_secs(60), read(seen.subscribe())).await;
        assert!(!reading.is_finished(), "a reader failed");
        assert!(
            read.is_ok(),
            "version {version} not read: {:?}",
            *seen.borrow()
        );
    }
}

/// Reads over and over, and compares all that it gets with the ledger at the view's position.
async fn read_and_compare(
    reader: ViewsReader,
    ledger: Ledger,
    stop: Arc<AtomicBool>,
    seen: Arc<Seen>,
) {
    let mut before = Position::START;
    while !stop.load(Ordering::Acquire) {
        let mut snapshot = reader.snapshot().await.unwrap();
        let serving = snapshot.serving(VIEW).await.unwrap();
        let agents = snapshot.rows::<Agents>().await.unwrap();
        // what the reader of an old program gets
        let listed = snapshot.departments().await;
        let events = ledger.events();
        let mut log = MemoryLog::new(events);
        match serving.version {
            1 => verify::<Departments>(&mut snapshot, &mut log, &serving).await,
            2 => verify::<DepartmentsV2>(&mut snapshot, &mut log, &serving).await,
            _ => verify::<DepartmentsV3>(&mut snapshot, &mut log, &serving).await,
        }
        if serving.version < 3 {
            let listed = listed.unwrap();
            assert_eq!(
                (listed.position, listed.version),
                (serving.position, serving.version)
            );
            let counted: i64 = listed.rows.iter().map(|row| row.events).sum();
            assert_eq!(counted as u64, serving.position.0);
        } else {
            let error = listed.unwrap_err();
            assert!(
                error.to_string().contains("no column events_by_type"),
                "{error}"
            );
        }
        check_view_equals_fold::<Agents>(&mut log, agents.position, &agents.rows)
            .await
            .unwrap();
        assert!(
            serving.position >= before,
            "readers were thrown back from {before} by {serving:?}"
        );
        before = serving.position;
        seen.send_modify(|versions| {
            if versions.last() != Some(&serving.version) {
                versions.push(serving.version);
            }
        });
    }
}

async fn verify<V: View>(
    snapshot: &mut sovereign_projections::ViewsSnapshot,
    log: &mut MemoryLog,
    serving: &Build,
) where
    V::Row: sovereign_projections::table::Stored,
{
    let checked = snapshot.verify::<V>(log).await.unwrap();
    assert_eq!(checked.position, serving.position);
}

/// Appends a chain, a few events at a time, and the less is left the slower: on a busy machine,
/// too, some is left when the test has seen what it came for.
async fn append(ledger: Ledger, chain: Chain, from: usize, stop: Arc<AtomicBool>) {
    let mut end = from;
    while !stop.load(Ordering::Acquire) && end < chain.events.len() {
        let next = (end + 7).min(chain.events.len());
        ledger.extend(&chain.events[end..next]);
        end = next;
        let left = (chain.events.len() - end).max(1) as f64 / chain.events.len() as f64;
        tokio::time::sleep(Duration::from_millis(4).div_f64(left)).await;
    }
}

#[test]
fn a_switch_under_load_gives_no_reader_a_wrong_row() {
    with_database(|database| async move {
        let chain = Chain::busy(2_500);
        let start = chain.events.len() / 10;
        let ledger = Ledger::new(&chain.events[..start]);
        store(&database, 1).migrate().await.unwrap();
        let old = program(&database, &ledger, 1);
        until_at(&old, ledger.head()).await;
        let (stop, writing) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicBool::new(false)),
        );
        let readers: Vec<_> = (0..2)
            .map(|_| {
                let (reader, ledger, stop) = (database.reader(), ledger.clone(), Arc::clone(&stop));
                let seen = Arc::new(Seen::default());
                let reading = read_and_compare(reader, ledger, stop, Arc::clone(&seen));
                (seen, tokio::spawn(reading))
            })
            .collect();
        until_read(&readers, 1).await;
        let writer = tokio::spawn(append(ledger.clone(), chain, start, Arc::clone(&writing)));

        // the new program starts beside the old one, and is killed again and again while it builds
        store(&database, 2).migrate().await.unwrap();
        for killed_after in [3, 11, 23, 40] {
            let new = program(&database, &ledger, 2);
            tokio::time::sleep(Duration::from_millis(killed_after)).await;
            new.abort().await;
        }
        let new = program(&database, &ledger, 2);
        until_serves(&database, 2, 0).await;
        let live = until(&new, VIEW, |h| h.activity == Activity::Live && h.healthy).await;
        assert_eq!(live.version, 2);
        // the old one keeps its version up, and says what it does
        let kept = until(&old, VIEW, |h| h.activity == Activity::Kept && h.healthy).await;
        assert_eq!(kept.version, 2);
        until_read(&readers, 2).await;

        // back and forth while events come in
        for _ in 0..5 {
            let back = store(&database, 2).rollback(VIEW, false).await.unwrap();
            assert_eq!((back.from.version, back.to.version), (2, 1));
            assert!(back.to.position >= back.from.position, "{back:?}");
            tokio::time::sleep(Duration::from_millis(30)).await;
            let again = store(&database, 1).switch(VIEW, 2, false).await.unwrap();
            assert!(again.to.position >= again.from.position, "{again:?}");
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        store(&database, 2).rollback(VIEW, false).await.unwrap();
        // put back is put back: neither time nor a start brings it forward again
        new.abort().await;
        store(&database, 2).migrate().await.unwrap();
        let new = program(&database, &ledger, 2);
        until(&new, VIEW, |h| h.activity == Activity::Kept && h.healthy).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        until_serves(&database, 1, 0).await;

        // a third version, which an even newer program builds beside both
        store(&database, 3).migrate().await.unwrap();
        let newest = program(&database, &ledger, 3);
        until_serves(&database, 3, 0).await;
        until_read(&readers, 3).await;
        assert!(
            !writer.is_finished(),
            "the load ended before the last switch"
        );
        writing.store(true, Ordering::Release);
        writer.await.unwrap();
        until(&newest, VIEW, |h| h.healthy && h.position == ledger.head()).await;
        stop.store(true, Ordering::Release);
        for (_, reading) in readers {
            reading.await.unwrap();
        }
        for process in [old, new, newest] {
            process.stop().await;
        }
    });
}

#[test]
fn without_the_old_program_its_rows_stay_as_they_are_until_the_new_version_has_caught_up() {
    with_database(|database| async move {
        let chain = Chain::busy(300);
        let ledger = Ledger::new(&chain.events[..100]);
        store(&database, 1).migrate().await.unwrap();
        let old = program(&database, &ledger, 1);
        until_at(&old, ledger.head()).await;
        old.stop().await;
        ledger.replace(&chain.events);
        store(&database, 2).migrate().await.unwrap();
        // the new program is not there yet: its reader gets the old rows, and null for what they lack
        let mut snapshot = database.reader().snapshot().await.unwrap();
        let rows = snapshot.rows::<DepartmentsV2>().await.unwrap();
        assert_eq!((rows.version, rows.position), (1, Position(100)));
        assert!(rows.rows.iter().all(|row| row.last_actor.is_none()));
        drop(snapshot);
        // one event a batch, so that there is time to look
        let options = sovereign_projections::ViewsOptions {
            views: set(2),
            batch_events_max: 1,
            ..database.options()
        };
        let new = Projector::start(options, ledger.tails()).unwrap();
        let health = until(&new, VIEW, |h| {
            h.building.as_ref().is_some_and(|b| b.position.0 > 20)
        })
        .await;
        assert_eq!(health.activity, Activity::Building);
        assert_eq!((health.version, health.position), (1, Position(100)));
        assert!(health.healthy, "{health:?}");
        let building = health.building.unwrap();
        assert_eq!((building.version, building.generation), (2, 0));
        let switched = until_serves(&database, 2, 0).await;
        assert!(switched.position >= Position(100));
        until_at(&new, ledger.head()).await;
        let error = store(&database, 2).rollback(VIEW, false).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::ViewNotReady);
        assert!(error.to_string().contains("nobody brings it up"), "{error}");
        until_serves(&database, 2, 0).await;
        let back = store(&database, 2).rollback(VIEW, true).await.unwrap();
        assert_eq!((back.to.version, back.to.position), (1, Position(100)));
        // stale rows that nobody brings up are not silent
        let red = until(&new, VIEW, |h| h.problem.is_some()).await;
        assert_eq!(
            (red.activity, red.position),
            (Activity::Kept, Position(100))
        );
        let message = red.problem.unwrap().message;
        assert!(
            message.contains("version 1 of view departments serves"),
            "{message}"
        );
        new.stop().await;
    });
}

#[test]
fn a_rebuild_leaves_the_rows_that_serve_until_the_new_ones_have_caught_up() {
    with_database(|database| async move {
        let ledger = Ledger::new(&Chain::busy(200).events);
        store(&database, 1).migrate().await.unwrap();
        let views = program(&database, &ledger, 1);
        until_at(&views, ledger.head()).await;
        database
            .execute("UPDATE views.departments_v1 SET events = events + 1")
            .await;
        views.rebuild(VIEW).await.unwrap();
        // a second rebuild begins again, and leaves no two waiting
        views.rebuild(VIEW).await.unwrap();
        let reader = database.reader();
        loop {
            let mut snapshot = reader.snapshot().await.unwrap();
            let serving = snapshot.serving(VIEW).await.unwrap();
            let rows = snapshot.departments().await.unwrap();
            assert_eq!(rows.position, ledger.head(), "half a build was shown");
            if serving.generation == 2 {
                break;
            }
            assert_eq!(serving.generation, 0);
        }
        database.check(&ledger).await;
        let sql = "SELECT sum(events)::bigint FROM views.departments";
        let row = database.connect().await.fetch_one(sql).await.unwrap();
        assert_eq!(row.get::<i64, _>(0) as u64, ledger.head().0);
        // what was replaced goes by itself, once nobody can be reading it
        database
            .execute(
                "UPDATE views.checkpoints SET replaced_at = now() - interval '61 s' \
                      WHERE replaced_at IS NOT NULL",
            )
            .await;
        let started = std::time::Instant::now();
        while builds(&database).await.len() > 1 {
            assert!(
                started.elapsed() < Duration::from_secs(30),
                "{:?}",
                builds(&database).await
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let left = "SELECT count(*) FROM pg_tables WHERE tablename LIKE 'departments\\_v1%'";
        let row = database.connect().await.fetch_one(left).await.unwrap();
        assert_eq!(row.get::<i64, _>(0), 1);
        database.check(&ledger).await;
        views.stop().await;
    });
}

#[test]
fn a_version_that_was_dropped_is_not_built_again_by_the_old_program() {
    with_database(|database| async move {
        let ledger = Ledger::new(&Chain::busy(50).events);
        store(&database, 1).migrate().await.unwrap();
        let old = program(&database, &ledger, 1);
        until_at(&old, ledger.head()).await;
        store(&database, 2).migrate().await.unwrap();
        let new = program(&database, &ledger, 2);
        until_serves(&database, 2, 0).await;
        let admin = store(&database, 2);
        let error = admin.drop_kept(VIEW, None, false).await.unwrap_err();
        assert!(
            error.to_string().contains("within the last minute"),
            "{error}"
        );
        let error = admin.drop_kept(VIEW, Some(2), true).await.unwrap_err();
        assert!(error.to_string().contains("serves"), "{error}");
        let dropped = admin.drop_kept(VIEW, None, true).await.unwrap();
        assert_eq!(dropped.iter().map(|b| b.version).collect::<Vec<_>>(), [1]);
        assert!(admin.drop_kept(VIEW, None, true).await.unwrap().is_empty());
        let retired = until(&old, VIEW, |h| h.activity == Activity::Retired && h.healthy).await;
        assert_eq!((retired.version, retired.position), (2, ledger.head()));
        store(&database, 1).migrate().await.unwrap();
        assert_eq!(builds(&database).await.len(), 1);
        let error = admin.rollback(VIEW, true).await.unwrap_err();
        assert!(matches!(error, ProjectionError::NotReady { .. }), "{error}");
        // unless somebody says so: then it is built anew, and serves
        old.rebuild(VIEW).await.unwrap();
        until_serves(&database, 1, 0).await;
        until(&new, VIEW, |h| h.activity == Activity::Kept && h.healthy).await;
        old.stop().await;
        new.stop().await;
    });
}

#[test]
fn a_new_version_that_cannot_take_an_event_is_red_and_never_serves() {
    with_database(|database| async move {
        let good = Chain::busy(30);
        let ledger = Ledger::new(&good.events);
        store(&database, 1).migrate().await.unwrap();
        let old = program(&database, &ledger, 1);
        until_at(&old, ledger.head()).await;
        store(&database, 2).migrate().await.unwrap();
        // a column that the fold fills is gone: Postgres refuses its rows
        database
            .execute("ALTER TABLE views.departments_v2 ADD CONSTRAINT no CHECK (events < 10)")
            .await;
        let new = program(&database, &ledger, 2);
        let red = until(&new, VIEW, |h| h.problem.is_some()).await;
        assert_eq!((red.version, red.position), (1, ledger.head()));
        assert!(red.stopped_at.is_some() && !red.healthy, "{red:?}");
        until(&old, VIEW, |h| h.healthy && h.version == 1).await;
        // the fix
        database
            .execute("ALTER TABLE views.departments_v2 DROP CONSTRAINT no")
            .await;
        until_serves(&database, 2, 0).await;
        until(&new, VIEW, |h| h.healthy && h.activity == Activity::Live).await;
        old.stop().await;
        new.stop().await;
    });
}

#[test]
fn whoever_reads_the_sql_view_keeps_its_rights_and_its_rows() {
    with_database(|database| async move {
        let ledger = Ledger::new(&Chain::busy(30).events);
        store(&database, 1).migrate().await.unwrap();
        let old = program(&database, &ledger, 1);
        until_at(&old, ledger.head()).await;
        database
            .execute("GRANT SELECT ON views.departments TO PUBLIC")
            .await;
        // somebody reads it in a transaction of his own
        let mut reading = database.connect().await;
        reading
            .execute("BEGIN; SELECT * FROM views.departments")
            .await
            .unwrap();
        store(&database, 3).migrate().await.unwrap();
        let new = program(&database, &ledger, 3);
        until(&new, VIEW, |h| {
            h.building
                .as_ref()
                .is_some_and(|b| b.position == ledger.head())
        })
        .await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        // the switch waits for him, and is nobody's failure
        assert!(builds(&database).await.iter().any(|b| b.role == Role::Next));
        until(&new, VIEW, |h| h.healthy).await;
        let sql = "SELECT sum(events)::bigint, min(first_position) FROM views.departments";
        let row = reading.fetch_one(sql).await.unwrap();
        assert_eq!(row.get::<i64, _>(0) as u64, ledger.head().0);
        reading.execute("COMMIT").await.unwrap();
        until_serves(&database, 3, 0).await;
        let sql = "SELECT sum(events)::bigint, sum(opened)::bigint FROM views.departments";
        let row = reading.fetch_one(sql).await.unwrap();
        assert_eq!(row.get::<i64, _>(0) as u64, ledger.head().0);
        let sql = "SELECT has_table_privilege('pg_monitor', 'views.departments', 'SELECT'), \
                   has_table_privilege('pg_monitor', 'views.departments', 'INSERT')";
        let row = reading.fetch_one(sql).await.unwrap();
        assert_eq!(
            (row.get::<bool, _>(0), row.get::<bool, _>(1)),
            (true, false)
        );
        let sql = "SELECT count(*) FROM pg_indexes WHERE indexname = 'departments_v3_events'";
        assert_eq!(reading.fetch_one(sql).await.unwrap().get::<i64, _>(0), 1);
        old.stop().await;
        new.stop().await;
    });
}

/// Environment variable with the URL: this test program is then a projector that gets killed.
const CHILD: &str = "SOVEREIGN_TEST_VIEWS_CHILD";
const CHILD_ROUNDS: u64 = 700;

#[test]
fn child_that_is_killed() {
    let Ok(url) = std::env::var(CHILD) else {
        return;
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let database = Database { url };
        let ledger = Ledger::new(&Chain::busy(CHILD_ROUNDS).events);
        let options = sovereign_projections::ViewsOptions {
            views: set(2),
            batch_events_max: 16,
            ..database.options()
        };
        let _views = Projector::start(options, ledger.tails()).unwrap();
        std::future::pending::<()>().await;
    });
}

#[test]
fn a_killed_process_leaves_one_version_serving_and_every_build_whole() {
    with_database(|database| async move {
        let ledger = Ledger::new(&Chain::busy(CHILD_ROUNDS).events);
        store(&database, 1).migrate().await.unwrap();
        let old = program(&database, &ledger, 1);
        until_at(&old, ledger.head()).await;
        old.stop().await;
        store(&database, 2).migrate().await.unwrap();
        let mut places = std::collections::BTreeSet::new();
        let mut reached = Position::START;
        let mut log = MemoryLog::new(ledger.events());
        for round in 0..40_u64 {
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args(["child_that_is_killed", "--exact"])
                .env(CHILD, &database.url)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            // not by time: a slow machine must be killed in the middle too
            let target = reached.0 + 200 + round * 170 % 500;
            let started = std::time::Instant::now();
            loop {
                let all = builds(&database).await;
                let new = all.iter().find(|b| b.version == 2).unwrap();
                if new.position.0 >= target || new.role == Role::Serving {
                    break;
                }
                assert!(started.elapsed() < Duration::from_secs(60), "still {all:?}");
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            child.kill().unwrap();
            child.wait().unwrap();
            let mut snapshot = database.reader().snapshot().await.unwrap();
            let serving = snapshot.serving(VIEW).await.unwrap();
            match serving.version {
                1 => verify::<Departments>(&mut snapshot, &mut log, &serving).await,
                _ => verify::<DepartmentsV2>(&mut snapshot, &mut log, &serving).await,
            }
            assert_eq!(serving.position, ledger.head());
            let all = builds(&database).await;
            assert_eq!(
                all.iter().filter(|b| b.role == Role::Serving).count(),
                1,
                "{all:?}"
            );
            places.extend(all.iter().filter(|b| b.version == 2).map(|b| b.position));
            reached = places.last().copied().unwrap_or_default();
            if serving.version == 2 {
                break;
            }
        }
        assert!(
            places.len() > 3,
            "killed at {places:?} only, which proves little"
        );
        let new = program(&database, &ledger, 2);
        until_serves(&database, 2, 0).await;
        until_at(&new, ledger.head()).await;
        let mut snapshot = database.reader().snapshot().await.unwrap();
        let serving = snapshot.serving(VIEW).await.unwrap();
        verify::<DepartmentsV2>(&mut snapshot, &mut log, &serving).await;
        new.stop().await;
    });
}
