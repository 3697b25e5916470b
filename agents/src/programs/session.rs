//! One start of a program, as a pure machine: which events it has, what it may answer, when it has
//! gone too far. The moment comes in as an argument.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sovereign_aggregates::acting::{self, Granted};
use sovereign_schemas::{ErrorCode, Position, Problem, Uuid};

use super::program::Program;
use super::protocol::{self, Asked, Garbage, Said};

/// Lines in one start that are garbage before it is ended.
const GARBAGE_MAX: u32 = 16;
/// Lines in one start that ask for what is not the program's before it is ended.
const LIES_MAX: u32 = 8;

/// Intents that are remembered as the program's own; of more the smallest ids are forgotten, and
/// cannot be cancelled by it (I9).
const OWN_TRADES_MAX: usize = 100_000;

/// What is wrong with a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It writes what is no line of the protocol.
    Garbage,
    /// It writes a line that does not end.
    LineTooLong,
    /// It answers one event with more commands than it may.
    Flood,
    /// It has events and does not answer, or does not read.
    Silent,
    /// It closed its standard output.
    StdoutClosed,
    /// It ended.
    Exited,
    /// It asks for what is not its own, again and again.
    Lied,
    /// It could not be started.
    NotStarted,
}

impl Fault {
    /// As it is recorded.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Garbage => "garbage",
            Self::LineTooLong => "line_too_long",
            Self::Flood => "flood",
            Self::Silent => "silent",
            Self::StdoutClosed => "stdout_closed",
            Self::Exited => "exited",
            Self::Lied => "lied",
            Self::NotStarted => "not_started",
        }
    }
}

/// An event that the program has and is not done with.
#[derive(Debug, Clone)]
struct Given {
    event_id: Uuid,
    correlation_id: Uuid,
    /// Commands so far.
    answers: usize,
}

/// What is to be done about a line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Send this command; the first two ids are those of the causing event and what it belongs to.
    Send(Box<Asked>, Uuid, Uuid, Uuid),
    /// The command answers an event of before: it had its effect, or will not have one now.
    Past(String),
    /// Tell the program what is wrong.
    Tell(Option<String>, Box<Problem>),
    /// Nothing.
    Nothing,
    /// End the program.
    End(Fault),
}

/// One start of a program.
#[derive(Debug)]
pub(super) struct Session {
    name: String,
    agents: BTreeSet<sovereign_schemas::AggregateId>,
    window: usize,
    answer: Duration,
    per_event: usize,
    given: BTreeMap<Position, Given>,
    /// Commands that are not decided yet, by the event that they answer.
    undecided: BTreeMap<Position, usize>,
    /// Up to here a start before this one was done.
    checkpoint: Position,
    /// Up to here this start has been given what it is to be given.
    fed: Position,
    own_trades: BTreeSet<String>,
    garbage: u32,
    lies: u32,
    /// When it last did what it is there for.
    alive_at: Duration,
}

impl Session {
    /// Before the first event. `since` is where the events begin that it is given.
    #[must_use]
    pub(super) fn new(
        program: &Program,
        checkpoint: Position,
        since: Position,
        now: Duration,
    ) -> Self {
        Self {
            name: program.name.to_string(),
            agents: program.agents.clone(),
            window: program.window,
            answer: Duration::from_millis(program.answer_ms),
            per_event: program.commands_per_event,
            given: BTreeMap::new(),
            undecided: BTreeMap::new(),
            checkpoint,
            fed: since,
            own_trades: BTreeSet::new(),
            garbage: 0,
            lies: 0,
            alive_at: now,
        }
    }

    /// How many more events it may be given now.
    #[must_use]
    pub(super) fn room(&self) -> usize {
        self.window.saturating_sub(self.given.len())
    }

    /// All events up to here have had the effect that they are to have.
    #[must_use]
    pub(super) fn done(&self) -> Position {
        let open = self.given.keys().chain(self.undecided.keys()).min();
        let before = open.map(|p| Position(p.0.saturating_sub(1)));
        before.unwrap_or(self.fed).max(self.checkpoint)
    }

