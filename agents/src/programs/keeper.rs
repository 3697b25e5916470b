//! Starts programs, ends them, and starts them again, up to a limit.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use sovereign_aggregates::AnyCommand;
use sovereign_aggregates::agent::{AgentCommand, Define, Definition, Register, ReportFault};
use sovereign_schemas::{
    AggregateId, CommandContext, DepartmentId, Identifier, Position, RawText, RecordedEvent, Tail,
    Uuid,
};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{info, warn};

use super::drive::{checkpoint_name, drive, until_decided};
use super::pipes::{Complaints, Launch};
use super::program::Program;
use super::session::Fault;
use crate::duties::{Duties, lane_of};
use crate::logic::code;
use crate::{CheckpointStore, Gateway, RawRequest};

/// A start that went well for so long makes the faults before it count no more.
const GOOD_AFTER: Duration = Duration::from_secs(60);
/// First and longest pause before a program is started again.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// What programs need of the rest.
#[derive(Clone)]
pub struct Environment {
    /// Guard and ledger.
    pub gateway: Arc<dyn Gateway>,
    /// How far each program is.
    pub checkpoints: Arc<dyn CheckpointStore>,
    /// Follows the ledger, anew for each start.
    pub tails: Arc<dyn Fn() -> Box<dyn Tail> + Send + Sync>,
    /// Starts processes.
    pub launch: Arc<dyn Launch>,
    /// An event as programs see it, its texts sealed.
    pub describe: Arc<dyn Fn(&RecordedEvent) -> serde_json::Value + Send + Sync>,
    /// Keeps a line of a program's standard error.
    pub complaints: Complaints,
    /// Which lanes are this process': a program runs where the lane of its name is.
    pub duties: watch::Receiver<Duties>,
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Environment").finish_non_exhaustive()
    }
}

/// Where a program stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ProgramState {
    /// It runs at another engine, or nowhere yet.
    Elsewhere,
    /// It runs.
    Running,
    /// It is started again after a pause.
    Pausing,
    /// It failed too often and is not started again before the engine is.
    GivenUp,
}

/// How a program is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProgramHealth {
    /// Its name.
    pub name: String,
    /// Where it stands.
    pub state: ProgramState,
    /// Starts since the engine started.
    pub runs: i64,
    /// Faults in a row.
    pub faults: u32,
    /// The last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_fault: Option<&'static str>,
    /// All events up to here have had their effect.
    pub position: Position,
    /// Commands that were decided.
    pub commands: u64,
}

/// What the tasks of a program tell its handle.
#[derive(Debug)]
pub(super) struct Shown(Mutex<ProgramHealth>);

impl Shown {
    fn health(&self) -> MutexGuard<'_, ProgramHealth> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn at(&self, position: Position) {
        self.health().position = position;
    }

    pub(super) fn counted(&self) {
        self.health().commands += 1;
    }
}

/// All programs of this engine.
#[derive(Debug)]
pub struct Programs {
    shown: Vec<Arc<Shown>>,
    stop: watch::Sender<bool>,
    tasks: tokio::sync::Mutex<JoinSet<()>>,
}

impl Programs {
    /// Starts those whose lane is this process', and the others when it becomes so.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    #[must_use]
    pub fn start(programs: Vec<Program>, environment: &Environment) -> Self {
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        let mut all = Vec::new();
        for program in programs {
            let shown = Arc::new(Shown(Mutex::new(ProgramHealth {
                name: program.name.to_string(),
                state: ProgramState::Elsewhere,
                runs: 0,
                faults: 0,
                last_fault: None,
                position: Position::START,
                commands: 0,
            })));
            all.push(Arc::clone(&shown));
            let keeper = Keeper {
                program,
                environment: environment.clone(),
                shown,
                stopped: stopped.clone(),
                engine: Uuid::now_v7(),
            };
            tasks.spawn(keeper.keep());
        }
        Self {
            shown: all,
            stop,
            tasks: tokio::sync::Mutex::new(tasks),
        }
    }

    /// How each is, in the order of the configuration.
    #[must_use]
    pub fn health(&self) -> Vec<ProgramHealth> {
        self.shown
            .iter()
            .map(|shown| shown.health().clone())
            .collect()
    }

    /// Ends all of them.
    pub async fn stop(&self) {
        self.stop.send_replace(true);
        while self.tasks.lock().await.join_next().await.is_some() {}
    }
}

struct Keeper {
    program: Program,
    environment: Environment,
    shown: Arc<Shown>,
    stopped: watch::Receiver<bool>,
    /// Tells the starts of this engine from those of others.
    engine: Uuid,
}

impl Keeper {
    async fn keep(self) {
        // nothing but a stop ends it; each start ends its own processes before it returns
        let _: Option<()> = self.work().await;
    }

    /// None if the engine stops meanwhile.
    async fn unless_stopped<T>(&self, what: impl Future<Output = T>) -> Option<T> {
        let mut stopped = self.stopped.clone();
        tokio::select! {
            biased;
            // a sender that is gone is a stop as well
            _ = stopped.wait_for(|stop| *stop) => None,
            done = what => Some(done),
        }
    }

