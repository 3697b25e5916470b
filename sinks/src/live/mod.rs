//! The sinks that reach the world.

mod gate;
mod http;
mod model;
mod order;
mod process;
mod run;
mod timer;

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use sovereign_effects::{Effect, Outcome, Programs, Request, Tools};
use sovereign_schemas::{ErrorCode, Problem};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use http::{Resolve, SystemResolver};

use crate::{Secrets, Sink};
use gate::Gates;
use http::Tls;
use order::Orders;
use run::{Run, Stage};

/// What the live sinks need.
#[derive(Debug)]
pub struct LiveOptions {
    /// What effects may reach: those of the adopted policy. [`Live::adopt`] changes them later.
    pub tools: Tools,
    /// The programs of this machine.
    pub programs: Programs,
    /// Where secrets are.
    pub secrets: Secrets,
    /// Certificates of authorities, PEM, that are trusted besides those of the system.
    pub authorities_pem: Option<Vec<u8>>,
    /// Who turns names into addresses.
    pub resolver: Arc<dyn Resolve>,
}

impl Default for LiveOptions {
    fn default() -> Self {
        Self {
            tools: Tools::default(),
            programs: Programs::default(),
            secrets: Secrets::default(),
            authorities_pem: None,
            resolver: Arc::new(SystemResolver),
        }
    }
}

/// Carries effects out in the world.
#[derive(Debug)]
pub struct Live {
    tools: RwLock<Arc<Tools>>,
    programs: Programs,
    secrets: Secrets,
    tls: Tls,
    resolver: Arc<dyn Resolve>,
    gates: Gates,
    orders: Orders,
}

impl Live {
    /// Makes them. Nothing is connected to yet.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidConfig`] if the authorities are no certificates.
    pub fn new(options: LiveOptions) -> Result<Self, Problem> {
        Ok(Self {
            tools: RwLock::new(Arc::new(options.tools)),
            programs: options.programs,
            secrets: options.secrets,
            tls: Tls::new(options.authorities_pem.as_deref())?,
            resolver: options.resolver,
            gates: Gates::new(),
            orders: Orders::default(),
        })
    }

    /// Lets these hold for every effect from now on: another policy was adopted.
    pub fn adopt(&self, tools: Tools) {
        *self.tools.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(tools);
    }

    fn tools(&self) -> Arc<Tools> {
        Arc::clone(&self.tools.read().unwrap_or_else(PoisonError::into_inner))
    }

    async fn carry(&self, request: &Request, run: &Run) -> Outcome {
        let tools = self.tools();
        match &request.effect {
            Effect::Http(call) => self.http(&tools, request, call, run).await,
            Effect::Model(call) => self.model(&tools, request, call, run).await,
            Effect::Timer(wait) => timer::wait(*wait).await,
            Effect::Random(draw) => match draw.draw(getrandom::fill) {
                Ok(result) => Outcome::done(result),
                Err(_) => Outcome::try_again(Problem::new(
                    ErrorCode::Internal,
                    "the operating system gives no random bytes",
                )),
            },
            Effect::Order(order) => self.orders.place(&tools, request.id, order).await,
            Effect::Process(wanted) => self.process(request, wanted, run).await,
        }
    }

    /// The longest time of an effect, all waits included.
    fn time_max(&self, request: &Request) -> Option<Duration> {
        let tool = |name| self.tools().tool(name).map(|tool| tool.time_ms_max);
        let own = match &request.effect {
            Effect::Http(call) => tool(&call.tool),
            Effect::Model(call) => tool(&call.tool),
            Effect::Process(run) => self.programs.get(&run.program).map(|p| p.time_ms_max),
            Effect::Timer(_) | Effect::Random(_) | Effect::Order(_) => None,
        };
        let least = own.into_iter().chain(request.time_ms_max).min();
        least.map(Duration::from_millis)
    }
}

#[async_trait]
impl Sink for Live {
    async fn run(&self, request: &Request, cancel: &CancellationToken) -> Outcome {
        let started = Instant::now();
        let run = Run::default();
        let time_max = self.time_max(request);
        let too_long = async {
            match time_max {
                Some(time) => tokio::time::sleep(time).await,
                None => std::future::pending().await,
            }
        };
        let outcome = tokio::select! {
            biased;
            () = cancel.cancelled() => run.called_off(),
            outcome = self.carry(request, &run) => outcome,
            () = too_long => run.too_late(time_max.unwrap_or_default()),
        };
        let unsure = |problem| run.unsure(problem, false);
        let outcome = outcome.within_limit(unsure);
        told(request, &outcome, started.elapsed(), run.stage());
        outcome
    }
}

/// One line and two metrics for each effect, without anything of what was sent or answered.
fn told(request: &Request, outcome: &Outcome, took: Duration, stage: Stage) {
    let (kind, name) = (request.effect.kind(), outcome.name());
    metrics::counter!("sovereign_effects_total", "kind" => kind, "outcome" => name).increment(1);
    metrics::histogram!("sovereign_effect_seconds", "kind" => kind).record(took.as_secs_f64());
    let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    tracing::debug!(
        effect = %request.id,
        kind,
        target = request.effect.target(),
        outcome = name,
        code = outcome.problem().map(|problem| problem.code.as_str()),
        stage = ?stage,
        took_ms,
        "effect carried out"
    );
}
