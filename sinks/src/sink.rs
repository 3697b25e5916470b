use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use sovereign_effects::{Outcome, Recording, Request, Script, Tools};
use tokio_util::sync::CancellationToken;

use crate::{Live, SinkMode};

/// Carries effects out.
#[async_trait]
pub trait Sink: fmt::Debug + Send + Sync {
    /// Carries one effect out, within its limits. It may be asked again with the same request after
    /// a crash; what must not happen twice is prevented by the effect's id where the target knows
    /// it, and by nobody where it does not: see [`sovereign_effects::Effect::repeatable`].
    ///
    /// When `cancel` is called the answer comes soon: [`Outcome::Cancelled`] if nothing was sent.
    async fn run(&self, request: &Request, cancel: &CancellationToken) -> Outcome;
}

/// The sinks of a run.
///
/// # Examples
/// ```
/// use sovereign_effects::{Effect, EffectId, Recording, Request};
/// use sovereign_schemas::ErrorCode;
/// use sovereign_sinks::{Sink as _, Sinks};
/// use tokio_util::sync::CancellationToken;
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let sinks = Sinks::recorded(Recording::default());
/// let effect = Effect::from_json(br#"{"kind": "random", "bytes": 4}"#).unwrap();
/// let request = Request::new(EffectId::of("job", 0), effect);
/// let outcome = sinks.run(&request, &CancellationToken::new()).await;
/// assert_eq!(outcome.problem().unwrap().code, ErrorCode::NotRecorded);
/// # });
/// ```
#[derive(Debug, Clone)]
pub struct Sinks {
    mode: SinkMode,
    sink: Arc<dyn Sink>,
}

impl Sinks {
    /// The world answers.
    #[must_use]
    pub fn live(live: Arc<Live>) -> Self {
        Self {
            mode: SinkMode::Live,
            sink: live,
        }
    }

    /// A script answers.
    #[must_use]
    pub fn mock(script: Script, tools: Tools) -> Self {
        Self {
            mode: SinkMode::Mock,
            sink: Arc::new(Mock { script, tools }),
        }
    }

    /// A log answers. These hold no client, and no way to make one.
    #[must_use]
    pub fn recorded(recording: Recording) -> Self {
        Self {
            mode: SinkMode::Recorded,
            sink: Arc::new(Recorded(recording)),
        }
    }

    /// Which they are.
    #[must_use]
    pub const fn mode(&self) -> SinkMode {
        self.mode
    }
}

#[async_trait]
impl Sink for Sinks {
    async fn run(&self, request: &Request, cancel: &CancellationToken) -> Outcome {
        if cancel.is_cancelled() {
            return Outcome::Cancelled;
        }
        self.sink.run(request, cancel).await
    }
}

#[derive(Debug)]
struct Mock {
    script: Script,
    tools: Tools,
}

#[async_trait]
impl Sink for Mock {
    async fn run(&self, request: &Request, _: &CancellationToken) -> Outcome {
        self.script.answer(request, &self.tools)
    }
}

#[derive(Debug)]
struct Recorded(Recording);

#[async_trait]
impl Sink for Recorded {
    async fn run(&self, request: &Request, _: &CancellationToken) -> Outcome {
        self.0.answer(request)
    }
}
