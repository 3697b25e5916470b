//! One world from one seed: a few engines, their servers, their callers and their bad luck.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sovereign_event_store::Ledger;
use sovereign_schemas::{Departments, Position};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::broker::{Broker, Record};
use crate::checks::{Checks, Violation};
use crate::clients;
use crate::engine::Engine;
use crate::kernel::{Process, Run, Server, State, World};
use crate::postgres::Postgres;
use crate::sabotage::Sabotage;
use crate::trace::{Mode, Trace};
use sovereign_tests::rng::Rng;

/// How long a world may take to come to rest once all its servers are well.
const HEALING_MAX: Duration = Duration::from_secs(120);
/// How often PostgreSQL's own writer flushes.
const WAL_WRITER: Duration = Duration::from_millis(200);

/// What a world came to.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    pub(crate) events: usize,
    pub(crate) acknowledged: usize,
    pub(crate) steps: u64,
    pub(crate) faults: usize,
    pub(crate) lost_by_crash: usize,
    pub(crate) trace: Vec<String>,
}

/// Places for processes; one dies, the next takes its place.
#[derive(Clone, Default)]
pub(crate) struct Engines(Arc<Mutex<Vec<Place>>>);

struct Place {
    process: Process,
    engine: Option<Engine>,
    skew_us: i64,
}

impl Engines {
    fn places(&self) -> MutexGuard<'_, Vec<Place>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Some engine that is there.
    pub(crate) fn pick(&self, world: &World) -> Option<(Process, Ledger)> {
        let places = self.places();
        let up: Vec<&Engine> = places.iter().filter_map(|p| p.engine.as_ref()).collect();
        if up.is_empty() {
            return None;
        }
        let engine = *world.state().rng.pick(&up);
        Some((engine.process.clone(), engine.ledger.clone()))
    }

    /// Starts a process in a place.
    fn start(&self, world: &World, place: usize, in_flight_max: usize) {
        let (process, skew_us) = {
            let mut places = self.places();
            let id = world.state().next_process();
            let process = Process::new(id, world.clone());
            let old = &mut places[place];
            old.process = process.clone();
            (process, old.skew_us)
        };
        let engines = self.clone();
        tokio::spawn(async move {
            let engine = Engine::start(process.clone(), skew_us, in_flight_max).await;
            let mut places = engines.places();
            if places[place].process.id == process.id && process.run() != Run::Dead {
                places[place].engine = Some(engine);
            }
        });
    }
}

/// Runs the world of a seed on a runtime of its own.
pub(crate) fn run(
    seed: u64,
    sabotage: Option<Sabotage>,
    mode: Mode,
) -> Result<Summary, (Violation, Vec<String>)> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(live(seed, sabotage, mode))
}

async fn live(
    seed: u64,
    sabotage: Option<Sabotage>,
    mode: Mode,
) -> Result<Summary, (Violation, Vec<String>)> {
    let mut state = State {
        rng: Rng::new(seed),
        trace: Trace::new(mode),
        began: Instant::now(),
        postgres: Postgres::start(),
        broker: Broker::start(),
        checks: Checks::default(),
        sabotage,
        calm: false,
        cut: Vec::new(),
        processes: 0,
    };
    set_up(&mut state);
    let count = state.rng.between(1, 3) as usize;
    let in_flight_max = state.rng.between(1, 2) as usize;
    let callers = state.rng.between(1, 4);
    let commands = state.rng.between(4, 24);
    let faults = state.rng.between(2, 10) as usize;
    let world = World::new(state);
    let engines = Engines::default();
    for place in 0..count {
        engines.places().push(Place {
            process: Process::new(0, world.clone()),
            engine: None,
            skew_us: 0,
        });
        engines.start(&world, place, in_flight_max);
    }
    let mut servers = JoinSet::new();
    servers.spawn(wal_writer(world.clone()));
    servers.spawn(coordinator(world.clone()));
    let mut clients = JoinSet::new();
    for caller in 0..callers {
        let first = caller * 1_000 + 1;
        clients.spawn(clients::run(
            world.clone(),
            engines.clone(),
            first,
            commands,
        ));
    }
    let mut lost = 0;
    for _ in 0..faults {
        let pause = world.state().rng.between(5, 300);
        sleep(Duration::from_millis(pause)).await;
        if world.state().checks.violation.is_some() {
            break;
        }
        lost += fault(&world, &engines, in_flight_max);
    }
    let pause = world.state().rng.between(0, 500);
    sleep(Duration::from_millis(pause)).await;
    let rested = heal(&world, &engines, in_flight_max, &mut clients).await;
    let mut state = world.state();
    if let Err(why) = rested {
        state.checks.broken("healing", why);
    }
    compare(&mut state);
    let trace = std::mem::take(&mut state.trace.lines);
    match state.checks.violation.take() {
        Some(violation) => Err((violation, trace)),
        None => Ok(Summary {
            events: state.postgres.tables.events.len(),
            acknowledged: state.checks.acknowledged.len(),
            steps: state.checks.steps,
            faults,
            lost_by_crash: lost,
            trace,
        }),
    }
}

