//! Those who send commands, and remember what was acknowledged.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use sovereign_tests::owned::EngineHandle;
use tokio::time::sleep;
use uuid::Uuid;

use sovereign_tests::rng::Rng;

pub(crate) const WRITERS: usize = 64;
/// Agents that all writers write about: what one engine holds in memory the other changes.
const SHARED_AGENTS: u64 = 8;
/// After so long a writer asks the other engine, with the same ids: an engine that is stopped
/// keeps its connections.
const REQUEST_MAX: Duration = Duration::from_secs(7);

/// A command that took effect: its id, and where its events stand.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Acknowledged {
    pub(crate) command: Uuid,
    pub(crate) first: u64,
    pub(crate) last: u64,
}

/// All writers together.
#[derive(Debug, Default)]
pub(crate) struct Ledgerwork {
    pub(crate) acknowledged: Mutex<Vec<Acknowledged>>,
    /// Outcomes that must not be.
    pub(crate) unexpected: Mutex<Vec<String>>,
    paused: AtomicBool,
    stopped: AtomicBool,
    idle: AtomicUsize,
}

impl Ledgerwork {
    pub(crate) fn start(engines: &[EngineHandle; 2], seed: u64) -> Arc<Self> {
        let work = Arc::new(Self::default());
        for number in 0..WRITERS {
            let writer = Writer {
                work: Arc::clone(&work),
                engines: engines.clone(),
                number,
                dice: Rng::new(seed ^ (number as u64) << 32),
                bars: 0,
            };
            tokio::spawn(writer.run());
        }
        work
    }

    /// Lets the writers finish what they have begun; whether all did in time.
    pub(crate) async fn pause(&self, limit: Duration) -> bool {
        self.paused.store(true, Ordering::SeqCst);
        let idle = async {
            while self.idle.load(Ordering::SeqCst) < WRITERS {
                sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(limit, idle).await.is_ok()
    }

    pub(crate) fn resume(&self) {
        self.paused.store(false, Ordering::SeqCst);
    }

    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        self.resume();
    }

    pub(crate) fn count(&self) -> usize {
        lock(&self.acknowledged).len()
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Writer {
    work: Arc<Ledgerwork>,
    engines: [EngineHandle; 2],
    number: usize,
    dice: Rng,
    bars: u64,
}

impl Writer {
    async fn run(mut self) {
        self.until_taken(vec![self.command("register", json!({ "role": "writer" }))])
            .await;
        while !self.work.stopped.load(Ordering::SeqCst) {
            if self.work.paused.load(Ordering::SeqCst) {
                self.work.idle.fetch_add(1, Ordering::SeqCst);
                while self.work.paused.load(Ordering::SeqCst) {
                    sleep(Duration::from_millis(10)).await;
                }
                self.work.idle.fetch_sub(1, Ordering::SeqCst);
            }
            let count = 1 + self.dice.below(6);
            let commands = (0..count).map(|_| self.next()).collect();
            self.until_taken(commands).await;
            sleep(self.dice.millis(5, 400)).await;
        }
    }

    fn command(&self, command: &str, data: Value) -> Value {
        json!({ "aggregate": "agent", "id": format!("writer-{}", self.number),
            "command": command, "command_id": Uuid::now_v7(), "data": data })
    }

    /// Mostly bars of the writer's own agent; also sealed texts, and agents that all share.
    fn next(&mut self) -> Value {
        match self.dice.below(4) {
            0 => {
                let agent = format!("shared-{}", self.dice.below(SHARED_AGENTS));
                let mut command = self.command("register", json!({ "role": "shared" }));
                command["id"] = agent.into();
                command["command"] = "record_thought".into();
                command["data"] = json!({ "text": format!("writer {} was here at {}", self.number, self.dice.below(1 << 30)) });
                command
            }
            1 => {
                let text = format!("bar {} it is, {}", self.bars, self.dice.below(1 << 30));
                self.command("record_thought", json!({ "text": text }))
            }
            _ => {
                self.bars += 1;
                let (day, month, year) = (
                    self.bars % 28 + 1,
                    self.bars / 28 % 12 + 1,
                    2000 + self.bars / 336,
                );
                self.command("observe_market", json!({
                    "instrument": "TEST", "opened_at": format!("{year}-{month:02}-{day:02}"),
                    "open": "100.25", "high": "101", "low": "99.5", "close": "100", "volume": "1200" }))
            }
        }
    }

    /// Sends until each command has an outcome that is final.
    async fn until_taken(&mut self, mut commands: Vec<Value>) {
        let mut engine = self.number % 2;
        while !commands.is_empty() {
            match self.engines[engine].send(&commands, REQUEST_MAX).await {
                Ok(outcomes) => {
                    commands = commands
                        .into_iter()
                        .zip(outcomes)
                        .filter_map(|(command, outcome)| (!self.taken(&outcome)).then_some(command))
                        .collect();
                }
                // what became of them is unknown: the same again, from the other engine
                Err(_) => engine = 1 - engine,
            }
            if !commands.is_empty() {
                sleep(self.dice.millis(20, 200)).await;
            }
        }
    }

    /// Whether an outcome is final.
    fn taken(&self, outcome: &Value) -> bool {
        let positions = [&outcome["positions"][0], &outcome["positions"][1]].map(Value::as_u64);
        let command = outcome["command_id"]
            .as_str()
            .and_then(|id| id.parse().ok());
        match (outcome["status"].as_str(), positions, command) {
            (Some("accepted" | "duplicate"), [Some(first), Some(last)], Some(command)) => {
                let acknowledged = Acknowledged {
                    command,
                    first,
                    last,
                };
                lock(&self.work.acknowledged).push(acknowledged);
                true
            }
            (Some("invalid"), ..) if passing(outcome["error"]["code"].as_str()) => false,
            _ => {
                lock(&self.work.unexpected).push(outcome.to_string());
                true
            }
        }
    }
}

/// Codes that only say: not now.
fn passing(code: Option<&str>) -> bool {
    let codes = [
        "busy",
        "timed-out",
        "database-unreachable",
        "engine-not-running",
        "disk-full",
    ];
    code.is_some_and(|code| codes.contains(&code))
}

/// Registers the agents that all share.
pub(crate) async fn register_shared(engine: &EngineHandle) -> anyhow::Result<()> {
    for number in 0..SHARED_AGENTS {
        let command = json!({ "aggregate": "agent", "id": format!("shared-{number}"),
            "command": "register", "data": { "role": "shared" } });
        let outcomes = engine.send(&[command], Duration::from_secs(30)).await?;
        anyhow::ensure!(outcomes[0]["status"] == "accepted", "{}", outcomes[0]);
    }
    Ok(())
}
