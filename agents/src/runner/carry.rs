use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use sovereign_aggregates::AnyCommand;
use sovereign_aggregates::agent::{AgentCommand, FinishTask, ObserveMarket};
use sovereign_aggregates::approval::ApprovalCommand;
use sovereign_schemas::{DepartmentId, ErrorCode, Outcome, Problem, RawText, Status};
use tracing::{debug, warn};

use super::shared::Shared;
use crate::logic::{Effect, NextBar, Reaction};
use crate::market::MarketFile;
use crate::{Gateway, MarketSource, RawRequest};

/// From this attempt on a command that is not taken shows in the health.
const ATTEMPTS_QUIET: u32 = 8;
/// Never waits longer because the ledger says so.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(5);

/// Carries out reactions until they have had their effect.
pub(super) struct Carrier {
    pub(super) gateway: Arc<dyn Gateway>,
    pub(super) market: Arc<dyn MarketSource>,
    pub(super) shared: Arc<Shared>,
    pub(super) retry_min: Duration,
    pub(super) retry_max: Duration,
}

impl Carrier {
    /// One after the other; a thought goes together with what comes before it, since it is legal
    /// in every state of its agent. `part` is for the health.
    pub(super) async fn carry_out(&self, part: &str, reactions: Vec<Reaction>) {
        let mut rest = VecDeque::from(reactions);
        while let Some(reaction) = rest.pop_front() {
            match reaction {
                Reaction::Effect(Effect::NextBar(next)) => self.next_bar(part, *next).await,
                Reaction::Command(request) => {
                    let mut together = vec![*request];
                    while let Some(Reaction::Command(next)) = rest.front()
                        && is_thought(next)
                        && together.iter().all(|r| r.aggregate_id == next.aggregate_id)
                    {
                        if let Some(Reaction::Command(next)) = rest.pop_front() {
                            together.push(*next);
                        }
                    }
                    join_all(together.into_iter().map(|r| self.send(part, r))).await;
                }
            }
        }
    }

    /// Sends a command, again and again under the same id until it was decided.
    pub(super) async fn send(&self, part: &str, request: RawRequest) -> Outcome {
        let mut pause = self.retry_min;
        let mut attempts = 0_u32;
        loop {
            let outcome = self.gateway.submit(request.clone()).await;
            let Some(problem) = passing(&outcome) else {
                if attempts >= ATTEMPTS_QUIET {
                    self.shared.recovered(part);
                }
                report(&request, &outcome);
                return outcome;
            };
            attempts = attempts.saturating_add(1);
            metrics::counter!("sovereign_agents_retries_total").increment(1);
            if attempts >= ATTEMPTS_QUIET {
                self.shared.in_trouble(part, problem.clone());
            }
            let asked = problem
                .retry_after_ms
                .map(Duration::from_millis)
                .unwrap_or_default();
            tokio::time::sleep(pause.max(asked.min(RETRY_AFTER_MAX))).await;
            pause = (pause * 2).min(self.retry_max);
        }
    }

    /// Reads the next bar and has it observed; at the end finishes the task.
    async fn next_bar(&self, part: &str, next: NextBar) {
        let file = self.open(part, &next).await;
        let bar = file
            .series(&next.slug)
            .and_then(|s| Some((s, s.next_after(next.after)?)));
        let mut context = next.context;
        let command = match bar {
            Some((series, bar)) => {
                context.correlation_id = context.command_id;
                AgentCommand::ObserveMarket(ObserveMarket {
                    instrument: series.instrument.clone(),
                    opened_at: bar.opened_at,
                    interval_s: 86_400,
                    open: bar.open,
                    high: bar.high,
                    low: bar.low,
                    close: bar.close,
                    volume: bar.volume,
                })
            }
            None => AgentCommand::FinishTask(FinishTask { task: next.task }),
        };
        context.department = DepartmentId::HUNTER;
        let command = AnyCommand::Agent(command);
        self.send(
            part,
            RawRequest {
                aggregate_id: next.hunter,
                command,
                context,
            },
        )
        .await;
    }

    async fn open(&self, part: &str, next: &NextBar) -> Arc<MarketFile> {
        let mut failed = false;
        let mut pause = self.retry_min;
        loop {
            match self.market.open(next.input).await {
                Ok(file) => {
                    if failed {
                        self.shared.recovered(part);
                    }
                    return file;
                }
                Err(problem) => {
                    if !failed {
                        warn!(code = %problem.code, input = %next.input, "market file is missing");
                    }
                    failed = true;
                    self.shared.in_trouble(part, problem);
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(self.retry_max);
                }
            }
        }
    }
}

fn is_thought(request: &RawRequest) -> bool {
    matches!(
        &request.command,
        AnyCommand::Agent(AgentCommand::RecordThought(_))
    )
}

/// The problem, if it may pass by itself and nothing was decided.
pub(crate) fn passing(outcome: &Outcome) -> Option<&Problem> {
    let problem = outcome.error.as_ref()?;
    let servers = matches!(problem.code.exit_code(), 5 | 6);
    let passes = servers
        || outcome.status == Status::Conflict
        || matches!(
            problem.code,
            ErrorCode::DiskFull | ErrorCode::DataFolderUnusable | ErrorCode::Internal
        );
    passes.then_some(problem)
}

/// Refusals that agents reckon with: somebody else was there before.
fn is_expected(command: &AnyCommand<RawText>, code: ErrorCode) -> bool {
    match command {
        AnyCommand::Agent(AgentCommand::Register(_)) => code == ErrorCode::AlreadyExists,
        AnyCommand::Agent(AgentCommand::Define(_)) => {
            matches!(code, ErrorCode::AlreadyExists | ErrorCode::WrongState)
        }
        AnyCommand::Approval(ApprovalCommand::Expire(_)) => {
            matches!(code, ErrorCode::NotDue | ErrorCode::WrongState)
        }
        _ => false,
    }
}

fn report(request: &RawRequest, outcome: &Outcome) {
    let status = match outcome.status {
        Status::Accepted => "accepted",
        Status::Duplicate => "duplicate",
        Status::Refused => "refused",
        Status::Conflict => "conflict",
        Status::Invalid => "invalid",
    };
    metrics::counter!("sovereign_agents_commands_total", "status" => status).increment(1);
    let Some(problem) = &outcome.error else {
        return;
    };
    let command = request.command.name();
    let (code, aggregate) = (problem.code, &request.aggregate_id);
    let command_id = request.context.command_id;
    if is_expected(&request.command, code) {
        debug!(%code, command, %aggregate, %command_id, "command refused");
    } else {
        warn!(%code, command, %aggregate, %command_id, "command of an agent refused");
    }
}