fn set_up(state: &mut State) {
    let sabotage = state.sabotage;
    let is = |how| sabotage == Some(how);
    state.postgres.does_not_serialise = is(Sabotage::TwoWritersTakeTheHead);
    state.postgres.ids_are_not_unique = is(Sabotage::CommandIdsAreNotUnique);
    state.postgres.flush_lies = is(Sabotage::FlushLies);
    state.postgres.flips_a_bit = is(Sabotage::DiskFlipsABit);
    state.broker.does_not_fence = is(Sabotage::TakeOverDoesNotFence);
    state.broker.loses = is(Sabotage::BrokerAcknowledgesAndLoses).then_some(5);
}

async fn wal_writer(world: World) {
    loop {
        sleep(WAL_WRITER).await;
        let mut state = world.state();
        if state.postgres.up && !state.postgres.flush_lies {
            let written = state.postgres.written();
            state.postgres.flush(written);
        }
    }
}

/// Ends transactions that nobody ends.
async fn coordinator(world: World) {
    loop {
        sleep(Duration::from_millis(500)).await;
        if !world.state().broker.up {
            continue;
        }
        world.step(|state| {
            for id in state.broker.time_out() {
                state.note(|| format!("kafka: transaction of {id} timed out"));
            }
        });
    }
}

/// One misfortune; returns how many commits it undid.
fn fault(world: &World, engines: &Engines, in_flight_max: usize) -> usize {
    let (what, place, millis) = {
        let mut state = world.state();
        let place = state.rng.below(engines.places().len() as u64) as usize;
        let millis = match state.rng.below(10) {
            0..7 => state.rng.between(5, 400),
            _ => state.rng.between(400, 7_000),
        };
        (state.rng.below(100), place, Duration::from_millis(millis))
    };
    match what {
        0..22 => kill(world, engines, place, millis, in_flight_max),
        22..40 => pause(world, engines, place, millis),
        40..62 => return crash_postgres(world, millis.min(Duration::from_millis(900))),
        62..76 => crash_kafka(world, millis.min(Duration::from_millis(900))),
        76..86 => cut(world, engines, place, millis),
        86..92 => jump(world, engines, place),
        _ => replace_relay(world, engines, place),
    }
    0
}

fn kill(world: &World, engines: &Engines, place: usize, after: Duration, in_flight_max: usize) {
    let (id, engine) = {
        let mut places = engines.places();
        let old = &mut places[place];
        old.process.set(Run::Dead);
        (old.process.id, old.engine.take())
    };
    world.note(|| format!("FAULT engine {id}: killed, back after {after:?}"));
    if let Some(engine) = engine {
        engine.kill();
    }
    let (world, engines) = (world.clone(), engines.clone());
    tokio::spawn(async move {
        sleep(after.min(Duration::from_secs(1))).await;
        let still = engines.places()[place].process.id == id;
        if still {
            engines.start(&world, place, in_flight_max);
        }
    });
}

fn pause(world: &World, engines: &Engines, place: usize, length: Duration) {
    let process = engines.places()[place].process.clone();
    if process.run() != Run::Running {
        return;
    }
    world.note(|| format!("FAULT engine {}: stopped for {length:?}", process.id));
    process.set(Run::Paused);
    tokio::spawn(async move {
        sleep(length).await;
        process
            .world
            .note(|| format!("engine {}: goes on", process.id));
        process.set(Run::Running);
    });
}

fn crash_postgres(world: &World, length: Duration) -> usize {
    let lost = world.step(|state| {
        if !state.postgres.up {
            return None;
        }
        let State { rng, postgres, .. } = state;
        let lost = postgres.crash(rng);
        state.note(|| format!("FAULT postgres: crashes, {lost} commits lost, away {length:?}"));
        Some(lost)
    });
    let Some(lost) = lost else { return 0 };
    let world = world.clone();
    tokio::spawn(async move {
        sleep(length).await;
        let mut state = world.state();
        state.note(|| "postgres: is back".to_owned());
        state.postgres.up = true;
    });
    lost
}

fn crash_kafka(world: &World, length: Duration) {
    let mut state = world.state();
    if !state.broker.up {
        return;
    }
    state.note(|| format!("FAULT kafka: crashes, away {length:?}"));
    state.broker.crash();
    drop(state);
    let world = world.clone();
    tokio::spawn(async move {
        sleep(length).await;
        let mut state = world.state();
        state.note(|| "kafka: is back".to_owned());
        state.broker.up = true;
    });
}

fn cut(world: &World, engines: &Engines, place: usize, length: Duration) {
    let id = engines.places()[place].process.id;
    let mut state = world.state();
    let server = *state.rng.pick(&[Server::Postgres, Server::Kafka]);
    state.note(|| format!("FAULT engine {id}: does not reach {server:?} for {length:?}"));
    state.cut.push((id, server));
    drop(state);
    let world = world.clone();
    tokio::spawn(async move {
        sleep(length).await;
        world.state().cut.retain(|cut| *cut != (id, server));
    });
}