    /// Whether the event was dealt with by a start before this one.
    #[must_use]
    pub(super) fn is_past(&self, position: Position) -> bool {
        position <= self.checkpoint
    }

    /// An event was looked at, and is not for the program.
    pub(super) const fn skip(&mut self, position: Position) {
        self.fed = position;
    }

    /// An intent of one of the program's agents, which these may cancel.
    pub(super) fn proposed(&mut self, trade_id: &str) {
        self.own_trades.insert(trade_id.to_owned());
        if self.own_trades.len() > OWN_TRADES_MAX {
            self.own_trades.pop_first();
        }
    }

    /// The intent has ended.
    pub(super) fn ended(&mut self, trade_id: &str) {
        self.own_trades.remove(trade_id);
    }

    /// The program is given an event.
    pub(super) fn give(
        &mut self,
        position: Position,
        event_id: Uuid,
        correlation_id: Uuid,
        now: Duration,
    ) {
        if self.given.is_empty() {
            self.alive_at = now;
        }
        self.fed = position;
        let given = Given {
            event_id,
            correlation_id,
            answers: 0,
        };
        self.given.insert(position, given);
    }

    /// Whether it has been silent for too long.
    #[must_use]
    pub(super) fn is_silent(&self, now: Duration) -> bool {
        !self.given.is_empty() && now.saturating_sub(self.alive_at) > self.answer
    }

    /// A command in answer to this event was decided.
    pub(super) fn decided(&mut self, position: Position) {
        if let Some(open) = self.undecided.get_mut(&position) {
            *open -= 1;
            if *open == 0 {
                self.undecided.remove(&position);
            }
        }
    }

    /// Time that passed while the ledger was busy is not the program's.
    pub(super) const fn forgive(&mut self, now: Duration) {
        self.alive_at = now;
    }

    /// The program wrote a line.
    pub(super) fn line(&mut self, line: &[u8], now: Duration) -> Next {
        match protocol::read(line) {
            Ok(Said::Done(position)) => self.done_with(position, now),
            Ok(Said::Command(asked)) => self.asked(asked),
            Err(Garbage { id, problem }) => {
                self.garbage += 1;
                if self.garbage > GARBAGE_MAX {
                    return Next::End(Fault::Garbage);
                }
                Next::Tell(id, Box::new(problem))
            }
        }
    }

    fn done_with(&mut self, position: Position, now: Duration) -> Next {
        if position > self.fed {
            return self.lie(None, never_given(position));
        }
        let left = self.given.split_off(&Position(position.0 + 1));
        if !self.given.is_empty() {
            self.alive_at = now;
        }
        self.given = left;
        Next::Nothing
    }

    fn asked(&mut self, asked: Box<Asked>) -> Next {
        if !self.agents.contains(&asked.agent) {
            let problem = Problem::new(
                ErrorCode::Forbidden,
                "the program does not act as this agent",
            );
            return self.lie(
                Some(asked.id),
                problem.field("agent").found(asked.agent.as_str()),
            );
        }
        let right = match acting::check(&asked.agent, &asked.aggregate_id, &asked.command) {
            Ok(Granted::IfItProposed) if !self.own_trades.contains(asked.aggregate_id.as_str()) => {
                Err(acting::not_its_intent())
            }
            right => right,
        };
        if let Err(problem) = right {
            return self.lie(Some(asked.id), problem);
        }
        let Some(given) = self.given.get_mut(&asked.position) else {
            return self.lie(Some(asked.id), never_given(asked.position));
        };
        given.answers += 1;
        if given.answers > self.per_event {
            return Next::End(Fault::Flood);
        }
        if asked.position <= self.checkpoint {
            return Next::Past(asked.id);
        }
        let command_id = protocol::command_id(&self.name, given.event_id, &asked.id);
        *self.undecided.entry(asked.position).or_default() += 1;
        Next::Send(asked, command_id, given.event_id, given.correlation_id)
    }

