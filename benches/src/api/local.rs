//! The same commands into a ledger in this process.

use std::sync::Arc;

use anyhow::ensure;
use sovereign_aggregates::{AnyCommand, CommandPort as _, CommandRequest};
use sovereign_event_store::{Gate, KeyStore, Ledger, LedgerOptions};
use sovereign_guard::seal::MasterKey;
use sovereign_schemas::{CommandContext, DepartmentId, Departments, Outcome, Status};

use super::{AGENTS, TIMES, line};
use crate::append::{Caller, Fixed, Plan, Random, Unit, drive};
use crate::protocol::Reading;

fn accepted(outcome: &Outcome) -> anyhow::Result<usize> {
    ensure!(outcome.status == Status::Accepted, "{outcome:?}");
    Ok(1)
}

async fn measure<C: Caller>(ledger: &Ledger, callers: Vec<C>) -> anyhow::Result<Reading> {
    let done = drive(&Plan::new(AGENTS, 0), TIMES, callers).await?;
    let head = ledger.reader().head().await?.position.0;
    ensure!(
        head == done.events,
        "{} commands were accepted, the ledger has {head}",
        done.events
    );
    Ok(done.reading())
}

/// Ready made.
struct Ready {
    ledger: Ledger,
    fixed: Arc<Fixed>,
}

impl Caller for Ready {
    async fn unit(&mut self, unit: Unit, random: &mut Random) -> anyhow::Result<usize> {
        let actor = self.fixed.actor.clone();
        let request = CommandRequest {
            aggregate_id: self.fixed.ids[unit.aggregate].clone(),
            command: AnyCommand::Agent(self.fixed.command(unit.first, random)),
            context: CommandContext::fresh(actor, DepartmentId(5)),
            expected_sequence: None,
            source: None,
        };
        accepted(&self.ledger.send(request).await)
    }
}

pub(super) async fn append(
    database: &str,
    fixed: &Arc<Fixed>,
    in_flight: usize,
) -> anyhow::Result<Reading> {
    let ledger = Ledger::open(LedgerOptions::new(database, Departments::default())).await?;
    let callers = (0..in_flight).map(|_| Ready {
        ledger: ledger.clone(),
        fixed: Arc::clone(fixed),
    });
    let reading = measure(&ledger, callers.collect()).await;
    ledger.close().await;
    reading
}

/// As lines, through the guard.
struct Lines {
    ledger: Ledger,
    gate: Gate,
}

impl Caller for Lines {
    async fn unit(&mut self, unit: Unit, random: &mut Random) -> anyhow::Result<usize> {
        let (_, parsed) = self.gate.parse(&line(unit, random));
        let refused = |problem| anyhow::anyhow!("{problem}");
        let request = self.gate.admit(parsed.map_err(refused)?).await;
        accepted(&self.ledger.send(request.map_err(refused)?).await)
    }
}

pub(super) async fn guarded(database: &str, in_flight: usize) -> anyhow::Result<Reading> {
    let ledger = Ledger::open(LedgerOptions::new(database, Departments::default())).await?;
    let keys = KeyStore::open(database, MasterKey::from_bytes([7; 32])).await?;
    let gate = Gate::new(Departments::default(), keys);
    let callers = (0..in_flight).map(|_| Lines {
        ledger: ledger.clone(),
        gate: gate.clone(),
    });
    let reading = measure(&ledger, callers.collect()).await;
    ledger.close().await;
    reading
}
