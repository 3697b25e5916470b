//! One start of a program, from its first event to its fault.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt as _};
use serde_json::{Value, json};
use sovereign_aggregates::AnyEvent;
use sovereign_schemas::events::TradeEvent;
use sovereign_schemas::{
    CommandContext, DepartmentId, Outcome, Position, RecordedEvent, Status, Tail, Uuid,
};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::keeper::{Environment, Shown};
use super::pipes::{Heard, Started, complaints, hear, tell};
use super::program::Program;
use super::protocol::Asked;
use super::session::{Fault, Next, Pace, Session};
use crate::RawRequest;
use crate::runner::passing;

/// Events read at once.
const BATCH: usize = 256;
/// Events that wait until the program has room for them.
const FED_MAX: usize = 64;
/// How often silence is looked for and the checkpoint saved.
const TICK: Duration = Duration::from_millis(200);
/// How long a program that closed its output has to end by itself.
const EXIT_WAIT: Duration = Duration::from_millis(300);
/// Answers that wait until the program reads them, besides its events.
const ANSWERS_MAX: usize = 256;
/// Commands that may be on their way at one time.
const UNDECIDED_MAX: usize = 64;
/// First and longest pause before a command is sent again that the ledger did not take.
const RETRY: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(2));

/// What the feeder says.
enum Fed {
    Event(Arc<RecordedEvent>),
    /// Nothing up to here is for the program.
    Skipped(Position),
}

/// Follows the ledger for one program.
fn feed(mut tail: Box<dyn Tail>, program: Program, since: Position) -> mpsc::Receiver<Fed> {
    let (tell, fed) = mpsc::channel(FED_MAX);
    tokio::spawn(async move {
        let mut after = since;
        loop {
            let read = tail.next(after, BATCH, TICK).await;
            let events = match read {
                Ok(events) => events,
                // the ledger is away: others say so
                Err(_) => {
                    tokio::time::sleep(TICK).await;
                    Vec::new()
                }
            };
            let mut skipped = false;
            for event in events {
                after = event.position();
                skipped = !wants(&program, &event);
                if !skipped && tell.send(Fed::Event(event)).await.is_err() {
                    return;
                }
            }
            if (skipped && tell.send(Fed::Skipped(after)).await.is_err()) || tell.is_closed() {
                return;
            }
        }
    });
    fed
}

/// Also what a program did not subscribe to: which intents are its own.
fn wants(program: &Program, event: &RecordedEvent) -> bool {
    event.header.event_type == "TradeProposed" || subscribed(program, event)
}

fn subscribed(program: &Program, event: &RecordedEvent) -> bool {
    let header = &event.header;
    program.events.contains(&*header.event_type)
        && (program.departments.is_empty() || program.departments.contains(&header.department.0))
}

/// A program at work.
pub(super) struct Drive<'a> {
    pub(super) program: &'a Program,
    pub(super) environment: &'a Environment,
    pub(super) shown: &'a Shown,
    pub(super) checkpoint: Position,
    begun: Instant,
    session: Session,
    lines: mpsc::Sender<String>,
    pace: Pace,
    /// Commands on their way.
    undecided: FuturesUnordered<BoxFuture<'static, Decided>>,
}

/// What became of a command.
struct Decided {
    id: String,
    position: Position,
    outcome: Outcome,
    proposed: Option<String>,
}

