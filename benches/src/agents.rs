//! **agents**: steps of agents on the durable path.
//!
//! A thousand agents, each with one step under way: it moves along the state machine or records a
//! thought. A step goes through the guard (ids checked, text scrubbed and sealed under the agent's
//! key), is decided by the aggregate, and is durable before the next. The limit is binary COPY of
//! events of that size by as many callers.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use sovereign_aggregates::agent::{AgentCommand, RecordThought, Register, Transition};
use sovereign_aggregates::{AnyCommand, CommandPort as _};
use sovereign_event_store::{Gate, KeyStore, Ledger, LedgerOptions, RawCommand};
use sovereign_guard::seal::MasterKey;
use sovereign_schemas::events::AgentState;
use sovereign_schemas::{
    AggregateId, CommandContext, Department, DepartmentId, Departments, Identifier, RawText, Status,
};
use sovereign_servers::Wanted;

use crate::append::{Caller, Fixed, Plan, Random, Times, Unit, copy, drive, text};
use crate::protocol::{Arm, Reading, Report};
use crate::servers::BenchServers;

const AGENTS: usize = 1_000;
const CASE: &str = "1000-agents";
const TIMES: Times = Times {
    warm: Duration::from_millis(1_500),
    measured: Duration::from_millis(3_000),
};

pub(crate) async fn run(rounds: usize, out: &Path) -> anyhow::Result<()> {
    let servers = BenchServers::start(Wanted {
        postgres: true,
        kafka: false,
    })
    .await?;
    let result = measure(&servers, rounds, out).await;
    servers.stop().await;
    result
}

async fn measure(servers: &BenchServers, rounds: usize, out: &Path) -> anyhow::Result<()> {
    let mut report = Report::new("agents");
    let fixed = Fixed::new()?;
    let fixed = &fixed;
    let arms = vec![
        Arm::new("ours", |_| async {
            steps(&servers.database().await?, true).await
        }),
        Arm::new("unguarded", |_| async {
            steps(&servers.database().await?, false).await
        }),
        Arm::new("copy", move |_| async move {
            copy::run(&servers.database().await?, fixed, AGENTS, TIMES).await
        }),
    ];
    report.case(CASE, "steps/s", rounds, arms).await?;
    report.ratio(CASE, "ours", "copy");
    report.ratio(CASE, "ours", "unguarded");
    let rate = report.median(CASE, "ours");
    report.goal_at_least("steps-per-second", 20_000.0, rate);
    report.note("unguarded: departments that do not seal, so texts are scrubbed and plain");
    report.finish(out)
}

struct Agent {
    gate: Arc<Gate>,
    ledger: Ledger,
    id: AggregateId,
    actor: Identifier,
    reason: Identifier,
    steps: usize,
}

impl Agent {
    async fn send(&self, command: AgentCommand<RawText>) -> anyhow::Result<()> {
        let raw = RawCommand {
            aggregate_id: self.id.clone(),
            command: AnyCommand::Agent(command),
            context: CommandContext::fresh(self.actor.clone(), DepartmentId::TRADER),
            expected_sequence: None,
            subject: None,
            source: None,
        };
        let request = self.gate.admit(raw).await?;
        let outcome = self.ledger.send(request).await;
        ensure!(outcome.status == Status::Accepted, "{outcome:?}");
        Ok(())
    }
}

impl Caller for Agent {
    async fn unit(&mut self, _: Unit, random: &mut Random) -> anyhow::Result<usize> {
        let move_to = |to| {
            let reason = self.reason.clone();
            AgentCommand::Transition(Transition { to, reason })
        };
        let command = match self.steps % 6 {
            0 => move_to(AgentState::Scanning),
            2 => move_to(AgentState::Analyzing),
            4 => move_to(AgentState::Idle),
            _ => AgentCommand::RecordThought(RecordThought::of(RawText::new(text(random)))),
        };
        self.steps += 1;
        self.send(command).await?;
        Ok(1)
    }
}

async fn steps(database: &str, seal: bool) -> anyhow::Result<Reading> {
    let plain = Departments::default();
    let plain = plain
        .iter()
        .cloned()
        .map(|d| Department { seal: false, ..d })
        .collect();
    let departments = match seal {
        true => Departments::default(),
        false => Departments::new(plain)?,
    };
    let ledger = Ledger::open(LedgerOptions::new(database, departments.clone())).await?;
    let keys = KeyStore::open(database, MasterKey::from_hex(&"5a".repeat(32))?).await?;
    let gate = Arc::new(Gate::new(departments, keys));
    let mut agents = Vec::with_capacity(AGENTS);
    for number in 0..AGENTS {
        let agent = Agent {
            gate: Arc::clone(&gate),
            ledger: ledger.clone(),
            id: format!("agent_{number:04}").parse()?,
            actor: format!("agent_{number:04}").parse()?,
            reason: "bench".parse()?,
            steps: 0,
        };
        let role = "trader".parse()?;
        agent
            .send(AgentCommand::Register(Register { role }))
            .await?;
        agents.push(agent);
    }
    let plan = Plan::new(AGENTS, 0);
    plan.found_all();
    let done = drive(&plan, TIMES, agents).await;
    let head = ledger.reader().head().await?.position.0;
    ledger.close().await;
    let done = done?;
    let expected = done.events + AGENTS as u64;
    ensure!(
        head == expected,
        "{expected} steps were taken, the ledger has {head}"
    );
    Ok(done.reading())
}
