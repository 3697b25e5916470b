//! Callers: random commands with repeats, expectations and refusals, sent until they are answered.

use std::time::Duration;

use serde_json::json;
use sovereign_aggregates::{AnyCommand, CommandPort as _, CommandRequest};
use sovereign_schemas::{CommandContext, DepartmentId, Outcome, Status, Uuid};
use tokio::time::{sleep, timeout};

use crate::kernel::World;
use crate::world::Engines;
use sovereign_tests::rng::Rng;

/// Attempts at one command.
const TRIES: u32 = 60;
/// How long a caller waits before it asks elsewhere.
const PATIENCE: Duration = Duration::from_secs(3);

const STATES: [&str; 4] = ["IDLE", "SCANNING", "ANALYZING", "SAFE_MODE"];

fn command(rng: &mut Rng) -> (String, AnyCommand) {
    let agent = format!("agent-{}", rng.below(4));
    let (kind, id, name, data) = match rng.below(10) {
        0..4 => ("agent", agent, "register", json!({"role": "trader"})),
        4..8 => {
            let to = *rng.pick(&STATES);
            let data = json!({"to": to, "reason": "because"});
            ("agent", agent, "transition", data)
        }
        8 => {
            let data = json!({"task": "work", "input_digest": "00".repeat(32), "items": 3});
            ("agent", agent, "start_task", data)
        }
        _ => {
            let data = json!({
                "action": "trade", "target_id": "trade-1", "action_digest": "11".repeat(32),
                "amount": "1500", "currency": "USD",
            });
            (
                "approval",
                format!("approval-{}", rng.below(3)),
                "request",
                data,
            )
        }
    };
    let command = AnyCommand::parse(kind, name, data).unwrap();
    (id, command.try_map_text(|_| Err("has text")).unwrap())
}

fn request(rng: &mut Rng, number: u64) -> CommandRequest {
    let (id, command) = command(rng);
    // some come in with ids that sort nowhere
    let command_id = Uuid::from_u128(u128::from(number) << 64 | u128::from(rng.next()) | 1);
    let departments = [
        DepartmentId::ORCHESTRATOR,
        DepartmentId::TRADER,
        DepartmentId::HUNTER,
    ];
    CommandRequest {
        aggregate_id: id.parse().unwrap(),
        command,
        context: CommandContext {
            command_id,
            actor: "tester".parse().unwrap(),
            department: *rng.pick(&departments),
            correlation_id: command_id,
            causation_id: None,
            traceparent: None,
        },
        expected_sequence: rng.per_mille(150).then(|| rng.below(4)),
        source: None,
    }
}

/// One caller after the other command. Repeats some that were answered.
pub(crate) async fn run(world: World, engines: Engines, first: u64, count: u64) {
    let mut sent: Vec<CommandRequest> = Vec::new();
    for number in first..first + count {
        let (request, pause) = {
            let mut state = world.state();
            let rng = &mut state.rng;
            let again = !sent.is_empty() && rng.per_mille(150);
            let request = if again {
                rng.pick(&sent).clone()
            } else {
                request(rng, number)
            };
            (request, rng.between(0, 60))
        };
        sleep(Duration::from_millis(pause)).await;
        insist(&world, &engines, &request).await;
        sent.push(request);
    }
}

async fn insist(world: &World, engines: &Engines, request: &CommandRequest) {
    for _ in 0..TRIES {
        if let Some(outcome) = attempt(world, engines, request).await
            && answered(world, request, &outcome)
        {
            return;
        }
        let pause = world.state().rng.between(20, 200);
        sleep(Duration::from_millis(pause)).await;
    }
}

/// `None` if nothing was heard.
async fn attempt(world: &World, engines: &Engines, request: &CommandRequest) -> Option<Outcome> {
    let (process, ledger) = engines.pick(world)?;
    process.awake_or_dead().await?;
    let sent = async {
        let outcome = ledger.send(request.clone()).await;
        process.awake().await;
        outcome
    };
    tokio::select! {
        biased;
        () = process.dead() => None,
        heard = timeout(PATIENCE, sent) => heard.ok(),
    }
}

/// Whether the caller has its answer.
fn answered(world: &World, request: &CommandRequest, outcome: &Outcome) -> bool {
    let mut state = world.state();
    let id = request.context.command_id;
    state.note(|| {
        let positions = outcome.positions.map(|(first, last)| (first.0, last.0));
        format!(
            "client: {} {:?} at {positions:?}",
            request.command.name(),
            outcome.status
        )
    });
    if let Some(positions) = outcome.positions {
        let state = &mut *state;
        state.checks.acknowledge(&state.postgres, id, positions);
    }
    outcome.status != Status::Invalid
}
