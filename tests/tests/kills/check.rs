//! What must hold once all is healed: acknowledged ids are in the ledger, and ledger, topics and
//! views are the same.

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use sovereign_event_store::LedgerReader;
use sovereign_projections::{VIEW_NAMES, ViewsReader, ViewsStore};
use sovereign_schemas::{Cursor, EventLog as _};
use uuid::Uuid;

use crate::watchers::Watchers;
use crate::writers::{Ledgerwork, lock};

/// How long topics, views and watchers may take to have all that the ledger has.
const SETTLED_WITHIN: Duration = Duration::from_secs(60);
/// A consumer that gives nothing for so long, while it is waited for, is made anew.
const SILENT_AFTER: Duration = Duration::from_secs(20);

/// The ledger as read so far, and what has been compared with it.
pub(crate) struct Checker {
    reader: LedgerReader,
    views: ViewsReader,
    store: ViewsStore,
    cursor: Cursor,
    pub(crate) hashes: HashMap<u64, String>,
    commands: HashMap<Uuid, (u64, u64)>,
    acknowledged: usize,
    pub(crate) losses: usize,
}

impl Checker {
    pub(crate) fn new(database: &str) -> anyhow::Result<Self> {
        Ok(Self {
            reader: LedgerReader::connect(database, 2)?,
            views: ViewsReader::new(database)?,
            store: ViewsStore::new(database)?,
            cursor: Cursor::default(),
            hashes: HashMap::new(),
            commands: HashMap::new(),
            acknowledged: 0,
            losses: 0,
        })
    }

    pub(crate) fn head(&self) -> u64 {
        self.cursor.position.0
    }

    /// Reads what is new; positions are dense, and a command's events stand together.
    pub(crate) async fn read(&mut self) -> anyhow::Result<()> {
        let mut log = self.reader.log();
        loop {
            let (events, next) = log.read(self.cursor, 4_096).await?;
            if events.is_empty() {
                return Ok(());
            }
            for event in &events {
                let position = event.position().0;
                let expected = self.hashes.len() as u64 + 1;
                ensure!(
                    position == expected,
                    "position {position}, expected {expected}"
                );
                self.hashes.insert(position, event.hash.to_string());
                let at = self
                    .commands
                    .entry(event.header.command_id)
                    .or_insert((position, position));
                ensure!(
                    at.1 == position || at.1 + 1 == position,
                    "command {} took effect at {} and again at {position}",
                    event.header.command_id,
                    at.0
                );
                at.1 = position;
            }
            self.cursor = next;
        }
    }

    /// Every acknowledged command is where it was said to be.
    pub(crate) fn acknowledged(&mut self, work: &Ledgerwork) -> anyhow::Result<()> {
        let unexpected = lock(&work.unexpected);
        ensure!(
            unexpected.is_empty(),
            "outcomes that must not be: {unexpected:?}"
        );
        let acknowledged = lock(&work.acknowledged);
        let lost: Vec<_> = acknowledged[self.acknowledged..]
            .iter()
            .filter(|one| self.commands.get(&one.command) != Some(&(one.first, one.last)))
            .collect();
        self.losses += lost.len();
        ensure!(
            lost.is_empty(),
            "acknowledged and not in the ledger: {lost:?}"
        );
        self.acknowledged = acknowledged.len();
        Ok(())
    }

    /// Topics, views and watchers come to the head, and show what the ledger has.
    pub(crate) async fn copies(&mut self, watchers: &Watchers, from: u64) -> anyhow::Result<()> {
        let head = self.head();
        let deadline = Instant::now() + SETTLED_WITHIN;
        let mut moved = (from, Instant::now());
        loop {
            let topics = watchers.topics.reached(from);
            if topics != moved.0 || topics == head {
                moved = (topics, Instant::now());
            } else if moved.1.elapsed() > SILENT_AFTER {
                watchers.silent.say();
                moved.1 = Instant::now();
            }
            let mut behind = Vec::new();
            for view in VIEW_NAMES {
                let checkpoint = self.store.checkpoint(view).await?;
                if checkpoint.position.0 != head {
                    behind.push(format!("{view} at {}", checkpoint.position));
                } else {
                    let hash = checkpoint.hash.to_string();
                    ensure!(
                        self.hashes.get(&head) == Some(&hash),
                        "{view} stands on {hash}"
                    );
                }
            }
            if topics == head && behind.is_empty() {
                break;
            }
            ensure!(
                Instant::now() < deadline,
                "ledger at {head}, topics at {topics} with {} behind that, views {behind:?}",
                watchers.topics.behind(topics)
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        ensure!(
            watchers.topics.count(head) == head,
            "topics have not each position"
        );
        for watcher in &watchers.all {
            let faults = lock(&watcher.faults);
            ensure!(faults.is_empty(), "{faults:?}");
            let wrong = watcher.wrong(&self.hashes, from);
            self.losses += wrong.len();
            ensure!(wrong.is_empty(), "shown and not in the ledger: {wrong:?}");
        }
        Ok(())
    }

    /// I5 for all views.
    pub(crate) async fn folds(&self) -> anyhow::Result<()> {
        for view in VIEW_NAMES {
            let checked = self.views.verify(view, &mut self.reader.log()).await?;
            ensure!(checked.position.0 == self.head(), "{view} moved");
        }
        Ok(())
    }
}

/// The command line says the same.
pub(crate) fn verify(program: &Path, folder: &Path, from: u64) -> anyhow::Result<()> {
    let from = from.to_string();
    for source in [
        &["--source", "ledger"][..],
        &["--source", "kafka", "--against", "ledger"],
    ] {
        let output = Command::new(program)
            .arg("verify")
            .args(source)
            .args(["--from", &from, "--quiet", "--data"])
            .arg(folder)
            .output()
            .context("sovereign verify")?;
        ensure!(
            output.status.success(),
            "verify {source:?} from {from}: {} {}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}