/// Lets a started program work until something is wrong with it.
pub(super) async fn drive(
    program: &Program,
    environment: &Environment,
    shown: &Shown,
    checkpoint: Position,
    started: &mut Option<Started>,
) -> Fault {
    let Some(Started {
        stdin,
        stdout,
        stderr,
        running,
    }) = started.take()
    else {
        return Fault::NotStarted;
    };
    let (stdin_gone, stdout_gone) = (tokio::io::sink(), tokio::io::empty());
    // whoever drops this future still has the processes to end
    let running = &mut started
        .insert(Started {
            stdin: Box::new(stdin_gone),
            stdout: Box::new(stdout_gone),
            stderr: Box::new(tokio::io::empty()),
            running,
        })
        .running;
    complaints(
        stderr,
        program.name.to_string(),
        Arc::clone(&environment.complaints),
    );
    let since = if program.history {
        Position::START
    } else {
        checkpoint
    };
    let mut drive = Drive {
        program,
        environment,
        shown,
        checkpoint,
        begun: Instant::now(),
        session: Session::new(program, checkpoint, since, Duration::ZERO),
        lines: tell(stdin, program.window + ANSWERS_MAX),
        pace: Pace::new(program.commands_per_s),
        undecided: FuturesUnordered::new(),
    };
    let heard = hear(stdout, program.line_bytes);
    let fed = feed((environment.tails)(), program.clone(), since);
    let fault = drive.work(heard, fed).await;
    drive.save().await;
    if fault == Fault::StdoutClosed {
        let ended = tokio::time::timeout(EXIT_WAIT, running.ended()).await;
        if let Ok(how) = ended {
            (environment.complaints)(program.name.as_str(), &format!("ended: {how}"));
            return Fault::Exited;
        }
    }
    fault
}

