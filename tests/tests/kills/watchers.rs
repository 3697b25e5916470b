//! Those who look all the time. What one of them was shown may never change.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use sovereign_event_store::LedgerTail;
use sovereign_schemas::{Digest, Position, Tail as _};
use sqlx::{Connection as _, PgConnection, Row as _};

use crate::topics::{Silent, TopicsWatcher};
use crate::writers::lock;

/// What one watcher was shown, by position; and what it should not have been shown.
#[derive(Debug, Default)]
pub(crate) struct Shown {
    pub(crate) name: &'static str,
    hashes: Mutex<BTreeMap<u64, String>>,
    pub(crate) faults: Mutex<Vec<String>>,
}

impl Shown {
    fn new(name: &'static str) -> Arc<Self> {
        Arc::new(Self {
            name,
            ..Self::default()
        })
    }

    /// Notes an event; whether it was new.
    pub(crate) fn note(&self, position: u64, hash: String) -> bool {
        let mut hashes = lock(&self.hashes);
        match hashes.get(&position) {
            None => {
                hashes.insert(position, hash);
                true
            }
            Some(before) => {
                if *before != hash {
                    let text = format!(
                        "{}: position {position} was {before}, then {hash}",
                        self.name
                    );
                    lock(&self.faults).push(text);
                }
                false
            }
        }
    }

    pub(crate) fn fault(&self, text: &str) {
        lock(&self.faults).push(format!("{}: {text}", self.name));
    }

    /// What was shown of these positions and is not what the ledger has there.
    pub(crate) fn wrong(&self, ledger: &HashMap<u64, String>, from: u64) -> Vec<String> {
        let hashes = lock(&self.hashes);
        let wrong = hashes
            .range(from..)
            .filter(|(position, hash)| ledger.get(position) != Some(hash));
        wrong
            .map(|(position, hash)| {
                format!("{}: position {position} was shown as {hash}", self.name)
            })
            .collect()
    }

    /// How many behind `position` were shown: if any, some partition stays silent.
    pub(crate) fn behind(&self, position: u64) -> usize {
        lock(&self.hashes).range(position + 1..).count()
    }

    /// How many of positions 1 to `to` were shown.
    pub(crate) fn count(&self, to: u64) -> u64 {
        lock(&self.hashes).range(..=to).count() as u64
    }

    /// The last position before the first gap at or behind `from`.
    pub(crate) fn reached(&self, from: u64) -> u64 {
        let hashes = lock(&self.hashes);
        let mut reached = from;
        for (position, _) in hashes.range(from + 1..) {
            if *position != reached + 1 {
                break;
            }
            reached = *position;
        }
        reached
    }
}

/// All watchers.
pub(crate) struct Watchers {
    /// A read-committed consumer of all departments' topics.
    pub(crate) topics: Arc<Shown>,
    /// What that consumer is to be told when it gives nothing, and how often it was.
    pub(crate) silent: Arc<Silent>,
    pub(crate) duplicates: Arc<AtomicUsize>,
    pub(crate) all: Vec<Arc<Shown>>,
    stop: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

/// Whom to watch.
pub(crate) struct Sources<'a> {
    pub(crate) brokers: &'a str,
    pub(crate) database: &'a str,
    pub(crate) superuser: sqlx::postgres::PgConnectOptions,
    pub(crate) program: std::path::PathBuf,
    /// Data folders of the engines.
    pub(crate) folders: Vec<std::path::PathBuf>,
}

impl Watchers {
    pub(crate) fn start(sources: Sources<'_>) -> anyhow::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let duplicates = Arc::new(AtomicUsize::new(0));
        let topics = Shown::new("topics");
        let tail = Shown::new("tail of the ledger");
        let views = Shown::new("checkpoints of views");
        let mut all = vec![Arc::clone(&topics), Arc::clone(&tail), Arc::clone(&views)];
        let consumer = TopicsWatcher::open(sources.brokers, Arc::clone(&topics))?;
        let silent = consumer.silent();
        let mut threads = vec![{
            let (stop, twice) = (Arc::clone(&stop), Arc::clone(&duplicates));
            std::thread::spawn(move || consumer.watch(&twice, &stop))
        }];
        let log = LedgerTail::remote(sources.database)?;
        tokio::spawn(watch_tail(log, tail, Arc::clone(&stop)));
        tokio::spawn(watch_views(sources.superuser, views, Arc::clone(&stop)));
        for (folder, name) in sources
            .folders
            .into_iter()
            .zip(["follower of the first", "follower of the second"])
        {
            let shown = Shown::new(name);
            all.push(Arc::clone(&shown));
            let (stop, program) = (Arc::clone(&stop), sources.program.clone());
            threads.push(std::thread::spawn(move || {
                while !stop.load(Ordering::SeqCst) {
                    follow(&program, &folder, &shown, &stop);
                }
            }));
        }
        Ok(Self {
            topics,
            silent,
            duplicates,
            all,
            stop,
            threads,
        })
    }

