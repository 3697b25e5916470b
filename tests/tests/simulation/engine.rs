//! One engine process: the real appender, tail, relay and views over simulated servers.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use sovereign_event_store::port::Clock;
use sovereign_event_store::{Ledger, LedgerOptions, LedgerReader, LedgerTail};
use sovereign_kafka::{
    KafkaOptions, LedgerProbe, Relay, RelayHandle, RelayOptions, RelayState, SchemaIds,
};
use sovereign_projections::{
    Agents, Approvals, Departments as DepartmentsView, Trades, ViewsOptions, run_view,
};
use sovereign_schemas::chain::Head;
use sovereign_schemas::{
    Departments, Digest, EventLog as _, LogError, Position, RecordedEvent, Tail, Timestamp, Uuid,
    catalog,
};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::brokers::SimulatedBrokers;
use crate::database::SimulatedDatabase;
use crate::kernel::{Process, Run};
use crate::sabotage::Sabotage;
use crate::views::{Kept, SimulatedViews};

/// Microseconds at the start of a world: 2026-02-04T12:00:00Z.
const EPOCH_US: i64 = 1_770_206_400_000_000;

/// The clock of one process, which may jump, and ids that are the same in every run.
#[derive(Debug)]
pub(crate) struct SimulatedClock {
    process: u32,
    began: Instant,
    skew_us: AtomicI64,
    ids: AtomicU64,
}

impl Clock for SimulatedClock {
    fn now(&self) -> Timestamp {
        let elapsed = i64::try_from(self.began.elapsed().as_micros()).unwrap_or(i64::MAX);
        Timestamp(EPOCH_US + elapsed + self.skew_us.load(Ordering::Relaxed))
    }

    fn event_id(&self) -> Uuid {
        let number = self.ids.fetch_add(1, Ordering::Relaxed);
        Uuid::from_u128(1 << 100 | u128::from(self.process) << 64 | u128::from(number))
    }
}

/// A running process.
pub(crate) struct Engine {
    pub(crate) process: Process,
    pub(crate) ledger: Ledger,
    clock: Arc<SimulatedClock>,
    relay: Mutex<Option<RelayHandle>>,
    relays: AtomicU64,
    _stop: watch::Sender<bool>,
    views: Vec<tokio::task::JoinHandle<()>>,
}

fn relay_options() -> RelayOptions {
    let mut options = RelayOptions::new(KafkaOptions::new("simulated"));
    options.batch_events_max = 5;
    options.transaction_timeout = crate::brokers::TRANSACTION_TIMEOUT;
    options.retry_pause_max = Duration::from_millis(500);
    options
}

fn views_options() -> ViewsOptions {
    let mut options = ViewsOptions::new("postgres://simulated");
    options.batch_events_max = 6;
    options.rows_cached_max = 4;
    options.retry_min = Duration::from_millis(100);
    options.retry_max = Duration::from_secs(1);
    options
}

fn schema_ids() -> SchemaIds {
    let ids = catalog::all().iter().zip(100..);
    SchemaIds::known(ids.map(|(s, id)| ((s.name.to_owned(), s.version), id)))
}

impl Engine {
    /// Tries until the database answers; never returns if the process dies meanwhile.
    pub(crate) async fn start(process: Process, skew_us: i64, in_flight_max: usize) -> Self {
        let clock = Arc::new(SimulatedClock {
            process: process.id,
            began: process.world.state().began,
            skew_us: AtomicI64::new(skew_us),
            ids: AtomicU64::new(0),
        });
        let ledger = loop {
            let database = Arc::new(SimulatedDatabase {
                process: process.clone(),
                in_flight_max,
            });
            let mut options = LedgerOptions::new("postgres://simulated", Departments::default());
            options.clock = Arc::clone(&clock) as Arc<dyn Clock>;
            options.batch_events_max = 4;
            options.cache_aggregates_max = 1;
            options.recent_commands_max = 1;
            options.ring_events_max = 8;
            options.command_deadline = Duration::from_secs(10);
            match Ledger::open_on(database, options).await {
                Ok(ledger) => break ledger,
                Err(_) => sleep(Duration::from_millis(100)).await,
            }
        };
        let (stop, stopped) = watch::channel(false);
        let mut engine = Self {
            process,
            ledger,
            clock,
            relay: Mutex::new(None),
            relays: AtomicU64::new(0),
            _stop: stop,
            views: Vec::new(),
        };
        engine.start_relay();
        engine.view::<Agents>(&stopped);
        engine.view::<Trades>(&stopped);
        engine.view::<Approvals>(&stopped);
        engine.view::<DepartmentsView>(&stopped);
        engine
            .process
            .world
            .note(|| format!("engine {}: runs", engine.process.id));
        engine
    }