    fn lie(&mut self, id: Option<String>, problem: Problem) -> Next {
        self.lies += 1;
        if self.lies > LIES_MAX {
            return Next::End(Fault::Lied);
        }
        Next::Tell(id, Box::new(problem))
    }
}

fn never_given(position: Position) -> Problem {
    Problem::new(
        ErrorCode::InvalidRange,
        "the program does not have this event",
    )
    .field("position")
    .found(position.to_string())
    .expected("one that it was given and is not done with")
}

/// Commands at a steady rate: how long the next one has to wait. Twice a second's worth may come
/// at once.
#[derive(Debug)]
pub(super) struct Pace {
    every: Duration,
    burst: Duration,
    free_at: Duration,
}

impl Pace {
    /// So many in a second.
    #[must_use]
    pub(super) fn new(per_s: u32) -> Self {
        let every = Duration::from_secs(1) / per_s.max(1);
        Self {
            every,
            burst: Duration::from_secs(2),
            free_at: Duration::ZERO,
        }
    }

    /// Takes one if it would not have to wait.
    pub(super) fn take_if_free(&mut self, now: Duration) -> bool {
        let free = self.free_at.max(now.saturating_sub(self.burst)) + self.every <= now;
        if free {
            self.take(now);
        }
        free
    }

    /// Takes one, and says how long to wait before it is sent.
    pub(super) fn take(&mut self, now: Duration) -> Duration {
        let earliest = now.saturating_sub(self.burst);
        self.free_at = self.free_at.max(earliest) + self.every;
        self.free_at.saturating_sub(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(100);

    fn session(checkpoint: u64) -> Session {
        let program: Program = serde_json::from_value(serde_json::json!({ "name": "momentum",
            "command": "/bin/true", "agents": ["m"], "events": ["MarketObserved"], "window": 2,
            "commands_per_event": 3, "answer_ms": 1_000 }))
        .unwrap();
        program.check().unwrap();
        Session::new(&program, Position(checkpoint), Position::START, NOW)
    }

    fn give(session: &mut Session, position: u64) {
        let id = Uuid::from_u128(position.into());
        session.give(Position(position), id, id, NOW);
    }

    fn thought(id: &str, position: u64, agent: &str, upon: &str) -> Vec<u8> {
        serde_json::json!({ "type": "command", "id": id, "position": position, "agent": agent,
            "aggregate": "agent", "aggregate_id": upon, "command": "record_thought",
            "data": { "text": "up" } })
        .to_string()
        .into_bytes()
    }

    fn done(position: u64) -> Vec<u8> {
        format!("{{\"type\":\"done\",\"position\":{position}}}").into_bytes()
    }

    fn code(next: Next) -> ErrorCode {
        match next {
            Next::Tell(_, problem) => problem.code,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn no_more_events_than_the_window_and_the_rest_when_it_is_done() {
        let mut own = session(0);
        give(&mut own, 3);
        own.skip(Position(4));
        assert_eq!((own.room(), own.done()), (1, Position(2)));
        give(&mut own, 5);
        assert_eq!(own.room(), 0);
        assert_eq!(own.line(&done(3), NOW), Next::Nothing);
        assert_eq!((own.room(), own.done()), (1, Position(4)));
        assert_eq!(own.line(&done(5), NOW), Next::Nothing);
        own.skip(Position(9));
        assert_eq!((own.room(), own.done()), (2, Position(9)));
    }

    #[test]
    fn a_command_bears_an_id_of_its_event_and_what_is_past_is_not_sent() {
        let mut own = session(5);
        give(&mut own, 5);
        give(&mut own, 6);
        assert_eq!(
            own.line(&thought("a", 5, "m", "m"), NOW),
            Next::Past("a".into())
        );
        let Next::Send(_, id, cause, _) = own.line(&thought("a", 6, "m", "m"), NOW) else {
            panic!("not sent")
        };
        assert_eq!(
            id,
            protocol::command_id("momentum", Uuid::from_u128(6), "a")
        );
        assert_eq!(cause, Uuid::from_u128(6));
        assert_eq!(own.done(), Position(5), "a checkpoint does not go back");
        own.line(&done(6), NOW);
        assert_eq!(own.done(), Position(5), "its command is not decided yet");
        own.decided(Position(6));
        assert_eq!(own.done(), Position(6));
    }

    #[test]
    fn lies_are_told_and_too_many_end_it() {
        let mut own = session(0);
        give(&mut own, 1);
        let forbidden = |own: &mut Session, line: &[u8]| code(own.line(line, NOW));
        assert_eq!(
            forbidden(&mut own, &thought("a", 1, "other", "other")),
            ErrorCode::Forbidden
        );
        assert_eq!(
            forbidden(&mut own, &thought("a", 1, "m", "other")),
            ErrorCode::Forbidden
        );
        assert_eq!(
            forbidden(&mut own, &thought("a", 2, "m", "m")),
            ErrorCode::InvalidRange
        );
        assert_eq!(forbidden(&mut own, &done(2)), ErrorCode::InvalidRange);
        for (aggregate, command, data) in [
            ("agent", "register", serde_json::json!({ "role": "x" })),
            (
                "agent",
                "define",
                serde_json::json!({ "definition": { "program": "x" } }),
            ),
            ("policy", "adopt", serde_json::json!({ "text": "" })),
            ("trade", "cancel", serde_json::json!({ "reason": "x" })),
        ] {
            let line = serde_json::json!({ "type": "command", "id": "a", "position": 1,
                "agent": "m", "aggregate": aggregate, "aggregate_id": "m", "command": command,
                "data": data });
            assert_eq!(
                forbidden(&mut own, line.to_string().as_bytes()),
                ErrorCode::Forbidden
            );
        }
        assert_eq!(own.line(&done(2), NOW), Next::End(Fault::Lied));
    }

    #[test]
    fn it_cancels_the_intents_that_it_proposed() {
        let mut own = session(0);
        give(&mut own, 1);
        own.proposed("trade_1");
        let line = serde_json::json!({ "type": "command", "id": "a", "position": 1, "agent": "m",
            "aggregate": "trade", "aggregate_id": "trade_1", "command": "cancel",
            "data": { "reason": "x" } })
        .to_string();
        assert!(matches!(own.line(line.as_bytes(), NOW), Next::Send(..)));
        own.ended("trade_1");
        assert_eq!(code(own.line(line.as_bytes(), NOW)), ErrorCode::Forbidden);
    }

    #[test]
    fn garbage_and_floods_end_it() {
        let mut own = session(0);
        give(&mut own, 1);
        for _ in 0..GARBAGE_MAX {
            assert_eq!(code(own.line(b"?", NOW)), ErrorCode::MalformedJson);
        }
        assert_eq!(own.line(b"?", NOW), Next::End(Fault::Garbage));
        let mut own = session(0);
        give(&mut own, 1);
        for n in 0..3 {
            let line = thought(&n.to_string(), 1, "m", "m");
            assert!(matches!(own.line(&line, NOW), Next::Send(..)));
        }
        let line = thought("3", 1, "m", "m");
        assert_eq!(own.line(&line, NOW), Next::End(Fault::Flood));
    }

    #[test]
    fn silence_counts_only_while_it_has_events() {
        let mut own = session(0);
        let later = NOW + Duration::from_secs(60);
        assert!(!own.is_silent(later));
        own.give(Position(1), Uuid::nil(), Uuid::nil(), later);
        assert!(!own.is_silent(later + Duration::from_secs(1)));
        assert!(own.is_silent(later + Duration::from_millis(1_001)));
        own.line(&done(1), later);
        assert!(!own.is_silent(later + Duration::from_secs(60)));
    }

    #[test]
    fn the_pace_lets_two_seconds_worth_pass_at_once() {
        let mut pace = Pace::new(10);
        let waits: Vec<Duration> = (0..22).map(|_| pace.take(NOW)).collect();
        assert!(waits[..20].iter().all(Duration::is_zero));
        assert_eq!(waits[21], Duration::from_millis(200));
        assert!(pace.take(NOW + Duration::from_secs(10)).is_zero());
    }
}