fn jump(world: &World, engines: &Engines, place: usize) {
    let mut places = engines.places();
    let place = &mut places[place];
    let skew_s = world.state().rng.between(0, 7_200) as i64 - 3_600;
    place.skew_us = skew_s * 1_000_000;
    world.note(|| {
        format!(
            "FAULT engine {}: clock jumps to {skew_s} s",
            place.process.id
        )
    });
    if let Some(engine) = &place.engine {
        engine.jump(place.skew_us);
    }
}

/// A second relay in the place of the first: whoever was before is fenced and must notice.
fn replace_relay(world: &World, engines: &Engines, place: usize) {
    let places = engines.places();
    if let Some(engine) = &places[place].engine {
        world.note(|| format!("FAULT engine {}: relay is replaced", engine.process.id));
        engine.start_relay();
    }
}

/// All is well from now on: everything must come to rest.
async fn heal(
    world: &World,
    engines: &Engines,
    in_flight_max: usize,
    clients: &mut JoinSet<()>,
) -> Result<(), String> {
    {
        let mut state = world.state();
        state.note(|| "all is well from here".to_owned());
        state.calm = true;
        state.cut.clear();
        state.postgres.up = true;
        state.broker.up = true;
    }
    // the lock that the head of a loop takes is held until its end
    let count = engines.places().len();
    for place in 0..count {
        let process = engines.places()[place].process.clone();
        process.set(Run::Running);
        if process.run() == Run::Dead {
            engines.start(world, place, in_flight_max);
        }
    }
    let deadline = Instant::now() + HEALING_MAX;
    let all = async {
        while let Some(done) = clients.join_next().await {
            done.unwrap();
        }
    };
    if tokio::time::timeout_at(deadline, all).await.is_err() {
        return Err("callers still wait for their answers".to_owned());
    }
    loop {
        if world.state().checks.violation.is_some() {
            return Ok(());
        }
        relays_are_well(world, engines);
        let missing = missing(world, engines);
        if missing.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(missing);
        }
        revive_relay(world, engines);
        sleep(Duration::from_millis(100)).await;
    }
}

/// What the topics and views do not have yet.
fn missing(world: &World, engines: &Engines) -> String {
    let relayed = engines
        .places()
        .iter()
        .filter_map(|p| p.engine.as_ref()?.relayed())
        .max();
    let state = world.state();
    let count = state.postgres.tables.events.len() as u64;
    let durable = state.postgres.durable().len() as u64;
    let views = &state.postgres.tables.views;
    let at = [
        views.agents.checkpoint.position,
        views.trades.checkpoint.position,
        views.approvals.checkpoint.position,
        views.departments.checkpoint.position,
    ];
    let seen = state.checks.seen.len() as u64;
    let done = relayed == Some(Position(count))
        && at.iter().all(|p| p.0 == count)
        && durable == count
        && seen == count;
    if done {
        return String::new();
    }
    format!("ledger at {count}, durable {durable}, relay {relayed:?}, visible {seen}, views {at:?}")
}

/// Somebody starts a relay if none is left: the last to be fenced may have stopped for good.
fn revive_relay(world: &World, engines: &Engines) {
    let places = engines.places();
    let up = || places.iter().filter_map(|p| p.engine.as_ref());
    let none_is_left =
        up().count() == places.len() && up().all(|engine| engine.relay_stopped().is_some());
    if none_is_left && let Some(engine) = up().next() {
        world.note(|| format!("engine {}: a relay is started", engine.process.id));
        engine.start_relay();
    }
}

/// A relay gives up for good only if another took its place.
fn relays_are_well(world: &World, engines: &Engines) {
    let places = engines.places();
    for why in places
        .iter()
        .filter_map(|p| p.engine.as_ref()?.relay_stopped())
    {
        if !why.contains("another relay took over") {
            let what = format!("a relay gave up: {why}");
            world.state().checks.broken("healing", what);
        }
    }
}

/// At rest: acknowledged ⊆ ledger = topics = views.
fn compare(state: &mut State) {
    if state.checks.violation.is_some() {
        return;
    }
    let events = state.postgres.tables.events.clone();
    for (command_id, (first, _)) in state.checks.acknowledged.clone() {
        let found = events.get(first.0 as usize - 1);
        if found.map(|e| e.header.command_id) != Some(command_id) {
            let what = format!("command {command_id} at {first} is not in the ledger");
            return state.checks.broken("acknowledged", what);
        }
    }
    let mut visible = Vec::new();
    for department in Departments::default().iter() {
        let topic = state.broker.topics.get(&department.topic());
        for record in topic.into_iter().flatten().flat_map(|p| &p.visible) {
            if let Record::Event { position, hash, .. } = **record {
                visible.push((position, hash));
            }
        }
    }
    visible.sort_unstable_by_key(|(position, _)| *position);
    let ledger: Vec<_> = events.iter().map(|e| (e.position(), e.hash)).collect();
    if visible != ledger {
        let what = format!("{} events, {} on the topics", ledger.len(), visible.len());
        state.checks.broken("topics = ledger", what);
    }
}