    fn tail(&self) -> Box<dyn Tail> {
        Box::new(CheckedTail {
            process: self.process.clone(),
            inner: self.ledger.tail(),
        })
    }

    pub(crate) fn start_relay(&self) {
        let brokers = SimulatedBrokers {
            process: self.process.clone(),
        };
        let number = self.relays.fetch_add(1, Ordering::Relaxed);
        let id = u128::from(self.process.id) << 64 | u128::from(number) | 1 << 120;
        let probe = Arc::new(Probe(self.ledger.reader()));
        let relay = Relay::start_on(
            Arc::new(brokers),
            Uuid::from_u128(id),
            relay_options(),
            self.tail(),
            probe,
            schema_ids(),
            Departments::default(),
        );
        *self.relay() = Some(relay);
    }

    fn relay(&self) -> std::sync::MutexGuard<'_, Option<RelayHandle>> {
        self.relay.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the relay stands at, if it works.
    pub(crate) fn relayed(&self) -> Option<Position> {
        let health = self.relay().as_ref()?.health();
        (health.state == RelayState::Running).then_some(health.position)
    }

    /// Why the relay ended for good, if it did.
    pub(crate) fn relay_stopped(&self) -> Option<String> {
        match self.relay().as_ref()?.health().state {
            RelayState::Stopped { problem } => {
                Some(problem.map_or_else(String::new, |p| p.message))
            }
            _ => None,
        }
    }

    fn view<V: Kept>(&mut self, stopped: &watch::Receiver<bool>)
    where
        V::Row: Send,
    {
        let database = Box::new(SimulatedViews {
            process: self.process.clone(),
            boot: None,
        });
        let options = Arc::new(views_options());
        let (_, task) = run_view::<V>(database, self.tail(), options, stopped.clone());
        self.views.push(tokio::spawn(task));
    }

    pub(crate) fn jump(&self, skew_us: i64) {
        self.clock.skew_us.store(skew_us, Ordering::Relaxed);
    }

    /// SIGKILL.
    pub(crate) fn kill(self) {
        self.process.set(Run::Dead);
        for view in &self.views {
            view.abort();
        }
    }
}

/// What `cli::engine` gives to the relay.
struct Probe(LedgerReader);

#[async_trait]
impl LedgerProbe for Probe {
    async fn head(&self) -> Result<Head, LogError> {
        Ok(self.0.head().await?)
    }

    async fn hash_at(&self, position: Position) -> Result<Option<Digest>, LogError> {
        let before = Position(position.0.saturating_sub(1));
        let (events, _) = self.0.log().read(before.into(), 1).await?;
        let found = events.first().filter(|e| e.position() == position);
        Ok(found.map(|e| e.hash))
    }
}

/// The real tail, with an eye on what it hands out.
struct CheckedTail {
    process: Process,
    inner: LedgerTail,
}

#[async_trait]
impl Tail for CheckedTail {
    async fn next(
        &mut self,
        after: Position,
        limit: usize,
        wait: Duration,
    ) -> Result<Vec<Arc<RecordedEvent>>, LogError> {
        let mut events = self.inner.next(after, limit, wait).await?;
        let mut state = self.process.world.state();
        if state.sabotaged(Sabotage::TailSkipsAnEvent) && events.len() > 2 {
            events.remove(1);
        }
        // what a dead or sleeping process has in memory, nobody sees
        if self.process.run() == Run::Running {
            let state = &mut *state;
            state.checks.handed_out(&state.postgres, after, &events);
        }
        Ok(events)
    }
}
