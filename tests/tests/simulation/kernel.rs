//! Processes, servers and the network between them. Everything that an engine does to the outside
//! is a call from here: it takes time, may be lost on either way, and finds its server up or down.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep};

use crate::broker::{Broker, Marking};
use crate::checks::Checks;
use crate::postgres::Postgres;
use crate::sabotage::Sabotage;
use crate::trace::Trace;
use sovereign_tests::rng::Rng;

/// How long a caller waits for an answer that was lost without a word.
const SILENCE: Duration = Duration::from_secs(4);

/// The two servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Server {
    Postgres,
    Kafka,
}

/// All state of a world.
pub(crate) struct State {
    pub(crate) rng: Rng,
    pub(crate) trace: Trace,
    pub(crate) began: Instant,
    pub(crate) postgres: Postgres,
    pub(crate) broker: Broker,
    pub(crate) checks: Checks,
    pub(crate) sabotage: Option<Sabotage>,
    /// No more faults: everything answers at once.
    pub(crate) calm: bool,
    /// Processes that do not reach a server just now.
    pub(crate) cut: Vec<(u32, Server)>,
    /// Processes so far.
    pub(crate) processes: u32,
}

impl State {
    pub(crate) fn note(&mut self, line: impl FnOnce() -> String) {
        let at = self.began.elapsed();
        self.trace.note(at, line);
    }

    pub(crate) fn next_process(&mut self) -> u32 {
        self.processes += 1;
        self.processes
    }

    pub(crate) fn sabotaged(&self, how: Sabotage) -> bool {
        self.sabotage == Some(how)
    }

    fn up(&self, server: Server) -> bool {
        match server {
            Server::Postgres => self.postgres.up,
            Server::Kafka => self.broker.up,
        }
    }

    /// Counts the starts of a server.
    fn boot(&self, server: Server) -> u64 {
        match server {
            Server::Postgres => self.postgres.boot,
            Server::Kafka => self.broker.boot,
        }
    }

    fn reaches(&self, process: &Process, server: Server) -> bool {
        self.up(server) && !self.cut.contains(&(process.id, server))
    }

    /// Most answers come within milliseconds, some take long.
    fn delay(&mut self) -> Duration {
        if self.calm {
            return Duration::from_millis(1);
        }
        let millis = match self.rng.below(100) {
            0..86 => self.rng.between(0, 3),
            86..98 => self.rng.between(3, 40),
            _ => self.rng.between(40, 900),
        };
        Duration::from_millis(millis)
    }

    fn fate(&mut self) -> Fate {
        if self.calm {
            return Fate::Fine;
        }
        match self.rng.below(400) {
            0 => Fate::RequestLost,
            1 => Fate::AnswerLost,
            2 => Fate::Silence,
            _ => Fate::Fine,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Fine,
    RequestLost,
    AnswerLost,
    /// The answer is lost, and the caller hears of it late.
    Silence,
}

/// A handle to all of it.
#[derive(Clone)]
pub(crate) struct World(Arc<Mutex<State>>);

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("World")
    }
}

impl World {
    pub(crate) fn new(state: State) -> Self {
        Self(Arc::new(Mutex::new(state)))
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn note(&self, line: impl FnOnce() -> String) {
        self.state().note(line);
    }

    /// One step of a server, and the invariants after it.
    pub(crate) fn step<R>(&self, work: impl FnOnce(&mut State) -> R) -> R {
        let mut state = self.state();
        let result = work(&mut state);
        let State {
            checks,
            postgres,
            broker,
            ..
        } = &mut *state;
        checks.after_step(postgres, broker);
        let markings = std::mem::take(&mut state.broker.markings);
        drop(state);
        for marking in markings {
            tokio::spawn(mark(self.clone(), marking));
        }
        result
    }
}

/// Markers reach partitions one after the other, also after a restart of the broker.
async fn mark(world: World, marking: Marking) {
    let mut left = marking.partitions.clone();
    world.state().rng.shuffle(&mut left);
    while let Some(at) = left.last() {
        let pause = world.state().delay();
        sleep(pause).await;
        if !world.state().broker.up {
            sleep(Duration::from_millis(20)).await;
            continue;
        }
        world.step(|state| {
            state.note(|| format!("kafka: marker {marking} at {}/{}", at.0, at.1));
            state.broker.mark(&marking, at);
        });
        left.pop();
    }
    world.step(|state| state.broker.marked(&marking));
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Run {
    Running,
    Paused,
    Dead,
}

/// Wakes those who wait in their order, where tokio's `watch` draws lots.
struct Switch {
    now: Mutex<Run>,
    moved: Notify,
}

impl Switch {
    fn now(&self) -> MutexGuard<'_, Run> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn is(&self, wanted: Run) {
        loop {
            let mut moved = std::pin::pin!(self.moved.notified());
            moved.as_mut().enable();
            if *self.now() == wanted {
                return;
            }
            moved.await;
        }
    }
}

/// One engine process. A paused or dead one sends nothing and hears nothing: what its tasks still
/// do in memory nobody sees, so they need not be stopped. What it had sent goes on its way.
#[derive(Clone)]
pub(crate) struct Process {
    pub(crate) id: u32,
    pub(crate) world: World,
    run: Arc<Switch>,
}

impl std::fmt::Debug for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "process {}", self.id)
    }
}