    fn state(&self, state: ProgramState) {
        self.shown.health().state = state;
    }

    async fn work(&self) -> Option<()> {
        let lane = lane_of(self.program.name.as_str());
        let mut duties = self.environment.duties.clone();
        let mut faults = 0;
        let mut introduced = false;
        loop {
            self.state(ProgramState::Elsewhere);
            let own = duties.wait_for(|d| d.lanes.contains(&lane));
            if self.unless_stopped(own).await?.is_err() {
                return None;
            }
            if !introduced {
                self.unless_stopped(self.introduce()).await?;
                introduced = true;
            }
            let begun = Instant::now();
            let Some(fault) = self.run(lane).await? else {
                continue;
            };
            if begun.elapsed() >= GOOD_AFTER {
                faults = 0;
            }
            faults += 1;
            let given_up = faults >= self.program.faults;
            let run = {
                let mut health = self.shown.health();
                (health.faults, health.last_fault) = (faults, Some(fault.as_str()));
                health.runs
            };
            warn!(program = %self.program.name, fault = fault.as_str(), faults, given_up, "program failed");
            metrics::counter!("sovereign_program_faults_total", "fault" => fault.as_str())
                .increment(1);
            self.unless_stopped(self.report(fault, run, given_up))
                .await?;
            if given_up {
                self.state(ProgramState::GivenUp);
                // an operator looks at it, and starts the engine again
                return self.unless_stopped(std::future::pending()).await;
            }
            self.state(ProgramState::Pausing);
            let pause = PAUSE.0 * 2_u32.saturating_pow(faults - 1);
            self.unless_stopped(tokio::time::sleep(pause.min(PAUSE.1)))
                .await?;
        }
    }

    /// One start, with its fault; without one if the program is another engine's now.
    async fn run(&self, lane: usize) -> Option<Option<Fault>> {
        let run = {
            let mut health = self.shown.health();
            health.runs += 1;
            health.state = ProgramState::Running;
            health.runs
        };
        let name = format!("{}/{}/{run}", self.engine, self.program.name);
        let checkpoint_name = checkpoint_name(&self.program);
        let checkpoint = async {
            loop {
                match self.environment.checkpoints.load(&checkpoint_name).await {
                    Ok(checkpoint) => break checkpoint,
                    Err(_) => tokio::time::sleep(PAUSE.0).await,
                }
            }
        };
        let checkpoint = self.unless_stopped(checkpoint).await?;
        let launched = self.environment.launch.launch(&self.program, &name).await;
        let mut started = match launched {
            Ok(started) => Some(started),
            Err(error) => {
                (self.environment.complaints)(self.program.name.as_str(), &error.to_string());
                return Some(Some(Fault::NotStarted));
            }
        };
        info!(program = %self.program.name, run, %checkpoint, "program started");
        let mut duties = self.environment.duties.clone();
        let driven = async {
            tokio::select! {
                fault = drive(&self.program, &self.environment, &self.shown, checkpoint, &mut started) => Some(fault),
                _ = duties.wait_for(|d| !d.lanes.contains(&lane)) => None,
            }
        };
        let fault = self.unless_stopped(driven).await;
        if let Some(started) = started {
            started.running.end().await;
        }
        fault
    }

    /// Its agents exist, and are defined, if only by its name: a definition that an operator gave
    /// them stays.
    async fn introduce(&self) {
        for agent in &self.program.agents {
            let role = AgentCommand::Register(Register {
                role: code("program"),
            });
            self.send(agent, "register", role).await;
            let name = format!("program:{}", self.program.name);
            let Ok(name) = name.parse::<Identifier>() else {
                continue;
            };
            let define = AgentCommand::Define(Box::new(Define {
                version: Some(1),
                definition: Definition::of(name),
                prompt: None,
                prompt_likeness: vec![],
            }));
            self.send(agent, "define", define).await;
        }
    }

    async fn report(&self, fault: Fault, run: i64, given_up: bool) {
        for agent in &self.program.agents {
            let report = AgentCommand::ReportFault(ReportFault {
                program: self.program.name.clone(),
                fault: code(fault.as_str()),
                run,
                given_up,
            });
            self.send(agent, &format!("{}/{run}", self.engine), report)
                .await;
        }
    }

    async fn send(&self, agent: &AggregateId, what: &str, command: AgentCommand<RawText>) {
        let name = format!("{}/{agent}/{what}", self.program.name);
        let command_id = super::protocol::command_id("engine", Uuid::nil(), &name);
        let context = CommandContext {
            command_id,
            actor: code("engine"),
            department: DepartmentId(self.program.department),
            correlation_id: command_id,
            causation_id: None,
            traceparent: None,
        };
        let request = RawRequest {
            aggregate_id: agent.clone(),
            command: AnyCommand::Agent(command),
            context,
        };
        until_decided(&self.environment, request).await;
    }
}