    pub(crate) fn stop(self) {
        self.stop.store(true, Ordering::SeqCst);
        for thread in self.threads {
            let _ = thread.join();
        }
    }
}

async fn watch_tail(mut log: LedgerTail, shown: Arc<Shown>, stop: Arc<AtomicBool>) {
    let mut after = Position::START;
    while !stop.load(Ordering::SeqCst) {
        match log.next(after, 512, Duration::from_millis(100)).await {
            Ok(events) => {
                for event in events {
                    if event.position() != after.next() {
                        shown.fault(&format!("{} after {after}", event.position()));
                    }
                    after = event.position();
                    shown.note(after.0, event.hash.to_string());
                }
            }
            // a database that is away is waited for
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// A view shows its checkpoint together with its rows. Checkpoints may go back after a crash (they
/// are folded again); the event that they name may not.
async fn watch_views(
    options: sqlx::postgres::PgConnectOptions,
    shown: Arc<Shown>,
    stop: Arc<AtomicBool>,
) {
    let mut connection: Option<PgConnection> = None;
    while !stop.load(Ordering::SeqCst) {
        tokio::time::sleep(Duration::from_millis(25)).await;
        let mut open = match connection.take() {
            Some(open) => open,
            None => match PgConnection::connect_with(&options).await {
                Ok(open) => open,
                Err(_) => continue,
            },
        };
        let query = "select position, hash from views.checkpoints where position > 0";
        let Ok(rows) = sqlx::query(query).fetch_all(&mut open).await else {
            continue;
        };
        for row in rows {
            let hash: Vec<u8> = row.get("hash");
            let position = row.get::<i64, _>("position").unsigned_abs();
            let hash = <[u8; 32]>::try_from(hash).map(Digest);
            shown.note(
                position,
                hash.map_or_else(|_| "no hash".to_owned(), |hash| hash.to_string()),
            );
        }
        connection = Some(open);
    }
}

/// `sovereign log --follow`, until it ends or `stop` says so.
fn follow(program: &std::path::Path, folder: &std::path::Path, shown: &Shown, stop: &AtomicBool) {
    let from = lock(&shown.hashes)
        .keys()
        .next_back()
        .map_or(1, |last| last + 1);
    let child = Command::new(program)
        .args([
            "log",
            "--follow",
            "--json",
            "--sealed",
            "--from",
            &from.to_string(),
            "--data",
        ])
        .arg(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let Ok(mut child) = child else { return };
    let ended = Arc::new(AtomicBool::new(false));
    let stdout = child.stdout.take();
    let reader = stdout.map(BufReader::new);
    std::thread::scope(|scope| {
        scope.spawn(|| end_when_told(&mut child, &ended, stop));
        for line in reader
            .into_iter()
            .flat_map(BufRead::lines)
            .map_while(Result::ok)
        {
            let event: Value = serde_json::from_str(&line).unwrap_or_default();
            match (event["position"].as_u64(), event["hash"].as_str()) {
                (Some(position), Some(hash)) => {
                    shown.note(position, hash.to_owned());
                }
                _ => shown.fault(&format!("line {line:?}")),
            }
        }
        ended.store(true, Ordering::SeqCst);
    });
    // it ends when the database is away while it starts
    std::thread::sleep(Duration::from_millis(200));
}

fn end_when_told(child: &mut Child, ended: &AtomicBool, stop: &AtomicBool) {
    while !ended.load(Ordering::SeqCst) {
        if stop.load(Ordering::SeqCst) {
            let _ = child.kill();
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let _ = child.wait();
}