impl Drive<'_> {
    async fn work(
        &mut self,
        mut heard: mpsc::Receiver<Heard>,
        mut fed: mpsc::Receiver<Fed>,
    ) -> Fault {
        let hello = json!({ "type": "hello", "protocol": 1, "program": self.program.name,
            "agents": self.program.agents, "checkpoint": self.checkpoint,
            "window": self.program.window, "answer_ms": self.program.answer_ms,
            "commands_per_s": self.program.commands_per_s,
            "commands_per_event": self.program.commands_per_event,
            "line_bytes": self.program.line_bytes });
        if let Err(fault) = self.say(&hello).await {
            return fault;
        }
        let mut tick = tokio::time::interval(TICK);
        loop {
            let room = self.session.room() > 0;
            let listens = self.undecided.len() < UNDECIDED_MAX;
            let done = tokio::select! {
                Some(decided) = self.undecided.next() => self.decided(decided).await,
                said = heard.recv(), if listens => match said {
                    None => return Fault::StdoutClosed,
                    Some(Heard::TooLong) => return Fault::LineTooLong,
                    Some(Heard::Line(line)) => self.hear(&line).await,
                },
                given = fed.recv(), if room => match given {
                    Some(Fed::Event(event)) => self.give(&event).await,
                    Some(Fed::Skipped(position)) => {
                        self.session.skip(position);
                        Ok(())
                    }
                    // it ends only with us
                    None => Ok(()),
                },
                _ = tick.tick() => {
                    self.save().await;
                    // while the ledger is busy it is not the program that is silent
                    if !self.undecided.is_empty() {
                        self.session.forgive(self.begun.elapsed());
                    }
                    if self.session.is_silent(self.begun.elapsed()) {
                        return Fault::Silent;
                    }
                    Ok(())
                }
            };
            if let Err(fault) = done {
                return fault;
            }
        }
    }

    /// One that does not read what it is told is silent.
    fn say(&self, line: &Value) -> impl Future<Output = Result<(), Fault>> + Send + use<> {
        let limit = Duration::from_millis(self.program.answer_ms);
        let (lines, line) = (self.lines.clone(), line.to_string());
        async move {
            match tokio::time::timeout(limit, lines.send(line)).await {
                // a closed input is no fault by itself: its output tells why
                Ok(_) => Ok(()),
                Err(_) => Err(Fault::Silent),
            }
        }
    }

    async fn give(&mut self, event: &RecordedEvent) -> Result<(), Fault> {
        let header = &event.header;
        self.note(event);
        if !subscribed(self.program, event) {
            self.session.skip(header.position);
            return Ok(());
        }
        let replayed = self.session.is_past(header.position);
        let now = self.begun.elapsed();
        self.session
            .give(header.position, header.event_id, header.correlation_id, now);
        let line = json!({ "type": "event", "position": header.position, "replayed": replayed,
            "event": (self.environment.describe)(event) });
        self.say(&line).await
    }

    /// Which intents are those of its agents.
    fn note(&mut self, event: &RecordedEvent) {
        let Ok(AnyEvent::Trade(trade)) = AnyEvent::decode(event) else {
            return;
        };
        let id = &event.header.aggregate_id;
        match trade {
            TradeEvent::TradeProposed(e) => {
                let own = |agent: &sovereign_schemas::AggregateId| agent.as_str() == e.agent_id;
                if self.program.agents.iter().any(own) {
                    self.session.proposed(id);
                }
            }
            TradeEvent::TradeCancelled(_) | TradeEvent::TradeConcluded(_) => self.session.ended(id),
            _ => {}
        }
    }

    async fn hear(&mut self, line: &[u8]) -> Result<(), Fault> {
        let told = match self.session.line(line, self.begun.elapsed()) {
            Next::Nothing => return Ok(()),
            Next::End(fault) => return Err(fault),
            Next::Past(id) => json!({ "type": "outcome", "id": id, "status": "past" }),
            Next::Tell(id, problem) => json!({ "type": "outcome", "id": id, "status": "invalid",
                "error": problem }),
            Next::Send(asked, command_id, cause, correlation) => {
                self.send(*asked, command_id, cause, correlation).await;
                return Ok(());
            }
        };
        self.say(&told).await
    }

    /// Puts a command on its way. Its first poll, here, gives it its place before those that come
    /// after it.
    async fn send(&mut self, asked: Asked, command_id: Uuid, cause: Uuid, correlation: Uuid) {
        tokio::time::sleep(self.pace.take(self.begun.elapsed())).await;
        let (id, position) = (asked.id, asked.position);
        let Ok(actor) = asked.agent.as_str().parse() else {
            // the configuration was checked for it
            self.session.decided(position);
            return;
        };
        let proposes = asked.command.name() == "propose";
        let proposed = proposes.then(|| asked.aggregate_id.to_string());
        let request = RawRequest {
            aggregate_id: asked.aggregate_id,
            command: asked.command,
            context: CommandContext {
                command_id,
                actor,
                department: DepartmentId(self.program.department),
                correlation_id: correlation,
                causation_id: Some(cause),
                traceparent: None,
            },
        };
        let environment = self.environment.clone();
        let mut sent = async move {
            let outcome = until_decided(&environment, request).await;
            Decided {
                id,
                position,
                outcome,
                proposed,
            }
        }
        .boxed();
        match futures::poll!(&mut sent) {
            std::task::Poll::Ready(decided) => {
                self.undecided.push(std::future::ready(decided).boxed());
            }
            std::task::Poll::Pending => self.undecided.push(sent),
        }
    }

    async fn decided(&mut self, decided: Decided) -> Result<(), Fault> {
        let Decided {
            id,
            position,
            outcome,
            proposed,
        } = decided;
        self.session.decided(position);
        self.session.forgive(self.begun.elapsed());
        if let Some(trade_id) = proposed
            && matches!(outcome.status, Status::Accepted | Status::Duplicate)
        {
            self.session.proposed(&trade_id);
        }
        self.shown.counted();
        let mut told = json!(outcome);
        told["type"] = "outcome".into();
        told["id"] = id.into();
        told["position"] = json!(position);
        self.say(&told).await
    }

    /// Nothing is lost if it fails: what was done answers `duplicate` the next time.
    async fn save(&mut self) {
        let done = self.session.done();
        self.shown.at(done);
        if done <= self.checkpoint {
            return;
        }
        let name = checkpoint_name(self.program);
        if self
            .environment
            .checkpoints
            .save(&[(name, done)])
            .await
            .is_ok()
        {
            self.checkpoint = done;
        }
    }
}

pub(super) fn checkpoint_name(program: &Program) -> String {
    format!("program/{}", program.name)
}

/// Sends a command, again and again under the same id until it was decided.
pub(super) async fn until_decided(environment: &Environment, request: RawRequest) -> Outcome {
    let mut pause = RETRY.0;
    loop {
        let outcome = environment.gateway.submit(request.clone()).await;
        if passing(&outcome).is_none() {
            return outcome;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RETRY.1);
    }
}
