//! How the engine is, by part.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use async_trait::async_trait;
use serde_json::{Value, json};
use sovereign_agents::programs::ProgramState;
use sovereign_console::{Health, HealthSource, PartHealth, StatusSource};
use sovereign_kafka::RelayState;
use sovereign_projections::ApprovalStatus;
use sovereign_schemas::{ErrorCode, Problem};

use super::parts::Parts;

fn failed(healthy: bool, lag: Option<u64>, detail: Value, problem: Option<Problem>) -> PartHealth {
    PartHealth {
        healthy,
        since: None,
        lag,
        detail,
        problem: problem.filter(|_| !healthy),
    }
}

/// The part that is red when a program of somebody's was given up.
pub(super) const PROGRAMS: &str = "programs";

/// How long a status waits for the ledger's head.
const HEAD_WAIT: std::time::Duration = std::time::Duration::from_millis(500);

impl Parts {
    fn ledger_health(&self) -> PartHealth {
        let health = self.ledger.health();
        let (code, message) = match (health.database_reachable, health.stalled_for_ms) {
            (false, _) => (ErrorCode::DatabaseUnreachable, health.last_error.clone()),
            (true, Some(ms)) => {
                let message = format!("commands wait, and none was answered for {ms} ms");
                (ErrorCode::TimedOut, Some(message))
            }
            (true, None) => (ErrorCode::Busy, None),
        };
        let message = message.unwrap_or_else(|| "queue is full".to_owned());
        let mut part = failed(
            health.healthy,
            None,
            json!(health),
            Some(Problem::new(code, message)),
        );
        part.since = Some(health.database_since);
        part
    }

    fn relay_health(&self) -> PartHealth {
        let relay = self.relay.read().unwrap_or_else(PoisonError::into_inner);
        let Some(relay) = relay.as_ref() else {
            let problem = Problem::new(ErrorCode::BrokerUnreachable, "relay has not started yet");
            return PartHealth::failed(problem);
        };
        let health = relay.health();
        let problem = match &health.state {
            RelayState::Stopped {
                problem: Some(problem),
            } => problem.clone(),
            _ => health.hidden.clone().unwrap_or_else(|| {
                Problem::new(ErrorCode::BrokerUnreachable, "relay makes no progress")
            }),
        };
        failed(
            health.healthy,
            Some(health.lag),
            json!(health),
            Some(problem),
        )
    }

    fn work_health(&self) -> PartHealth {
        let Some(work) = self.work.get() else {
            return PartHealth::failed(Problem::new(
                ErrorCode::BrokerUnreachable,
                "the group of engines was not joined yet",
            ));
        };
        let health = work.health();
        failed(health.healthy, None, json!(health), health.problem)
    }

    fn commands_health(&self) -> PartHealth {
        let Some(commands) = self.commands.get() else {
            return PartHealth::failed(Problem::new(
                ErrorCode::BrokerUnreachable,
                "commands from records are not taken yet",
            ));
        };
        let health = commands.health();
        let lag = Some(health.lag);
        failed(health.healthy, lag, json!(health), health.problem.clone())
    }

    fn views_health(&self) -> PartHealth {
        let head = self.ledger.flushed().position;
        let health = self.views.health(Some(head));
        let bad = health.projections.iter().find(|(_, v)| !v.healthy);
        let problem = bad.map(|(name, view)| match &view.problem {
            Some(problem) => problem.clone().field(*name),
            None => {
                Problem::new(ErrorCode::ProjectionFailed, "view makes no progress").field(*name)
            }
        });
        let lag = health.projections.values().filter_map(|v| v.lag).max();
        failed(health.healthy, lag, json!(health.projections), problem)
    }

    fn servers_health(&self) -> Option<PartHealth> {
        let health = self.servers.as_ref()?.health();
        let detail = json!(health);
        let running =
            |name: &str| detail[name].is_null() || detail[name]["activity"] == json!("running");
        let bad = ["postgres", "kafka"]
            .into_iter()
            .find(|name| !running(name));
        let problem = bad.map(|name| {
            let activity = detail[name]["activity"].as_str().unwrap_or("gone");
            Problem::new(ErrorCode::ServerFailed, format!("{name} is {activity}")).field(name)
        });
        Some(failed(bad.is_none(), None, detail.clone(), problem))
    }

    /// Approvals that wait; none while the view cannot tell.
    async fn waiting(&self) -> Option<i64> {
        let counted = async {
            let mut snapshot = self.view_rows.snapshot().await.ok()?;
            let (_, counts) = snapshot.approval_counts().await.ok()?;
            counts.get(ApprovalStatus::Waiting.as_str()).copied()
        };
        tokio::time::timeout(HEAD_WAIT, counted).await.ok()?
    }

