//! Commands into the ledger in a given order, whatever it answers meanwhile.

use std::time::Duration;

use futures::future::BoxFuture;
use sovereign_aggregates::{CommandPort as _, CommandRequest};
use sovereign_schemas::{ErrorCode, Outcome, Problem};
use tokio::time::Instant;

use crate::Ledger;

/// So long nothing may move before the import gives up.
const STALL_MAX: Duration = Duration::from_secs(120);

enum Sent<'a> {
    Answered(Box<Outcome>),
    Waiting(BoxFuture<'a, Outcome>),
}

/// Sends all, and again what found the ledger busy or out of reach, in the same order. Each
/// aggregate's commands name their sequence, so one that went missing stops those behind it.
pub(super) async fn in_order(
    ledger: &Ledger,
    requests: &[CommandRequest],
) -> Result<Vec<Outcome>, Problem> {
    let mut done: Vec<Outcome> = Vec::with_capacity(requests.len());
    let mut moved = Instant::now();
    while done.len() < requests.len() {
        let outcomes = round(ledger, &requests[done.len()..]).await;
        let settled = outcomes.iter().take_while(|o| !again(o)).count();
        if settled > 0 {
            moved = Instant::now();
        }
        let failed = outcomes.get(settled).and_then(|o| o.error.clone());
        done.extend(outcomes.into_iter().take(settled));
        let Some(problem) = failed else { continue };
        if moved.elapsed() > STALL_MAX {
            return Err(problem);
        }
        let pause = problem.retry_after_ms.unwrap_or(500).clamp(10, 5_000);
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
    Ok(done)
}

/// Whether the same command may be answered otherwise later.
fn again(outcome: &Outcome) -> bool {
    outcome.error.as_ref().is_some_and(|problem| {
        matches!(
            problem.code,
            ErrorCode::Busy
                | ErrorCode::TimedOut
                | ErrorCode::DatabaseUnreachable
                | ErrorCode::DiskFull
        )
    })
}

/// The outcomes of the first of these commands, as many as the queue took.
async fn round(ledger: &Ledger, requests: &[CommandRequest]) -> Vec<Outcome> {
    let mut sent: Vec<Sent<'_>> = Vec::with_capacity(requests.len());
    for request in requests {
        let mut waiting: BoxFuture<'_, Outcome> = Box::pin(ledger.send(request.clone()));
        // the first poll puts it into the queue
        match futures::poll!(&mut waiting) {
            std::task::Poll::Pending => sent.push(Sent::Waiting(waiting)),
            std::task::Poll::Ready(outcome) => {
                let full = again(&outcome);
                sent.push(Sent::Answered(Box::new(outcome)));
                if full {
                    break;
                }
            }
        }
    }
    let mut outcomes = Vec::with_capacity(sent.len());
    for one in sent {
        outcomes.push(match one {
            Sent::Answered(outcome) => *outcome,
            Sent::Waiting(waiting) => waiting.await,
        });
    }
    outcomes
}
