use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::Deserialize;
use sovereign_schemas::{AggregateId, DepartmentId, ErrorCode, EventType, Identifier, Problem};

/// A configuration has at most so many programs.
pub const PROGRAMS_MAX: usize = 64;
/// A program acts as at most so many agents.
const AGENTS_MAX: usize = 64;

/// A program that the engine starts and that acts as agents: one `[[programs]]` of
/// `sovereign.toml`. docs/AGENTS.md describes every field.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Program {
    /// How people call it.
    pub name: Identifier,
    /// The program: an absolute path.
    pub command: PathBuf,
    /// Its arguments.
    #[serde(default)]
    pub arguments: Vec<String>,
    /// The agents that it may act as; it can act as no other.
    pub agents: BTreeSet<AggregateId>,
    /// Whose topic carries what its agents do.
    #[serde(default = "trader")]
    pub department: u16,
    /// Types of events that it is given, by name.
    pub events: BTreeSet<String>,
    /// Departments whose events it is given; all if there are none.
    #[serde(default)]
    pub departments: BTreeSet<u16>,
    /// Whether a new start is given the events from the first one again, so that it can build up
    /// what it knows.
    #[serde(default = "yes")]
    pub history: bool,
    /// Events that it may have at one time without saying that it is done with them, 1 to 1,024.
    #[serde(default = "window")]
    pub window: usize,
    /// So long it may be silent while it has events, milliseconds, 100 to 600,000.
    #[serde(default = "answer_ms")]
    pub answer_ms: u64,
    /// Commands in a second that are taken, 1 to 10,000; faster ones wait.
    #[serde(default = "commands_per_s")]
    pub commands_per_s: u32,
    /// Commands in answer to one event, 1 to 1,024; more are a flood.
    #[serde(default = "commands_per_event")]
    pub commands_per_event: usize,
    /// Longest line that it may write, bytes, 1,024 to 2 MiB.
    #[serde(default = "line_bytes")]
    pub line_bytes: usize,
    /// Address space of each of its processes, MiB, at least 16.
    #[serde(default = "memory_mib")]
    pub memory_mib: u64,
    /// CPU time of each of its processes, seconds.
    #[serde(default = "cpu_s")]
    pub cpu_s: u64,
    /// Processes and threads at one time, 1 to 4,096.
    #[serde(default = "processes")]
    pub processes: u64,
    /// Faults in a row after which it is given up, 1 to 100.
    #[serde(default = "faults")]
    pub faults: u32,
}

const fn trader() -> u16 {
    DepartmentId::TRADER.0
}
const fn yes() -> bool {
    true
}
const fn window() -> usize {
    64
}
const fn answer_ms() -> u64 {
    10_000
}
const fn commands_per_s() -> u32 {
    200
}
const fn commands_per_event() -> usize {
    64
}
const fn line_bytes() -> usize {
    256 << 10
}
const fn memory_mib() -> u64 {
    512
}
const fn cpu_s() -> u64 {
    3_600
}
const fn processes() -> u64 {
    32
}
const fn faults() -> u32 {
    5
}

impl Program {
    /// Whether all of it is in its range.
    ///
    /// # Errors
    /// `invalid-config`, with the field.
    pub fn check(&self) -> Result<(), Problem> {
        let wrong = |field: &str, found: String, expected: &str| {
            let message = format!("program {}: {field} cannot be this", self.name);
            Err(Problem::new(ErrorCode::InvalidConfig, message)
                .field(format!("programs.{field}"))
                .found(found)
                .expected(expected))
        };
        if !self.command.is_absolute() {
            return wrong(
                "command",
                self.command.display().to_string(),
                "an absolute path",
            );
        }
        if self.agents.is_empty() || self.agents.len() > AGENTS_MAX {
            return wrong("agents", self.agents.len().to_string(), "1 to 64 agents");
        }
        // the actor of a command is the agent
        if let Some(long) = self
            .agents
            .iter()
            .find(|a| a.as_str().parse::<Identifier>().is_err())
        {
            return wrong("agents", long.to_string(), "ids of at most 64 characters");
        }
        let unknown = |name: &&String| EventType::parse(name).is_none();
        if let Some(name) = self.events.iter().find(unknown) {
            return wrong(
                "events",
                name.clone(),
                "names of events, as in docs/FORMATS.md",
            );
        }
        let bounds = [
            ("window", self.window as u64, 1, 1_024),
            ("answer_ms", self.answer_ms, 100, 600_000),
            ("commands_per_s", self.commands_per_s.into(), 1, 10_000),
            (
                "commands_per_event",
                self.commands_per_event as u64,
                1,
                1_024,
            ),
            ("line_bytes", self.line_bytes as u64, 1_024, 2 << 20),
            ("memory_mib", self.memory_mib, 16, 1 << 20),
            ("cpu_s", self.cpu_s, 1, u64::MAX),
            ("processes", self.processes, 1, 4_096),
            ("faults", self.faults.into(), 1, 100),
        ];
        for (field, value, least, most) in bounds {
            if !(least..=most).contains(&value) {
                return wrong(field, value.to_string(), &format!("{least} to {most}"));
            }
        }
        Ok(())
    }
}

/// Whether all programs are in their ranges and none has the name of another.
///
/// # Errors
/// As [`Program::check`].
pub fn check(programs: &[Program]) -> Result<(), Problem> {
    let mut names = BTreeSet::new();
    let mut agents = BTreeSet::new();
    if programs.len() > PROGRAMS_MAX {
        let problem = Problem::new(ErrorCode::InvalidConfig, "there are too many programs");
        return Err(problem
            .field("programs")
            .expected(format!("at most {PROGRAMS_MAX}")));
    }
    for program in programs {
        program.check()?;
        if !names.insert(&program.name) {
            let problem = Problem::new(ErrorCode::InvalidConfig, "two programs have one name");
            return Err(problem.field("programs.name").found(program.name.as_str()));
        }
        for agent in &program.agents {
            if !agents.insert(agent) {
                let problem =
                    Problem::new(ErrorCode::InvalidConfig, "two programs act as one agent");
                return Err(problem.field("programs.agents").found(agent.as_str()));
            }
        }
    }
    Ok(())
}