/// A call without an answer; whether it took effect is unknown.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lost;

impl Process {
    pub(crate) fn new(id: u32, world: World) -> Self {
        let run = Arc::new(Switch {
            now: Mutex::new(Run::Running),
            moved: Notify::new(),
        });
        Self { id, world, run }
    }

    pub(crate) fn set(&self, run: Run) {
        let mut now = self.run.now();
        if *now != run && *now != Run::Dead {
            *now = run;
            drop(now);
            self.run.moved.notify_waiters();
        }
    }

    pub(crate) fn run(&self) -> Run {
        *self.run.now()
    }

    /// Returns while the process runs; never if it is dead.
    pub(crate) async fn awake(&self) {
        self.run.is(Run::Running).await;
    }

    /// `None` if it dies before it runs.
    pub(crate) async fn awake_or_dead(&self) -> Option<()> {
        tokio::select! {
            biased;
            () = self.dead() => None,
            () = self.awake() => Some(()),
        }
    }

    pub(crate) async fn dead(&self) {
        self.run.is(Run::Dead).await;
    }

    /// A request to a server and its answer. `op` is asked again every few milliseconds while it
    /// returns `None`: it waits for something there.
    pub(crate) async fn call<R: Send + 'static>(
        &self,
        server: Server,
        op: impl FnMut(&mut State) -> Option<R> + Send + 'static,
    ) -> Result<R, Lost> {
        self.awake().await;
        let (tell, answer) = oneshot::channel();
        // its own task: whoever gives up waiting does not take the request back
        tokio::spawn(carry(self.clone(), server, op, tell));
        let answer = answer.await.unwrap_or(Err(Lost));
        self.awake().await;
        answer
    }

    pub(crate) fn reaches(&self, server: Server) -> bool {
        self.world.state().reaches(self, server)
    }

    pub(crate) async fn travel(&self) {
        let delay = self.world.state().delay();
        sleep(delay).await;
    }
}

async fn carry<R>(
    process: Process,
    server: Server,
    mut op: impl FnMut(&mut State) -> Option<R>,
    tell: oneshot::Sender<Result<R, Lost>>,
) {
    let world = process.world.clone();
    let fate = world.state().fate();
    process.travel().await;
    let boot = {
        let state = world.state();
        if fate == Fate::RequestLost || !state.reaches(&process, server) {
            let _ = tell.send(Err(Lost));
            return;
        }
        state.boot(server)
    };
    let result = loop {
        if world.state().boot(server) != boot {
            break Err(Lost);
        }
        match world.step(&mut op) {
            Some(result) => break Ok(result),
            None => sleep(Duration::from_millis(3)).await,
        }
    };
    process.travel().await;
    match fate {
        Fate::Silence => sleep(SILENCE).await,
        Fate::Fine | Fate::RequestLost | Fate::AnswerLost => {}
    }
    let state = world.state();
    let heard = state.reaches(&process, server) && state.boot(server) == boot;
    drop(state);
    let _ = tell.send(match (fate, heard) {
        (Fate::Fine, true) => result,
        _ => Err(Lost),
    });
}
