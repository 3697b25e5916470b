//! The thread that takes records: sessions, one after the other.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sovereign_schemas::Uuid;
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::health::Shared;
use super::lookup::Lookup;
use super::session::Session;
use super::task::Means;
use super::{CommandHandler, CommandsOptions};
use crate::client::Error;
use crate::telemetry::CommandsRestarted;

/// Pause before the second session; it doubles.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// Bounds how late a stop is noticed.
const STEP: Duration = Duration::from_millis(50);

pub(super) fn run(
    options: &CommandsOptions,
    handler: &Arc<dyn CommandHandler>,
    shared: &Arc<Shared>,
    runtime: &Handle,
    stopped: &watch::Receiver<bool>,
) {
    let means = Arc::new(Means {
        handler: Arc::clone(handler),
        lookup: Lookup::new(options.registry.clone()),
        shared: Arc::clone(shared),
    });
    let mut name = options.engine.clone();
    let mut pause = PAUSE_MIN;
    while !is_over(stopped) {
        let before = shared.replies();
        let session = Session::open(options, &name, Arc::clone(&means), runtime.clone());
        let error = match session.and_then(|mut session| session.run(stopped)) {
            Ok(()) => break,
            Err(error) => error,
        };
        if is_over(stopped) {
            break;
        }
        let problem = error.problem();
        if error == Error::Fenced {
            // somebody else has the name, as after a copy of a data folder
            name = format!("{}-{}", options.engine, Uuid::now_v7().simple());
        } else if !error.passing() {
            tracing::error!(%error, "commands from records are not taken any more");
            return shared.over(Some(problem));
        }
        shared.outside(Some(problem));
        if shared.replies() > before {
            pause = PAUSE_MIN;
        }
        CommandsRestarted {
            cause: &error,
            after: pause,
        }
        .emit();
        sleep(pause, stopped);
        pause = (pause * 2).min(PAUSE_MAX);
    }
    shared.over(None);
}

/// An error of the channel means that nobody is left to work for.
pub(super) fn is_over(stopped: &watch::Receiver<bool>) -> bool {
    *stopped.borrow() || stopped.has_changed().is_err()
}

#[expect(clippy::disallowed_methods, reason = "a thread of its own")]
fn sleep(pause: Duration, stopped: &watch::Receiver<bool>) {
    let deadline = Instant::now() + pause;
    while Instant::now() < deadline && !is_over(stopped) {
        std::thread::sleep(STEP.min(deadline.saturating_duration_since(Instant::now())));
    }
}