    fn agents_health(&self) -> PartHealth {
        let Some(agents) = self.agents.get() else {
            return PartHealth::failed(Problem::new(
                ErrorCode::Busy,
                "agents have not started yet",
            ));
        };
        let health = agents.health();
        let problem = health.problems.values().next().cloned();
        let head = self.ledger.flushed().position.0;
        let lag = head.saturating_sub(health.position.0);
        failed(health.healthy, Some(lag), json!(health), problem)
    }
}

impl Parts {
    /// Of the queue of jobs, where it is fed by this engine.
    fn jobs_health(&self) -> PartHealth {
        let problem = self.jobs.get().and_then(|stuck| stuck.borrow().clone());
        failed(problem.is_none(), None, Value::Null, problem)
    }

    /// Of the jobs of schedules, where they are submitted by this engine.
    fn schedules_health(&self) -> PartHealth {
        let stuck = self.schedules.get();
        let problem = stuck.and_then(|stuck| stuck.borrow().clone());
        failed(problem.is_none(), None, Value::Null, problem)
    }

    /// None without programs. One that was given up needs a person.
    fn programs_health(&self) -> Option<PartHealth> {
        let programs = self.programs.get()?.health();
        if programs.is_empty() {
            return None;
        }
        let bad = programs.iter().find(|p| p.state == ProgramState::GivenUp);
        let problem = bad.map(|program| {
            let fault = program.last_fault.unwrap_or_default();
            let message = format!("program {} was given up: {fault}", program.name);
            Problem::new(ErrorCode::ProgramFailed, message).field(program.name.as_str())
        });
        Some(failed(bad.is_none(), None, json!(programs), problem))
    }
}

#[async_trait]
impl HealthSource for Parts {
    async fn health(&self) -> Health {
        let mut parts = BTreeMap::from([
            ("ledger".to_owned(), self.ledger_health()),
            ("relay".to_owned(), self.relay_health()),
            ("views".to_owned(), self.views_health()),
            ("agents".to_owned(), self.agents_health()),
            ("commands".to_owned(), self.commands_health()),
            ("work".to_owned(), self.work_health()),
            ("jobs".to_owned(), self.jobs_health()),
            ("schedules".to_owned(), self.schedules_health()),
        ]);
        if let Some(servers) = self.servers_health() {
            parts.insert("servers".to_owned(), servers);
        }
        if let Some(programs) = self.programs_health() {
            parts.insert(PROGRAMS.to_owned(), programs);
        }
        Health::of(self.ledger.flushed().position, parts)
    }
}

#[async_trait]
impl StatusSource for Parts {
    async fn status(&self) -> Result<Value, Problem> {
        let health = HealthSource::health(self).await;
        let Some(state) = self.state.get() else {
            return Err(Problem::new(ErrorCode::Busy, "engine is still starting"));
        };
        // other processes write too; a database that does not answer is in the health
        let reader = self.ledger.reader();
        let head = match tokio::time::timeout(HEAD_WAIT, reader.head()).await {
            Ok(Ok(head)) => head,
            _ => self.ledger.flushed(),
        };
        let part = |name: &str| health.parts.get(name);
        let mut relay = part("relay").map_or(Value::Null, |p| p.detail.clone());
        if relay.is_null() {
            relay = json!({ "position": 0 });
        }
        relay["healthy"] = part("relay").is_some_and(|p| p.healthy).into();
        relay["problem"] = json!(part("relay").and_then(|p| p.problem.clone()));
        let work = part("work").map_or(Value::Null, |p| p.detail.clone());
        let problems: BTreeMap<_, _> = health
            .parts
            .iter()
            .filter_map(|(name, part)| Some((name, part.problem.as_ref()?)))
            .collect();
        Ok(json!({
            "healthy": health.healthy,
            "head": head.position,
            "head_hash": head.hash,
            "database": state.database,
            "brokers": state.brokers,
            "registry": state.registry,
            "console": state.console,
            "pid": state.pid,
            "started_at": state.started_at,
            "engine": state.engine,
            "units": work["units"],
            "engines": work["engines"],
            "version": env!("CARGO_PKG_VERSION"),
            "relay": relay,
            "projections": part("views").map(|p| p.detail.clone()),
            "commands": part("commands").map(|p| p.detail.clone()),
            "approvals": { "page": state.page, "waiting": self.waiting().await },
            "dead_letters": self.letters.get().and_then(super::letters::Letters::counts),
            "servers": part("servers").map(|p| p.detail.clone()),
            "programs": part(PROGRAMS).map(|p| p.detail.clone()),
            "agents": part("agents").map(|p| p.detail.clone()),
            "task": self.agents.get().map(sovereign_agents::RunnerHandle::progress),
            "problems": problems,
        }))
    }
}
